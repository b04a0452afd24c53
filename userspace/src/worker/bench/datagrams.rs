//! Datagrams: numbered, sent by the clock or as fast as they go, and looked for when the server sends them back.
//!
//! Each begins with its number (8 bytes) and, in nanoseconds since the job's clock began, the instant when it was due (8
//! bytes): a latency counts from there.

use super::{
    Figures, Target,
    figures::PathSeen,
    links::Links,
    load::Turned,
    schedule::{Schedule, Window},
};
use crate::worker::core::Core;
use bytes::{BufMut as _, Bytes, BytesMut};
use std::time::{Duration, Instant};
use tunnel::{ConnId, DatagramSend, Event};

/// Number and instant.
pub(crate) const HEAD_BYTES: usize = 16;

/// How long what is under way at the end is waited for.
const GRACE: Duration = Duration::from_secs(1);
/// Datagrams sent in one turn.
const SENT_MAX: usize = 256;

/// A job.
#[derive(Clone, Debug)]
pub(crate) struct DatagramSpec {
    pub(crate) connections: u16,
    /// Bytes of each, [`HEAD_BYTES`] at least.
    pub(crate) size: usize,
    /// `None`: as many as go.
    pub(crate) per_second: Option<f64>,
    pub(crate) omit: Duration,
    pub(crate) time: Option<Duration>,
    pub(crate) count: Option<u64>,
}

/// See the module.
pub(super) struct Datagrams {
    spec: DatagramSpec,
    links: Links,
    window: Window,
    schedule: Option<Schedule>,
    figures: Figures,
    /// The number that the next one to come back has at least, if none overtook it; by connection.
    expected: Vec<u64>,
    /// A connection's buffer is full; by connection.
    blocked: Vec<bool>,
    next: usize,
    draining: Option<Instant>,
}

impl Datagrams {
    pub(super) fn begin(
        core: &mut Core,
        now: Instant,
        to: &Target,
        spec: DatagramSpec,
    ) -> Result<Self, String> {
        let links = Links::open(core, now, to, spec.connections)?;
        let count = links.conns().len();
        Ok(Self {
            window: Window::new(spec.omit, spec.time),
            schedule: None,
            figures: Figures::new("datagrams"),
            expected: vec![0; count],
            blocked: vec![false; count],
            next: 0,
            draining: None,
            links,
            spec,
        })
    }

    /// An error says why the job is over.
    pub(super) fn on_event(
        &mut self,
        core: &mut Core,
        now: Instant,
        conn: ConnId,
        event: &Event,
    ) -> Result<(), String> {
        if self.links.all_up_by(core, conn, event)? {
            self.unfit(core).map_or(Ok(()), Err)?;
            self.window.begin(now);
            self.schedule = self.spec.per_second.map(|rate| Schedule::new(now, rate));
        }
        let Some(link) = self.links.place(conn) else { return Ok(()) };
        match event {
            Event::DatagramReadable => self.receive(core, now, link),
            Event::DatagramsUnblocked => self.blocked[link] = false,
            _ => {}
        }
        Ok(())
    }

    /// Why datagrams of this size can't be sent.
    fn unfit(&self, core: &mut Core) -> Option<String> {
        let conn = self.links.conns().first()?;
        let mut quic = core.engine.connection(*conn)?;
        match quic.datagram_max_bytes() {
            None => Some("the server takes no datagrams (RFC 9221)".to_owned()),
            Some(max) if max < self.spec.size => Some(format!(
                "datagrams of {} bytes don't fit this path, which takes {max} at first; give --size {max} or less",
                self.spec.size
            )),
            Some(_) => None,
        }
    }

    pub(super) fn turn(&mut self, core: &mut Core, now: Instant, to: &Target) -> Turned {
        if let Some(why) = self.links.overdue(now, to) {
            return Turned::Trouble(why);
        }
        let Some(begun) = self.window.begun() else { return Turned::Goes { more: false } };
        let mut more = false;
        if self.draining.is_none() {
            more = match self.send(core, now, begun) {
                Ok(sent) => sent == SENT_MAX,
                Err(why) => return Turned::Trouble(why),
            };
            let is_over = self.window.is_over(now) || self.left() == 0;
            if is_over {
                self.draining = Some(now + GRACE);
                more = false;
            }
        }
        let has_all = self.figures.all_done >= self.figures.all_asked;
        match self.draining {
            Some(until) if has_all || now >= until => Turned::Over,
            _ => Turned::Goes { more },
        }
    }

    fn left(&self) -> u64 {
        self.spec.count.map_or(u64::MAX, |count| count.saturating_sub(self.figures.all_asked))
    }

