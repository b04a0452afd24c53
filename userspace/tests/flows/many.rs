//! Many flows, and many small writes.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::{Arc, Barrier};

use crate::pair::Place;
use crate::rig::{self, EchoServer, Ns, ORIGIN_V4};
use crate::script::assert_flow_counters;
use crate::tools::{Tunnel, random_bytes, read_some, seed};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

// 500 flows open at the same moment, each with bytes of its own: none is lost, none gets another's.
#[test]
fn five_hundred_flows_at_once_keep_their_bytes_apart() {
    const TEST: &str = "five_hundred_flows_at_once_keep_their_bytes_apart";
    const FLOWS: u64 = 500;
    if !rig::root_or_skip(TEST) {
        return;
    }
    let seed = seed(TEST);
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let tunnel = Tunnel::native(place, echo.address());
    let mut rng = StdRng::seed_from_u64(seed);
    let payloads: Vec<Vec<u8>> =
        (0..FLOWS).map(|n| random_bytes(seed ^ (n + 1), rng.random_range(1..=96 << 10))).collect();
    let total: u64 = payloads.iter().map(|payload| payload.len() as u64).sum();
    let all_open = Arc::new(Barrier::new(FLOWS as usize + 1));
    let flows: Vec<_> = payloads
        .into_iter()
        .map(|payload| {
            let mut stream = tunnel.dial();
            let all_open = all_open.clone();
            let run = move || {
                // One byte there and back shows that the flow is open at the gateway.
                stream.write_all(&payload[..1])?;
                let mut echoed = vec![0; payload.len()];
                stream.read_exact(&mut echoed[..1])?;
                all_open.wait();
                all_open.wait();
                stream.write_all(&payload[1..])?;
                stream.shutdown(Shutdown::Write)?;
                stream.read_exact(&mut echoed[1..])?;
                let end = stream.read(&mut [0; 1])?;
                Ok::<_, io::Error>(end == 0 && echoed == payload)
            };
            std::thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap()
        })
        .collect();
    all_open.wait();
    for beam in [&tunnel.gateway, &tunnel.client] {
        assert_eq!(beam.status()["flows"], FLOWS, "all flows are open at this moment");
    }
    all_open.wait();
    for (n, flow) in flows.into_iter().enumerate() {
        assert!(flow.join().unwrap().unwrap_or_else(|e| panic!("flow {n}: {e}")), "flow {n} got other bytes");
    }
    let expected = [
        ("requests", FLOWS),
        ("flows_finished", FLOWS),
        ("bytes_to_sockets", total),
        ("bytes_from_sockets", total),
    ];
    assert_flow_counters(&tunnel.gateway, &expected);
    assert_flow_counters(&tunnel.client, &expected);
    assert_eq!((echo.connection_count(), echo.echoed_bytes()), (FLOWS, total));
}

// Small writes are not held back for company, and no wake-up is missed: each byte needs the whole way to work.
#[test]
fn single_bytes_bounce_two_thousand_times() {
    const BYTES: u64 = 2_000;
    if !rig::root_or_skip("single_bytes_bounce_two_thousand_times") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let tunnel = Tunnel::native(place, echo.address());
    let mut stream = tunnel.dial();
    for n in 0..BYTES {
        let byte = rig::pattern(n);
        stream.write_all(&[byte]).unwrap();
        assert_eq!(read_some::<1>(&mut stream), [byte], "byte {n}");
    }
    drop(stream);
    let expected =
        [("requests", 1), ("flows_finished", 1), ("bytes_to_sockets", BYTES), ("bytes_from_sockets", BYTES)];
    assert_flow_counters(&tunnel.gateway, &expected);
}
