//! The control thread: follows the kernel, publishes the tables, keeps used neighbours alive. Sleeps when nothing
//! happens; ends when its `Control` is dropped.

use super::{
    Mirror,
    working::{Changes, Working, neighbour_use},
};
use crate::{
    genl::ethtool::SettingsEvents,
    netlink::{Drained, Events, Requests},
};
use ip::icmp::Tokens;
use netlink_packet_core::NLM_F_CREATE;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Route changes come in bursts (a routing daemon, a link going down): they are asked for at most this often in the long
/// run, but the first few at once, for an address that is replaced is a change or two.
const ROUTES_INTERVAL: Duration = Duration::from_millis(100);
const ROUTES_BURST: u32 = 4;
/// How often stale neighbours are looked at, while there are any.
const NEIGHBOUR_INTERVAL: Duration = Duration::from_secs(2);
/// After the kernel refused a dump.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Handle of the thread.
pub(crate) struct Control {
    stop: Arc<AtomicBool>,
    mirror: Arc<Mirror>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Fills the mirror, then starts the thread in the caller's network namespace, with `on_thread`. There `on_addresses` is called
    /// whenever local addresses, routes or links changed, and `on_device` whenever links or settings of devices did, or
    /// whether the mirror tells where packets go, after the mirror has them.
    pub(crate) fn start(
        mirror: Arc<Mirror>,
        on_thread: fn(),
        on_addresses: impl FnMut() + Send + 'static,
        on_device: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        // Listen first: what changes during the first dump is then heard after it.
        let events = Events::open()?;
        let settings = SettingsEvents::open()
            .inspect_err(|error| tracing::debug!(%error, "changes of settings by ethtool go unnoticed"))
            .ok();
        let mut requests = Requests::open()?;
        let mut working = Working::default();
        working.reload(&mut requests)?;
        mirror.publish(working.tables.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let (thread_stop, thread_mirror) = (stop.clone(), mirror.clone());
        let mut follower = Follower {
            events,
            settings,
            requests,
            working,
            mirror: thread_mirror,
            on_addresses,
            on_device,
            routes_due: None,
            reload_due: None,
            routes_pace: Tokens::new(ROUTES_INTERVAL, ROUTES_BURST),
        };
        let thread = thread::Builder::new().name("beam-netlink".into()).spawn(move || {
            on_thread();
            follower.run(&thread_stop);
        })?;
        Ok(Self { stop, mirror, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.mirror.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Follower<F, G> {
    events: Events,
    /// `None` where the kernel has no ethtool netlink.
    settings: Option<SettingsEvents>,
    requests: Requests,
    working: Working,
    mirror: Arc<Mirror>,
    on_addresses: F,
    on_device: G,
    routes_due: Option<Instant>,
    reload_due: Option<Instant>,
    routes_pace: Tokens,
}

impl<F: FnMut(), G: FnMut()> Follower<F, G> {
    fn run(&mut self, stop: &AtomicBool) {
        loop {
            let timeout = self.sleep(Instant::now()).map(|sleep| Timespec {
                tv_sec: sleep.as_secs() as i64,
                tv_nsec: i64::from(sleep.subsec_nanos()),
            });
            // Where there is no third descriptor, one of the others stands for it.
            let settings = self.settings.as_ref().map_or(self.events.as_fd(), AsFd::as_fd);
            let mut fds = [
                PollFd::from_borrowed_fd(self.events.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.mirror.bell(), PollFlags::IN),
                PollFd::from_borrowed_fd(settings, PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "netlink poll failed; routes and neighbours are followed no more");
                    return;
                }
            }
            let rung = !fds[1].revents().is_empty();
            if stop.load(Ordering::Acquire) {
                return;
            }
            if rung {
                self.look_for_neighbours();
            }
            self.turn(Instant::now());
        }
    }

    /// How long nothing needs doing; `None` is until an event.
    fn sleep(&self, now: Instant) -> Option<Duration> {
        let neighbours = self.working.has_stale().then_some(NEIGHBOUR_INTERVAL);
        let due = [self.routes_due, self.reload_due];
        let due = due.into_iter().flatten().map(|at| at.saturating_duration_since(now));
        due.chain(neighbours).min()
    }

    /// Has the kernel look for the neighbours that workers miss; its answers come as events.
    fn look_for_neighbours(&mut self) {
        for neighbour in self.mirror.take_asked() {
            if let Err(error) = self.requests.act(neighbour_use(neighbour), NLM_F_CREATE) {
                tracing::debug!(%error, neighbour = %neighbour.1, "the kernel refused NTF_USE");
            }
        }
    }

    fn turn(&mut self, now: Instant) {
        let mut changes = Changes::default();
        let unmirrored = self.working.tables.routes.beyond_mirror;
        let working = &mut self.working;
        match self.events.drain(|message| working.apply(message, &mut changes)) {
            Ok(Drained::All) => {}
            Ok(Drained::Overrun) => self.reload_due = Some(now),
            Err(error) => {
                tracing::warn!(%error, "netlink events failed; asking for everything anew");
                self.reload_due = Some(now + RETRY_INTERVAL);
            }
        }
        if changes.routes && self.routes_due.is_none() {
            self.routes_due = Some(self.routes_pace.due(now));
        }
        if self.reload_due.is_some_and(|due| due <= now) {
            self.reload_due = None;
            match self.working.reload(&mut self.requests) {
                Ok(()) => (changes.publish, changes.addresses, changes.links) = (true, true, true),
                Err(error) => self.retry_later(now, &error),
            }
        } else if self.routes_due.is_some_and(|due| due <= now) {
            self.routes_due = None;
            self.routes_pace.take(now);
            match self.working.reload_routes(&mut self.requests) {
                Ok(changed) => {
                    changes.publish |= changed;
                    changes.addresses |= changed;
                }
                Err(error) => self.retry_later(now, &error),
            }
        }
        if changes.publish {
            self.mirror.publish(self.working.tables.clone());
        }
        if changes.addresses | changes.links {
            (self.on_addresses)();
        }
        let is_news = self.working.tables.routes.beyond_mirror != unmirrored;
        if changes.links | is_news | self.settings_changed() {
            (self.on_device)();
        }
        self.working.keep_alive(&mut self.requests, now);
    }

    fn settings_changed(&mut self) -> bool {
        match self.settings.as_mut().map(SettingsEvents::drain) {
            None => false,
            Some(Ok(any)) => any,
            Some(Err(error)) => {
                tracing::warn!(%error, "ethtool netlink failed; changes of settings go unnoticed from now on");
                self.settings = None;
                true
            }
        }
    }

    fn retry_later(&mut self, now: Instant, error: &io::Error) {
        tracing::warn!(%error, "netlink dump failed; asking again");
        self.reload_due = Some(now + RETRY_INTERVAL);
    }
}
