//! The stamp in each frame's payload, and what makes such frames.
//!
//! ```text
//!  0        4       6           10                  18
//!  ├─ magic ┼ trial ┼─ sequence ┼─ sent at, in ns ──┤ zeroes up to the frame's size
//! ```
//! 18 bytes are what a frame of 64 bytes has left behind Ethernet, IPv4 and UDP. The magic is drawn for each run of beam, so
//! that frames of another one, or of somebody who guesses, aren't taken for this one's. The UDP checksum covers all of it.

use pktgen::{Sizes, Source};
use std::time::Instant;
use wire::encap::Template;

pub(super) const STAMP_BYTES: usize = 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) magic: u32,
    pub(super) trial: u16,
    pub(super) sequence: u32,
    /// Since the run's epoch.
    pub(super) at_ns: u64,
}

impl Stamp {
    /// Into the first bytes of a payload; `None` where it is too short.
    pub(super) fn write(&self, payload: &mut [u8]) -> Option<()> {
        let bytes = payload.first_chunk_mut::<STAMP_BYTES>()?;
        bytes[..4].copy_from_slice(&self.magic.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.trial.to_be_bytes());
        bytes[6..10].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[10..].copy_from_slice(&self.at_ns.to_be_bytes());
        Some(())
    }

    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.split_first_chunk()?;
        let (trial, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        Some(Self {
            magic: u32::from_be_bytes(*magic),
            trial: u16::from_be_bytes(*trial),
            sequence: u32::from_be_bytes(*sequence),
            at_ns: u64::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

/// Nanoseconds since `epoch`, for half a millennium.
pub(super) fn ns_since(epoch: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
}

/// Makes the frames of one trial.
pub(super) struct Stamped {
    pub(super) template: Template,
    pub(super) sizes: Sizes,
    pub(super) magic: u32,
    pub(super) trial: u16,
    /// Of the next frame.
    pub(super) sequence: u32,
    pub(super) epoch: Instant,
    /// Reads the clock for each frame, instead of taking the instant of its batch.
    pub(super) exact: bool,
}

impl Source for Stamped {
    fn fill(&mut self, now: Instant, frame: &mut [u8]) -> Option<usize> {
        let length = self.sizes.of(u64::from(self.sequence));
        let frame = frame.get_mut(..length)?;
        let payload = frame.get_mut(self.template.header_len()..)?;
        let now = if self.exact { Instant::now() } else { now };
        let at_ns = ns_since(self.epoch, now);
        let (magic, trial, sequence) = (self.magic, self.trial, self.sequence);
        Stamp { magic, trial, sequence, at_ns }.write(payload)?;
        payload[STAMP_BYTES..].fill(0);
        let payload_bytes = payload.len();
        self.template.write(frame, payload_bytes, 0)?;
        // The last number isn't used: it would wrap, and a frame be taken for a copy of the first.
        self.sequence = self.sequence.checked_add(1)?;
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a stamp survives the way, and frames are valid for our own parser, at their sizes, numbered without a gap.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::time::Duration;
    use wire::{
        Path,
        checksum::Checksum,
        datagram::{Vlans, parse},
        encap::Link,
    };

    fn stamped(local: &str, remote: &str, sizes: Sizes) -> Stamped {
        let link = Link { src_mac: [2; 6], dst_mac: [4; 6], vlans: Vlans::new(&[]).unwrap() };
        let path = Path { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
        let template = Template::new(&link, &path, 64).unwrap();
        let epoch = Instant::now();
        Stamped { template, sizes, magic: 0xdead_beef, trial: 7, sequence: 0, epoch, exact: false }
    }

    #[test]
    fn frames_carry_their_stamp() {
        for (local, remote, sizes) in [
            ("198.18.0.2:9", "198.18.1.2:9", Sizes::Fixed(60)),
            ("198.18.0.2:9", "198.18.1.2:9", Sizes::Imix(60)),
            ("[2001:db8::2]:9", "[2001:db8::3]:9", Sizes::Fixed(80)),
        ] {
            let mut source = stamped(local, remote, sizes);
            let now = source.epoch + Duration::from_micros(5);
            let mut buffer = [0xee; 2000];
            for index in 0..24 {
                let length = source.fill(now, &mut buffer).unwrap();
                assert_eq!(length, sizes.of(index));
                let found = parse(&buffer[..length]).unwrap();
                assert_eq!(found.checksum(&buffer[..length]), Checksum::Good);
                let expected = Stamp { magic: 0xdead_beef, trial: 7, sequence: index as u32, at_ns: 5000 };
                assert_eq!(Stamp::read(&buffer[found.payload]), Some(expected));
            }
        }
    }

    #[test]
    fn too_short_for_a_stamp() {
        assert_eq!(Stamp::read(&[0; 17]), None);
        let mut source = stamped("[2001:db8::2]:9", "[2001:db8::3]:9", Sizes::Fixed(79));
        assert_eq!(source.fill(source.epoch, &mut [0; 2000]), None);
    }

    #[test]
    fn numbers_never_wrap() {
        let mut source = stamped("198.18.0.2:9", "198.18.1.2:9", Sizes::Fixed(60));
        source.sequence = u32::MAX - 1;
        let mut buffer = [0; 64];
        assert!(source.fill(source.epoch, &mut buffer).is_some());
        assert!(source.fill(source.epoch, &mut buffer).is_none());
    }
}
