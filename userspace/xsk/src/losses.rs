//! What a NIC and its driver lost before a socket of ours, or the kernel, could have it: the counts of `ip -s link`.
//!
//! By netlink and not from `/sys/class/net`, which shows the network namespace that it was mounted in.

use crate::netlink::Requests;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, Stats64},
};
use std::io;

/// Counters of the interface, by the names that `/sys/class/net/IF/statistics` has for them.
pub(crate) fn of_interface(index: u32) -> io::Result<[(&'static str, u64); 6]> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let links = Requests::open()?.dump(&question)?;
    let ours = links.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) if link.header.index == index => Some(link),
        _ => None,
    });
    let counts = ours.and_then(|link| {
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counts) => Some(named(counts)),
            _ => None,
        })
    });
    counts.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn named(counts: &Stats64) -> [(&'static str, u64); 6] {
    [
        ("rx_errors", counts.rx_errors),
        ("rx_dropped", counts.rx_dropped),
        ("rx_missed_errors", counts.rx_missed_errors),
        ("rx_fifo_errors", counts.rx_fifo_errors),
        ("tx_errors", counts.tx_errors),
        ("tx_dropped", counts.tx_dropped),
    ]
}

#[cfg(test)]
mod tests {
    //! Goal: the counters of an interface are found by its index. Method: loopback, whose index is 1 in every namespace.
    use super::*;

    #[test]
    fn loopback_has_counters_and_what_is_not_there_has_none() {
        let counts = of_interface(1).unwrap();
        assert_eq!(counts[1].0, "rx_dropped");
        assert_eq!(of_interface(u32::MAX >> 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
