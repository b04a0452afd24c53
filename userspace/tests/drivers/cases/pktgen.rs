//! The kernel's own packet generator against a gateway, by the scripts of `scripts/pktgen`, and beam's for what looks like
//! QUIC: what was sent is what arrived
//! at the sockets and what was dropped under a name, to the packet.

use crate::{
    NotHere, Verdict,
    bench::Bench,
    pair::{TUNNEL_PORT, number, settled},
    rig::{GATEWAY_V4, Ns, checkout},
};
use serde_json::Value;
use std::path::PathBuf;

/// One a millisecond: slow enough for every ring.
const PACED: &[&str] = &["-n", "400", "-w", "1000000"];
const PACED_TAGGED: &[&str] = &["-n", "400", "-w", "1000000", "-V", "5"];
/// What the kernel's pktgen can't make: these come from `beam pktgen`, by AF_XDP out of the other NIC.
const PACED_SHORT: &[&str] = &["-n", "400", "-w", "1000000", "-k", "short"];
/// As fast as it goes, with more packets than any ring holds.
const UNPACED: &[&str] = &["-n", "12000"];

/// Names that the XDP program gives to packets for the gateway's address and port.
const FOR_US: [&str; 2] = ["ours_", "drop_"];

pub(crate) fn pktgen(bench: &mut Bench) -> Verdict {
    if !std::path::Path::new("/proc/net/pktgen").exists() {
        return Err(NotHere("this kernel has no pktgen".into()));
    }
    // Else a NIC keeps frames of VLANs that nobody asked for to itself, uncounted: igb and vmxnet3 do.
    bench.in_gateway("ip", &["link", "set", "g0", "promisc", "on"]);
    let gateway = bench.gateway(GATEWAY_V4);
    let mac = bench.in_gateway("cat", &["/sys/class/net/g0/address"]);
    let runs: [(&str, &[&str]); 7] = [
        ("single-flow", PACED),
        ("many-flows", PACED),
        ("imix", PACED),
        ("vlan", PACED_TAGGED),
        ("version-flood", PACED),
        ("quic-flood", PACED_SHORT),
        ("single-flow", UNPACED),
    ];
    let mut before = settled(&gateway);
    for (script, more) in runs {
        let port = TUNNEL_PORT.to_string();
        let path = scripts().join(script);
        let path = crate::pair::path(&path);
        let to = GATEWAY_V4.to_string();
        let mut args = vec![path.as_str(), "-i", "c0", "-d", &to, "-m", mac.trim(), "-p", &port, "-j"];
        args.extend(more);
        let nic_before = nic_drops(bench);
        let said = bench.must_in(Ns::Client, "bash", &args);
        let said: Value = serde_json::from_str(&said).expect("the script prints one JSON object");
        let sent = number(&said, "packets");
        let after = settled(&gateway);
        let steered = over_steering(&before, &after, |name| FOR_US.iter().any(|ours| name.starts_with(ours)));
        let is_paced = more != UNPACED;
        // What the NIC had no descriptor for, it dropped before XDP. Its counter may count a packet that waited, too.
        let by_nic = sent - steered;
        let nic_says = nic_drops(bench) - nic_before;
        assert!(
            by_nic == 0 || (!is_paced && by_nic <= nic_says),
            "{script} {more:?}: {sent} sent, {steered} steered, {nic_says} dropped by the NIC; {before:#} {after:#}"
        );
        let redirected = over_steering(&before, &after, |name| name == "ours_redirected");
        let received = number(&after, "xsk_rx_frames") - number(&before, "xsk_rx_frames");
        let no_room = drops(&before, &after, |name| name.starts_with("xsk_rx_"));
        assert_eq!(received + no_room, redirected, "{script} {more:?}: at the socket; {before:#} {after:#}");
        if is_paced {
            assert_eq!(no_room, 0, "{script} at its slow pace: {after:#}");
        }
        let named = drops(&before, &after, |name| !name.starts_with("xsk_rx_"))
            + counted(&before, &after, "version_negotiations_sent");
        assert_eq!(
            named, received,
            "{script} {more:?}: each under a name; before {before:#} after {after:#}"
        );
        let pace = if is_paced { "paced" } else { "unpaced" };
        bench.fact(
            &format!("{script}_{pace}"),
            format!("sent {sent} = received {received} + no room {no_room} + by the NIC {by_nic}"),
        );
        before = after;
    }
    bench.assert_conserved(&[&gateway]);
    Ok(())
}

/// Packets that the gateway's NIC says it had no descriptor for, under the names that drivers have for that.
fn nic_drops(bench: &Bench) -> u64 {
    const NAMES: [&str; 4] = ["rx_no_buffer_count", "rx_missed_errors", "rx_fifo_errors", "pkts rx OOB"];
    let all = bench.try_in(Ns::Gateway, "ethtool", &["-S", "g0"]).unwrap_or_default();
    let counter = |line: &str| -> Option<u64> {
        let (name, count) = line.rsplit_once(':')?;
        NAMES.iter().any(|wanted| name.trim() == *wanted).then(|| count.trim().parse().ok()).flatten()
    };
    all.lines().filter_map(counter).sum()
}

/// Where the scripts are: in the checkout, or where this program was carried.
fn scripts() -> PathBuf {
    std::env::var_os("BEAM_PKTGEN").map_or_else(|| checkout().join("scripts/pktgen"), PathBuf::from)
}

/// By how much the counters grew whose name is `wanted`.
fn grown(before: &Value, after: &Value, wanted: impl Fn(&str) -> bool) -> u64 {
    let sum = |counters: &Value| -> u64 {
        let counters = counters.as_object().expect("an object of counters");
        counters.iter().filter(|(name, _)| wanted(name)).map(|(_, n)| n.as_u64().expect("a count")).sum()
    };
    sum(after) - sum(before)
}

fn over_steering(before: &Value, after: &Value, wanted: impl Fn(&str) -> bool) -> u64 {
    grown(&before["interfaces"][0]["steering"], &after["interfaces"][0]["steering"], wanted)
}

fn drops(before: &Value, after: &Value, wanted: impl Fn(&str) -> bool) -> u64 {
    grown(&before["drops"], &after["drops"], wanted)
}

fn counted(before: &Value, after: &Value, name: &str) -> u64 {
    grown(&before["counters"], &after["counters"], |counter| counter == name)
}
