//! A worker's way to the LAN: its AF_XDP queues there, or, if the LAN has fewer queues than there are workers, the way to a
//! worker that has one.

use super::Network;
use crate::worker::mail::Mailbox;
use bytes::Bytes;
use ip::{InnerPort, InnerSink, icmp::Trouble};
use port::Census;
use rustix::fd::BorrowedFd;
use std::{io, time::Instant};
use xsk::LanPort;

/// See the module. What it sends leaves by its first queue, so that the packets of a flow keep their order.
pub(crate) struct Lan {
    queues: Vec<LanPort>,
    /// The worker that sends for this one, which has no queue.
    sender: Option<Mailbox>,
    /// The queue that is read first, next time.
    turn: usize,
    rings_sender: bool,
    handed_over: u64,
    hand_over_full: u64,
}

impl Lan {
    /// The LAN's queues for each of `worker_count` workers, in their order.
    pub(crate) fn share(queues: Vec<LanPort>, mailboxes: &[Mailbox]) -> Vec<Self> {
        let (worker_count, queue_count) = (mailboxes.len(), queues.len().max(1));
        let mut lans: Vec<Self> = (0..worker_count)
            .map(|index| Self {
                queues: Vec::new(),
                sender: (index >= queue_count).then(|| mailboxes[index % queue_count].clone()),
                turn: 0,
                rings_sender: false,
                handed_over: 0,
                hand_over_full: 0,
            })
            .collect();
        for (index, queue) in queues.into_iter().enumerate() {
            lans[index % worker_count].queues.push(queue);
        }
        lans
    }
}

impl InnerPort for Lan {
    fn receive(&mut self, now: Instant, sink: &mut dyn InnerSink) -> io::Result<bool> {
        let mut more = false;
        let count = self.queues.len();
        self.turn = (self.turn + 1) % count.max(1);
        for index in 0..count {
            more |= self.queues[(self.turn + index) % count].receive(now, sink)?;
        }
        Ok(more)
    }

    fn send(&mut self, packet: Bytes) {
        match (self.queues.first_mut(), &self.sender) {
            (Some(queue), _) => queue.send(packet),
            (None, Some(sender)) if sender.hand_over_outward(packet) => {
                self.rings_sender = true;
                self.handed_over += 1;
            }
            (None, _) => self.hand_over_full += 1,
        }
    }

    fn next_refused(&mut self) -> Option<(Bytes, Trouble)> {
        self.queues.iter_mut().find_map(InnerPort::next_refused)
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        if let Some(sender) = &self.sender
            && std::mem::take(&mut self.rings_sender)
        {
            sender.waker().wake();
        }
        self.queues.iter_mut().try_for_each(|queue| queue.flush(now))
    }

    fn poll_fds(&self) -> Vec<BorrowedFd<'_>> {
        self.queues.iter().flat_map(InnerPort::poll_fds).collect()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.queues.iter().filter_map(InnerPort::next_deadline).min()
    }

    fn is_behind_router(&self) -> bool {
        false
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        self.queues.iter().for_each(|queue| queue.counters(each));
        each("lan_handed_over", self.handed_over);
    }

    fn drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        self.queues.iter().for_each(|queue| queue.drops(each));
        each("lan_hand_over_full", self.hand_over_full);
    }
}

impl Network for Lan {
    fn census(&mut self) -> Vec<Census> {
        self.queues.iter_mut().map(LanPort::census).collect()
    }

    fn add_queue(&mut self, queue: LanPort) {
        self.queues.push(queue);
    }
}
