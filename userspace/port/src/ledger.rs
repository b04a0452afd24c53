//! Which of several ports gave frames that are not yet sent.

use crate::Frame;
use std::collections::VecDeque;

/// Of each datagram, or batch of them, that room was reserved for and that wasn't submitted yet, oldest first: the index of
/// the port that gave the frames, and how many.
///
/// Invariant: its frames are all that the ports have lent and not got back, in the order of their lending.
#[derive(Debug, Default)]
pub struct Ledger(VecDeque<(usize, usize)>);

impl Ledger {
    /// The port has reserved so many frames.
    #[inline]
    pub fn gave(&mut self, port: usize, frames: usize) {
        self.0.push_back((port, frames));
    }

    /// The port that the oldest reservation, which is to be submitted now, belongs to.
    ///
    /// # Panics
    /// If nothing is reserved: nothing is sealed that wasn't.
    #[inline]
    pub fn submitted(&mut self) -> usize {
        let Some((port, _)) = self.0.pop_front() else {
            unreachable!("nothing is sealed that wasn't reserved")
        };
        port
    }

    /// Gives frames that are not to be submitted back to their ports, those of the oldest reservation first.
    pub fn release(&mut self, frames: Vec<Frame>, mut back: impl FnMut(usize, Frame)) {
        let mut frames = frames.into_iter();
        while frames.len() > 0
            && let Some((port, count)) = self.0.pop_front()
        {
            frames.by_ref().take(count).for_each(|frame| back(port, frame));
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each frame goes back to the port that gave it. Method: reservations of two ports, one of them submitted.
    use super::*;
    use crate::Region;

    #[test]
    fn frames_go_back_to_whoever_gave_them() {
        let mut ledger = Ledger::default();
        [(1, 2), (0, 1), (1, 3)].into_iter().for_each(|(port, frames)| ledger.gave(port, frames));
        assert_eq!(ledger.submitted(), 1);
        let mut seen = Vec::new();
        ledger.release(Region::anonymous(64, 4).unwrap(), |port, _| seen.push(port));
        assert_eq!(seen, [0, 1, 1, 1]);
        ledger.release(Vec::new(), |_, _| unreachable!("nothing is left"));
    }
}
