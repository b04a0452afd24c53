//! The daemon's side of `beam capture`: who may have what, the taps at the workers, and the stream to the caller.
//!
//! It runs on the caller's own thread of the control socket. A caller that doesn't read holds up that thread and one of
//! [`CAPTURES_MAX`] places, and misses packets; workers don't notice.

use super::{
    Asked, CAPTURES_MAX, CaptureStatus, Count, Granted, Point, Points, RING_BYTES, Tally,
    keylog::Secrets,
    qlog::Logs,
    record,
    tap::{Counters, Names, Only, Tap},
};
use crate::{
    control::Answer,
    orders::parse_tunnel_id,
    supervisor::Supervisor,
    worker::mail::{Command, Who},
};
use crossbeam::channel;
use rtrb::{Consumer, RingBuffer};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{UCred, sockopt::socket_peercred},
};
use std::{
    collections::HashSet,
    io::{self, BufWriter, Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often the rings are emptied.
const PASS: Duration = Duration::from_millis(20);
/// How often the caller hears what was missed.
const TALLY_EACH: Duration = Duration::from_secs(1);
/// How often a client's addresses are looked up, with `--client`.
const REMOTES_EACH: Duration = Duration::from_millis(200);
/// How long a worker may take to begin or end a capture.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Every capture of a daemon.
pub(crate) struct Plane {
    next: AtomicU32,
    live: Mutex<Vec<Live>>,
    /// `--capture-keylog`.
    may_keylog: bool,
}

struct Live {
    id: u32,
    peer: UCred,
    asked: Asked,
    counters: Vec<Arc<Counters>>,
}

impl Plane {
    pub(crate) fn new(may_keylog: bool) -> Self {
        Self { next: AtomicU32::new(1), live: Mutex::default(), may_keylog }
    }

    fn live(&self) -> MutexGuard<'_, Vec<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every capture, for `beam status`.
    pub(crate) fn status(&self) -> Vec<CaptureStatus> {
        let one = |live: &Live| {
            let counts = live.counters.iter().enumerate().flat_map(|(worker, of)| counts(worker, of));
            let tally = Tally { interfaces: counts.collect(), ..Tally::default() };
            CaptureStatus {
                id: live.id,
                uid: live.peer.uid.as_raw(),
                pid: live.peer.pid.as_raw_nonzero().get(),
                points: live.asked.points.clone(),
                keylog: live.asked.keylog,
                seen: tally.seen(),
                missed: tally.missed(),
            }
        };
        self.live().iter().map(one).collect()
    }

    /// Takes a place; the reason where there is none for this.
    fn admit(&self, peer: UCred, asked: &Asked, counters: Vec<Arc<Counters>>) -> Result<u32, String> {
        let mut live = self.live();
        if live.len() >= CAPTURES_MAX {
            return Err(format!(
                "{CAPTURES_MAX} captures run already; end one of them: beam status names them"
            ));
        }
        if asked.qlog && live.iter().any(|other| other.asked.qlog) {
            return Err("another capture has --qlog: one at a time; end it, or do without".to_owned());
        }
        let id = self.next.fetch_add(1, Relaxed);
        live.push(Live { id, peer, asked: asked.clone(), counters });
        Ok(id)
    }
}

/// Interfaces of a worker with anything to tell.
fn counts(worker: usize, of: &Counters) -> impl Iterator<Item = Count> {
    let all = of.seen.iter().zip(&of.missed).enumerate().map(move |(index, (seen, missed))| Count {
        interface: (worker as u16) << 8 | index as u16,
        seen: seen.each_ref().map(|n| n.load(Relaxed)),
        missed: missed.each_ref().map(|n| n.load(Relaxed)),
    });
    all.filter(|count| count.seen != [0; 4] || count.missed != [0; 4])
}

/// May this caller have TLS secrets? Who is root or the daemon's own user could read its memory as well.
fn may_have_secrets(peer: &UCred) -> bool {
    peer.uid.is_root() || peer.uid == rustix::process::geteuid()
}

impl Supervisor {
    /// Serves one capture until its caller goes, or the daemon ends.
    pub(crate) fn capture(&self, asked: &Asked, stream: &UnixStream) -> io::Result<()> {
        // A caller that reads slowly is the caller's own affair.
        stream.set_write_timeout(None)?;
        let (answer, session) = match self.begin_capture(asked, socket_peercred(stream)?) {
            Ok((granted, session)) => (Answer::Capture(granted), Some(session)),
            Err(why) => (Answer::Error(why), None),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        (&*stream).write_all(&text)?;
        session.map_or(Ok(()), |mut session| session.run(stream))
    }

    fn begin_capture(&self, asked: &Asked, peer: UCred) -> Result<(Granted, Session<'_>), String> {
        let uid = peer.uid.as_raw();
        if asked.keylog && !self.captures.may_keylog {
            return Err("this daemon gives no TLS secrets away: it runs with --capture-keylog off".to_owned());
        }
        if asked.keylog && !may_have_secrets(&peer) {
            let own = rustix::process::geteuid().as_raw();
            return Err(format!(
                "--keylog is for root and the daemon's own user (uid {own}), but you are uid {uid}; use sudo"
            ));
        }
        self.knows_interface(asked)?;
        let counters: Vec<Arc<Counters>> = self.seats.iter().map(|_| Arc::default()).collect();
        let id = self.captures.admit(peer, asked, counters.clone())?;
        let mut session = Session {
            supervisor: self,
            id,
            asked: asked.clone(),
            who: asked.client.as_deref().map(who),
            readers: Vec::new(),
            secrets: None,
            logs: None,
            remotes: Arc::default(),
            anchor: (Instant::now(), wall_ns()),
        };
        // From here on, dropping the session undoes what was begun.
        if asked.keylog {
            session.secrets = Some(Secrets::listen().ok_or("another capture has --keylog: one at a time")?);
            let pid = peer.pid.as_raw_nonzero();
            tracing::warn!("capture {id}: TLS secrets of new connections go to uid {uid}, process {pid}");
        }
        session.look_up_remotes();
        session.begin_taps(&counters)?;
        session.begin_qlog()?;
        tracing::info!("capture {id} begins, for uid {uid}");
        Ok((session.granted(), session))
    }

    fn knows_interface(&self, asked: &Asked) -> Result<(), String> {
        let Some(wanted) = &asked.interface else { return Ok(()) };
        let mut known: Vec<&str> = self.interfaces.iter().map(|interface| interface.name()).collect();
        known.extend(["udp", "inner"]);
        if known.contains(&wanted.as_str()) {
            return Ok(());
        }
        Err(format!(
            "no interface {wanted} here; there are: {} (udp: kernel sockets, inner: inside of the tunnels)",
            known.join(", ")
        ))
    }

    /// Gives every worker a command that it answers; false if one didn't in time.
    fn all_obey(&self, command: impl Fn(usize, channel::Sender<()>) -> Option<Command>) -> bool {
        let (reply, answers) = channel::bounded(self.seats.len());
        let mut sent = 0;
        for (worker, seat) in self.seats.iter().enumerate() {
            if let Some(command) = command(worker, reply.clone()) {
                sent += usize::from(seat.mailbox.command(command));
            }
        }
        drop(reply);
        let until = Instant::now() + ANSWER_WITHIN;
        std::iter::from_fn(|| answers.recv_deadline(until).ok()).count() == sent
    }
}

fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Whom `--client` means: a tunnel by its id, else a client by name.
fn who(text: &str) -> (Option<u8>, Who) {
    match parse_tunnel_id(text) {
        Some((worker, conn)) => (Some(worker), Who::Connection(conn)),
        None => (None, Who::Client(text.into())),
    }
}

struct Reader {
    ring: Consumer<u8>,
    counters: Arc<Counters>,
}

/// One capture. Dropping it tells the workers.
struct Session<'a> {
    supervisor: &'a Supervisor,
    id: u32,
    asked: Asked,
    /// The worker, where a tunnel is meant.
    who: Option<(Option<u8>, Who)>,
    /// By worker. None where only logs are wanted.
    readers: Vec<Reader>,
    secrets: Option<Secrets>,
    logs: Option<Arc<Logs>>,
    remotes: Arc<HashSet<SocketAddr>>,
    anchor: (Instant, u64),
}

impl Session<'_> {
    fn granted(&self) -> Granted {
        let mut notes = Vec::new();
        if self.asked.points.contains(&Point::Drop) {
            notes.push(
                "drop: what the XDP program or the kernel drops can't be seen here; see: beam status, steering"
                    .to_owned(),
            );
        }
        if let Some(client) = &self.asked.client
            && self.remotes.is_empty()
        {
            notes.push(format!("{client} has no connection at the moment"));
        }
        Granted {
            id: self.id,
            role: self.supervisor.identity.role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wall_ns: self.anchor.1,
            notes,
        }
    }

    fn begin_taps(&mut self, counters: &[Arc<Counters>]) -> Result<(), String> {
        let points: Points = self.asked.points.iter().copied().collect();
        if points.is_empty() {
            return Ok(());
        }
        let names = Arc::new(Names {
            nics: self.supervisor.interfaces.iter().map(|nic| (nic.index(), nic.name().to_owned())).collect(),
            inner: "inner".to_owned(),
        });
        let mut taps = Vec::new();
        for (worker, counters) in counters.iter().enumerate() {
            let (ring, reader) = RingBuffer::new(RING_BYTES);
            self.readers.push(Reader { ring: reader, counters: counters.clone() });
            taps.push(Mutex::new(Some(Tap {
                id: self.id,
                worker: worker as u8,
                points,
                snap_bytes: self.asked.snap as usize,
                interface: self.asked.interface.clone(),
                only: self.who.as_ref().map(|(of, who)| only(*of, who, worker)),
                remotes: self.remotes.clone(),
                anchor: self.anchor,
                names: names.clone(),
                counters: counters.clone(),
                ring,
                staged: Vec::new(),
                announced: 0,
                unwanted: 0,
            })));
        }
        let command = |worker: usize, reply| {
            let tap = taps[worker].lock().ok()?.take()?;
            Some(Command::Capture { tap: Box::new(tap), reply })
        };
        if self.supervisor.all_obey(command) {
            return Ok(());
        }
        Err("a worker doesn't answer: see beam status".to_owned())
    }

    fn begin_qlog(&mut self) -> Result<(), String> {
        if !self.asked.qlog {
            return Ok(());
        }
        let logs = Logs::new();
        self.logs = Some(logs.clone());
        let command = |_, reply| {
            let logs = logs.clone();
            let qlog = tunnel::Qlog {
                transport: self.supervisor.identity.transport.clone(),
                epoch: self.anchor.0,
                open: Box::new(move |odcid| Some(Box::new(logs.begin(odcid)?))),
            };
            Some(Command::Qlog { qlog: Some(Box::new(qlog)), reply })
        };
        if self.supervisor.all_obey(command) {
            return Ok(());
        }
        Err("a worker doesn't answer: see beam status".to_owned())
    }

    /// Finds out where the client's connections come from. True if that has changed.
    fn look_up_remotes(&mut self) -> bool {
        let Some((worker, who)) = &self.who else { return false };
        let seats = self.supervisor.seats.iter().enumerate();
        let seats = seats.filter(|(index, _)| worker.is_none_or(|worker| usize::from(worker) == *index));
        let command = |reply| Command::Remotes { who: who.clone(), reply };
        let found = self.supervisor.ask_each(seats.map(|(_, seat)| seat), command);
        let found: HashSet<SocketAddr> = found.into_iter().flatten().collect();
        let changed = *self.remotes != found;
        self.remotes = Arc::new(found);
        changed
    }

    fn follow_remotes(&mut self) {
        if self.look_up_remotes() {
            for seat in &self.supervisor.seats {
                let _ = seat
                    .mailbox
                    .command(Command::CaptureRemotes { id: self.id, remotes: self.remotes.clone() });
            }
        }
    }

    fn run(&mut self, stream: &UnixStream) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(64 << 10, stream);
        let (mut tally_at, mut remotes_at) = (Instant::now(), Instant::now());
        loop {
            let over = is_over(stream)? || self.workers_are_gone();
            if over {
                self.end_taps();
            }
            self.pass(&mut out)?;
            let now = Instant::now();
            if over || now >= tally_at {
                tally_at = now + TALLY_EACH;
                self.say(&mut out, |bytes, this| record::put_tally(bytes, &this.tally()))?;
            }
            if over {
                self.say(&mut out, |bytes, _| record::put_end(bytes))?;
                return out.flush();
            }
            out.flush()?;
            if self.who.is_some() && now >= remotes_at {
                remotes_at = now + REMOTES_EACH;
                self.follow_remotes();
            }
        }
    }

    fn workers_are_gone(&self) -> bool {
        !self.readers.is_empty() && self.readers.iter().all(|reader| reader.ring.is_abandoned())
    }

    fn say(&self, out: &mut impl Write, put: impl FnOnce(&mut Vec<u8>, &Self)) -> io::Result<()> {
        let mut bytes = Vec::new();
        put(&mut bytes, self);
        out.write_all(&bytes)
    }

    /// Sends on what has come. Packets are taken first and secrets after them, but secrets are sent first: those of a
    /// packet were in their queue before it was published.
    fn pass(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut packets = Vec::new();
        for reader in &mut self.readers {
            let (before, waiting) = (packets.len(), reader.ring.slots());
            packets.resize(before + waiting, 0);
            // There are as many: this is the only one who takes.
            let _ = reader.ring.pop_entire_slice(&mut packets[before..]);
        }
        if let Some(secrets) = &self.secrets {
            let lines = secrets.take();
            if !lines.is_empty() {
                self.say(out, |bytes, _| record::put_secrets(bytes, &lines))?;
            }
        }
        for record in in_order(&packets) {
            out.write_all(&(record.len() as u32).to_le_bytes())?;
            out.write_all(record)?;
        }
        match &self.logs {
            Some(logs) => self.say(out, |bytes, _| logs.take(bytes)),
            None => Ok(()),
        }
    }

    fn tally(&self) -> Tally {
        let counts = self.readers.iter().enumerate().flat_map(|(worker, of)| counts(worker, &of.counters));
        let (records, connections) = self.logs.as_ref().map_or((0, 0), |logs| logs.missed());
        Tally {
            interfaces: counts.collect(),
            secrets_missed: self.secrets.as_ref().map_or(0, Secrets::missed),
            qlog_records_missed: records,
            qlog_connections_missed: connections,
        }
    }

    /// Ends it at the workers; what they have shown is in the rings by then.
    fn end_taps(&self) {
        if !self.readers.is_empty() {
            self.supervisor.all_obey(|_, reply| Some(Command::CaptureEnd { id: self.id, reply }));
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.end_taps();
        if let Some(logs) = &self.logs {
            logs.close();
            self.supervisor.all_obey(|_, reply| Some(Command::Qlog { qlog: None, reply }));
        }
        self.supervisor.captures.live().retain(|live| live.id != self.id);
        tracing::info!("capture {} ends", self.id);
    }
}

fn only(of: Option<u8>, who: &Who, worker: usize) -> Only {
    match who {
        Who::Client(name) => Only::Client(name.clone()),
        Who::Connection(conn) if of.is_some_and(|of| usize::from(of) == worker) => Only::Tunnel(*conn),
        Who::Connection(_) => Only::Nobody,
    }
}

/// The records of several rings, by the time that they tell.
fn in_order(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut records, mut rest) = (Vec::new(), bytes);
    while let Some((record, after)) = record::split(rest) {
        records.push(record);
        rest = after;
    }
    // Stable. What tells no time is an interface's description: that may well come first of all.
    records.sort_by_key(|record| record::time_of(record));
    records
}

/// Waits for the next pass. True if the caller wants no more.
fn is_over(stream: &UnixStream) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::IN | PollFlags::RDHUP)];
    let pause = Timespec { tv_sec: 0, tv_nsec: PASS.subsec_nanos().into() };
    match poll(&mut fds, Some(&pause)) {
        // A signal of the daemon's, SIGHUP say, is none of this.
        Ok(0) | Err(Errno::INTR) => return Ok(false),
        outcome => outcome?,
    };
    if fds[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    // Anything said means nothing; the end of what it says means that it wants no more.
    Ok((&*stream).read(&mut [0; 64])? == 0)
}
