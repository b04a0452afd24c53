//! The configuration file: `[serve]` and `[connect]`, whose keys are the long flags. Flag > environment > file > default.
//!
//! ```text
//!  command line ── each flag by itself ──► who said what ─┐
//!  FILE ── TOML ── keys ── words ─────────────────────────┴─► words that nobody overrides, behind the verb ──► clap
//! ```
//! What the file says becomes words of the command line, so that clap judges values and relations of flags
//! (`requires`, `conflicts_with`) as ever; the words of keys that a flag or the environment overrides are left out. Where
//! clap then refuses, the keys without which it would not are told with their lines.

mod document;
mod file;
mod keys;

pub(crate) use document::Wrong;
pub(crate) use keys::{is_secret, key_of, line};

use file::{File, Said};

use crate::{
    cli::Cli,
    failure::Failure,
    settings::{self, Setting},
};
use anyhow::anyhow;
use clap::{
    ArgMatches, Command, CommandFactory as _, FromArgMatches as _,
    error::{ContextKind, ErrorKind},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What `beam serve` reads where nobody names a file, if it is there. `beam connect` doesn't: it also runs as a
/// ProxyCommand of plain users, whom a gateway's file doesn't concern.
const DEFAULT_PATH: &str = "/etc/beam/beam.toml";

/// The file that is read without being named, if it is there. One that can't be looked at is: whoever may not read the
/// rules doesn't run without them.
pub(crate) fn default_path() -> Option<PathBuf> {
    let path = PathBuf::from(DEFAULT_PATH);
    (!matches!(path.try_exists(), Ok(false))).then_some(path)
}

/// A command line with what its configuration file adds.
pub(crate) struct Loaded {
    pub(crate) cli: Cli,
    /// Every flag of the verb, set or not.
    pub(crate) settings: Vec<Setting>,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    pub(crate) warnings: Vec<String>,
}

/// The verbs that a file has tables for.
pub(crate) fn verbs(path: &Path) -> Result<Vec<String>, Refused> {
    let file = File::read(path.to_owned(), &Cli::command())?;
    Ok(file.verbs())
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The command line is wrong (exit code 2), or asks for help.
    Usage(Box<clap::Error>),
    /// The file can't be read.
    Unreadable(String),
    /// The file is wrong.
    File { path: PathBuf, wrong: Vec<Wrong> },
}

impl Refused {
    /// A line for each thing that is wrong: `FILE:LINE:COLUMN: ...`.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Usage(error) => vec![error.to_string()],
            Self::Unreadable(why) => vec![why.clone()],
            Self::File { path, wrong } => {
                let line = |Wrong { place, text }: &Wrong| {
                    format!("{}:{}:{}: {text}", path.display(), place.line, place.column)
                };
                wrong.iter().map(line).collect()
            }
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Config(anyhow!("{}", refused.lines().join("\n      ")))
    }
}

/// The process's own command line: what is to run. Its settings and file are remembered for later.
pub(crate) fn start() -> Result<Cli, Refused> {
    let line: Vec<_> = std::env::args_os().collect();
    let Loaded { cli, settings, file, warnings } = load(&line)?;
    settings::remember(settings);
    let _ = START.set((file, warnings));
    Ok(cli)
}

static START: OnceLock<(Option<PathBuf>, Vec<String>)> = OnceLock::new();

