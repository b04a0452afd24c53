//! Clients that nobody here wrote: aioquic in both framings and with what breaks the rules, libcurl with CONNECT and
//! CONNECT-UDP, ngtcp2 through `-L .../udp`.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::echo::UdpEcho;
use crate::pair::{Place, TUNNEL_PORT, number, path, pattern_sha256, sha256, until, words};
use crate::rig::{
    Beam, GATEWAY_NAME, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, Proc, checkout, pattern, python, root_or_skip,
};
use crate::tools::{counter, dropped, dropped_in_all, until_counter};

/// Twenty cases of aioquic, of which each may take 30 s before it gives up.
const LIMIT: Duration = Duration::from_secs(240);
/// How much of each unknown thing aioquic sends.
const UNKNOWN_COUNT: u64 = 100;
const PAGE_BYTES: u64 = 300_000;
const H3_PORT: u16 = 4443;

/// Runs a command in the client's namespace to its end: whether it says 0, and its standard output.
fn run(name: &str, mut command: Command) -> (bool, String, String) {
    command.stdout(Stdio::piped());
    let mut process = Proc::spawn(name, &mut command);
    let mut printed = String::new();
    process.stdout().read_to_string(&mut printed).unwrap();
    let status = process.wait(LIMIT);
    (status.success(), printed, process.stderr())
}

fn flag(name: &str, value: impl ToString) -> [String; 2] {
    [name.to_owned(), value.to_string()]
}

fn script(place: &Place, name: &str, args: &[String]) -> Vec<Value> {
    let python = python().expect("scripts/venv makes a Python with aioquic and curl_cffi");
    let mut command = place.rig.command(Ns::Client, python);
    command.arg(checkout().join("userspace/tests/python").join(name)).args(args);
    let (_, printed, errors) = run(name, command);
    let lines: Result<Vec<Value>, _> = printed.lines().map(serde_json::from_str).collect();
    let objects = lines.unwrap_or_else(|e| panic!("{e}: {printed}\n{errors}"));
    assert!(!objects.is_empty(), "{name} printed nothing: {errors}");
    objects
}

// RFC 9297 section 2 and 3, RFC 9298 section 3 to 5, as a client that nobody here wrote sees them.
#[test]
fn aioquic_in_both_framings_and_against_the_rules() {
    if !root_or_skip("aioquic_in_both_framings_and_against_the_rules") {
        return;
    }
    let place = Place::new();
    place.rig.set_hosts(Ns::Gateway, "127.0.0.1 hostile.beam.example\n");
    let echo = UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V4);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0", "--allow", "*"]);
    let args = [
        flag("--host", GATEWAY_V4),
        flag("--port", TUNNEL_PORT),
        flag("--ca", path(&place.pki.ca)),
        flag("--token-file", path(&place.token)),
        flag("--target", echo.address()),
        flag("--closed", SocketAddr::from((ORIGIN_V4, 9))),
        flag("--unknown-count", UNKNOWN_COUNT),
    ]
    .concat();
    let cases = script(&place, "aioquic_udp.py", &args);

    assert_eq!(cases.len(), 20, "{cases:#?}");
    let mut sent = 0;
    for case in &cases {
        assert_eq!(case["ok"], true, "{case:#}");
        sent += number(case, "sent");
    }
    let by_name: HashMap<&str, (u64, u64)> = cases
        .iter()
        .map(|case| (case["case"].as_str().unwrap(), (number(case, "frames"), number(case, "capsules"))))
        .collect();
    for (case, want) in [
        ("frames", (300, 0)),
        ("capsules", (0, 300)),
        ("capsules_by_choice", (0, 50)),
        ("two_flows", (50, 50)),
        ("early", (20, 0)),
    ] {
        assert_eq!(by_name[case], want, "{case}: QUIC DATAGRAM frames and capsules that came back");
    }
    let status = until("all connections are over", || gateway.status(), |status| status["connections"] == 0);
    // One of those that were sent went to a closed port.
    assert_eq!(echo.counts().0, sent - 1);
    for (name, want) in [
        ("udp_datagrams_to_sockets", sent),
        ("udp_datagrams_from_sockets", sent - 1),
        ("udp_flows_opened", 12),
        ("udp_flows_unreachable", 1),
        ("udp_flows_protocol_error", 2),
        ("udp_flows_finished", 2),
        ("udp_flows_reset", 7),
        ("refused_unauthenticated", 1),
        ("refused_denied", 2),
        ("refused_upstream", 1),
        ("refused_bad_request", 3),
    ] {
        assert_eq!(counter(&status, name), want, "{name} of {status:#}");
    }
    for (name, want) in [
        ("datagram_unknown_flow", UNKNOWN_COUNT),
        ("datagram_unknown_context", UNKNOWN_COUNT),
        ("capsule_unknown", UNKNOWN_COUNT + 1),
        ("capsule_oversize", 2),
    ] {
        assert_eq!(dropped(&status, name), want, "{name} of {status:#}");
    }
    assert_eq!(dropped_in_all(&status), 3 * UNKNOWN_COUNT + 3, "{status:#}");
    assert_eq!(status["flows"], 0);
    assert_eq!(status["conservation"]["holds"], true, "{status:#}");
}

