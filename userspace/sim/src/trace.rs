//! A running hash and a ledger of what happened to datagrams.
//!
//! The ledger balances at every step ([`Trace::balance`]): what entered the network has reached a ring, was dropped
//! under a name, or is in flight.

use std::net::SocketAddr;
use std::time::Duration;

macro_rules! fates {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $kind:ident;)*) => {
        /// What became of a datagram, or was done to it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Fate {
            $($(#[$doc])* $variant,)*
        }

        impl Fate {
            /// All fates.
            pub const ALL: [Fate; Fate::COUNT] = [$(Fate::$variant,)*];
            /// How many fates there are.
            pub const COUNT: usize = [$($name,)*].len();

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $(Fate::$variant => $name,)*
                }
            }

            fn kind(self) -> Kind {
                match self {
                    $(Fate::$variant => Kind::$kind,)*
                }
            }
        }
    };
}

/// How a fate enters the ledger.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One more datagram in the network.
    Enters,
    /// One less: lost on the way, or at a full ring.
    Leaves,
    /// In a worker's RX ring.
    Arrives,
    /// Out of the rings: given to an engine, or dropped under a name.
    Ends,
    /// Something was done to it; it goes on.
    Passes,
}

fates! {
    /// A host sent it.
    Sent => "sent", Enters;
    /// The network made a second copy.
    Duplicated => "duplicated", Enters;
    /// An attacker sent an old datagram again.
    Replayed => "replayed", Enters;
    /// An attacker sent a copy from another address.
    Spoofed => "spoofed", Enters;
    /// An attacker made it up.
    Forged => "forged", Enters;
    /// Lost by dice, independently of others.
    Lost => "lost", Leaves;
    /// Lost in a bad spell of the path.
    BurstLost => "burst_lost", Leaves;
    /// Lost since the direction was dead.
    Blackout => "blackout", Leaves;
    /// Larger than the path's MTU.
    TooLarge => "too_large", Leaves;
    /// The bottleneck's queue was full.
    QueueFull => "queue_full", Leaves;
    /// Became the tail of another datagram.
    Glued => "glued", Leaves;
    /// For an address that leads nowhere: an expired NAT mapping.
    Unroutable => "unroutable", Leaves;
    /// The NIC's fill ring had no frame.
    RxNoFrame => "rx_no_frame", Leaves;
    /// The RX ring was full.
    RxRingFull => "rx_ring_full", Leaves;
    /// Lies in an RX ring.
    Arrived => "arrived", Arrives;
    /// Given to an engine.
    Delivered => "delivered", Ends;
    /// Without a payload: a worker finds no datagram in such a frame.
    Empty => "rx_empty", Ends;
    /// Dropped: the owner's hand-over ring was full.
    HandoverFull => "handover_full", Ends;
    /// Dropped: its CID names a worker that does not exist.
    NoSuchWorker => "handover_no_such_worker", Ends;
    /// Dropped: one of a coalesced batch with several other owners.
    MixedBatch => "handover_mixed_batch", Ends;
    /// Handed to another worker by its CID.
    HandedOver => "handed_over", Passes;
    /// A bit was flipped.
    Corrupted => "corrupted", Passes;
    /// Its end was cut off.
    Truncated => "truncated", Passes;
    /// Random bytes were appended.
    Tailed => "tailed", Passes;
    /// Held back while many others overtake it.
    Held => "held", Passes;
    /// Marked as having met congestion.
    Marked => "marked", Passes;
}

/// Hash and counts of a run. Two runs of one seed have equal traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    hash: u64,
    counts: [u64; Fate::COUNT],
}

impl Default for Trace {
    fn default() -> Self {
        // FNV-1a, 64 bits: stable over platforms and releases, which std's hasher is not.
        Self { hash: 0xcbf2_9ce4_8422_2325, counts: [0; Fate::COUNT] }
    }
}

impl Trace {
    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many datagrams met this fate.
    pub fn count(&self, fate: Fate) -> u64 {
        self.counts[fate as usize]
    }

    /// Names and counts of what happened at all.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Fate::ALL.iter().map(|&fate| (fate.name(), self.count(fate))).filter(|&(_, count)| count > 0)
    }

    /// Whether nothing appeared or vanished: entered = left + arrived + in flight, and arrived = ended + in rings.
    ///
    /// # Errors
    /// Which of the two does not hold, with the numbers.
    pub fn balance(&self, in_flight: u64, in_rings: u64) -> Result<(), String> {
        let sum = |kind| Fate::ALL.iter().filter(|f| f.kind() == kind).map(|&f| self.count(f)).sum::<u64>();
        let (entered, left, arrived) = (sum(Kind::Enters), sum(Kind::Leaves), sum(Kind::Arrives));
        if entered != left + arrived + in_flight {
            return Err(format!(
                "the network: {entered} entered, {left} left, {arrived} arrived, {in_flight} in flight"
            ));
        }
        let ended = sum(Kind::Ends);
        if arrived != ended + in_rings {
            return Err(format!("the workers: {arrived} arrived, {ended} ended, {in_rings} in rings"));
        }
        Ok(())
    }

    /// Records one datagram's fate: when, to whom, how long, and its unprotected header bits.
    pub fn record(&mut self, at: Duration, fate: Fate, to: SocketAddr, datagram: &[u8]) {
        self.counts[fate as usize] += 1;
        // The low bits of the first byte are header-protected, so they depend on ciphertext.
        let form = match datagram.first() {
            Some(first) if first & 0x80 != 0 => first & 0xf0,
            _ => 0,
        };
        self.mix(&(at.as_nanos() as u64).to_le_bytes());
        self.mix(&to.port().to_le_bytes());
        self.mix(&(datagram.len() as u32).to_le_bytes());
        self.mix(&[fate as u8, form]);
    }

    /// Records something else that happened: an event of an application, say.
    pub fn note(&mut self, at: Duration, what: u64) {
        self.mix(&(at.as_nanos() as u64).to_le_bytes());
        self.mix(&what.to_le_bytes());
    }

    fn mix(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the ledger does notice a datagram that vanished, in the network and in the workers.
    #[test]
    fn an_unbalanced_ledger_is_noticed() {
        let mut trace = Trace::default();
        let to = SocketAddr::from(([198, 18, 0, 1], 443));
        let balances = |trace: Trace, in_flight, in_rings| trace.balance(in_flight, in_rings).is_ok();
        trace.record(Duration::ZERO, Fate::Sent, to, &[0x40]);
        assert!(balances(trace, 1, 0) && !balances(trace, 0, 0));
        trace.record(Duration::ZERO, Fate::Arrived, to, &[0x40]);
        assert!(balances(trace, 0, 1) && !balances(trace, 0, 0));
        trace.record(Duration::ZERO, Fate::HandoverFull, to, &[0x40]);
        assert!(balances(trace, 0, 0) && !balances(trace, 0, 1) && !balances(trace, 1, 0));
    }
}