    fn send(&mut self, core: &mut Core, now: Instant, begun: Instant) -> Result<usize, String> {
        let links = self.links.conns().len();
        for sent in 0..SENT_MAX {
            if self.left() == 0 {
                return Ok(sent);
            }
            let due = match &self.schedule {
                Some(schedule) => match schedule.due(now, self.window.until()) {
                    Some(due) => due,
                    None => return Ok(sent),
                },
                None if self.window.is_over(now) => return Ok(sent),
                None => now,
            };
            let free = (0..links).map(|n| (self.next + n) % links).find(|&link| !self.blocked[link]);
            let Some(link) = free else { return Ok(sent) };
            self.next = (link + 1) % links;
            let Some(mut quic) = core.engine.connection(self.links.conns()[link]) else { return Ok(sent) };
            let datagram =
                numbered(self.figures.all_asked, due.saturating_duration_since(begun), self.spec.size);
            match quic.send_datagram(datagram, false) {
                DatagramSend::Queued => {}
                // It stays due.
                DatagramSend::Blocked(_) => {
                    self.blocked[link] = true;
                    continue;
                }
                DatagramSend::TooLarge | DatagramSend::Unsupported => {
                    return Err(format!(
                        "the path takes no datagrams of {} bytes any more; give a smaller --size",
                        self.spec.size
                    ));
                }
            }
            let counts = self.window.holds(due);
            self.figures.all_asked += 1;
            self.figures.moved_up(self.spec.size as u64, counts);
            self.figures.offered += u64::from(counts);
            if let Some(schedule) = &mut self.schedule {
                schedule.take();
            }
        }
        Ok(SENT_MAX)
    }

    fn receive(&mut self, core: &mut Core, now: Instant, link: usize) {
        let (Some(mut quic), Some(begun)) =
            (core.engine.connection(self.links.conns()[link]), self.window.begun())
        else {
            return;
        };
        while let Some(datagram) = quic.recv_datagram() {
            let known = parse(&datagram)
                .filter(|&(number, _)| number < self.figures.all_asked && datagram.len() == self.spec.size);
            let Some((number, due)) = known else {
                self.figures.all_failed += 1;
                continue;
            };
            let Some(due) = begun.checked_add(due).filter(|&due| due <= now) else {
                self.figures.all_failed += 1;
                continue;
            };
            self.figures.all_reordered += u64::from(number < self.expected[link]);
            self.expected[link] = self.expected[link].max(number + 1);
            let counts = self.window.holds(due);
            self.figures.all_done += 1;
            self.figures.moved_down(datagram.len() as u64, counts);
            if counts {
                self.figures.done += 1;
                self.figures.latency.record_time(now.saturating_duration_since(due));
            }
        }
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if let Some(until) = self.draining {
            return Some(until);
        }
        let can_send = self.blocked.iter().any(|blocked| !blocked);
        let due = self.schedule.filter(|_| can_send).and_then(|schedule| schedule.next());
        [self.links.next_deadline(), self.window.until(), due].into_iter().flatten().min()
    }

    pub(super) fn finish(mut self, core: &mut Core, now: Instant) -> (Vec<Figures>, Option<PathSeen>) {
        let ended = self.figures.all_done + self.figures.all_failed;
        self.figures.all_unanswered = self.figures.all_asked.saturating_sub(ended);
        self.figures.window = self.window.passed(now);
        (vec![self.figures], self.links.close(core))
    }
}

fn numbered(number: u64, due: Duration, size: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(size.max(HEAD_BYTES));
    bytes.put_u64(number);
    bytes.put_u64(u64::try_from(due.as_nanos()).unwrap_or(u64::MAX));
    bytes.resize(size.max(HEAD_BYTES), 0);
    bytes.freeze()
}

fn parse(datagram: &[u8]) -> Option<(u64, Duration)> {
    let (number, rest) = datagram.split_first_chunk::<8>()?;
    let due = rest.first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), Duration::from_nanos(u64::from_be_bytes(*due))))
}

#[cfg(test)]
mod tests {
    //! Goal: what is written into a datagram is read from it, and nothing from what is too short.
    use super::*;

    #[test]
    fn number_and_instant_come_back() {
        for size in [0, HEAD_BYTES, 1200] {
            let datagram = numbered(7, Duration::from_micros(1500), size);
            assert_eq!(datagram.len(), size.max(HEAD_BYTES));
            assert_eq!(parse(&datagram), Some((7, Duration::from_micros(1500))));
        }
        assert_eq!(parse(&[0; HEAD_BYTES - 1]), None);
    }
}