/// Debian's ngtcp2 server, with one page, behind the gateway.
fn h3_origin(place: &Place) -> Proc {
    let docs = place.rig.directory().join("htdocs");
    std::fs::create_dir(&docs).unwrap();
    std::fs::write(docs.join("page"), (0..PAGE_BYTES).map(pattern).collect::<Vec<_>>()).unwrap();
    let mut command = place.rig.command(Ns::Origin, "gtlsserver");
    command.args(["-q", "-d", &path(&docs), &ORIGIN_V4.to_string(), &H3_PORT.to_string()]);
    command.args([&place.pki.server_key, &place.pki.server_cert]).stdout(Stdio::null());
    let origin = Proc::spawn("gtlsserver", &mut command);
    let bound = format!(":{H3_PORT:04X} ");
    until(
        "the HTTP/3 origin has its port",
        || std::fs::read_to_string(format!("/proc/{}/net/udp", origin.pid())).unwrap_or_default(),
        |table| table.contains(&bound),
    );
    origin
}

// libcurl sends DATAGRAM capsules and listens for nothing else: `curl --proxy-http3` with an HTTP/3 page asks for
// CONNECT-UDP, with an HTTP/1.1 page for CONNECT.
#[test]
fn libcurl_fetches_by_connect_and_by_connect_udp() {
    if !root_or_skip("libcurl_fetches_by_connect_and_by_connect_udp") {
        return;
    }
    let place = Place::new();
    place.rig.set_hosts(Ns::Gateway, &format!("{ORIGIN_V4} {GATEWAY_NAME}\n"));
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let _origin = h3_origin(&place);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let args = [
        flag("--gateway", SocketAddr::from((GATEWAY_V4, TUNNEL_PORT))),
        flag("--ca", path(&place.pki.ca)),
        flag("--token-file", path(&place.token)),
        flag("--page", format!("1.1=http://{}/{PAGE_BYTES}", http.address())),
        // The name is the gateway's to resolve: the client's namespace has none for it.
        flag("--page", format!("3=https://{GATEWAY_NAME}:{H3_PORT}/page")),
    ]
    .concat();
    let pages = script(&place, "curl_masque.py", &args);
    assert_eq!(pages.len(), 2, "{pages:#?}");
    for (page, version) in pages.iter().zip(["1.1", "3"]) {
        assert_eq!((&page["status"], &page["error"]), (&200.into(), &Value::Null), "{page:#}");
        assert_eq!(page["http_version"], version, "{page:#}");
        assert_eq!(
            (number(page, "bytes"), page["sha256"].as_str()),
            (PAGE_BYTES, Some(&*pattern_sha256(PAGE_BYTES)))
        );
    }
    let status = until_counter(&gateway, "udp_flows_opened", 1);
    assert_eq!((counter(&status, "udp_flows_opened"), counter(&status, "requests")), (1, 2), "{status:#}");
    assert!(counter(&status, "udp_bytes_from_sockets") > PAGE_BYTES, "{status:#}");
    assert_eq!(dropped_in_all(&status), 0, "{status:#}");
}

// An HTTP/3 client and an HTTP/3 origin, neither of them ours, with a tunnel between them that they don't know of.
#[test]
fn ngtcp2_reaches_an_http3_origin_through_a_forwarded_port() {
    if !root_or_skip("ngtcp2_reaches_an_http3_origin_through_a_forwarded_port") {
        return;
    }
    let place = Place::new();
    let _origin = h3_origin(&place);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let mut args = place.connect_args(GATEWAY_V4, &["--xdp", "native", "-i", "c0"]);
    args.extend(["-L".into(), format!("{H3_PORT}:{ORIGIN_V4}:{H3_PORT}/udp")]);
    let client = Beam::start(&place.rig, Ns::Client, "client", &words(&args));
    client.process.wait_for_line("UDP payloads up to ", Duration::from_secs(5));

    let downloads: PathBuf = place.rig.directory().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let mut command = place.rig.command(Ns::Client, "gtlsclient");
    command.args(["-q", "--exit-on-all-streams-close", &format!("--download={}", path(&downloads))]);
    let loopback = IpAddr::from([127, 0, 0, 1]).to_string();
    command.args([&loopback, &H3_PORT.to_string(), &format!("https://localhost:{H3_PORT}/page")]);
    let (success, _, errors) = run("gtlsclient", command);
    assert!(success, "gtlsclient: {errors}");
    let page = std::fs::read(downloads.join("page")).unwrap();
    assert_eq!((page.len() as u64, sha256(&page)), (PAGE_BYTES, pattern_sha256(PAGE_BYTES)));

    for beam in [&gateway, &client] {
        let status = beam.status();
        assert_eq!((counter(&status, "udp_flows_opened"), dropped_in_all(&status)), (1, 0), "{status:#}");
    }
    let (up, down) = (gateway.status(), client.status());
    let both = |name: &str, other: &str| (counter(&up, name), counter(&down, other));
    let (to_client, at_client) = both("udp_datagrams_from_sockets", "udp_datagrams_to_sockets");
    assert_eq!(to_client, at_client, "what the origin said the client heard");
}
