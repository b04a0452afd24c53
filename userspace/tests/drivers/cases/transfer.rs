//! A file through the tunnel: over IPv4, over IPv6, between tagged VLAN devices.

use crate::{
    Verdict,
    bench::{Bench, FILE_BYTES, Mode, Origin, needs},
    pair::number,
    rig::{Beam, GATEWAY_V4, GATEWAY_V6, GATEWAY_VLAN_V4, Ns},
};
use serde_json::Value;
use std::net::IpAddr;

/// UDP payload of a full packet on a 1500-byte link over IPv6, where path MTU discovery ends.
const PACKET_BYTES_MAX: u64 = 1452;
/// Packets that may pass through the kernel's socket beside AF_XDP: those before the neighbour is known.
const KERNEL_PACKETS_MAX: u64 = 16;
/// Enough to see that frames carry their tags.
const SMALL_FILE_BYTES: u64 = 1 << 20;

pub(crate) fn fetch_v4(bench: &mut Bench) -> Verdict {
    let origin = Origin::start(bench, FILE_BYTES);
    fetch(bench, bench.mode, bench.mode, GATEWAY_V4.into(), &origin);
    Ok(())
}

pub(crate) fn fetch_v6(bench: &mut Bench) -> Verdict {
    let origin = Origin::start(bench, FILE_BYTES).over_ipv6();
    fetch(bench, bench.mode, bench.mode, GATEWAY_V6.into(), &origin);
    Ok(())
}

// Both ends beneath a VLAN device. An end on AF_XDP would take frames without a tag too, but the kernel's VLAN device
// doesn't: so each end also talks to a kernel socket.
pub(crate) fn vlan(bench: &mut Bench) -> Verdict {
    for (ns, address) in [(Ns::Gateway, "198.18.7.1/24"), (Ns::Client, "198.18.7.2/24")] {
        let below = ns.interface();
        let vlan = format!("{below}.7");
        let add = ["link", "add", "link", below, "name", &vlan, "type", "vlan", "id", "7"];
        needs(bench.try_in(ns, "ip", &add), "VLAN devices")?;
        bench.must_in(ns, "ip", &["address", "add", address, "dev", &vlan]);
        bench.must_in(ns, "ip", &["link", "set", &vlan, "up"]);
    }
    let offload = bench.in_gateway("ethtool", &["-k", "g0"]);
    let offload = offload.lines().find_map(|line| line.trim().strip_prefix("rx-vlan-offload: "));
    bench.fact("rx_vlan_offload", offload.unwrap_or("?").to_owned());
    let mut origin = Origin::start(bench, FILE_BYTES);
    fetch(bench, bench.mode, bench.mode, GATEWAY_VLAN_V4.into(), &origin);
    if bench.mode != Mode::Off {
        drop(origin);
        origin = Origin::start(bench, SMALL_FILE_BYTES);
        fetch(bench, bench.mode, Mode::Off, GATEWAY_VLAN_V4.into(), &origin);
        fetch(bench, Mode::Off, bench.mode, GATEWAY_VLAN_V4.into(), &origin);
    }
    Ok(())
}

/// Fetches over a tunnel, then holds both ends to their counters.
fn fetch(bench: &mut Bench, gateway: Mode, client: Mode, address: IpAddr, origin: &Origin) {
    let serving = bench.gateway_in(gateway, address);
    let connected = bench.client_in(client, address, origin);
    bench.fetch(origin);
    let statuses = bench.assert_conserved(&[&serving, &connected]);
    for (status, mode) in statuses.iter().zip([gateway, client]) {
        bypass_is_real(status, mode, origin.size_bytes);
    }
    for (name, mode, status) in [("gateway", gateway, &statuses[0]), ("client", client, &statuses[1])] {
        let (rx, tx) = (number(status, "xsk_rx_frames"), number(status, "xsk_tx_frames"));
        if mode != Mode::Off && gateway == client {
            bench.fact(&format!("{name}_xsk_frames"), vec![rx, tx]);
            bench.fact(&format!("{name}_kernel_packets"), number(status, "kernel_udp_packets"));
            bench.fact(&format!("{name}_drops"), status["drops"].clone());
        }
    }
    let ends: [(Beam, Ns); 2] = [(connected, Ns::Client), (serving, Ns::Gateway)];
    for (mut end, ns) in ends {
        assert_eq!(end.process.terminate(crate::pair::LIMIT).code(), Some(0), "{ns:?} ends in order");
        assert_eq!(bench.place.rig.xdp_hook(ns, ns.interface()), None, "{ns:?} leaves no program");
    }
}

/// The frames of the XDP sockets carry the bytes, and the kernel's sockets next to nothing; or the other way round.
fn bypass_is_real(status: &Value, mode: Mode, body_bytes: u64) {
    let least_packets = if status["role"] == "client" { body_bytes / PACKET_BYTES_MAX } else { 1 };
    let (rx_frames, kernel_packets) = (number(status, "xsk_rx_frames"), number(status, "kernel_udp_packets"));
    if mode == Mode::Off {
        assert_eq!((rx_frames, number(status, "xsk_tx_frames")), (0, 0), "{status:#}");
        assert!(kernel_packets >= least_packets, "{status:#}");
    } else {
        assert!(rx_frames >= least_packets, "{status:#}");
        assert!(kernel_packets <= KERNEL_PACKETS_MAX, "{kernel_packets} packets leaked past XDP: {status:#}");
    }
}
