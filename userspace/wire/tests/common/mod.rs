//! Strategies that the property tests share: paths, links, payloads, whole frames.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod oracle;

use std::net::SocketAddr;

use proptest::{collection::vec, prelude::*, sample::select};
use wire::{
    Path,
    datagram::{Vlan, Vlans},
    encap::{Link, Template},
};

/// RFC 1071 section 4.1, with 16-bit words in network order.
pub(crate) fn reference(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn path() -> impl Strategy<Value = Path> {
    let v4 = (any::<([u8; 4], u16)>(), any::<([u8; 4], u16)>()).prop_map(|(local, remote)| Path {
        local: SocketAddr::from(local),
        remote: SocketAddr::from(remote),
    });
    let v6 = (any::<([u8; 16], u16)>(), any::<([u8; 16], u16)>()).prop_map(|(local, remote)| Path {
        local: SocketAddr::from(local),
        remote: SocketAddr::from(remote),
    });
    prop_oneof![v4, v6]
}

pub(crate) fn link() -> impl Strategy<Value = Link> {
    let tag = (select(vec![0x8100u16, 0x88a8]), any::<u16>()).prop_map(|(tpid, tci)| Vlan { tpid, tci });
    (any::<[u8; 6]>(), any::<[u8; 6]>(), vec(tag, 0..=2)).prop_map(|(src_mac, dst_mac, tags)| Link {
        src_mac,
        dst_mac,
        vlans: Vlans::new(&tags).unwrap(),
    })
}

/// A frame written by a template, and what went into it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) frame: Vec<u8>,
    pub(crate) link: Link,
    pub(crate) path: Path,
    pub(crate) hop_limit: u8,
    pub(crate) ecn_bits: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn sent() -> impl Strategy<Value = Sent> {
    (link(), path(), any::<u8>(), 0..4u8, vec(any::<u8>(), 0..1500)).prop_map(
        |(link, path, hop_limit, ecn_bits, payload)| {
            let template = Template::new(&link, &path, hop_limit).unwrap();
            let mut frame = vec![0xa5; template.header_len()];
            frame.extend(&payload);
            assert_eq!(template.write(&mut frame, payload.len(), ecn_bits), Some(frame.len()));
            Sent { frame, link, path, hop_limit, ecn_bits, payload }
        },
    )
}
