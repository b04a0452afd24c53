//! The link: up, what it belongs to, and how large its packets are.

use super::{
    finding::Finding,
    fix::knob::Knob,
    host::{Host, Nic},
    quirks,
};
use xsk::look;

/// What an inner QUIC needs of the path: 1200 bytes of datagram and about 35 of the tunnel's own, below IPv6 and UDP.
const MTU_MIN: u32 = 1200 + 35 + 48;

pub(super) fn link(_: &Host, nic: &Nic) -> Finding {
    let link = &nic.link;
    let needed = "an Ethernet interface that is up and has a carrier";
    if !link.is_ethernet {
        return Finding::fail("not an Ethernet interface", needed).command("ip -brief link");
    }
    if !link.up {
        let knob = Knob::Link { interface: link.name.clone() };
        return Finding::fail("down", needed).change(knob, "up");
    }
    if !link.has_carrier {
        let seen = "up, without a carrier: the cable, the switch's port or the other end";
        return Finding::fail(seen, needed).command(format!("ethtool {}", link.name));
    }
    let driver = link.driver.as_deref().unwrap_or("unknown");
    Finding::pass(format!("up, with a carrier; driver {driver}, {} queue(s)", nic.queue_count), needed)
}

pub(super) fn master(host: &Host, nic: &Nic) -> Finding {
    let (link, needed) =
        (&nic.link, "an interface that is its own: no bridge's or bond's member, no VLAN, no macvlan");
    let name =
        |index: u32| host.link(index).map_or_else(|| format!("interface {index}"), |link| link.name.clone());
    if let Some(master) = link.master {
        let kind = host.link(master).and_then(|link| link.kind.clone()).unwrap_or_else(|| "master".into());
        let seen = format!(
            "a member of {kind} {}: packets are received by XDP, but routes lead to {0}, so they are sent by the kernel",
            name(master)
        );
        return Finding::warn(seen, needed).command(format!("ip link set {} nomaster", link.name));
    }
    match (link.kind.as_deref(), link.below) {
        (Some(kind @ ("vlan" | "macvlan" | "ipvlan" | "macvtap")), Some(below)) => {
            let seen = format!(
                "a {kind} on {}: it runs no XDP in its driver, and beam sees through VLAN tags",
                name(below)
            );
            Finding::lacks(host.plan.insists_on_native(), seen, needed)
                .command(format!("beam serve -i {} ...", name(below)))
        }
        (Some(kind @ ("bridge" | "bond" | "team" | "vrf")), _) => {
            let members: Vec<&str> = host
                .links
                .iter()
                .filter(|member| member.master == Some(link.index))
                .map(|member| member.name.as_str())
                .collect();
            let flags: String = members.iter().map(|member| format!("-i {member} ")).collect();
            Finding::lacks(
                host.plan.insists_on_native(),
                format!("a {kind}, not a NIC: members {}", members.join(", ")),
                needed,
            )
            .command(format!("beam serve {flags}..."))
        }
        _ => Finding::pass("belongs to no other interface", needed),
    }
}

pub(super) fn mtu(host: &Host, nic: &Nic) -> Finding {
    let mtu = nic.link.mtu;
    let of_frames =
        xsk::Config { frame_bytes: host.plan.frame_bytes, ..xsk::Config::new(nic.name()) }.mtu_max();
    let of_driver = quirks::mtu_max(nic.driver()).unwrap_or(look::PAGE_MTU_MAX);
    let max = of_frames.min(of_driver);
    let needed = format!(
        "{MTU_MIN} to {max}: one buffer a packet ({} bytes a frame take {of_frames}, XDP in the driver takes {of_driver})",
        host.plan.frame_bytes
    );
    let knob = || Knob::Mtu { interface: nic.link.name.clone() };
    if mtu > of_frames {
        return Finding::fail(format!("MTU {mtu}"), needed).change(knob(), max);
    }
    if mtu > of_driver {
        let seen = format!("MTU {mtu}: XDP steps down to the generic hook");
        return Finding::lacks(host.plan.insists_on_native(), seen, needed).change(knob(), max);
    }
    if mtu < MTU_MIN {
        let seen = format!("MTU {mtu}: a QUIC inside the tunnel doesn't start over datagrams");
        return Finding::warn(seen, needed).change(knob(), 1500.min(max));
    }
    Finding::pass(format!("MTU {mtu}"), needed)
}
