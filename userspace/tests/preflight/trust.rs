//! Who trusts whom: pins, authorities, names, tokens, client certificates.

use crate::pair::{self, LIMIT, Place, TUNNEL_PORT};
use crate::rig::{self, Beam, GATEWAY_V4, Ns};
use crate::{ROW, Row, check, fill};

#[test]
fn trust_between_client_and_gateway() {
    if !rig::root_or_skip("preflight: trust") {
        return;
    }
    let place = Place::new();
    place.rig.set_hosts(Ns::Client, &format!("{GATEWAY_V4} other.beam.example\n"));
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "off"]);
    let seen: &'static str = Box::leak(gateway.fingerprint().into_boxed_str());
    let pinned = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let says: &'static [&'static str] = Box::leak(Box::new([seen, pinned]));
    let refused: &'static str = Box::leak(
        format!("connect https://{GATEWAY_V4}:{TUNNEL_PORT} {{ca}} --xdp off --token-file {{dir}}/alice.token -W 192.0.2.1:80")
            .into_boxed_str(),
    );
    let rows = [
        Row {
            name: "pin mismatch",
            args: Box::leak(format!("{{connect}} --xdp off --pin {pinned}").into_boxed_str()),
            exit: 1,
            says,
            ..ROW
        },
        Row {
            name: "authority that did not sign",
            before: "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other \
                     -keyout {dir}/other.key -out {dir}/other.pem",
            args: "{connect} --xdp off --ca {dir}/other.pem",
            exit: 1,
            says: &["198.18.0.1", "certificate", "UnknownIssuer", "--ca", "--pin"],
            ..ROW
        },
        Row {
            name: "certificate of another name",
            args: "connect https://other.beam.example:4433 {ca} --xdp off --once -D 1080",
            exit: 1,
            says: &[
                "other.beam.example",
                "not valid for name",
                "gateway.beam.example",
                "in the URL",
                "--pin",
            ],
            ..ROW
        },
        Row {
            name: "wrong token",
            before: "echo wrong > {dir}/wrong",
            args: "connect https://198.18.0.1:4433 {ca} --xdp off --token-file {dir}/wrong -W 198.19.0.2:80",
            exit: 1,
            says: &["refused 198.19.0.2:80", "407", "--token-file"],
            ..ROW
        },
        Row {
            name: "no token",
            args: "connect https://198.18.0.1:4433 {ca} --xdp off -W 198.19.0.2:80",
            exit: 1,
            says: &["refused 198.19.0.2:80", "401", "--token-file"],
            ..ROW
        },
        Row { name: "denied destination", args: refused, exit: 1, says: &["403", "--allow"], ..ROW },
    ];
    check(&place, Ns::Client, &rows);
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));

    let args = fill(&place, "{serve-bare} {tls} --client-ca {dir}/ca.pem --xdp off");
    let _gateway = Beam::start(&place.rig, Ns::Gateway, "strict", &pair::words(&args));
    let rows = [
        Row {
            name: "client certificate missing",
            args: "{connect} {ca} --xdp off",
            exit: 1,
            says: &["198.18.0.1", "certificate", "--cert", "--key"],
            ..ROW
        },
        Row {
            name: "client certificate missing, and no --once: trying again would not help",
            args: "connect https://198.18.0.1:4433 {ca} --xdp off -D 1080",
            exit: 1,
            says: &["198.18.0.1", "certificate", "--cert", "--key"],
            ..ROW
        },
        Row {
            name: "client certificate of a stranger",
            args: "{connect} {ca} --xdp off --cert {dir}/stranger.pem --key {dir}/stranger.key",
            exit: 1,
            says: &["198.18.0.1", "certificate", "--cert", "--key"],
            ..ROW
        },
    ];
    check(&place, Ns::Client, &rows);
    let good = fill(&place, "{connect} {ca} --xdp off --cert {dir}/client.pem --key {dir}/client.key");
    let mut accepted = Beam::start(&place.rig, Ns::Client, "accepted", &pair::words(&good));
    assert_eq!(accepted.process.terminate(LIMIT).code(), Some(0));
}
