//! Restarts: a client finds its gateway again, or ends with it; one daemon a control path.

use std::io::{Read as _, Write as _};

use crate::pair::{self, FORWARD_PORT, LIMIT, Place, number, path, pattern_sha256, settled, until, words};
use crate::rig::{self, Beam, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, pattern};
use crate::{NATIVE_CLIENT, NATIVE_GATEWAY, dial, local};

/// A restarted gateway has the same certificate by `--state-dir`, so that a pinned client takes it up again by itself.
#[test]
fn a_client_finds_its_restarted_gateway() {
    if !rig::root_or_skip("a_client_finds_its_restarted_gateway") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let state = path(&place.rig.directory().join("state"));
    let args = place.serve_args(GATEWAY_V4, &["--self-signed", "--state-dir", &state]);
    let args = [words(&args), NATIVE_GATEWAY.to_vec()].concat();
    let mut gateway = Beam::start(&place.rig, Ns::Gateway, "gateway", &args);
    let fingerprint = gateway.fingerprint();
    let url = format!("https://{}", rig::authority(GATEWAY_V4, pair::TUNNEL_PORT));
    let (token, forward) = (path(&place.token), format!("{FORWARD_PORT}:{}", http.address()));
    let connect = ["connect", &url, "--pin", &fingerprint, "--token-file", &token, "-L", &forward];
    let connect = [&connect[..], &NATIVE_CLIENT, &["--max-retry-interval", "1s"]].concat();
    let client = Beam::start(&place.rig, Ns::Client, "client", &connect);
    let fetch = format!("http://127.0.0.1:{FORWARD_PORT}/1000000");
    assert_eq!(place.curl(&[&fetch]).0, 1_000_000);

    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
    let said = client.process.wait_for_line("tunnel to 198.18.0.1 ended: ", LIMIT);
    assert!(said.contains("next attempt in"), "{said}");
    let status = client.status();
    assert_eq!(status["ready"], false);
    assert!(status["why_not_ready"].as_str().unwrap().contains("last error: tunnel to"), "{status:#}");
    // This one waits for the tunnel: accepted while there is none, answered once there is.
    let mut waiting = dial(&place, local(FORWARD_PORT));
    write!(waiting, "GET /1000 HTTP/1.1\r\n\r\n").unwrap();

    let gateway = Beam::start(&place.rig, Ns::Gateway, "gateway", &args);
    assert_eq!(gateway.fingerprint(), fingerprint);
    let status = until("the client is back", || client.status(), |status| status["ready"] == true);
    assert_eq!(number(&status["counters"], "reconnects"), 1);
    let mut all = Vec::new();
    waiting.read_to_end(&mut all).unwrap();
    assert!(all.ends_with(&(0..1000).map(pattern).collect::<Vec<_>>()));
    drop(waiting);
    assert_eq!(place.curl(&[&fetch]), (1_000_000, pattern_sha256(1_000_000)));
    settled(&gateway);
}

#[test]
fn once_means_once() {
    if !rig::root_or_skip("once_means_once") {
        return;
    }
    let place = Place::new();
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "off"]);
    let mut client = place.client(GATEWAY_V4, "198.19.0.2:80", &["--xdp", "native", "-i", "c0", "--once"]);
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
    assert_eq!(client.process.wait(LIMIT).code(), Some(1));
    let said = client.process.stderr();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("beam: tunnel to 198.18.0.1 ended: closed by the peer"), "{said}");
    assert!(!place.rig.has_xdp(Ns::Client, "c0"));
    assert!(!client.control.exists());
}

#[test]
fn one_control_path_has_one_daemon() {
    if !rig::root_or_skip("one_control_path_has_one_daemon") {
        return;
    }
    let place = Place::new();
    let mut first = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let tls = [path(&place.pki.server_cert), path(&place.pki.server_key)];
    let users = path(&place.users);
    let second = ["serve", "-l", ":4434", "--users", &users, "--xdp", "off"];
    let second = [&second[..], &["--tls-cert", &tls[0], "--tls-key", &tls[1]]].concat();
    let mut refused = Beam::launch(&place.rig, Ns::Gateway, "gateway", &second);
    assert_eq!(refused.process.wait(LIMIT).code(), Some(4));
    let said = refused.process.stderr();
    let socket = path(&first.control);
    assert!(said.contains(&format!("another beam answers on {socket}")), "{said}");
    assert!(said.contains("--control PATH"), "{said}");
    // The first is as well as before, and its socket is still its own.
    assert_eq!(first.status()["ready"], true);

    first.process.kill();
    assert!(first.control.exists());
    let mut next = Beam::start(&place.rig, Ns::Gateway, "gateway", &second);
    assert_eq!(next.status()["ready"], true, "a stale socket is replaced");
    assert_eq!(next.process.terminate(LIMIT).code(), Some(0));
    assert!(!next.control.exists(), "and removed at the end");
}
