//! A configuration file that was read and understood: what each of its keys says, in words of the command line.

use super::{
    Refused,
    document::{self, Entry, Place, Table, Wrong},
    is_daemon,
    keys::{self, Key, nearest},
};
use clap::{ArgMatches, Command, parser::ValueSource};
use std::{
    collections::BTreeMap, ffi::OsString, fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::PathBuf,
};

/// Bytes of a configuration file at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the file says of one flag.
#[derive(Debug)]
pub(super) struct Said {
    /// Of the flag, as clap knows it.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) place: Place,
    /// Of the command line: none for `false` and for an empty list.
    pub(super) words: Vec<OsString>,
    is_secret: bool,
}

#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// Everybody may read it.
    is_open: bool,
    said: BTreeMap<String, Vec<Said>>,
}

impl File {
    /// Reads all of it: a file is right or wrong as a whole, whichever verb asks.
    pub(super) fn read(path: PathBuf, command: &Command) -> Result<Self, Refused> {
        let (text, mode) = read(&path)?;
        let mut wrong = Vec::new();
        let mut said = BTreeMap::new();
        match document::parse(&text) {
            Ok(tables) => {
                for table in &tables {
                    match command.find_subcommand(&table.name).filter(|verb| is_daemon(verb.get_name())) {
                        Some(verb) => {
                            said.insert(table.name.clone(), understand(command, verb, table, &mut wrong));
                        }
                        None => no_table(table, &mut wrong),
                    }
                }
            }
            Err(errors) => wrong = errors,
        }
        if !wrong.is_empty() {
            wrong.sort_by_key(|wrong| wrong.place);
            return Err(Refused::File { path, wrong });
        }
        Ok(Self { path, is_open: mode & 0o004 != 0, said })
    }

    pub(super) fn verbs(&self) -> Vec<String> {
        self.said.keys().rev().cloned().collect()
    }

    /// What neither a flag nor the environment has said.
    pub(super) fn not_overridden(&self, verb: &str, matches: &ArgMatches) -> Vec<&Said> {
        let is_said = |said: &&Said| {
            let source = matches.value_source(&said.id);
            !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        };
        self.said.get(verb).into_iter().flatten().filter(is_said).collect()
    }

    /// Where a value comes from: `FILE:LINE`.
    pub(super) fn origin(&self, place: Place) -> String {
        format!("{}:{}", self.path.display(), place.line)
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let secrets = self.said.values().flatten().filter(|said| said.is_secret);
        let Some(secret) = secrets.take(usize::from(self.is_open)).next() else { return Vec::new() };
        let (origin, path) = (self.origin(secret.place), self.path.display());
        vec![format!(
            "{origin}: {} is a secret, and everybody may read the file; run: chmod o-r {path}",
            secret.name
        )]
    }
}

fn read(path: &PathBuf) -> Result<(String, u32), Refused> {
    let refused = |why: String| Refused::Unreadable(format!("configuration file {}: {why}", path.display()));
    let failed = |error: std::io::Error| {
        let advice = match error.kind() {
            std::io::ErrorKind::NotFound => "name one that is there by --config FILE",
            std::io::ErrorKind::PermissionDenied => {
                "run as its owner or as a member of its group, or name another by --config FILE (/dev/null: none)"
            }
            _ => "name another by --config FILE",
        };
        refused(format!("{error}; {advice}"))
    };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(format!("longer than {} KiB, which is the limit", FILE_BYTES_MAX >> 10)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        refused(format!("line {line} is no UTF-8, which TOML is written in"))
    })?;
    Ok((text, mode))
}

/// The entries of a verb's table. What is wrong with them is added to `wrong`.
fn understand(command: &Command, verb: &Command, table: &Table, wrong: &mut Vec<Wrong>) -> Vec<Said> {
    let keys = keys::of(verb);
    let mut said = Vec::new();
    for entry in &table.entries {
        let Some(key) = keys.iter().find(|key| key.name == entry.key) else {
            wrong.push(no_key(command, verb, &keys, entry));
            continue;
        };
        match key.words(&table.name, entry) {
            Ok(words) => said.push(Said {
                id: key.arg.get_id().to_string(),
                name: key.name.clone(),
                place: entry.place,
                words,
                is_secret: key.is_secret(),
            }),
            Err(errors) => wrong.extend(errors),
        }
    }
    said
}

fn no_key(command: &Command, verb: &Command, keys: &[Key<'_>], entry: &Entry) -> Wrong {
    let (name, key) = (verb.get_name(), &entry.key);
    let others =
        command.get_subcommands().filter(|other| is_daemon(other.get_name()) && other.get_name() != name);
    let elsewhere = others.into_iter().find(|other| keys::of(other).iter().any(|other| other.name == *key));
    let advice = match (elsewhere, nearest(key, keys.iter().map(|key| key.name.as_str()))) {
        (Some(other), _) => format!("it belongs to [{}]", other.get_name()),
        (None, Some(near)) => {
            let meant = keys.iter().find(|key| key.name == near);
            format!("did you mean {near}? Such as: {}", meant.map_or_else(String::new, Key::example))
        }
        (None, None) => format!("the keys are the long flags of `beam {name} --help`"),
    };
    Wrong { place: entry.place, text: format!("[{name}] {key}: no such key; {advice}") }
}

/// A table that is no verb's, or keys above every table.
fn no_table(table: &Table, wrong: &mut Vec<Wrong>) {
    if table.name.is_empty() {
        wrong.extend(table.entries.iter().map(|Entry { key, place, .. }| Wrong {
            place: *place,
            text: format!("{key}: stands above every table; put it under [serve] or [connect]"),
        }));
        return;
    }
    let meant = nearest(&table.name, ["serve", "connect"]);
    let advice = meant.map_or_else(String::new, |name| format!("did you mean [{name}]? "));
    let text = format!("[{}]: no such table; {advice}There are [serve] and [connect]", table.name);
    wrong.push(Wrong { place: table.place, text });
}
