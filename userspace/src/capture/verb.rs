//! `beam capture`: from the daemon's stream to pcapng, to lines, and to qlog files; and what was missed, at the end.

use super::{
    Asked, Count, Granted, Interface, Point, SNAP_DEFAULT, Tally,
    files::Files,
    line,
    pcapng::{Writer, Written},
    record::{self, Packet, Record},
};
use crate::{
    cli::CaptureArgs,
    control::{self, Answer, Request},
    failure::Failure,
    progress::Progress,
};
use anyhow::{Context, anyhow};
use rustix::{
    fs::{Mode, OFlags, fchmod, fstat, open},
    io::Errno,
};
use std::{
    cell::Cell,
    collections::HashMap,
    fs::File,
    io::{self, BufReader, BufWriter, ErrorKind, IsTerminal, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
};

pub(crate) fn run(args: &CaptureArgs) -> Result<(), Failure> {
    let asked = asked(args);
    let (answer, mut reader) = control::open(&args.control, &Request::Capture(Box::new(asked.clone())))?;
    let granted = match answer {
        Answer::Capture(granted) => granted,
        Answer::Error(error) => return Err(Failure::Runtime(anyhow!("the daemon refuses: {error}"))),
        _ => return Err(Failure::Runtime(anyhow!("the daemon answers another question"))),
    };
    let stream = reader.get_ref().try_clone().map_err(Failure::runtime)?;
    // A daemon with nothing to show is silent for as long as that.
    stream.set_read_timeout(None).map_err(Failure::runtime)?;
    end_on_signals(&stream)?;
    let mut capture = Capture::new(args, &asked, granted)?;
    capture.greet(&asked);
    let outcome = capture.follow(&mut reader, &stream);
    capture.finish(outcome)
}

fn asked(args: &CaptureArgs) -> Asked {
    let mut points = args.points.clone();
    // Whoever asks for logs alone isn't shown packets.
    if points.is_empty() && (args.qlog.is_none() || args.write.is_some()) {
        points = vec![Point::Rx, Point::Tx];
    }
    points.sort_unstable();
    points.dedup();
    Asked {
        points,
        interface: args.interface.clone(),
        client: args.client.clone(),
        snap: if args.snap == 0 { SNAP_DEFAULT } else { args.snap },
        keylog: args.keylog,
        qlog: args.qlog.is_some(),
    }
}

/// The first signal asks the daemon to come to an end, the second doesn't wait for it.
fn end_on_signals(stream: &UnixStream) -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(Failure::runtime)?;
    let stream = stream.try_clone().map_err(Failure::runtime)?;
    let watch = move || {
        let mut is_second = false;
        for _ in signals.forever() {
            let _ = stream.shutdown(if is_second { Shutdown::Both } else { Shutdown::Write });
            is_second = true;
        }
    };
    std::thread::Builder::new().name("beam-signals".into()).spawn(watch).map_err(Failure::runtime)?;
    Ok(())
}

/// Where packets go.
enum Out {
    Pcapng(Writer<BufWriter<File>>),
    Lines(BufWriter<io::Stdout>),
    Nowhere,
}

/// An interface that the daemon has described.
struct Known {
    interface: Interface,
    /// Its number in the file.
    number: u32,
    /// Missed since its last packet, and in all.
    lost: u64,
    missed: u64,
}

struct Capture<'a> {
    args: &'a CaptureArgs,
    out: Out,
    logs: Option<Files>,
    granted: Granted,
    snap: u32,
    known: HashMap<u16, Known>,
    captured: u64,
    packet_bytes: u64,
    secret_count: usize,
    tally: Tally,
    last_ns: u64,
    /// `-c` is reached: what still comes is left.
    is_full: bool,
    /// The daemon has said that this is all.
    is_complete: bool,
    /// Whoever read standard output has had enough, as `head` has.
    is_unread: Cell<bool>,
    /// None beside lines, where it would be noise.
    progress: Option<Progress>,
}

impl<'a> Capture<'a> {
    fn new(args: &'a CaptureArgs, asked: &Asked, granted: Granted) -> Result<Self, Failure> {
        let out = match &args.write {
            Some(path) => {
                let file = BufWriter::new(create(path)?);
                let application = format!("beam {} capture", env!("CARGO_PKG_VERSION"));
                Out::Pcapng(Writer::new(file, &application).map_err(Failure::runtime)?)
            }
            None if asked.points.is_empty() => Out::Nowhere,
            None => Out::Lines(BufWriter::new(io::stdout())),
        };
        let logs = args.qlog.as_deref().map(|dir| Files::in_directory(dir, granted.clone())).transpose()?;
        Ok(Self {
            args,
            out,
            logs,
            last_ns: granted.wall_ns,
            granted,
            snap: asked.snap,
            known: HashMap::new(),
            captured: 0,
            packet_bytes: 0,
            secret_count: 0,
            tally: Tally::default(),
            is_full: false,
            is_complete: false,
            is_unread: Cell::new(false),
            progress: None,
        })
    }

