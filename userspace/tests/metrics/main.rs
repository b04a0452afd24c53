//! Goal: what `--metrics` exposes is true, whole and bounded: it is what `beam status` tells, in a form that Prometheus'
//! own parser takes; readiness says why not; many clients make no more series than one.
//! Method: a real gateway and client (AF_XDP), fetches by a real curl, scrapes by another, parsed by Prometheus' library for
//! Python; exact counts between two statuses that are the same.

#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;
mod scrape;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use pair::{FORWARD_PORT, LIMIT, Place, TUNNEL_PORT, number, over_workers, path, settled, until, words};
use rig::{Beam, EchoServer, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, Proc, authority, binary, write_users};
use rustix::process::Signal;
use scrape::{Scrape, page};
use serde_json::Value;

const PORT: u16 = 19_090;
const FETCHES: u64 = 3;

fn readyz(place: &Place, ns: Ns) -> (u16, String) {
    let (status, _, body) = page(&place.rig, ns, &format!("http://127.0.0.1:{PORT}/readyz"), &[]);
    (status, body)
}

/// The status of a gateway at rest, and what was scraped while nothing changed.
fn at_rest(place: &Place, beam: &Beam, ns: Ns) -> (Value, Scrape) {
    let silent = |status: &Value| {
        let mut status = status.clone();
        // What looking at it changes, or time by itself.
        for key in ["uptime_s", "rates", "latency", "batches", "process"] {
            status[key].take();
        }
        for worker in status["workers"].as_array_mut().expect("workers") {
            worker["loops"].take();
            worker["sleeps"].take();
        }
        status["counters"]["timers_fired"].take();
        status
    };
    let round = || {
        let before = settled(beam);
        let scrape = Scrape::of(&place.rig, ns, PORT);
        let after = beam.status();
        (silent(&before) == silent(&after)).then_some((after, scrape))
    };
    until("nothing changes while it is scraped", round, Option::is_some).expect("just asked")
}

#[test]
fn a_scrape_tells_what_the_status_tells() {
    if !rig::root_or_skip("a_scrape_tells_what_the_status_tells") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let metrics = format!("{PORT}");
    // A client without its gateway isn't ready, and says what for.
    let mut args = place.connect_args(GATEWAY_V4, &["--xdp", "native", "-i", "c0", "--metrics", &metrics]);
    args.extend(["-L".into(), format!("{FORWARD_PORT}:{}", http.address())]);
    args.extend(["--max-retry-interval".into(), "200ms".into()]);
    let client = Beam::launch(&place.rig, Ns::Client, "client", &words(&args));
    client.process.wait_for_line(&format!("metrics on http://127.0.0.1:{PORT}/metrics"), LIMIT);
    let (status, why) =
        until("it says why not", || readyz(&place, Ns::Client), |(_, why)| why.contains("handshake"));
    assert_eq!(status, 503, "{why}");
    let scraped = Scrape::of(&place.rig, Ns::Client, PORT);
    assert_eq!(
        (scraped.count("beam_ready", &[]), scraped.count("beam_tunnels", &[("state", "down")])),
        (0, 1)
    );

    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0", "--metrics", &metrics]);
    client.wait_until_ready();
    until("the client is ready", || readyz(&place, Ns::Client), |ready| *ready == (200, "ok\n".to_owned()));
    assert_eq!(readyz(&place, Ns::Gateway), (200, "ok\n".to_owned()));
    let health =
        |method: &[&str]| page(&place.rig, Ns::Gateway, &format!("http://127.0.0.1:{PORT}/healthz"), method);
    assert_eq!((health(&[]).0, health(&["--head"]).0, health(&["-X", "DELETE"]).0), (200, 200, 405));
    assert_eq!(page(&place.rig, Ns::Gateway, &format!("http://127.0.0.1:{PORT}/"), &[]).0, 404);

    let url = format!("http://127.0.0.1:{FORWARD_PORT}/1000000");
    (0..FETCHES).for_each(|_| assert_eq!(place.curl(&[&url]).0, 1_000_000));
    let (status, first) = at_rest(&place, &gateway, Ns::Gateway);
    is_the_same(&status, &first);
    at_the_gateway(&status, &first);
    let (status, of_client) = at_rest(&place, &client, Ns::Client);
    is_the_same(&status, &of_client);
    assert_eq!(of_client.count("beam_tunnels", &[("state", "up")]), 1);
    assert_eq!(of_client.count("beam_first_byte_seconds_count", &[]), FETCHES);

    place.curl(&[&url]);
    // What is cleared for people goes on here.
    let cleared = place
        .rig
        .command(Ns::Gateway, binary())
        .args(["clear", "counters", "--control"])
        .arg(&gateway.control)
        .output();
    assert!(cleared.expect("run beam clear counters").status.success());
    let second = Scrape::of(&place.rig, Ns::Gateway, PORT);
    second.check_grown_since(&first);
    assert_eq!(second.count("beam_first_byte_seconds_count", &[]), FETCHES + 1);

    a_taken_port_is_a_preflight_failure(&place);

    // An open flow holds the drain.
    let to = SocketAddr::from(([127, 0, 0, 1], FORWARD_PORT));
    let mut flow = place.rig.within(Ns::Client, || TcpStream::connect_timeout(&to, LIMIT)).expect("connect");
    until("the flow is open", || number(&gateway.status(), "flows"), |&flows| flows == 1);
    gateway.process.signal(Signal::TERM);
    gateway.process.wait_for_line("draining: ", LIMIT);
    assert_eq!(readyz(&place, Ns::Gateway), (503, "draining\n".to_owned()));
    assert_eq!(health(&[]).0, 200);
    assert_eq!(Scrape::of(&place.rig, Ns::Gateway, PORT).count("beam_draining", &[]), 1);
    write!(flow, "GET /10 HTTP/1.1\r\nConnection: close\r\n\r\n").expect("ask");
    flow.shutdown(std::net::Shutdown::Write).expect("half-close");
    flow.read_to_end(&mut Vec::new()).expect("the flow ends in order");
    assert_eq!(gateway.process.wait(LIMIT).code(), Some(0));
}

