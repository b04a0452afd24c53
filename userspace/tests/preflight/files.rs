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
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.pem --tls-key {dir}/client.key",
            exit: 3,
            says: &["{dir}/client.key", "{dir}/server.pem", "does not belong to the certificate", "openssl"],
            ..ROW
        },
        Row {
            name: "certificate file missing",
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/none.pem --tls-key {dir}/server.key",
            exit: 3,
            says: &["{dir}/none.pem", "No such file"],
            ..ROW
        },
        Row {
            name: "certificate file without a certificate",
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.key --tls-key {dir}/server.key",
            exit: 3,
            says: &["{dir}/server.key holds no PEM certificate", "BEGIN CERTIFICATE"],
            ..ROW
        },
        Row {
            name: "key file without a key",
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.pem --tls-key {dir}/server.pem",
            exit: 3,
            says: &["{dir}/server.pem holds no readable PEM private key", "PKCS#8"],
            ..ROW
        },
        Row {
            name: "no certificate",
            args: "{serve-bare} {users} --xdp off",
            exit: 3,
            says: &["no certificate", "--tls-cert", "--tls-key", "--self-signed"],
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
            args: users("none"),
            exit: 3,
            says: &["users file {dir}/none", "No such file", "beam user add NAME --users {dir}/none"],
            ..ROW
        },
        Row {
            name: "users file unreadable",
            before: "cp {dir}/users {dir}/secret; chmod 0600 {dir}/secret",
            by: NOBODY,
            args: users("secret"),
            exit: 3,
            says: &["users file {dir}/secret", "Permission denied", "chmod 0640 {dir}/secret"],
            ..ROW
        },
        Row {
            name: "users file that its group may write",
            before: "cp {dir}/users {dir}/loose; chmod 0660 {dir}/loose",
            args: users("loose"),
            exit: 3,
            says: &["users file {dir}/loose has mode 0660", "chmod 0640 {dir}/loose"],
            ..ROW
        },
        Row {
            name: "users file with a line that is none",
            before: "echo 'alice plaintext' > {dir}/broken",
            args: users("broken"),
            exit: 3,
            says: &["users file {dir}/broken, line 1", "sha256:<64 hex digits>", "beam user add"],
            ..ROW
        },
        Row {
            name: "nobody could use it",
            args: "{serve-bare} {tls} --xdp off",
            exit: 3,
            says: &["--users FILE", "beam user add NAME", "--client-ca FILE"],
            ..ROW
        },
        Row {
            name: "client CA missing",
            args: "{serve-bare} {tls} --xdp off --client-ca {dir}/none.pem",
            exit: 3,
            says: &["{dir}/none.pem", "No such file"],
            ..ROW
        },
        Row {
            name: "destination that is none",
            args: "serve -l :4433 {tls} {users} --xdp off --allow 198.19.0.0/33",
            exit: 3,
            says: &["198.19.0.0/33"],
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
            args: "{connect} {ca} --token-file {dir}/none",
            exit: 3,
            says: &["token file {dir}/none", "No such file"],
            ..ROW
        },
        Row {
            name: "token file empty",
            before: ": > {dir}/empty",
            args: "{connect} {ca} --token-file {dir}/empty",
            exit: 3,
            says: &["{dir}/empty holds no token", "beam user add"],
            ..ROW
        },
        Row {
            name: "pin that is no fingerprint",
            args: "{connect} --pin sha256:beef",
            exit: 3,
            says: &["--pin", "sha256:beef", "64 hexadecimal digits"],
            ..ROW
        },
        Row {
            name: "CA file missing",
            args: "{connect} --ca {dir}/none.pem",
            exit: 3,
            says: &["{dir}/none.pem", "No such file"],
            ..ROW
        },
        Row {
            name: "key of another client certificate",
            args: "{connect} {ca} --cert {dir}/client.pem --key {dir}/stranger.key",
            exit: 3,
            says: &["{dir}/client.pem", "{dir}/stranger.key", "does not belong to the certificate"],
            ..ROW
        },
        Row {
            name: "SOCKS port in use",
            args: "{connect} {ca} -D 1080",
            exit: 4,
            says: &["can't listen on 127.0.0.1:1080 for -D", "ss -ltnp 'sport = :1080'", "another port"],
            ..ROW
        },
        Row {
            name: "no route to the gateway",
            args: "connect https://203.0.113.1 -D 1081 -i c0 --xdp native",
            exit: 4,
            says: &["no route to the gateway 203.0.113.1:443", "ip route get 203.0.113.1"],
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
            name: "gateway that is not there",
            args: "{connect} {ca} --xdp native -i c0",
            exit: 1,
            says: &["198.18.0.1:4433", "no answer", "is `beam serve` running there", "UDP port 4433"],
            ..ROW
        },
    ];
    check(&place, Ns::Client, &rows);
}