    fn greet(&mut self, asked: &Asked) {
        let mut what: Vec<&str> = asked.points.iter().map(|point| point.name()).collect();
        what.extend(asked.keylog.then_some("TLS secrets"));
        what.extend(asked.qlog.then_some("qlog"));
        let Granted { id, role, .. } = &self.granted;
        say(&format!("beam: listening at the {role}, capture {id}: {}; ctrl-C ends it", what.join(", ")));
        self.granted.notes.iter().for_each(|note| say(&format!("beam: note: {note}")));
        self.progress = (!matches!(self.out, Out::Lines(_))).then(|| Progress::begin("capturing"));
    }

    fn follow(&mut self, reader: &mut BufReader<UnixStream>, stream: &UnixStream) -> Result<(), Failure> {
        let mut buffer = Vec::new();
        while !self.is_complete {
            if reader.buffer().is_empty() {
                // Whoever reads along, as Wireshark does from a pipe, sees what there is.
                self.flush()?;
                self.show_progress();
            }
            if !record::read(reader, &mut buffer).map_err(Failure::Runtime)? {
                return Ok(());
            }
            self.take(record::parse(&buffer).map_err(Failure::Runtime)?, stream)?;
        }
        Ok(())
    }

    fn take(&mut self, record: Record<'_>, stream: &UnixStream) -> Result<(), Failure> {
        match record {
            Record::Packet(packet) if !self.is_full => {
                self.packet(&packet)?;
                if self.args.count == Some(self.captured) {
                    self.is_full = true;
                    // The daemon ends it then, and says what was missed.
                    let _ = stream.shutdown(Shutdown::Write);
                }
                Ok(())
            }
            Record::Interface(interface) => self.interface(interface),
            Record::Secrets(lines) if !self.is_full => {
                self.secret_count += lines.lines().count();
                match &mut self.out {
                    Out::Pcapng(writer) => writer.secrets(lines).map_err(|error| self.unwritable(&error)),
                    _ => Ok(()),
                }
            }
            Record::Tally(tally) => {
                self.note_missed(&tally);
                self.tally = tally;
                Ok(())
            }
            Record::QlogBegin(begin) => self.logged(|logs| logs.begin(begin.number, &begin.odcid)),
            Record::QlogEvent { number, json } => self.logged(|logs| logs.record(number, json)),
            Record::QlogEnd { number } => self.logged(|logs| logs.end(number)),
            Record::End => {
                self.is_complete = true;
                Ok(())
            }
            Record::Packet(_) | Record::Secrets(_) => Ok(()),
        }
    }

    fn logged(&mut self, take: impl FnOnce(&mut Files) -> Result<(), Failure>) -> Result<(), Failure> {
        self.logs.as_mut().map_or(Ok(()), take)
    }

    fn interface(&mut self, interface: Interface) -> Result<(), Failure> {
        let number = self.known.len() as u32;
        if let Out::Pcapng(writer) = &mut self.out {
            writer.interface(&interface, self.snap).map_err(|error| self.unwritable(&error))?;
        }
        self.known.insert(interface.id, Known { interface, number, lost: 0, missed: 0 });
        Ok(())
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        let Some(known) = self.known.get_mut(&packet.interface) else {
            return Err(Failure::Runtime(anyhow!(
                "a packet of an interface that the daemon didn't describe"
            )));
        };
        self.captured += 1;
        self.packet_bytes += packet.bytes.len() as u64;
        self.last_ns = self.last_ns.max(packet.at_ns);
        let written = match &mut self.out {
            Out::Pcapng(writer) => writer.packet(&Written {
                interface: known.number,
                at_ns: packet.at_ns,
                way: packet.way,
                wire_bytes: packet.wire_bytes,
                bytes: packet.bytes,
                comment: packet.comment,
                lost_count: std::mem::take(&mut known.lost),
            }),
            Out::Lines(out) => {
                writeln!(out, "{}", line::line(packet, &known.interface.name, known.interface.link))
            }
            Out::Nowhere => Ok(()),
        };
        written.map_err(|error| self.unwritable(&error))
    }

