//! `beam doctor --fix`, `--undo` and `--dry-run`: turns what the checks found amiss, and turns it back.
//!
//! [`knob`] is what may be turned; [`journal`] remembers it across a `kill -9`; [`lifeline`] knows which interface carries
//! an ssh session; [`turn`] and [`undo`] are the two ways. Each knob that was looked at becomes an [`Act`], printed at
//! once as text or at the end as JSON.

mod journal;
pub(crate) mod knob;
pub(crate) mod lifeline;
mod place;
mod turn;
mod undo;

use crate::{failure::Failure, progress::Progress};
use anyhow::anyhow;
pub(crate) use knob::{Change, Knob};
use serde::Serialize;
use std::{io::Write as _, path::PathBuf};

const SCHEMA: &str = "beam.doctor.fix.v1";

/// Where the undo journal is kept. Not the daemons' state directory: that may belong to a user of theirs, and what the
/// journal says is done as root.
pub(crate) const STATE_DIRECTORY: &str = "/var/lib/beam-doctor";

/// How it is to be done.
#[derive(Clone, Debug)]
pub(crate) struct How {
    /// Only the commands.
    pub(crate) dry_run: bool,
    /// Undo what somebody else has turned since.
    pub(crate) force: bool,
    /// Also where that may cut off an ssh session or the default route for a while.
    pub(crate) allow_link_drop: bool,
    pub(crate) json: bool,
    pub(crate) state_dir: PathBuf,
}

/// What came of one knob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Came {
    /// Turned, or turned back.
    Done,
    /// It was there already.
    Already,
    /// A dry run: it would be turned.
    Planned,
    /// It is gone, and so is the setting.
    Gone,
    /// Left as it is, for a reason that is no failure.
    Left,
    /// Not without a word from the operator.
    Refused,
    /// The kernel refused.
    Failed,
}

impl Came {
    fn word(self) -> &'static str {
        match self {
            Self::Done => "DONE",
            Self::Already => "SAME",
            Self::Planned => "PLAN",
            Self::Gone => "GONE",
            Self::Left => "LEFT",
            Self::Refused => "REFUSED",
            Self::Failed => "FAILED",
        }
    }
}

/// One knob.
#[derive(Debug, Serialize)]
struct Act {
    what: String,
    came: Came,
    /// What it read before; empty where it couldn't be read.
    seen: String,
    wanted: String,
    /// The command that does the same.
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Act {
    fn new(knob: &Knob, wanted: &str) -> Self {
        Self {
            what: knob.to_string(),
            came: Came::Planned,
            seen: String::new(),
            wanted: wanted.to_owned(),
            command: knob.command(wanted),
            why: None,
        }
    }

    fn came(self, came: Came) -> Self {
        Self { came, ..self }
    }

    fn because(self, came: Came, why: impl Into<String>) -> Self {
        Self { came, why: Some(why.into()), ..self }
    }

    fn text(&self, dry_run: bool) -> String {
        let Self { what, came, seen, wanted, command, why } = self;
        let why = why.as_ref().map_or(String::new(), |why| format!("\n         {why}"));
        // What couldn't be looked at has no value.
        let seen = if seen.is_empty() { "not read" } else { seen };
        let told = match came {
            Came::Planned => format!("{what} is {seen}, to be {wanted}{why}"),
            Came::Done => format!("{what}: {seen} -> {wanted}   ({command}){why}"),
            Came::Already => format!("{what}: {wanted}{why}"),
            _ => format!("{what}: {seen}, wanted {wanted}{why}"),
        };
        match (came, dry_run) {
            // Such that the whole output can be handed to a shell.
            (Came::Planned, _) => format!("# {}\n{command}", told.replace('\n', "\n#")),
            (_, true) => format!("# {}: {}", came.word(), told.replace('\n', "\n#")),
            (_, false) => format!("{:<7}  {told}", came.word()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    dry_run: bool,
    journal: String,
    acts: &'a [Act],
}

/// Prints acts as they come, or all of them at the end.
struct Acts<'a> {
    how: &'a How,
    progress: Progress,
    count: usize,
    acts: Vec<Act>,
}

impl<'a> Acts<'a> {
    fn begin(how: &'a How, what: &str, count: usize) -> Self {
        Self { how, progress: Progress::begin(what), count, acts: Vec::new() }
    }

    /// What is turned now; it may take some seconds.
    fn starting(&self, knob: &Knob) {
        self.progress.step(format!("{} of {}, {knob}", self.acts.len() + 1, self.count));
    }

    fn push(&mut self, act: Act) {
        if !self.how.json {
            self.progress.aside(|| say(&act.text(self.how.dry_run)));
        }
        self.acts.push(act);
    }

    /// The JSON object, and whether all is well.
    fn end(self, what: &str) -> Result<(), Failure> {
        let Self { how, progress, acts, .. } = self;
        drop(progress);
        if how.json {
            let journal = journal::path(&how.state_dir).display().to_string();
            let report = Report { schema: SCHEMA, dry_run: how.dry_run, journal, acts: &acts };
            say(&serde_json::to_string(&report).map_err(Failure::runtime)?);
        }
        let count = |came| acts.iter().filter(|act| act.came == came).count();
        let (failed, refused, all) = (count(Came::Failed), count(Came::Refused), acts.len());
        if failed > 0 {
            return Err(Failure::Runtime(anyhow!(
                "{failed} of {all} could not be {what}: the reasons are above"
            )));
        }
        if refused > 0 {
            return Err(Failure::Preflight(anyhow!(
                "{refused} of {all} were not {what}: the reasons are above"
            )));
        }
        Ok(())
    }
}

/// One line, if anybody reads it: a pipe that is closed (`| head`) stops no fix half-way.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Turns what the checks found amiss.
pub(crate) fn fix(changes: &[Change], how: &How) -> Result<(), Failure> {
    turn::run(changes, how)
}

/// Turns back what beam turned.
pub(crate) fn undo(how: &How) -> Result<(), Failure> {
    undo::run(how)
}

/// Why a knob isn't turned, where its interface carries what would be cut off.
fn cut_off(lifelines: &lifeline::Lifelines, knob: &Knob, to: &str, verb: &str, how: &How) -> Option<String> {
    let interface = knob.interface()?;
    let carries = lifelines.on(interface).filter(|_| knob.may_drop_link(to))?;
    (!how.allow_link_drop).then(|| {
        format!(
            "{interface} carries {carries}, and its link may go down for some seconds, or for good, when this is turned; \
             to do it all the same: beam doctor {verb} --allow-link-drop"
        )
    })
}

/// Dies here when a test says so, to see what is left: `BEAM_DOCTOR_DIE_AT=3` at the third place that is come by.
#[cfg(debug_assertions)]
fn die_here() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COME_BY: AtomicU32 = AtomicU32::new(0);
    let place = COME_BY.fetch_add(1, Ordering::Relaxed) + 1;
    let told = std::env::var("BEAM_DOCTOR_DIE_AT").ok().and_then(|text| text.parse().ok());
    if told == Some(place) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
fn die_here() {}
