//! The flags in effect, with where each came from, as clap and the configuration file have it. For `beam show config` and
//! `beam check`.

use crate::config;
use clap::{ArgMatches, Command, parser::ValueSource};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Of a flag that has no value.
pub(crate) const UNSET: &str = "unset";
/// Instead of a secret.
const REDACTED: &str = "(secret)";

/// One flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) flag: String,
    /// Of the configuration file.
    pub(crate) key: String,
    /// The environment variable.
    pub(crate) env: Option<String>,
    pub(crate) value: String,
    /// As a line of the configuration file; `None` for what is no key.
    pub(crate) toml: Option<String>,
    /// `flag`, `environment`, `FILE:LINE`, `default` or [`UNSET`].
    pub(crate) from: String,
    is_secret: bool,
}

impl Setting {
    /// As others may see it.
    fn redacted(mut self) -> Self {
        if self.is_secret && self.from != UNSET {
            self.value = REDACTED.to_owned();
            self.toml = self.toml.map(|_| format!("{} = {REDACTED:?}", self.key));
        } else if self.value.contains('@') {
            self.value = without_passwords(&self.value);
            self.toml = self.toml.map(|line| without_passwords(&line));
        }
        self
    }
}

/// `https://user:password@host` without what stands before the `@`.
fn without_passwords(value: &str) -> String {
    let word = |word: &str| match word.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            match rest[..authority].rfind('@') {
                Some(at) => format!("{scheme}://{REDACTED}{}", &rest[at..]),
                None => word.to_owned(),
            }
        }
        None => word.to_owned(),
    };
    value.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

static SETTINGS: Mutex<Vec<Setting>> = Mutex::new(Vec::new());

/// Keeps the flags of the verb that runs: at the start, and what a reload has made of them.
pub(crate) fn remember(settings: Vec<Setting>) {
    *SETTINGS.lock().unwrap_or_else(PoisonError::into_inner) = settings;
}

/// Those that were remembered, as they are: with secrets.
pub(crate) fn raw() -> Vec<Setting> {
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Those that were remembered and have a value, without secrets.
pub(crate) fn all() -> Vec<Setting> {
    shown(raw()).into_iter().filter(|setting| setting.from != UNSET).collect()
}

/// Without secrets.
pub(crate) fn shown(settings: Vec<Setting>) -> Vec<Setting> {
    settings.into_iter().map(Setting::redacted).collect()
}

/// The flags of the verb in `matches`. `origins`: where those come from that the file has set.
pub(crate) fn of_verb(
    command: &Command,
    matches: &ArgMatches,
    origins: &BTreeMap<String, String>,
) -> Vec<Setting> {
    let Some((verb, matches)) = matches.subcommand() else { return Vec::new() };
    let Some(command) = command.find_subcommand(verb) else { return Vec::new() };
    let setting = |arg: &clap::Arg| {
        let id = arg.get_id().as_str();
        // A verb of a verb, or `help`, has none.
        let source = matches.try_contains_id(id).ok().map(|_| matches.value_source(id))?;
        let raw = matches.try_get_raw(id).ok().flatten();
        let values: Vec<_> =
            raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect();
        let from = match (source, origins.get(id)) {
            (_, Some(origin)) => origin,
            (Some(ValueSource::CommandLine), None) => "flag",
            (Some(ValueSource::EnvVariable), None) => "environment",
            (Some(_), None) => "default",
            (None, None) => UNSET,
        };
        let flag = match (arg.get_long(), arg.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => id.to_uppercase(),
        };
        let (key, is_secret) = (config::key_of(arg), config::is_secret(arg));
        let toml = config::line(arg, &values);
        let env = arg.get_env().map(|name| name.to_string_lossy().into_owned());
        Some(Setting { flag, key, env, value: values.join(" "), toml, from: from.to_owned(), is_secret })
    };
    command.get_arguments().filter_map(setting).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: every flag is there, with its origin, and no secret is.
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    fn settings(line: &str) -> Vec<Setting> {
        let command = Cli::command();
        let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
        of_verb(&command, &matches, &BTreeMap::new())
    }

    #[test]
    fn flags_and_defaults_are_told_apart() {
        let line = "beam serve --self-signed --allow 10.1.0.0/16 --allow *.example.com --users /tmp/users -v";
        let serve = settings(line);
        let found = |flag: &str| {
            let setting = serve.iter().find(|setting| setting.flag == flag).unwrap();
            (setting.value.as_str(), setting.from.as_str())
        };
        assert_eq!(found("--allow"), ("10.1.0.0/16 *.example.com", "flag"));
        assert_eq!(found("--self-signed"), ("true", "flag"));
        assert_eq!(found("--users"), ("/tmp/users", "flag"));
        assert_eq!(found("--listen").0, ":443");
        assert_eq!(found("--deny").1, UNSET);
        let connect = settings("beam connect https://gw.example -D 1080");
        let value = |flag: &str| connect.iter().find(|setting| setting.flag == flag).unwrap().value.as_str();
        assert_eq!((value("URL"), value("--socks")), ("https://gw.example", "1080"));
    }

    #[test]
    fn passwords_are_left_out() {
        for (seen, shown) in [
            ("https://u:p@host/x", "https://(secret)@host/x"),
            ("https://host/a@b", "https://host/a@b"),
            ("a@b http://u@h x://y", "a@b http://(secret)@h x://y"),
        ] {
            assert_eq!(without_passwords(seen), shown);
        }
    }
}