/// Says which file was read, once there is a log.
pub(crate) fn announce() {
    let Some((Some(file), warnings)) = START.get() else { return };
    tracing::info!("configuration from {}", file.display());
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

/// The file that was read.
pub(crate) fn file() -> Option<PathBuf> {
    START.get()?.0.clone()
}

/// Whether a verb reads the file.
pub(crate) fn is_daemon(verb: &str) -> bool {
    matches!(verb, "serve" | "connect")
}

/// The file that a command line names, or that is read without being named.
fn path_of(verb: &str, said: &ArgMatches) -> Option<PathBuf> {
    let named = said.get_one::<PathBuf>("config").cloned();
    named.or_else(|| default_path().filter(|_| verb == "serve"))
}

/// Reads a command line, and the file that it names.
pub(crate) fn load(line: &[OsString]) -> Result<Loaded, Refused> {
    let command = Cli::command();
    // Each flag by itself: what one requires or excludes may yet come from the file.
    let bare = command.clone().mut_subcommands(|verb| match is_daemon(verb.get_name()) {
        true => verb.mut_args(keys::alone),
        false => verb,
    });
    let said = bare.try_get_matches_from(line).map_err(usage)?;
    let daemon = said.subcommand().filter(|(verb, _)| is_daemon(verb));
    let Some((verb, said, path)) = daemon.and_then(|(verb, said)| Some((verb, said, path_of(verb, said)?)))
    else {
        let matches = command.clone().try_get_matches_from(line).map_err(usage)?;
        return finish(&command, &matches, None, &BTreeMap::new());
    };
    let file = File::read(path, &command)?;
    let added = file.not_overridden(verb, said);
    let matches = with_file(&command, line, verb, &added).map_err(|(error, part)| match part.is_empty() {
        true => usage(error),
        false => contradiction(&file, verb, &part, &error),
    })?;
    let origins = added.iter().map(|said| (said.id.clone(), file.origin(said.place))).collect();
    finish(&command, &matches, Some(&file), &origins)
}

fn usage(error: clap::Error) -> Refused {
    Refused::Usage(Box::new(error))
}

fn finish(
    command: &Command,
    matches: &ArgMatches,
    file: Option<&File>,
    origins: &BTreeMap<String, String>,
) -> Result<Loaded, Refused> {
    let settings = settings::of_verb(command, matches, origins);
    let cli = Cli::from_arg_matches(matches).map_err(usage)?;
    let warnings = file.into_iter().flat_map(File::warnings).collect();
    Ok(Loaded { cli, settings, file: file.map(|file| file.path.clone()), warnings })
}

/// Parses the line with the file's words behind the verb. An error comes with those that have a part in it.
fn with_file<'a>(
    command: &Command,
    line: &[OsString],
    verb: &str,
    added: &'a [&'a Said],
) -> Result<ArgMatches, (clap::Error, Vec<&'a Said>)> {
    // The program's own name may be a verb's.
    let at = line.iter().skip(1).position(|word| word == verb).map_or(line.len(), |at| at + 2);
    let parse = |added: &mut dyn Iterator<Item = &&Said>| {
        let words = added.flat_map(|said| said.words.iter().cloned()).collect();
        command.clone().try_get_matches_from([line[..at].to_vec(), words, line[at..].to_vec()].concat())
    };
    parse(&mut added.iter()).map_err(|error| {
        // Without one that has a part in it, the complaint would be gone, or be another.
        let has_part = |said: &&&Said| {
            let others = parse(&mut added.iter().filter(|other| other.id != said.id));
            others.err().is_none_or(|other| gist(&other) != gist(&error))
        };
        let part = added.iter().filter(has_part).copied().collect();
        (error, part)
    })
}

/// What an error is about. Its usage line differs with every flag.
fn gist(error: &clap::Error) -> (ErrorKind, String) {
    let about = [ContextKind::InvalidArg, ContextKind::PriorArg].map(|kind| error.get(kind));
    (error.kind(), format!("{about:?}"))
}

/// Keys of the file that don't go with each other, with a flag or with what is missing.
fn contradiction(file: &File, verb: &str, part: &[&Said], error: &clap::Error) -> Refused {
    let about = |kind| match error.get(kind) {
        Some(clap::error::ContextValue::String(one)) => one.clone(),
        Some(clap::error::ContextValue::Strings(several)) => several.join(", "),
        _ => String::new(),
    };
    let (one, other) = (about(ContextKind::InvalidArg), about(ContextKind::PriorArg));
    let why = match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            format!("needs {one} beside it; add that to [{verb}], or take this key out")
        }
        ErrorKind::ArgumentConflict => {
            // The other is no key of the file.
            let whence =
                if part.len() == 1 { ", and the other is said by a flag or the environment" } else { "" };
            format!("{one} and {other} exclude each other{whence}; take one of them out")
        }
        kind => format!("{kind:?}: {one} {other}"),
    };
    let wrong = |said: &&Said| Wrong { place: said.place, text: format!("[{verb}] {}: {why}", said.name) };
    Refused::File { path: file.path.clone(), wrong: part.iter().map(wrong).collect() }
}

#[cfg(test)]
mod tests;
