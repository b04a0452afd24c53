//! One IP session: a request stream whose datagrams are IP packets, and what may go through it.

use crate::worker::{
    datagrams::DatagramStream,
    ledger::{self, FlowPermit},
};
use ip::{IPV6_MTU_MIN_BYTES, Prefix, View, packet::protocol};
use masque::CONTEXT_PAYLOAD;
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{ConnId, ConnMut, StreamId};

/// So long may path MTU discovery take. Until then packets that it will have room for go as capsules where they don't fit
/// a QUIC DATAGRAM frame yet: an ICMP "too big" would be remembered for minutes.
const SETTLING: Duration = Duration::from_secs(3);
/// What a session whose datagrams are capsules carries: the stream has no limit, networks do.
const CAPSULE_MTU_BYTES: usize = 1500;

/// See the module.
pub(in crate::worker) struct IpSession {
    pub(in crate::worker) on: (ConnId, StreamId),
    pub(in crate::worker) tunnel: Box<DatagramStream>,
    /// The client, as the gateway knows it. Empty at a client.
    pub(in crate::worker) name: Arc<str>,
    /// Whose bytes they are.
    pub(in crate::worker) account: ledger::Owner,
    /// Gateway: counts the session among its client's flows.
    pub(in crate::worker) permit: Option<FlowPermit>,
    pub(in crate::worker) rules: Rules,
    /// Gateway: what the client was lent.
    pub(in crate::worker) addresses: Vec<IpAddr>,
    /// Gateway: networks behind the client.
    pub(in crate::worker) networks: Vec<Prefix>,
    /// Gateway: the client's packets have an address to come from; before, it may say which it wants.
    pub(in crate::worker) is_addressed: bool,
    /// Packets taken from the tunnel, and given to it.
    pub(in crate::worker) from_tunnel_bytes: u64,
    pub(in crate::worker) to_tunnel_bytes: u64,
    pub(in crate::worker) since: Instant,
    settled_at: Instant,
    /// The MTU once path MTU discovery has come as far as it may.
    expected_mtu_bytes: usize,
    pub(super) generation: u32,
    pub(super) queued: bool,
}

/// Which packets of the peer are taken.
#[derive(Clone, Debug, Default)]
pub(in crate::worker) struct Rules {
    /// They come from these; `None`: from anywhere.
    pub(in crate::worker) sources: Option<Vec<Prefix>>,
    /// They go to these.
    pub(in crate::worker) destinations: Arc<[Prefix]>,
    /// And to these, which the request was narrowed to.
    pub(in crate::worker) scope: Option<Prefix>,
    /// They are of this protocol, or ICMP.
    pub(in crate::worker) protocol: Option<u8>,
}

impl Rules {
    pub(super) fn permit_source(&self, view: &View) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.iter().any(|prefix| prefix.contains(view.source)))
    }

    pub(super) fn permit_destination(&self, view: &View) -> bool {
        self.destinations.iter().any(|prefix| prefix.contains(view.destination))
            && self.scope.is_none_or(|scope| scope.contains(view.destination))
            && !view.is_destination_special()
            && self.protocol.is_none_or(|only| {
                view.protocol == only || matches!(view.protocol, protocol::ICMP | protocol::ICMPV6)
            })
    }
}

impl IpSession {
    /// `mtu_max_bytes` is what path MTU discovery of the outer path tries to reach.
    pub(in crate::worker) fn new(
        quic: &mut ConnMut<'_>,
        stream: StreamId,
        tunnel: DatagramStream,
        now: Instant,
        mtu_max_bytes: u16,
    ) -> Self {
        let outer_bytes = usize::from(quic.stats().path.current_mtu);
        let grows_bytes = usize::from(mtu_max_bytes).saturating_sub(outer_bytes);
        let mut this = Self {
            on: (quic.id(), stream),
            tunnel: Box::new(tunnel),
            name: "".into(),
            account: ledger::Owner::NOBODY,
            permit: None,
            rules: Rules::default(),
            addresses: Vec::new(),
            networks: Vec::new(),
            is_addressed: false,
            from_tunnel_bytes: 0,
            to_tunnel_bytes: 0,
            since: now,
            settled_at: now + SETTLING,
            expected_mtu_bytes: 0,
            generation: 0,
            queued: false,
        };
        this.expected_mtu_bytes = this.frame_mtu_bytes(quic) + grows_bytes;
        this
    }

    /// The largest packet that fits one QUIC DATAGRAM frame now.
    fn frame_mtu_bytes(&self, quic: &mut ConnMut<'_>) -> usize {
        if !self.tunnel.uses_frames() {
            return CAPSULE_MTU_BYTES;
        }
        let overhead_bytes = masque::datagram_overhead_bytes(self.on.1.into(), CONTEXT_PAYLOAD);
        quic.datagram_max_bytes().map_or(0, |max| max.saturating_sub(overhead_bytes))
    }

    /// The largest packet that the session takes now. IPv6 needs 1280 bytes of any link, and no network is so poor that
    /// IPv4 should be worse off: up to that, packets go as capsules where need be (RFC 9484 section 7.2).
    pub(in crate::worker) fn mtu_bytes(&self, quic: &mut ConnMut<'_>, now: Instant) -> usize {
        let least_bytes = if now < self.settled_at { self.expected_mtu_bytes } else { IPV6_MTU_MIN_BYTES };
        self.frame_mtu_bytes(quic).max(least_bytes).max(IPV6_MTU_MIN_BYTES)
    }

    /// When the MTU may become smaller without anything being heard.
    pub(in crate::worker) fn settles_at(&self) -> Instant {
        self.settled_at
    }
}
