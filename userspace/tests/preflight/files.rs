//! Files that are missing, unreadable, too open, or not what they should be; and a client's ports and names.

use std::net::TcpListener;

use crate::pair::Place;
use crate::rig::{self, Ns};
use crate::{NOBODY, ROW, Row, check};

#[test]
fn files_of_a_gateway() {
    if !rig::root_or_skip("preflight: files of a gateway") {
        return;
    }
    let users = "{serve-bare} {tls} --xdp off --users";
    let users =
        |file: &str| -> &'static str { Box::leak(format!("{users} {{dir}}/{file}").into_boxed_str()) };
    let rows = [
        Row {
            name: "key of another certificate",
            voice: [
                "--tls-cert {dir}/server.pem",
                "the two public keys differ",
                "does not belong to the certificate",
                "openssl pkey -in",
            ],
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.pem --tls-key {dir}/client.key",
            exit: 3,
            says: &["{dir}/client.key"],
            ..ROW
        },
        Row {
            name: "certificate file missing",
            voice: [
                "can't read {dir}/none.pem",
                "No such file",
                "must be a PEM file",
                "ls -l {dir}/none.pem",
            ],
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/none.pem --tls-key {dir}/server.key",
            exit: 3,
            ..ROW
        },
        Row {
            name: "certificate file without a certificate",
            voice: [
                "{dir}/server.key",
                "holds no PEM certificate",
                "-----BEGIN CERTIFICATE-----",
                "grep BEGIN {dir}/server.key",
            ],
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.key --tls-key {dir}/server.key",
            exit: 3,
            says: &["{dir}/server.key holds no PEM certificate"],
            ..ROW
        },
        Row {
            name: "key file without a key",
            voice: [
                "{dir}/server.pem",
                "holds no readable PEM private key",
                "PKCS#8, PKCS#1 or SEC1",
                "grep BEGIN {dir}/server.pem",
            ],
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.pem --tls-key {dir}/server.pem",
            exit: 3,
            says: &["{dir}/server.pem holds no readable PEM private key"],
            ..ROW
        },
        Row {
            name: "no certificate",
            voice: [
                "no certificate",
                "no certificate",
                "--tls-cert FILE and --tls-key FILE",
                "--self-signed",
            ],
            args: "{serve-bare} {users} --xdp off",
            exit: 3,
            ..ROW
        },
        Row {
            name: "certificate without its key",
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.pem",
            exit: 2,
            says: &["--tls-key"],
            ..ROW
        },
        Row {
            name: "users file missing",
            voice: [
                "users file {dir}/none",
                "No such file",
                "make it",
                "beam user add NAME --users {dir}/none",
            ],
            args: users("none"),
            exit: 3,
            ..ROW
        },
        Row {
            name: "users file unreadable",
            voice: [
                "users file {dir}/secret",
                "Permission denied",
                "let beam's group read it",
                "chmod 0640 {dir}/secret",
            ],
            before: "cp {dir}/users {dir}/secret; chmod 0600 {dir}/secret",
            by: NOBODY,
            args: users("secret"),
            exit: 3,
            ..ROW
        },
        Row {
            name: "users file that its group may write",
            voice: [
                "users file {dir}/loose",
                "mode 0660",
                "its group or everybody may write",
                "chmod 0640 {dir}/loose",
            ],
            before: "cp {dir}/users {dir}/loose; chmod 0660 {dir}/loose",
            args: users("loose"),
            exit: 3,
            says: &["users file {dir}/loose has mode 0660"],
            ..ROW
        },
        Row {
            name: "users file with a line that is none",
            voice: [
                "users file {dir}/broken, line 1",
                "the second field is not",
                "NAME sha256:<64 hex digits>",
                "beam user add NAME",
            ],
            before: "echo 'alice plaintext' > {dir}/broken",
            args: users("broken"),
            exit: 3,
            ..ROW
        },
        Row {
            name: "nobody could use it",
            voice: ["this gateway", "nobody could use", "--users FILE", "beam user add NAME --users FILE"],
            args: "{serve-bare} {tls} --xdp off",
            exit: 3,
            says: &["--client-ca FILE"],
            ..ROW
        },
        Row {
            name: "client CA missing",
            voice: [
                "can't read {dir}/none.pem",
                "No such file",
                "must be a PEM file",
                "ls -l {dir}/none.pem",
            ],
            args: "{serve-bare} {tls} --xdp off --client-ca {dir}/none.pem",
            exit: 3,
            ..ROW
        },
        Row {
            name: "destination that is none",
            voice: ["--allow", "198.19.0.0/33", "a number from 0 to 32", "CIDR[:PORTS] such as"],
            args: "serve -l :4433 {tls} {users} --xdp off --allow 198.19.0.0/33",
            exit: 3,
            ..ROW
        },
    ];
    check(&Place::new(), Ns::Gateway, &rows);
}