    /// What was missed since the last tally stands with the next packet of its interface.
    fn note_missed(&mut self, tally: &Tally) {
        for count in &tally.interfaces {
            if let Some(known) = self.known.get_mut(&count.interface) {
                let missed = count.missed.iter().sum();
                known.lost += missed - known.missed.min(missed);
                known.missed = missed;
            }
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let flushed = match &mut self.out {
            Out::Pcapng(writer) => writer.flush(),
            Out::Lines(out) => out.flush(),
            Out::Nowhere => Ok(()),
        };
        flushed.map_err(|error| self.unwritable(&error))
    }

    fn unwritable(&self, error: &io::Error) -> Failure {
        self.is_unread.set(error.kind() == ErrorKind::BrokenPipe);
        let to = self.args.write.as_deref().unwrap_or(Path::new("-")).display();
        Failure::Runtime(anyhow!("can't write packets to {to}: {error}"))
    }

    fn show_progress(&self) {
        if let Some(progress) = &self.progress {
            let logs =
                self.logs.as_ref().map_or(String::new(), |logs| format!(", {} qlogs", logs.file_count));
            progress.step(format!("{} packets, {} missed{logs}", self.captured, self.tally.missed()));
        }
    }

    /// Writes what comes last, and sums up; a failure on the way is the outcome all the same.
    fn finish(mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        self.progress = None;
        let outcome = outcome.and_then(|()| self.write_statistics()).and_then(|()| self.flush());
        let outcome = outcome.and_then(|()| self.logged(Files::finish));
        self.sum_up();
        match outcome {
            _ if self.is_unread.get() => Ok(()),
            Ok(()) if self.is_complete => Ok(()),
            Ok(()) => Err(Failure::Runtime(anyhow!(
                "the daemon went away before it had told everything; what came is kept"
            ))),
            Err(failure) => Err(failure),
        }
    }

    fn write_statistics(&mut self) -> Result<(), Failure> {
        let Out::Pcapng(writer) = &mut self.out else { return Ok(()) };
        let mut known: Vec<&Known> = self.known.values().collect();
        known.sort_by_key(|known| known.number);
        let span = (self.granted.wall_ns, self.last_ns);
        for known in known {
            let id = known.interface.id;
            let of_it = self.tally.interfaces.iter().find(|count| count.interface == id);
            let count = of_it.copied().unwrap_or(Count { interface: id, ..Count::default() });
            let missed = by_point(|point| count.missed[point as usize]);
            let comment = missed.map_or(String::new(), |missed| format!("missed: {missed}"));
            let written = writer.statistics(known.number, &count, span, &comment);
            written.context("can't write what was missed").map_err(Failure::Runtime)?;
        }
        Ok(())
    }

    fn sum_up(&self) {
        if !matches!(self.out, Out::Nowhere) {
            let to = match (&self.args.write, &self.out) {
                (Some(path), Out::Pcapng(writer)) => {
                    format!(" to {} ({} bytes)", path.display(), writer.written_bytes)
                }
                _ => String::new(),
            };
            say(&format!("{} packets captured, {} bytes of them{to}", self.captured, self.packet_bytes));
            let missed = by_point(|point| self.tally.missed_at(point));
            let missed = missed.map_or(String::new(), |missed| format!(": {missed}"));
            say(&format!("{} packets missed{missed}", self.tally.missed()));
        }
        if self.args.keylog {
            say(&format!("{} TLS secrets, {} missed", self.secret_count, self.tally.secrets_missed));
        }
        if let Some(logs) = &self.logs {
            let Tally { qlog_records_missed: missed, qlog_connections_missed: connections, .. } = self.tally;
            say(&format!(
                "{} qlogs in {}, {} records; {missed} records and {connections} connections missed, {} left out",
                logs.file_count,
                logs.path().display(),
                logs.record_count,
                logs.left_out,
            ));
        }
    }
}

/// The points with a number above zero, in words.
fn by_point(number: impl Fn(Point) -> u64) -> Option<String> {
    let above: Vec<String> = Point::ALL
        .into_iter()
        .filter(|point| number(*point) > 0)
        .map(|point| format!("{} {}", point.name(), number(point)))
        .collect();
    (!above.is_empty()).then(|| above.join(", "))
}

/// Standard output may hold the packets.
fn say(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// The file of `-w`: overwritten, as tcpdump does; for its owner's eyes only. No link is followed.
fn create(path: &Path) -> Result<File, Failure> {
    if path == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err(Failure::Config(anyhow!(
                "-w - writes pcapng, and standard output is a terminal; leave -w out to read packets as text"
            )));
        }
        let stdout = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3).map_err(Failure::runtime)?;
        return Ok(stdout.into());
    }
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let own = Mode::RUSR | Mode::WUSR;
    let file = open(path, flags, own).map_err(|error| {
        let hint = match error {
            Errno::LOOP => "it is a symbolic link: name what it points to",
            Errno::NOENT => "there is no such directory",
            _ => "choose another place with -w",
        };
        Failure::Runtime(anyhow!("can't write {}: {error}; {hint}", path.display()))
    })?;
    let is_file = fstat(&file).is_ok_and(|stat| stat.st_mode & 0o170_000 == 0o100_000);
    if is_file {
        // One that was there may have been everybody's.
        fchmod(&file, own).map_err(|error| {
            Failure::Runtime(anyhow!(
                "can't make {} readable by its owner alone: {error}; choose another place with -w",
                path.display()
            ))
        })?;
    }
    Ok(file.into())
}
