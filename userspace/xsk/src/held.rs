//! Which frames the kernel holds, by chunk. The judge of every address that comes back from a ring.

use port::Frame;

/// Who has a chunk.
enum Holder {
    /// Nobody in the kernel: its frame is somewhere else.
    Nobody,
    /// The receive path: fill ring, kernel, RX ring.
    Receive(Frame),
    /// The transmit path: staged, TX ring, kernel, completion ring.
    Transmit(Frame),
}

/// The frames of one UMEM that the kernel has.
///
/// Invariant: a chunk's frame is here from the moment its descriptor may reach the kernel until an address from the
/// right ring took it out; the counts say how many are.
pub(crate) struct Held {
    holders: Box<[Holder]>,
    chunk_bytes: usize,
    receive_count: usize,
    transmit_count: usize,
}

impl Held {
    pub(crate) fn new(chunk_count: usize, chunk_bytes: usize) -> Self {
        let holders = (0..chunk_count).map(|_| Holder::Nobody).collect();
        Self { holders, chunk_bytes, receive_count: 0, transmit_count: 0 }
    }

    /// The frame goes to the receive path.
    pub(crate) fn put_receive(&mut self, frame: Frame) {
        let chunk = frame.chunk();
        self.holders[chunk] = Holder::Receive(frame);
        self.receive_count += 1;
    }

    /// The frame goes to the transmit path.
    pub(crate) fn put_transmit(&mut self, frame: Frame) {
        let chunk = frame.chunk();
        self.holders[chunk] = Holder::Transmit(frame);
        self.transmit_count += 1;
    }

    /// The frame of a received packet, its window on the packet. `None` when the address or the length is bogus: not
    /// ours, not in the receive path (a doubled address, for one), or leaving its chunk.
    pub(crate) fn take_received(&mut self, address: usize, length: usize) -> Option<Frame> {
        let (chunk, offset) = (address / self.chunk_bytes, address % self.chunk_bytes);
        let holder = self.holders.get_mut(chunk)?;
        if !matches!(holder, Holder::Receive(_)) || length > self.chunk_bytes - offset {
            return None;
        }
        let Holder::Receive(mut frame) = std::mem::replace(holder, Holder::Nobody) else { return None };
        self.receive_count -= 1;
        frame.set_window(offset..offset + length);
        Some(frame)
    }

    /// The frame of a sent packet. `None` when the address is bogus.
    pub(crate) fn take_sent(&mut self, address: usize) -> Option<Frame> {
        let holder = self.holders.get_mut(address / self.chunk_bytes)?;
        if !matches!(holder, Holder::Transmit(_)) {
            return None;
        }
        let Holder::Transmit(frame) = std::mem::replace(holder, Holder::Nobody) else { return None };
        self.transmit_count -= 1;
        Some(frame)
    }

    /// Frames in the receive path.
    pub(crate) fn receive_count(&self) -> usize {
        self.receive_count
    }

    /// Frames in the transmit path.
    pub(crate) fn transmit_count(&self) -> usize {
        self.transmit_count
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no address, however bogus, yields a frame twice or one that the kernel hasn't got. Method: single cases,
    //! then random operations against a model that is a set of chunk numbers.
    use super::*;
    use port::Region;
    use std::collections::{BTreeMap, BTreeSet};

    const CHUNK: usize = 2048;

    fn held(chunk_count: usize) -> (Held, Vec<Frame>) {
        (Held::new(chunk_count, CHUNK), Region::anonymous(CHUNK, chunk_count).unwrap())
    }

    #[test]
    fn a_received_frame_shows_its_packet() {
        let (mut held, mut frames) = held(4);
        held.put_receive(frames.remove(2));
        let frame = held.take_received(2 * CHUNK + 256, 60).unwrap();
        assert_eq!((frame.chunk(), frame.window()), (2, 256..316));
    }

    #[test]
    fn bogus_addresses_yield_nothing() {
        let (mut held, mut frames) = held(4);
        held.put_receive(frames.remove(0));
        held.put_transmit(frames.remove(0));
        for address in [CHUNK, 2 * CHUNK, 4 * CHUNK, usize::MAX] {
            assert!(held.take_received(address, 0).is_none(), "{address}");
        }
        for address in [0, 2 * CHUNK, 4 * CHUNK, usize::MAX] {
            assert!(held.take_sent(address).is_none(), "{address}");
        }
        assert!(held.take_received(CHUNK - 1, 2).is_none(), "into the next chunk");
        assert!(held.take_received(256, usize::MAX).is_none());
        assert!(held.take_received(256, CHUNK - 256).is_some());
        assert!(held.take_received(256, 60).is_none(), "the same address again");
        assert!(held.take_sent(CHUNK + 256).is_some());
        assert!(held.take_sent(CHUNK + 256).is_none(), "the same address again");
        assert_eq!((held.receive_count(), held.transmit_count()), (0, 0));
    }

    #[test]
    fn random_operations_agree_with_a_set() {
        const CHUNKS: usize = 16;
        let (mut held, frames) = held(CHUNKS);
        let mut free: BTreeMap<usize, Frame> =
            frames.into_iter().map(|frame| (frame.chunk(), frame)).collect();
        let (mut receive, mut transmit) = (BTreeSet::new(), BTreeSet::new());
        let mut state = 0x5eed_u64;
        for _ in 0..100_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let chunk = (state >> 8) as usize % (CHUNKS + 2);
            let address = chunk * CHUNK + (state >> 32) as usize % CHUNK;
            match state % 4 {
                0 => {
                    if let Some(frame) = free.remove(&chunk) {
                        held.put_receive(frame);
                        receive.insert(chunk);
                    }
                }
                1 => {
                    if let Some(frame) = free.remove(&chunk) {
                        held.put_transmit(frame);
                        transmit.insert(chunk);
                    }
                }
                2 => {
                    let taken = held.take_received(address, 0);
                    assert_eq!(taken.is_some(), receive.remove(&chunk));
                    free.extend(taken.map(|frame| (frame.chunk(), frame)));
                }
                _ => {
                    let taken = held.take_sent(address);
                    assert_eq!(taken.is_some(), transmit.remove(&chunk));
                    free.extend(taken.map(|frame| (frame.chunk(), frame)));
                }
            }
            assert_eq!((held.receive_count(), held.transmit_count()), (receive.len(), transmit.len()));
            assert_eq!(free.len() + receive.len() + transmit.len(), CHUNKS);
        }
    }
}