/// What both ends' scrapes have to say.
fn is_the_same(status: &Value, scrape: &Scrape) {
    scrape.check_histograms();
    let counter = |name: &str| status["counters"][name].as_u64().unwrap_or(0);
    let completed = counter("handshakes_completed");
    assert_eq!(scrape.count("beam_handshakes_total", &[("event", "completed")]), completed);
    assert_eq!(scrape.count("beam_handshake_seconds_count", &[]), completed);
    assert_eq!(scrape.count("beam_requests_total", &[]), FETCHES);
    assert_eq!(scrape.count("beam_flows_opened_total", &[]), number(status, "flows_opened"));
    assert_eq!(scrape.count("beam_flows_ended_total", &[("how", "finished")]), FETCHES);
    assert_eq!(scrape.count("beam_connections", &[]), number(status, "connections"));
    assert_eq!(scrape.count("beam_flows", &[]), 0);
    assert_eq!(scrape.count("beam_ready", &[]), 1);
    assert_eq!(scrape.by("beam_other_total", "counter"), Default::default(), "counters without a metric");
    for (direction, key) in [("rx", "xsk_rx_frames"), ("tx", "xsk_tx_frames")] {
        let labels = [("path", "xsk"), ("direction", direction)];
        assert_eq!(scrape.count("beam_packets_total", &labels), number(status, key), "{direction}");
        let bytes = over_workers(status, &format!("xsk_{direction}_bytes"));
        assert_eq!(scrape.count("beam_bytes_total", &labels), bytes);
        let kernel = over_workers(status, &format!("kernel_{direction}_packets"));
        assert_eq!(
            scrape.count("beam_packets_total", &[("path", "kernel"), ("direction", direction)]),
            kernel
        );
    }
    let all = scrape.sum("beam_packets_total", &[]);
    let slow = number(status, "kernel_udp_packets") as f64 / all;
    assert!((scrape.sum("beam_slow_path_ratio", &[]) - slow).abs() < 1e-9);
    // Each reason that there is, those at zero too; and nothing but what the status has.
    let drops = scrape.by("beam_drops_total", "reason");
    assert!(drops.len() > 60 && drops.contains_key("drop_malformed"), "{drops:?}");
    let above_zero: Vec<_> = drops.into_iter().filter(|&(_, n)| n > 0).collect();
    let told = status["drops"].as_object().expect("drops").iter();
    assert_eq!(above_zero, told.map(|(k, v)| (k.clone(), v.as_u64().expect("a count"))).collect::<Vec<_>>());
    let interface = &status["interfaces"][0];
    let name = interface["name"].as_str().expect("a name");
    for (verdict, n) in interface["steering"].as_object().expect("verdicts") {
        let labels = [("interface", name), ("verdict", verdict)];
        assert_eq!(Some(scrape.count("beam_steering_total", &labels)), n.as_u64(), "{verdict}");
    }
    for queue in ["0", "1"] {
        let labels = [("interface", name), ("queue", queue)];
        assert_eq!(scrape.count("beam_queue_info", &[labels[0], labels[1], ("mode", "native-copy")]), 1);
        let of_queue = scrape
            .series()
            .into_iter()
            .filter(|(sample, has)| sample == "beam_xdp_statistics_total" && has["queue"] == queue);
        assert_eq!(of_queue.count(), 6, "fields of XDP_STATISTICS");
        let frames = scrape.sum("beam_umem_frames", &labels);
        assert_eq!(frames, 6144.0, "24 MiB of frames of 4 KiB, by who holds them");
    }
    assert_eq!(scrape.count("beam_interface_queues", &[("interface", name), ("state", "served")]), 2);
    assert_eq!(scrape.by("beam_nic_drops_total", "counter").len(), 6);
    let process = |what: &str| scrape.sum(&format!("process_{what}"), &[]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
    assert!(process("start_time_seconds") <= now && process("start_time_seconds") > now - 600.0);
    assert!(
        process("resident_memory_bytes") > 1e6
            && process("open_fds") > 10.0
            && process("cpu_seconds_total") > 0.0
    );
    // Quantiles of the status are of the same values.
    let latency = &status["latency"];
    assert!(
        latency["loop_lag"]["count"].as_u64() > Some(0) && latency["loop_lag"]["p99_s"].as_f64() > Some(0.0)
    );
    assert!(status["batches"]["open"]["mean"].as_f64() >= Some(1.0), "{status:#}");
    assert!(status["process"]["resident_bytes"].as_u64() > Some(1_000_000));
}

fn at_the_gateway(status: &Value, scrape: &Scrape) {
    assert_eq!(scrape.count("beam_first_byte_seconds_count", &[]), FETCHES);
    assert!(scrape.count("beam_tunnel_rtt_seconds_count", &[]) > 0);
    assert_eq!(number(status, "connections"), 1);
    let payload = [("kind", "tcp"), ("direction", "from_socket")];
    assert!(scrape.count("beam_payload_bytes_total", &payload) > FETCHES * 1_000_000, "bodies and heads");
    assert_eq!(scrape.count("beam_workers", &[("state", "answering")]), 2);
    let info = [("version", env!("CARGO_PKG_VERSION")), ("role", "gateway")];
    assert_eq!(scrape.count("beam_build_info", &info), 1);
    assert!(scrape.sum("beam_certificate_not_after_timestamp_seconds", &[]) > 1.7e9);
    assert_eq!(scrape.by("beam_refused_total", "reason").values().sum::<u64>(), 0);
    assert!(scrape.by("beam_cache_misses_total", "cache").len() >= 3, "tickets, tokens, names, routes");
}

fn a_taken_port_is_a_preflight_failure(place: &Place) {
    let listen = authority(GATEWAY_V4, TUNNEL_PORT + 1);
    let args = place.certified_args(listen, &["--xdp", "off", "--metrics", &format!("127.0.0.1:{PORT}")]);
    let mut second = Beam::launch(&place.rig, Ns::Gateway, "second", &words(&args));
    assert_eq!(second.process.wait(LIMIT).code(), Some(4));
    let said = second.process.wait_for_line("--metrics: can't listen on 127.0.0.1:", LIMIT);
    assert!(
        said.contains("Address already in use") && said.contains(&format!("ss -ltnp 'sport = :{PORT}'")),
        "{said}"
    );
}

/// Fifty clients, each a user of its own, make the same series as one.
#[test]
fn many_clients_make_no_more_series() {
    if !rig::root_or_skip("many_clients_make_no_more_series") {
        return;
    }
    const CLIENTS: usize = 50;
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let names: Vec<String> = (0..CLIENTS).map(|n| format!("client-{n}")).collect();
    let users: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    write_users(place.rig.directory(), &users);
    let gateway =
        place.gateway(GATEWAY_V4, &["--xdp", "off", "--cpus", "0,1", "--metrics", &PORT.to_string()]);
    let client = |name: &str| {
        let mut command = place.rig.command(Ns::Client, binary());
        let token = path(&place.rig.directory().join(format!("{name}.token")));
        let url = format!("https://{}", authority(GATEWAY_V4, TUNNEL_PORT));
        let to = echo.address().to_string();
        command.args([
            "connect",
            &url,
            "--ca",
            &path(&place.pki.ca),
            "--token-file",
            &token,
            "--xdp",
            "off",
            "-W",
            &to,
        ]);
        Proc::spawn(name, command.stdin(Stdio::piped()).stdout(Stdio::piped()))
    };
    let mut running: Vec<(Proc, std::process::ChildStdin)> = Vec::new();
    let mut before = None;
    for name in &names {
        let mut process = client(name);
        let mut stdin = process.stdin();
        stdin.write_all(b"x").expect("say something");
        running.push((process, stdin));
        if before.is_none() {
            running[0].0.stdout().read_exact(&mut [0]).expect("the echo");
            before = Some(Scrape::of(&place.rig, Ns::Gateway, PORT));
        }
    }
    let flows = |status: &Value| (number(status, "connections"), number(status, "flows"));
    let wanted = (CLIENTS as u64, CLIENTS as u64);
    until("all clients have their flows", || flows(&gateway.status()), |&seen| seen == wanted);
    let after = Scrape::of(&place.rig, Ns::Gateway, PORT);
    after.check_histograms();
    let before = before.expect("scraped after the first");
    assert_eq!(before.series(), after.series());
    println!("{} series", after.series().len());
    assert!(after.series().len() < 600, "{} series", after.series().len());
    assert_eq!(after.count("beam_connections", &[]), CLIENTS as u64);
    assert_eq!(after.count("beam_handshake_seconds_count", &[]), CLIENTS as u64);
}
