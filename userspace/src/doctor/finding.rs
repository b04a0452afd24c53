//! What a check found.

use super::fix::knob::{Change, Knob};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Outcome {
    Pass,
    Warn,
    Fail,
    /// It couldn't be seen, or doesn't apply: neither good nor bad.
    Skip,
}

/// What mends it.
#[derive(Clone, Debug)]
pub(crate) enum Mend {
    /// For the operator to run: it asks for a decision, or for more than this host.
    Command(String),
    /// A setting that `--fix` can turn.
    Change(Change),
}

impl Mend {
    /// What `--fix` turns.
    pub(crate) fn change(&self) -> Option<&Change> {
        match self {
            Self::Command(_) => None,
            Self::Change(change) => Some(change),
        }
    }

    /// What an operator would type.
    pub(crate) fn command(&self) -> String {
        match self {
            Self::Command(command) => command.clone(),
            Self::Change(change) => change.command(),
        }
    }
}

impl Serialize for Mend {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("command", &self.command())?;
        map.serialize_entry("fixable", &matches!(self, Self::Change(_)))?;
        map.end()
    }
}

/// Something that is known of a driver, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    pub(crate) text: &'static str,
    pub(crate) source: &'static str,
}

/// One check's report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) interface: Option<String>,
    pub(crate) outcome: Outcome,
    pub(crate) seen: String,
    pub(crate) needed: String,
    pub(crate) mend: Vec<Mend>,
    pub(crate) quirks: Vec<Note>,
}

impl Finding {
    fn new(outcome: Outcome, seen: impl Into<String>, needed: impl Into<String>) -> Self {
        Self {
            check: "",
            interface: None,
            outcome,
            seen: seen.into(),
            needed: needed.into(),
            mend: Vec::new(),
            quirks: Vec::new(),
        }
    }

    pub(crate) fn pass(seen: impl Into<String>, needed: impl Into<String>) -> Self {
        Self::new(Outcome::Pass, seen, needed)
    }

    pub(crate) fn warn(seen: impl Into<String>, needed: impl Into<String>) -> Self {
        Self::new(Outcome::Warn, seen, needed)
    }

    pub(crate) fn fail(seen: impl Into<String>, needed: impl Into<String>) -> Self {
        Self::new(Outcome::Fail, seen, needed)
    }

    /// FAIL where the operator insists on what is missing, else WARN.
    pub(crate) fn lacks(insists: bool, seen: impl Into<String>, needed: impl Into<String>) -> Self {
        Self::new(if insists { Outcome::Fail } else { Outcome::Warn }, seen, needed)
    }

    pub(crate) fn skip(seen: impl Into<String>, needed: impl Into<String>) -> Self {
        Self::new(Outcome::Skip, seen, needed)
    }

    /// The flag that says what to look at wasn't given.
    pub(super) fn not_asked(flag: &str) -> Self {
        Self::skip(format!("not asked: {flag} looks at it"), flag)
    }

    /// There is nothing here that the check is about.
    pub(crate) fn not_applicable(why: impl std::fmt::Display) -> Self {
        Self::skip(format!("doesn't apply: {why}"), "nothing")
    }

    /// This process may not look.
    pub(crate) fn not_seen(why: impl std::fmt::Display, needed: impl Into<String>) -> Self {
        Self::skip(format!("not seen: {why}"), needed)
    }

    /// Adds a command that mends it.
    pub(crate) fn command(mut self, command: impl Into<String>) -> Self {
        self.mend.push(Mend::Command(command.into()));
        self
    }

    /// Adds a change that mends it.
    pub(crate) fn change(mut self, knob: Knob, to: impl ToString) -> Self {
        self.mend.push(Mend::Change(Change { knob, to: to.to_string() }));
        self
    }

    pub(super) fn named(mut self, check: &'static str, interface: Option<&str>) -> Self {
        self.check = check;
        self.interface = interface.map(str::to_owned);
        self
    }

    pub(super) fn with_quirks(mut self, quirks: Vec<Note>) -> Self {
        self.quirks = quirks;
        self
    }
}
