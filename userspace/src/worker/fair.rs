//! The queue of flows that have something to do, fair between clients: round robin over the clients, and over the flows
//! of each. A client with a thousand flows gets as many turns as a client with one.

use super::{ledger::Owner, poll::FlowKey};
use std::collections::VecDeque;

/// See the module. Each flow is in it once at most; the caller sees to that.
#[derive(Debug, Default)]
pub(super) struct Fair {
    /// By owner.
    queues: Vec<VecDeque<FlowKey>>,
    /// Owners whose queue holds something, each once.
    ring: VecDeque<Owner>,
    len: usize,
}

/// A queue that has shrunk to nothing gives back what it held beyond this.
const KEPT_CAPACITY: usize = 64;

impl Fair {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, owner: Owner, key: FlowKey) {
        if self.queues.len() <= owner.index() {
            self.queues.resize_with(owner.index() + 1, VecDeque::new);
        }
        let queue = &mut self.queues[owner.index()];
        if queue.is_empty() {
            self.ring.push_back(owner);
        }
        queue.push_back(key);
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<FlowKey> {
        let owner = self.ring.pop_front()?;
        let queue = self.queues.get_mut(owner.index())?;
        let key = queue.pop_front();
        if queue.is_empty() {
            queue.shrink_to(KEPT_CAPACITY);
        } else {
            self.ring.push_back(owner);
        }
        self.len -= usize::from(key.is_some());
        key
    }
}

#[cfg(test)]
mod tests {
    //! Goal: turns are shared between clients, whatever the number of their flows. Method: exact counts.
    use super::*;
    use std::collections::HashMap;

    const CROWD: Owner = Owner::at(1);
    const LONER: Owner = Owner::at(2);

    fn key(index: u32) -> FlowKey {
        FlowKey { index, generation: 0 }
    }

    /// Every flow has always more to do, as with bulk transfers: it goes back into the queue after each turn.
    #[test]
    fn a_thousand_flows_of_one_client_do_not_starve_one_of_another() {
        let mut ready = Fair::default();
        (0..1000).for_each(|index| ready.push(CROWD, key(index)));
        ready.push(LONER, key(1000));
        let mut turns = HashMap::<u32, u32>::new();
        for _ in 0..4000 {
            let popped = ready.pop().unwrap();
            *turns.entry(popped.index).or_default() += 1;
            ready.push(if popped.index == 1000 { LONER } else { CROWD }, popped);
        }
        assert_eq!(turns[&1000], 2000, "every second turn");
        assert!((0..1000).all(|index| turns[&index] == 2), "and the crowd shares the rest evenly");
        assert_eq!(ready.len(), 1001);
    }

    /// A flow that becomes ready behind a crowd has its turn after one of each client, not after the crowd.
    #[test]
    fn a_newcomer_waits_for_one_turn_of_each_client() {
        let mut ready = Fair::default();
        (0..1000).for_each(|index| ready.push(CROWD, key(index)));
        (0..10).for_each(|index| ready.push(Owner::at(3), key(2000 + index)));
        ready.push(LONER, key(1000));
        let order: Vec<u32> = std::iter::from_fn(|| ready.pop()).map(|key| key.index).take(5).collect();
        assert_eq!(order, [0, 2000, 1000, 1, 2001]);
    }

    #[test]
    fn it_gives_back_everything_once() {
        let mut ready = Fair::default();
        for index in 0..999 {
            ready.push(Owner::at(index % 7), key(index));
        }
        let mut all: Vec<u32> = std::iter::from_fn(|| ready.pop()).map(|key| key.index).collect();
        all.sort_unstable();
        assert_eq!(all, (0..999).collect::<Vec<_>>());
        assert_eq!((ready.len(), ready.pop()), (0, None));
    }
}
