//! The family `netdev` (linux/netdev.h): what a driver says of XDP, and which socket and interrupt its queues have.

use super::{Questions, attributes, exactly, number};
use std::{collections::BTreeMap, fmt, io};

/// What a driver says it can do with XDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures {
    bits: u64,
    /// Buffers that a zero-copy packet may consist of; 0 where the driver has no zero-copy.
    pub zc_max_segs: u32,
}

impl XdpFeatures {
    /// Bits of `enum netdev_xdp_act`, by their names there.
    const NAMES: [(u64, &str); 7] = [
        (1, "basic"),
        (1 << 1, "redirect"),
        (1 << 2, "ndo-xmit"),
        (1 << 3, "xsk-zerocopy"),
        (1 << 4, "hw-offload"),
        (1 << 5, "rx-sg"),
        (1 << 6, "ndo-xmit-sg"),
    ];

    /// Whether it has the feature of this name in `enum netdev_xdp_act`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        Self::NAMES.iter().any(|&(bit, known)| known == name && self.bits & bit != 0)
    }
}

impl fmt::Display for XdpFeatures {
    /// For people; `none` where it claims nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            Self::NAMES.iter().filter(|(bit, _)| self.bits & bit != 0).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

/// One receive queue, as the kernel knows it from 6.8 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxQueue {
    /// Its number.
    pub queue: u32,
    /// Whether an XDP socket is bound to it. Told from Linux 6.15 on; before, and where none is, false.
    pub has_socket: bool,
    /// The interrupt that serves it, where the driver tells.
    pub irq: Option<u32>,
}

// linux/netdev.h
const DEV_GET: u8 = 1;
const QUEUE_GET: u8 = 10;
const NAPI_GET: u8 = 11;

/// Asks for the features; `None` where the kernel doesn't tell (before 6.3).
pub fn xdp_features(interface: u32) -> Option<XdpFeatures> {
    const IFINDEX: u16 = 1;
    let mut questions = Questions::open().ok()?;
    let family = questions.family("netdev").ok()?;
    features(questions.ask(family.id, DEV_GET, IFINDEX, &interface.to_ne_bytes()).ok()?)
}

fn features(answer: &[u8]) -> Option<XdpFeatures> {
    const XDP_FEATURES: u16 = 3;
    const XDP_ZC_MAX_SEGS: u16 = 4;
    let mut bits = None;
    let mut zc_max_segs = 0;
    for (kind, value) in attributes(answer) {
        match kind {
            XDP_FEATURES => bits = exactly(value).ok().map(u64::from_ne_bytes),
            XDP_ZC_MAX_SEGS => zc_max_segs = number(value).unwrap_or(0),
            _ => {}
        }
    }
    Some(XdpFeatures { bits: bits?, zc_max_segs })
}

/// The receive queues that are in use, by number.
///
/// # Errors
/// The kernel knows no queues (before 6.8), or the interface is down or gone.
pub fn rx_queues(interface: u32) -> io::Result<Vec<RxQueue>> {
    const QUEUE_IFINDEX: u16 = 2;
    const NAPI_IFINDEX: u16 = 1;
    let mut questions = Questions::open()?;
    let family = questions.family("netdev")?.id;
    let index = interface.to_ne_bytes();
    let mut irqs = BTreeMap::new();
    // A driver whose NAPIs aren't told has queues all the same.
    let _ =
        questions.dump(family, NAPI_GET, NAPI_IFINDEX, &index, |answer| irqs.extend(napi_and_irq(answer)));
    let mut queues = Vec::new();
    questions.dump(family, QUEUE_GET, QUEUE_IFINDEX, &index, |answer| {
        queues.extend(rx_queue(answer, &irqs));
    })?;
    Ok(queues)
}

fn napi_and_irq(answer: &[u8]) -> Option<(u32, u32)> {
    const ID: u16 = 2;
    const IRQ: u16 = 3;
    let find = |wanted| attributes(answer).find(|&(kind, _)| kind == wanted).and_then(|(_, v)| number(v));
    find(ID).zip(find(IRQ))
}

fn rx_queue(answer: &[u8], irqs: &BTreeMap<u32, u32>) -> Option<RxQueue> {
    const ID: u16 = 1;
    const TYPE: u16 = 3;
    const TYPE_RX: u32 = 0;
    const NAPI_ID: u16 = 4;
    const XSK: u16 = 7;
    let (mut queue, mut is_rx, mut has_socket, mut napi) = (None, false, false, None);
    for (kind, value) in attributes(answer) {
        match kind {
            ID => queue = number(value),
            TYPE => is_rx = number(value) == Some(TYPE_RX),
            NAPI_ID => napi = number(value),
            XSK => has_socket = true,
            _ => {}
        }
    }
    let irq = napi.and_then(|napi| irqs.get(&napi)).copied();
    queue.filter(|_| is_rx).map(|queue| RxQueue { queue, has_socket, irq })
}

#[cfg(test)]
mod tests {
    //! Goal: attributes as kernels send them become facts; those that are missing or of a wrong size become nothing.
    use super::{super::encoded, *};

    fn attribute(kind: u16, value: u32) -> Vec<u8> {
        encoded(kind, &value.to_ne_bytes())
    }

    #[test]
    fn features_have_names() {
        // As a veth of Linux 6.18 answers: ifindex 5, features 0x2b, zc-max-segs 1.
        let answer = [attribute(1, 5), encoded(3, &0x2b_u64.to_ne_bytes()), attribute(4, 1)].concat();
        let features = features(&answer).unwrap();
        assert_eq!(features.to_string(), "basic, redirect, xsk-zerocopy, rx-sg");
        assert!(features.has("rx-sg") && !features.has("ndo-xmit") && !features.has("no such"));
        assert_eq!(features.zc_max_segs, 1);
        assert_eq!(XdpFeatures::default().to_string(), "none");
        assert_eq!(super::features(&attribute(3, 1)), None, "a wrong size");
        assert_eq!(xdp_features(u32::MAX >> 1), None, "no such interface");
    }

    #[test]
    fn a_queue_has_its_napis_interrupt() {
        let napi = [attribute(1, 5), attribute(2, 513), attribute(3, 44)].concat();
        let irqs: BTreeMap<u32, u32> = napi_and_irq(&napi).into_iter().collect();
        let queue = |kind, more: &[u8]| {
            [attribute(1, 3), attribute(2, 5), attribute(3, kind), attribute(4, 513), more.to_vec()].concat()
        };
        let found = |bytes: &[u8]| rx_queue(bytes, &irqs);
        let (irq, queue_number) = (Some(44), 3);
        assert_eq!(found(&queue(0, &[])), Some(RxQueue { queue: queue_number, has_socket: false, irq }));
        assert_eq!(
            found(&queue(0, &encoded(7, &[]))),
            Some(RxQueue { queue: queue_number, has_socket: true, irq })
        );
        assert_eq!(found(&queue(1, &[])), None, "a transmit queue");
        assert_eq!(found(&[]), None);
    }
}