#[test]
fn files_and_ports_of_a_client() {
    if !rig::root_or_skip("preflight: files and ports of a client") {
        return;
    }
    let place = Place::new();
    let _taken = place.rig.within(Ns::Client, || TcpListener::bind(("127.0.0.1", 1080))).unwrap();
    let rows = [
        Row {
            name: "token file missing",
            voice: [
                "token file {dir}/none",
                "No such file",
                "its first line must be the token",
                "ls -l {dir}/none",
            ],
            args: "{connect} {ca} --token-file {dir}/none",
            exit: 3,
            ..ROW
        },
        Row {
            name: "token file empty",
            voice: ["{dir}/empty", "holds no token", "its first line must be the token", "beam user add"],
            before: ": > {dir}/empty",
            args: "{connect} {ca} --token-file {dir}/empty",
            exit: 3,
            says: &["{dir}/empty holds no token"],
            ..ROW
        },
        Row {
            name: "pin that is no fingerprint",
            voice: ["--pin", "sha256:beef", "64 hexadecimal digits", "beam serve"],
            args: "{connect} --pin sha256:beef",
            exit: 3,
            ..ROW
        },
        Row {
            name: "CA file missing",
            voice: [
                "can't read {dir}/none.pem",
                "No such file",
                "must be a PEM file",
                "ls -l {dir}/none.pem",
            ],
            args: "{connect} --ca {dir}/none.pem",
            exit: 3,
            ..ROW
        },
        Row {
            name: "key of another client certificate",
            voice: [
                "--cert {dir}/client.pem",
                "the two public keys differ",
                "does not belong to the certificate",
                "openssl pkey -in",
            ],
            args: "{connect} {ca} --cert {dir}/client.pem --key {dir}/stranger.key",
            exit: 3,
            says: &["{dir}/stranger.key"],
            ..ROW
        },
        Row {
            name: "SOCKS port in use",
            voice: [
                "can't listen on 127.0.0.1:1080 for -D",
                "Address already in use",
                "another port",
                "ss -ltnp 'sport = :1080'",
            ],
            args: "{connect} {ca} -D 1080",
            exit: 4,
            ..ROW
        },
        Row {
            name: "no route to the gateway",
            voice: [
                "no route to the gateway 203.0.113.1:443",
                "unreachable",
                "it needs one",
                "ip route get 203.0.113.1",
            ],
            args: "connect https://203.0.113.1 -D 1081 -i c0 --xdp native",
            exit: 4,
            ..ROW
        },
        Row {
            name: "gateway name that does not resolve",
            args: "connect https://gateway.invalid --once -D 1081 --xdp off",
            exit: 1,
            says: &["gateway name gateway.invalid", "does not exist", "getent hosts gateway.invalid"],
            ..ROW
        },
        Row {
            name: "forwarded port in use",
            args: "connect https://198.18.0.1:4433 {ca} -L 1080:h.example:80 --xdp off",
            exit: 4,
            voice: [
                "can't listen on 127.0.0.1:1080 for -L",
                "Address already in use",
                "another port",
                "ss -ltnp 'sport = :1080'",
            ],
            ..ROW
        },
        Row {
            name: "no neighbour has the gateway's address",
            args: "connect https://198.18.0.99:4433 --once {ca} -D 1081 -i c0 --xdp native",
            exit: 1,
            voice: ["gateway 198.18.0.99", "no neighbour", "must answer", "ip neighbour show 198.18.0.99"],
            ..ROW
        },
        Row {
            name: "gateway that is not there",
            args: "{connect} {ca} --xdp native -i c0",
            exit: 1,
            says: &["198.18.0.1:4433", "no answer", "is `beam serve` running there", "UDP port 4433"],
            ..ROW
        },
    ];
    check(&place, Ns::Client, &rows);
}
