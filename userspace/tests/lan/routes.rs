//! What the gateway owes as a router between the tunnel and its LAN.

use crate::pair::{LIMIT, until};
use crate::rig::{Beam, GATEWAY_INNER_V4, Ns, ORIGIN_V4};
use crate::tools::dropped;
use crate::world::{Host, LENT, World, interface};

/// A LAN host that sends from an address of the pool, be it lent or not, or the gateway's own (RFC 2827).
pub(crate) fn nobody_on_the_lan_is_behind_the_tunnel(world: &World, gateway: &Beam) {
    let spoofed = || dropped(&gateway.status(), "ip_spoofed_source");
    assert_eq!(spoofed(), 0);
    for (source, to) in [("198.18.64.1", LENT[0]), ("198.18.64.9", LENT[0]), ("2001:db8:64::9", LENT[1])] {
        let length = if source.contains(':') { 128 } else { 32 };
        let address = format!("{source}/{length}");
        world.place.rig.ip(Ns::Origin, &["address", "add", &address, "dev", "lo"]);
        let before = spoofed();
        let said = world.ping(Host::Origin, &["-c", "2", "-W", "1", "-I", source, to]);
        assert!(said.contains("2 packets transmitted, 0 received"), "{said}");
        assert_eq!(spoofed() - before, 2, "{source}");
        world.place.rig.ip(Ns::Origin, &["address", "del", &address, "dev", "lo"]);
    }
}

/// A policy rule that comes while the gateway runs.
pub(crate) fn what_cant_be_addressed_is_said(world: &World, gateway: &Beam) {
    let alert = || interface(&gateway.status(), "g1")["alert"].as_str().unwrap_or_default().to_owned();
    assert_eq!(alert(), "");
    let rule = ["from", "198.18.9.9", "table", "7", "pref", "77"];
    world.place.rig.ip(Ns::Gateway, &[&["rule", "add"], &rule[..]].concat());
    let says = "packets to the LAN g1 are dropped";
    until("the alert", alert, |alert| alert.contains(says) && alert.ends_with("ip rule del pref 77."));
    gateway.process.wait_for_line(says, LIMIT);
    let said = world.ping(Host::Client, &["-c", "1", &ORIGIN_V4.to_string()]);
    assert!(said.contains("From 198.18.64.1 icmp_seq=1 Destination Host Unreachable"), "{said}");
    world.place.rig.ip(Ns::Gateway, &[&["rule", "del"], &rule[..]].concat());
    until("the alert to go", alert, String::is_empty);
    world.must_ping(Host::Client, &[&ORIGIN_V4.to_string()]);
}

/// Hop limits run out, packets are too big, hosts aren't there: the gateway says so to whoever is concerned.
pub(crate) fn the_gateway_routes(world: &World, gateway: &Beam) {
    let v4 = ORIGIN_V4.to_string();
    // The gateway takes a hop off what enters the tunnel, and only then (RFC 9484 section 7).
    let said = world.ping(Host::Origin, &["-c", "1", "-t", "1", LENT[0]]);
    assert!(said.contains("From 198.18.64.1 icmp_seq=1 Time to live exceeded"), "{said}");
    let said = world.ping(Host::Origin, &["-c", "1", "-t", "2", LENT[0]]);
    assert!(said.contains("1 received"), "{said}");

    let mtu = || {
        let said = world.run(Host::Client, "cat", &["/sys/class/net/beam0/mtu"]);
        said.trim().parse::<usize>().unwrap_or_else(|e| panic!("{said:?}: {e}"))
    };
    let mtu = until("path MTU discovery ends", mtu, |mtu| (1400..1452).contains(mtu));
    let fits = (mtu - 28).to_string();
    world.must_ping(Host::Client, &["-M", "do", "-s", &fits, &v4]);
    world.must_ping(Host::Origin, &["-M", "do", "-s", &fits, LENT[0]]);
    // The session settles on the MTU that was found: three seconds after its start.
    let too_big = |said: &String| said.contains(&format!("Frag needed and DF set (mtu = {mtu})"));
    let ask = || world.ping(Host::Origin, &["-c", "1", "-W", "1", "-M", "do", "-s", "1472", LENT[0]]);
    until("the gateway says that it is too big", ask, too_big);

    // Nobody on the LAN has the address: the client hears of it.
    let said = world.ping(Host::Client, &["-c", "1", "198.19.0.77"]);
    assert!(said.contains("From 198.18.64.1 icmp_seq=1 Destination Host Unreachable"), "{said}");
    // The gateway's host itself is none of the LAN's.
    let said = world.ping(Host::Client, &["-c", "1", &GATEWAY_INNER_V4.to_string()]);
    assert!(said.contains("From 198.18.64.1 icmp_seq=1 Packet filtered"), "{said}");
    let status = gateway.status();
    assert_eq!((dropped(&status, "lan_tx_no_neighbour"), dropped(&status, "lan_tx_not_there")), (1, 1));
    // A smaller LAN: what comes from the tunnel is too big for it.
    world.place.rig.ip(Ns::Gateway, &["link", "set", "g1", "mtu", "1300"]);
    let ask = || world.ping(Host::Client, &["-c", "1", "-W", "1", "-M", "do", "-s", &fits, &v4]);
    until("the gateway says that the LAN is small", ask, |said| {
        said.contains("(mtu = 1300)") || said.contains("mtu=1300")
    });
    assert!(dropped(&gateway.status(), "lan_tx_too_big") >= 1);
}
