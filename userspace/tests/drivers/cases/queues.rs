//! Several queues: a connection whose packets land on another worker's, and queues that come while beam runs.

use crate::{
    NotHere, Verdict,
    bench::{Bench, Mode, Tunnel},
    pair::{number, over_workers, until},
    rig::{EchoServer, GATEWAY_V4, Ns, ORIGIN_V4},
    tools::{self, counter, dial, relay::Relay, stranger::one_port_each},
};
use serde_json::Value;
use std::io::{Read as _, Write as _};

/// Gives the gateway's NIC this many queues; says so where it can't have them.
fn with_queues(bench: &mut Bench, count: u64) -> Result<(), NotHere> {
    let max = bench.queues_max().unwrap_or(1);
    if max < count {
        return Err(NotHere(format!("the NIC has {max} queue(s), {count} are needed")));
    }
    if bench.queue_count() != Some(count) {
        bench.set_queues(count).map_err(|why| NotHere(format!("ethtool -L: {why}")))?;
    }
    // A NIC that hashes addresses alone puts all ports of one peer on one queue; those that can't say what they hash
    // (virtio, veth) hash ports too.
    let hashes = bench.try_in(Ns::Gateway, "ethtool", &["-N", "g0", "rx-flow-hash", "udp4", "sdfn"]);
    bench.fact("udp4_sdfn", hashes.map_or_else(|why| why, |_| "set".into()));
    bench.wait_for_link(Ns::Gateway);
    Ok(())
}

// A NAT rebinds in the middle of an echo, so that packets land on the queue of a worker that doesn't own the connection:
// they are handed over, frame and all, and every frame goes home.
pub(crate) fn hand_over(bench: &mut Bench) -> Verdict {
    const BYTES: usize = 4 << 20;
    with_queues(bench, 2)?;
    let echo = EchoServer::start(&bench.place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = bench.gateway(GATEWAY_V4);
    if gateway.status()["workers"].as_array().map_or(0, Vec::len) < 2 {
        return Err(NotHere("the gateway has one worker in this mode".into()));
    }
    let ports = one_port_each(&bench.place.rig, &gateway);
    let ports =
        ports.ok_or_else(|| NotHere("all of 64 ports fall on one queue of this NIC in this mode".into()))?;
    let relay = Relay::start(&bench.place.rig, ports.into());
    let client = tools::relayed_client(&bench.place, &relay, &echo);
    let mut stream = dial(&bench.place, crate::pair::FORWARD_PORT);
    let payload = tools::random_bytes(tools::seed("hand-over"), BYTES);
    let mut sending = stream.try_clone().expect("clone a stream");
    let sent = payload.clone();
    let writer = std::thread::spawn(move || sending.write_all(&sent));
    let mut echoed = vec![0; BYTES];
    for (n, part) in echoed.chunks_mut(BYTES / 4).enumerate() {
        stream.read_exact(part).expect("the echo");
        relay.rebind((n + 1) % 2);
    }
    writer.join().expect("the writer's thread").expect("write into the flow");
    assert!(echoed == payload, "other bytes came back");
    drop(stream);
    let statuses = bench.assert_conserved(&[&gateway, &client]);
    let handed = over_workers(&statuses[0], "handed_out");
    assert!(handed > 0, "nothing was handed over: {:#}", statuses[0]);
    assert_eq!(handed, over_workers(&statuses[0], "handed_in"), "{:#}", statuses[0]);
    assert!(counter(&statuses[0], "migrations") >= 1, "{:#}", statuses[0]);
    assert_eq!((counter(&statuses[0], "connections_closed"), counter(&statuses[1], "reconnects")), (0, 0));
    bench.fact("handed_over", handed);
    Ok(())
}

// `ethtool -L` while beam runs. Where the driver takes it, the new queues get sockets, and packets that were quicker reach
// the same connections by the kernel's; where it doesn't, nothing changes. The file arrives in either case.
pub(crate) fn growth(bench: &mut Bench) -> Verdict {
    with_queues(bench, 2)?;
    let most = bench.queues_max().unwrap_or(2).min(4);
    if most < 3 {
        bench.set_queues(1).map_err(NotHere)?;
    }
    let from = if most < 3 { 1 } else { 2 };
    let tunnel = Tunnel::start(bench);
    let mut answer = Ok(String::new());
    bench.fetch_while(&tunnel.origin, || answer = bench.set_queues(most));
    let now = bench.queue_count().expect("it had said so before");
    match &answer {
        Ok(_) => assert_eq!(now, most, "ethtool -L said yes"),
        // virtnet_set_channels refuses while a program is loaded; every other driver that has queues takes it.
        Err(why) => {
            let refuses = bench.mode.hook() == Some("native") && bench.driver() == "virtio_net";
            assert!(refuses && why.contains("Invalid argument"), "ethtool -L said no: {why}");
        }
    }
    if bench.mode != Mode::Off {
        let number = |status: &Value, name: &str| number(&status["interfaces"][0], name);
        // virtio_net adds queues for XDP by itself; those get no zero-copy, and `on` wants nothing less.
        let may_lack = bench.mode == Mode::ZeroCopy && bench.driver() == "virtio_net";
        let status = until(
            "every queue has a socket",
            || tunnel.gateway.status(),
            |now| may_lack || number(now, "queues_served") == number(now, "queues_now"),
        );
        assert!(number(&status, "queues_served") >= from.max(if may_lack { 0 } else { now }), "{status:#}");
        let has_alert = status["interfaces"][0]["alert"] != Value::Null;
        assert_eq!(has_alert, number(&status, "queues_served") < number(&status, "queues_now"), "{status:#}");
        bench.assert_mode(bench.mode, Ns::Gateway, &tunnel.gateway);
    }
    bench.fact("grown", format!("{from} to {now}: {}", answer.as_ref().err().map_or("taken", |why| why)));
    let statuses = bench.assert_conserved(&[&tunnel.gateway, &tunnel.client]);
    assert_eq!((counter(&statuses[0], "connections_closed"), counter(&statuses[1], "reconnects")), (0, 0));
    bench.fact("gateway_kernel_packets", number(&statuses[0], "kernel_udp_packets"));
    bench.fetch(&tunnel.origin);
    Ok(())
}
