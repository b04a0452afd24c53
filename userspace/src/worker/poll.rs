//! The one epoll of a worker, and the waker that other threads use to end its sleep.

use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
};
use std::{
    io,
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// What an epoll event is about. Packed into the 64 bits of `epoll_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Another thread left mail.
    Mail,
    /// A port has datagrams (or room).
    Port(u32),
    /// A listener has connections to accept.
    Listener(u32),
    /// A flow's socket is readable or writable.
    Flow(FlowKey),
    /// The same of a UDP flow.
    Udp(FlowKey),
    /// A local UDP socket has datagrams.
    UdpLocal(u32),
    /// The socket of a client's `-R` for one of the gateway's UDP peers has datagrams.
    ReversePeer(u32),
    /// The network behind this end has packets.
    Inner,
    /// This host's links, addresses or routes have changed.
    Paths,
}

/// Index of a flow in its table, with the generation that detects a reused slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

const KIND_SHIFT: u32 = 61;
const GENERATION_BITS: u32 = 29;

impl Token {
    fn pack(self) -> u64 {
        match self {
            Self::Mail => 0,
            Self::Port(index) => 1 << KIND_SHIFT | u64::from(index),
            Self::Listener(index) => 2 << KIND_SHIFT | u64::from(index),
            Self::Flow(key) => 3 << KIND_SHIFT | key.pack(),
            Self::Udp(key) => 4 << KIND_SHIFT | key.pack(),
            Self::UdpLocal(index) => 5 << KIND_SHIFT | u64::from(index),
            // These two have no index: they share a kind.
            Self::Paths => 6 << KIND_SHIFT,
            Self::Inner => 6 << KIND_SHIFT | 1,
            Self::ReversePeer(index) => 7 << KIND_SHIFT | u64::from(index),
        }
    }

    fn unpack(data: u64) -> Self {
        let index = data as u32;
        match data >> KIND_SHIFT {
            0 => Self::Mail,
            1 => Self::Port(index),
            2 => Self::Listener(index),
            3 => Self::Flow(FlowKey::unpack(data)),
            4 => Self::Udp(FlowKey::unpack(data)),
            5 => Self::UdpLocal(index),
            6 if index == 0 => Self::Paths,
            6 => Self::Inner,
            _ => Self::ReversePeer(index),
        }
    }
}

impl FlowKey {
    fn pack(self) -> u64 {
        u64::from(self.generation & ((1 << GENERATION_BITS) - 1)) << 32 | u64::from(self.index)
    }

    fn unpack(data: u64) -> Self {
        Self { index: data as u32, generation: (data >> 32) as u32 & ((1 << GENERATION_BITS) - 1) }
    }

    /// The generation after `generation`, within the bits that a token carries.
    pub(crate) fn next_generation(generation: u32) -> u32 {
        (generation + 1) & ((1 << GENERATION_BITS) - 1)
    }
}

/// One readiness report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: Token,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer has shut its sending side, or the socket has failed: reading will end.
    pub(crate) hangup: bool,
    /// The socket holds an error.
    pub(crate) failed: bool,
}

/// An epoll instance.
pub(crate) struct Poll {
    epoll: OwnedFd,
}

/// Events taken in one call; the rest comes with the next.
const EVENTS_MAX: usize = 256;

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Level-triggered reading: ports, listeners, the waker.
    pub(crate) fn watch_readable(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.pack()), epoll::EventFlags::IN)?)
    }

    /// Changes a port between reading only and reading and writing.
    pub(crate) fn watch_writable_too(&self, fd: impl AsFd, token: Token, writable: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, writable);
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token.pack()), flags)?)
    }

    /// Edge-triggered, both directions: flows. Closing the socket ends it.
    pub(crate) fn watch_edges(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.pack()), flags)?)
    }

    /// Stops watching a descriptor that stays open.
    pub(crate) fn forget(&self, fd: impl AsFd) {
        // One that isn't watched is forgotten already.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something is ready or `timeout` has passed (`None`: for ever), and appends what is ready.
    pub(crate) fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout =
            timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
        let events = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            let failed = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
            Ready {
                token: Token::unpack(event.data.u64()),
                readable: flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP | failed),
                writable: flags.intersects(epoll::EventFlags::OUT | failed),
                hangup: flags.intersects(epoll::EventFlags::RDHUP | failed),
                failed: flags.contains(epoll::EventFlags::ERR),
            }
        }));
        Ok(())
    }
}

/// Ends a worker's sleep. A wake costs a system call only if the worker sleeps.
///
/// Protocol: the worker announces its sleep, looks at its queues once more, then waits. A sender fills a queue first
/// and wakes afterwards. Whichever comes first, mail is never left behind a sleeping worker.
pub(crate) struct Waker {
    eventfd: OwnedFd,
    sleeping: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            sleeping: AtomicBool::new(false),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Called by any thread after it has put something into a queue.
    pub(crate) fn wake(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            // A full counter (EAGAIN) is awake enough.
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// Called by the worker before it looks at its queues for the last time.
    pub(crate) fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
    }

    /// Called by the worker when it is up again; drains the eventfd if `rung`.
    pub(crate) fn awake(&self, rung: bool) {
        self.sleeping.store(false, Ordering::SeqCst);
        if rung {
            let mut counter = [0_u8; 8];
            let _ = rustix::io::read(&self.eventfd, &mut counter);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: tokens survive the trip through epoll; a wake during the announcement ends the sleep.
    use super::*;

    #[test]
    fn tokens_round_trip() {
        let key =
            FlowKey { index: u32::MAX, generation: FlowKey::next_generation((1 << GENERATION_BITS) - 2) };
        let tokens = [
            Token::Mail,
            Token::Port(7),
            Token::Listener(u32::MAX),
            Token::Flow(key),
            Token::Udp(key),
            Token::UdpLocal(3),
            Token::Paths,
            Token::Inner,
            Token::ReversePeer(u32::MAX),
        ];
        for token in tokens {
            assert_eq!(Token::unpack(token.pack()), token);
        }
        assert_eq!(FlowKey::next_generation((1 << GENERATION_BITS) - 1), 0);
    }

    #[test]
    fn a_wake_after_the_announcement_ends_the_wait() {
        let poll = Poll::new().unwrap();
        let waker = Waker::new().unwrap();
        poll.watch_readable(waker.fd(), Token::Mail).unwrap();
        let mut ready = Vec::new();

        waker.wake(); // nobody sleeps: no system call, nothing to read
        poll.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty());

        waker.announce_sleep();
        waker.wake();
        poll.wait(None, &mut ready).unwrap();
        assert_eq!(ready.len(), 1);
        assert_eq!(ready[0].token, Token::Mail);
        waker.awake(true);
        ready.clear();
        poll.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty(), "the eventfd was drained");
    }
}
