//! Links that go down and come up, daemons that die and daemons that are asked to end.

use crate::{
    Verdict,
    bench::{Bench, Tunnel},
    pair::{LIMIT, until},
    rig::{GATEWAY_V4, Ns},
    tools::counter,
};

// Each end's link goes down and comes up in the middle of a transfer; the same connection carries on, and no frame is
// lost to the NIC's reset.
pub(crate) fn link_flap(bench: &mut Bench) -> Verdict {
    for ns in [Ns::Gateway, Ns::Client] {
        let tunnel = Tunnel::start(bench);
        bench.fetch_while(&tunnel.origin, || {
            bench.must_in(ns, "ip", &["link", "set", ns.interface(), "down"]);
            bench.must_in(ns, "ip", &["link", "set", ns.interface(), "up"]);
            bench.wait_for_link(ns);
        });
        bench.assert_mode(bench.mode, Ns::Gateway, &tunnel.gateway);
        bench.assert_mode(bench.mode, Ns::Client, &tunnel.client);
        let statuses = bench.assert_conserved(&[&tunnel.gateway, &tunnel.client]);
        for status in &statuses {
            assert_eq!(counter(status, "connections_closed"), 0, "one connection: {status:#}");
        }
        assert_eq!(counter(&statuses[1], "reconnects"), 0, "{:#}", statuses[1]);
        for (end, status) in ["gateway", "client"].into_iter().zip(&statuses) {
            bench.fact(&format!("{}_down_{end}_drops", ns.interface()), status["drops"].clone());
        }
        // And it still works.
        bench.fetch(&tunnel.origin);
    }
    Ok(())
}

// Killed in the middle of a transfer: the kernel takes the program off, and the next daemon starts on the same NIC.
pub(crate) fn kill(bench: &mut Bench) -> Verdict {
    let Tunnel { mut client, mut gateway, origin } = Tunnel::start(bench);
    let url = format!("http://127.0.0.1:{}/file", crate::pair::FORWARD_PORT);
    let mut curl = bench.place.rig.command(Ns::Client, "curl");
    curl.args(["-q", "-sS", "--limit-rate", "64k", &url]).stdout(std::process::Stdio::piped());
    let mut curl = crate::rig::Proc::spawn("curl", &mut curl);
    std::io::Read::read_exact(&mut curl.stdout(), &mut [0; 4096]).expect("the flow is there");
    for (ns, end) in [(Ns::Gateway, &mut gateway), (Ns::Client, &mut client)] {
        end.process.kill();
        let hook = || bench.place.rig.xdp_hook(ns, ns.interface());
        until("the kernel takes the program off", hook, Option::is_none);
    }
    drop(curl);
    // What the NIC kept alive by itself: the kernel's own packets pass again.
    bench.must_in(Ns::Client, "ping", &["-c", "1", "-W", "20", &GATEWAY_V4.to_string()]);
    let gateway = bench.gateway(GATEWAY_V4);
    let client = bench.client(GATEWAY_V4, &origin);
    bench.fetch(&origin);
    bench.assert_conserved(&[&gateway, &client]);
    Ok(())
}

// SIGTERM in the middle of a transfer: it ends whole, then the daemon does.
pub(crate) fn term(bench: &mut Bench) -> Verdict {
    let Tunnel { mut client, mut gateway, origin } = Tunnel::start(bench);
    bench.fetch_while(&origin, || {
        gateway.process.signal(rustix::process::Signal::TERM);
        gateway.process.wait_for_line("draining: 1 flow(s)", LIMIT);
    });
    assert_eq!(gateway.process.wait(LIMIT).code(), Some(0), "{}", gateway.process.stderr());
    gateway.process.wait_for_line("drained, 0 flow(s) cut off", LIMIT);
    assert_eq!(client.process.terminate(LIMIT).code(), Some(0), "{}", client.process.stderr());
    for ns in [Ns::Gateway, Ns::Client] {
        let hook = || bench.place.rig.xdp_hook(ns, ns.interface());
        until("the program is gone", hook, Option::is_none);
    }
    Ok(())
}
