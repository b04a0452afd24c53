//! What goes nowhere, with its reason: by the port, and by the engine behind it.

use crate::{
    Capture,
    pair::{Place, TUNNEL_PORT, until},
    rig::{GATEWAY_V4, Ns, root_or_skip},
    tshark,
};
use std::{collections::BTreeMap, net::UdpSocket};

#[test]
fn each_dropped_packet_has_its_reason() {
    if !root_or_skip("each_dropped_packet_has_its_reason") {
        return;
    }
    let place = Place::new();
    // What each payload is dropped for (`beam show errors` explains them), and how many of it are sent.
    let long_of_version_1 = [&[0xE0, 0, 0, 0, 1, 8][..], &[7; 8], &[0; 40]].concat();
    let sent: [(&str, Vec<u8>, u64); 3] = [
        ("drop_cid_unknown", vec![0x40; 20], 3),
        ("drop_long_unknown", long_of_version_1, 4),
        ("drop_malformed", vec![0xC0, 0], 5),
    ];
    for xdp in [&["--xdp", "native", "-i", "g0"][..], &["--xdp", "off"]] {
        let gateway = place.gateway(GATEWAY_V4, xdp);
        let capture = Capture::start(&place, &gateway, "drops", &["--point", "drop", "--point", "rx"]);
        let socket = place.rig.within(Ns::Client, || UdpSocket::bind(("0.0.0.0", 0))).unwrap();
        for (_, payload, times) in &sent {
            for _ in 0..*times {
                socket.send_to(payload, (GATEWAY_V4, TUNNEL_PORT)).unwrap();
            }
        }
        let all = |drops: &BTreeMap<String, u64>| sent.iter().all(|(name, _, n)| drops.get(*name) == Some(n));
        let ask = || -> BTreeMap<String, u64> {
            serde_json::from_value(gateway.status()["drops"].clone()).unwrap()
        };
        until("the gateway drops all of it", ask, all);
        let (file, said) = capture.stop();
        assert_eq!((said.captured, said.missed), (2 * 12, 0), "as they came, and as they went: {said:?}");
        for (name, payload, times) in &sent {
            let filter = format!("frame.comment == \"{name}\" && udp.length == {}", payload.len() + 8);
            let seen = tshark(&file, &["-Y", &filter, "-T", "fields", "-e", "ip.src"]);
            assert_eq!(seen, vec!["198.18.0.2"; *times as usize], "{xdp:?} {name}");
        }
        assert_eq!(crate::count(&file, "!frame.comment"), 12, "those that came have no reason");
    }
}
