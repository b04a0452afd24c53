//! The NIC's settings: channels, rings, what it spreads packets by, and the offloads that XDP doesn't go with.

use super::{
    finding::Finding,
    fix::knob::{Direction, Ip, Knob, Use},
    host::{Host, Nic},
    quirks,
};
use crate::cli::Queues;
use xsk::ethtool::{self, Family, Feature, HashFields};

pub(super) fn channels(host: &Host, nic: &Nic) -> Finding {
    let (plan, count) = (&host.plan, nic.queue_count);
    let served = plan.queues_of(count);
    let cpus = plan.cpus.len().max(1) as u32;
    let needed = format!("each queue served, and no more workers than CPUs ({cpus})");
    let (max, used) = match &nic.channels {
        Some(told) if told.combined_max > 0 => (told.combined_max, Use::Combined),
        Some(told) => (told.rx_max, Use::Rx),
        None => (count, Use::Combined),
    };
    let with_xdp = quirks::channels_max(nic.driver(), max);
    let knob = Knob::Channels { interface: nic.link.name.clone(), used };
    let told = format!("{count} queue(s) of {} possible", max.max(count));
    if let Some(&missing) = served.iter().max().filter(|&&queue| queue >= count) {
        let finding = Finding::fail(format!("{told}, but --queues names {missing}"), needed);
        return match missing < max {
            true => finding.change(knob, missing + 1),
            false => finding.command("beam serve --queues all ..."),
        };
    }
    if count > with_xdp {
        let seen = format!("{told}: with XDP the driver takes {with_xdp} at most");
        return Finding::lacks(plan.insists_on_native(), seen, needed).change(knob, with_xdp);
    }
    if matches!(plan.queues, Queues::List(_)) && (served.len() as u32) < count {
        let seen = format!(
            "{told}, {} served: what the NIC puts on the others takes the kernel's path",
            served.len()
        );
        // The first queues alone can be had by spreading over them only.
        let first_ones = served.iter().copied().eq(0..served.len() as u32);
        let finding = Finding::warn(seen, needed).command("beam serve --queues all ...");
        return if first_ones { finding.change(knob, served.len()) } else { finding };
    }
    if host.worker_count() as u32 > cpus {
        let seen = format!("{told}: {} workers share {cpus} CPU(s)", host.worker_count());
        let each = (cpus / host.nics().len().max(1) as u32).max(1);
        return Finding::warn(seen, needed).change(knob, each);
    }
    let could = cpus.min(with_xdp);
    if count < could && matches!(plan.queues, Queues::All) && host.nics().len() == 1 {
        let seen = format!("{told}: {} of {cpus} CPUs have no worker", cpus - count);
        return Finding::warn(seen, needed).change(knob, could);
    }
    Finding::pass(format!("{told}, {} served by {cpus} CPU(s)", served.len()), needed)
}

pub(super) fn rings(host: &Host, nic: &Nic) -> Finding {
    let Ok(rings) = ethtool::rings(nic.name()) else {
        return Finding::not_applicable(format!("driver {} has no rings of its own", nic.driver()));
    };
    let interface = || nic.link.name.clone();
    let wanted = |max: u32| max.min(host.plan.ring_size);
    let (rx, tx) = (wanted(rings.rx_max), wanted(rings.tx_max));
    let needed =
        format!("{rx} to receive and {tx} to send: as many as --ring-size, so that a burst finds room");
    let seen =
        format!("{} of {} to receive, {} of {} to send", rings.rx, rings.rx_max, rings.tx, rings.tx_max);
    if rings.rx >= rx && rings.tx >= tx {
        return Finding::pass(seen, needed);
    }
    let mut finding = Finding::warn(seen, needed);
    if rings.rx < rx {
        finding = finding.change(Knob::Ring { interface: interface(), direction: Direction::Rx }, rx);
    }
    if rings.tx < tx {
        finding = finding.change(Knob::Ring { interface: interface(), direction: Direction::Tx }, tx);
    }
    finding
}

