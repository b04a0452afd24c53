//! Forwards: each change is written down, made, read back.

use super::{
    Act, Acts, Came, Change, How, cut_off, die_here,
    journal::{Journal, Place},
    lifeline::Lifelines,
};
use crate::failure::Failure;

/// Knobs turned in one go: what all checks together may find.
const CHANGES_MAX: usize = 1024;

pub(super) fn run(changes: &[Change], how: &How) -> Result<(), Failure> {
    let changes = &changes[..changes.len().min(CHANGES_MAX)];
    // Without a journal nothing is turned, so it comes first.
    let mut journal = match how.dry_run || changes.is_empty() {
        true => None,
        false => Some(Journal::open(&how.state_dir).map_err(Failure::Preflight)?),
    };
    let lifelines = Lifelines::look();
    let mut acts = Acts::begin(how, "turning", changes.len());
    for change in changes {
        acts.starting(&change.knob);
        let act = one(change, how, journal.as_mut(), &lifelines)?;
        acts.push(act);
    }
    acts.end("turned")
}

fn one(
    change: &Change,
    how: &How,
    journal: Option<&mut Journal>,
    lifelines: &Lifelines,
) -> Result<Act, Failure> {
    let Change { knob, to } = change;
    let act = Act::new(knob, to);
    let before = match knob.read() {
        Ok(before) => before,
        Err(error) => return Ok(act.because(Came::Failed, format!("it can't be read: {error}"))),
    };
    let act = Act { seen: before.clone(), ..act };
    if before == *to {
        return Ok(act.came(Came::Already));
    }
    if let Some(why) = cut_off(lifelines, knob, to, how) {
        return Ok(act.because(Came::Refused, why));
    }
    let Some(journal) = journal else {
        let warning = knob.may_drop_link(to).then(|| "the link may go down for some seconds".to_owned());
        return Ok(Act { why: warning, ..act });
    };
    let place = match Place::of(knob) {
        Ok(place) => place,
        Err(error) => return Ok(act.because(Came::Failed, format!("where it is can't be told: {error}"))),
    };
    die_here();
    let step = journal.intend(change, &before, place).map_err(Failure::Runtime)?;
    die_here();
    let written = knob.write(to);
    die_here();
    let reads = match knob.read() {
        Ok(reads) => reads,
        // Whether it is turned isn't known: the step stays open, and an undo looks.
        Err(error) => {
            let why = format!(
                "it can't be read after it was turned: {error}; when it can be again, look: beam doctor --undo --dry-run"
            );
            return Ok(act.because(Came::Failed, why));
        }
    };
    let act = match (written, reads == before) {
        (Err(error), true) => {
            journal.failed(step, &error.to_string()).map_err(Failure::Runtime)?;
            let why = refusal(&error, &act.command);
            return Ok(act.because(Came::Failed, why));
        }
        (Ok(()), true) => {
            journal.failed(step, "it reads as before").map_err(Failure::Runtime)?;
            let why =
                format!("the kernel took it, but it still reads {reads}; see what {} says", act.command);
            return Ok(act.because(Came::Failed, why));
        }
        // It isn't as it was, whatever the kernel says: that is to be undone.
        (Err(error), false) => {
            let why = format!("it reads {reads} now: {}", refusal(&error, &act.command));
            act.because(Came::Failed, why)
        }
        (Ok(()), false) if reads != *to => {
            act.because(Came::Done, format!("it reads {reads}: the driver takes no other value"))
        }
        (Ok(()), false) => act.came(Came::Done),
    };
    journal.done(step, &reads).map_err(Failure::Runtime)?;
    die_here();
    Ok(act)
}

/// A kernel's no, and what to do.
pub(super) fn refusal(error: &std::io::Error, command: &str) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("{error}: CAP_NET_ADMIN or root is needed; as root: {command}")
        }
        _ => format!("the kernel refused: {error}; try what it says to: {command}"),
    }
}
