//! Backwards: the last step first; only what is still as beam left it.

use super::{
    Act, Acts, Came, How, cut_off, die_here,
    journal::{Closed, Journal, Place, Step, peek},
    lifeline::Lifelines,
    say,
    turn::refusal,
};
use crate::failure::Failure;
use rustix::io::Errno;

pub(super) fn run(how: &How) -> Result<(), Failure> {
    // A dry run asks for nothing that it doesn't need.
    let (mut journal, steps) = if how.dry_run {
        (None, peek(&how.state_dir).map_err(Failure::Runtime)?)
    } else if super::journal::path(&how.state_dir).exists() {
        let journal = Journal::open(&how.state_dir).map_err(Failure::Preflight)?;
        let steps = journal.open_steps().to_vec();
        (Some(journal), steps)
    } else {
        (None, Vec::new())
    };
    if let Some(journal) = journal.as_ref().filter(|journal| !journal.unreadable().is_empty()) {
        eprintln!(
            "beam: the undo journal {} can't be read in line {:?}: what it says there is not undone; the other lines are",
            journal.path().display(),
            journal.unreadable()
        );
    }
    if steps.is_empty() && !how.json {
        let path = super::journal::path(&how.state_dir);
        say(&format!("nothing to undo: {} holds no open step", path.display()));
    }
    let lifelines = Lifelines::look();
    let mut acts = Acts::begin(how, "undoing", steps.len());
    for step in steps.iter().rev() {
        acts.starting(&step.intent.knob);
        let (act, closed) = one(step, how, &lifelines);
        if let (Some(journal), Some(closed)) = (&mut journal, closed) {
            journal.close(step.number, closed).map_err(Failure::Runtime)?;
            die_here();
        }
        acts.push(act);
    }
    acts.end("undone")
}

/// What came of it, and how the step is closed if it is.
fn one(step: &Step, how: &How, lifelines: &Lifelines) -> (Act, Option<Closed>) {
    let Step { intent, reads, .. } = step;
    let (knob, before) = (&intent.knob, &intent.before);
    let act = Act::new(knob, before);
    if let Some((why, closed)) = elsewhere(&intent.place, knob) {
        let came = if closed.is_some() { Came::Gone } else { Came::Left };
        return (act.because(came, why), closed);
    }
    let now = match knob.read() {
        Ok(now) => now,
        Err(error) => return (act.because(Came::Failed, format!("it can't be read: {error}")), None),
    };
    let act = Act { seen: now.clone(), ..act };
    if now == *before {
        return (act.came(Came::Already), Some(Closed::AsBefore));
    }
    let left_as = reads.as_ref().unwrap_or(&intent.after);
    if now != *left_as && !how.force {
        let why = format!(
            "beam left it at {left_as}, so somebody else has turned it since, and it stays; to undo it all the same: \
             beam doctor --undo --force"
        );
        return (act.because(Came::Left, why), None);
    }
    if let Some(why) = cut_off(lifelines, knob, before, how) {
        return (act.because(Came::Refused, why), None);
    }
    if how.dry_run {
        return (act, None);
    }
    die_here();
    if let Err(error) = knob.write(before) {
        let why = refusal(&error, &act.command);
        return (act.because(Came::Failed, why), None);
    }
    die_here();
    match knob.read() {
        Ok(read) if read == *before => (act.came(Came::Done), Some(Closed::Restored)),
        Ok(read) => (act.because(Came::Failed, format!("it reads {read} after it was turned back")), None),
        Err(error) => (act.because(Came::Failed, format!("it can't be read after that: {error}")), None),
    }
}

/// Why a knob isn't where it was when it was turned, and how its step ends then, if it does.
fn elsewhere(then: &Place, knob: &super::Knob) -> Option<(String, Option<Closed>)> {
    let of_network = knob.interface().is_some() || knob.is_of_network();
    let now = match Place::of(knob) {
        Ok(now) => now,
        // The interface of a namespace that isn't this one is looked for there.
        Err(error) => match Place::here() {
            Ok(here) if here.boot != then.boot => here,
            Ok(here) if here.netns != then.netns => here,
            Ok(_) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                let why = "the interface is gone, and its setting with it".to_owned();
                return Some((why, Some(Closed::Gone)));
            }
            _ => return Some((format!("where it is can't be told: {error}"), None)),
        },
    };
    if now.boot != then.boot {
        return Some(("it was turned before this boot, which took it away".into(), Some(Closed::OtherBoot)));
    }
    if of_network && now.netns != then.netns {
        let why = format!(
            "it was turned in another network namespace (inode {}; this one is {}); undo it there: ip netns exec NAME beam \
             doctor --undo",
            then.netns, now.netns
        );
        return Some((why, None));
    }
    if now.index != then.index {
        return Some((
            "another interface has that name now; the one that was turned is gone".into(),
            Some(Closed::Gone),
        ));
    }
    None
}