pub(super) fn rss(_: &Host, nic: &Nic) -> Finding {
    let needed = "UDP spread by addresses and ports (sdfn)";
    if nic.queue_count == 1 {
        return Finding::not_applicable("one queue gets it all");
    }
    let families = [(Family::V4, Ip::V4, "udp4"), (Family::V6, Ip::V6, "udp6")];
    let told: Vec<_> = families
        .iter()
        .filter_map(|&(family, ip, name)| Some((ip, name, ethtool::udp_hash(nic.name(), family).ok()?)))
        .collect();
    if told.is_empty() {
        let why = format!("driver {} doesn't tell what it spreads by", nic.driver());
        return if nic.is_virtual() { Finding::not_applicable(why) } else { Finding::not_seen(why, needed) };
    }
    let seen: Vec<String> = told.iter().map(|(_, name, hash)| format!("{name} {}", letters(*hash))).collect();
    let seen = format!("{} on {} queues", seen.join(", "), nic.queue_count);
    let poor = told.iter().filter(|(_, _, hash)| *hash != HashFields::FOUR_TUPLE);
    let mut finding = None;
    for (ip, ..) in poor {
        let warned = finding.take().unwrap_or_else(|| {
            Finding::warn(format!("{seen}: all tunnels between two addresses share a queue"), needed)
        });
        let knob = Knob::UdpHash { interface: nic.link.name.clone(), ip: *ip };
        finding = Some(warned.change(knob, HashFields::FOUR_TUPLE.letters()));
    }
    finding.unwrap_or_else(|| Finding::pass(seen, needed))
}

fn letters(hash: HashFields) -> String {
    let letters = hash.letters();
    if letters.is_empty() { "nothing".to_owned() } else { letters }
}

pub(super) fn lro(host: &Host, nic: &Nic) -> Finding {
    let needed = "no merging of packets in the NIC: XDP sees them one by one";
    offloads_off(nic, host.plan.insists_on_native(), needed, &["rx-lro", "rx-gro-hw"], "merges packets")
}

pub(super) fn vlan(host: &Host, nic: &Nic) -> Finding {
    let needed = "tags left in the packet where VLANs are used: a tag that the NIC takes out is one that XDP can't see";
    let on_it: Vec<&str> = host
        .links
        .iter()
        .filter(|link| link.kind.as_deref() == Some("vlan") && link.below == Some(nic.link.index))
        .map(|link| link.name.as_str())
        .collect();
    if on_it.is_empty() {
        return Finding::pass("no VLAN interface stands on it", needed);
    }
    let what = format!("takes tags out, and {} stand(s) on it", on_it.join(", "));
    offloads_off(nic, false, needed, &["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"], &what)
}

/// Warns of those that run.
fn offloads_off(nic: &Nic, fatal: bool, needed: &str, names: &[&str], what: &str) -> Finding {
    let features = match ethtool::features(nic.name()) {
        Ok(features) => features,
        Err(error) => return Finding::not_seen(error, needed),
    };
    let on: Vec<&Feature> =
        features.iter().filter(|feature| feature.on && names.contains(&feature.name.as_str())).collect();
    if on.is_empty() {
        return Finding::pass(format!("{} off", names.join(", ")), needed);
    }
    let told: Vec<&str> = on.iter().map(|feature| feature.name.as_str()).collect();
    let mut finding = Finding::lacks(fatal, format!("{} on: the NIC {what}", told.join(", ")), needed);
    for feature in on {
        let knob = Knob::Feature { interface: nic.link.name.clone(), feature: feature.name.clone() };
        finding = match feature.changeable {
            true => finding.change(knob, "off"),
            false => finding
                .command(format!("beam serve --xdp skb ...   # {} can't be turned off here", feature.name)),
        };
    }
    finding
}
