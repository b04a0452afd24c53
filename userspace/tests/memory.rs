//! Goal: `--memory-limit` holds. Once it is reached each further client is refused, at once and with QUIC's own word for
//! it; each that is there goes on, with smaller windows; `beam status` says so, and how many were refused; another limit,
//! by a reload, lets clients in again.
//! Method: a gateway on loopback whose limit is a little above what it takes at rest, and clients of the test's own, each
//! with a flow through it, until the limit is reached.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use pair::{path, until};
use rig::{binary, read_status};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tools::loopback::{Gateway, Place};
use tools::quic::{QuicClient, config};
use tunnel::{Event, StreamId};

const TOKEN: &str = "a-token-of-this-test";
/// Above what the gateway takes at rest.
const ROOM_MIB: u64 = 4;
/// Far more clients than fit.
const CLIENTS_MAX: usize = 3000;
/// Attempts at a gateway that takes no more.
const ATTEMPTS: u64 = 25;
/// Longer than the test.
const IDLE: Duration = Duration::from_secs(600);

fn limited_to(file: &Path, mebibytes: u64) {
    fs::write(file, format!("[serve]\nmemory-limit = \"{mebibytes}MiB\"\n")).unwrap();
}

/// A connection with a flow, or how it was refused.
fn client(place: &Place, echo: SocketAddr) -> Result<(QuicClient, StreamId), String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = QuicClient::connect(socket, place.address, config(IDLE));
    client.until("the handshake", |_, event| match event {
        Some(Event::Connected { .. }) => Some(Ok(())),
        Some(Event::HandshakeFailed { reason }) => Some(Err(reason.to_string())),
        _ => None,
    })?;
    client.begin();
    let flow = open_flow(&mut client, echo);
    Ok((client, flow))
}

/// A flow to the echo, proved.
fn open_flow(client: &mut QuicClient, echo: SocketAddr) -> StreamId {
    let flow = client.open_flow(&echo.to_string(), TOKEN);
    client.say(flow, "first words");
    client.hear(flow, b"first words");
    flow
}

/// Says what it hears, and nothing of its own.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut bytes) = (stream.unwrap(), [0; 256]);
            std::thread::spawn(move || {
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn memory(gateway: &Gateway) -> Value {
    read_status(&gateway.control)["memory"].clone()
}

fn said(gateway: &Gateway, verb: &str) -> String {
    let out = Command::new(binary()).args([verb, "--control"]).arg(&gateway.control).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_full_gateway_refuses_newcomers_and_keeps_the_others() {
    let (place, echo) = (Place::new(), echo_server());
    let file = place.file("gateway.toml");
    let unlimited = place.gateway(&[]);
    assert_eq!(memory(&unlimited), Value::Null, "without a limit there is nothing to tell");
    let (first, _) = client(&place, echo).unwrap();
    let rest = read_status(&unlimited.control)["process"]["resident_bytes"].as_u64().unwrap();
    drop(first);
    unlimited.kill();

    let limit_mib = rest.div_ceil(1 << 20) + ROOM_MIB;
    limited_to(&file, limit_mib);
    let gateway = place.gateway(&["-c", &path(&file)]);
    let status = until("a first look", || memory(&gateway), |memory| memory["used_bytes"] != 0);
    assert_eq!(status["limit_bytes"], limit_mib << 20, "{status:#}");
    assert_eq!(status["reached"], false, "{status:#}");
    assert!(said(&gateway, "status").contains("memory limit: "));

    // Until it is full. A worker whose share is used up before the next look refuses, too.
    let mut inside = Vec::new();
    let mut refused = 0;
    while memory(&gateway)["reached"] == false {
        for _ in 0..10 {
            match client(&place, echo) {
                Ok(client) => inside.push(client),
                Err(_) => refused += 1,
            }
        }
        assert!(inside.len() < CLIENTS_MAX, "never full: {:#}", memory(&gateway));
    }
    println!("{} clients inside of {limit_mib} MiB, {refused} refused on the way", inside.len());
    assert!(inside.len() > 20, "a limit that lets nobody in");

    // Each worker has heard of it once the windows of all connections are lowered.
    let everybody = inside.len() as u64;
    until("all windows are lowered", || memory(&gateway), |memory| memory["windows_lowered"] == everybody);
    refused = gateway.count("refused_memory");
    for attempt in 0..ATTEMPTS {
        let Err(reason) = client(&place, echo) else { panic!("attempt {attempt} was let in") };
        assert!(reason.contains("refused"), "{reason}");
    }
    assert_eq!(gateway.count("refused_memory"), refused + ATTEMPTS);
    assert_eq!(gateway.count("refused"), 0, "the limit of connections is another one");
    let screen = said(&gateway, "status");
    let alert = format!(
        "new connections are refused ({} so far), windows of {everybody} lowered",
        refused + ATTEMPTS
    );
    assert!(screen.contains("ALERT: memory limit reached: ") && screen.contains(&alert), "{screen}");

    // Those inside go on, each of them, with old flows and with new ones.
    for (n, (client, flow)) in inside.iter_mut().enumerate() {
        let words = format!("client {n} is still here");
        client.say(*flow, &words);
        client.hear(*flow, words.as_bytes());
    }
    let (client_inside, _) = &mut inside[0];
    open_flow(client_inside, echo);
    assert_eq!(read_status(&gateway.control)["connections"], everybody);

    limited_to(&file, limit_mib + 100);
    assert!(said(&gateway, "reload").contains("changed: memory-limit; "));
    let status = until("the next look", || memory(&gateway), |memory| memory["reached"] == false);
    assert_eq!(status["limit_bytes"], (limit_mib + 100) << 20);
    until("a client is let in", || client(&place, echo).is_ok(), |&is_inside| is_inside);
    gateway.kill();
}
