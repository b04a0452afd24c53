//! The flags in effect, with where each came from, as clap understood them. For `beam show config`.

use clap::{ArgMatches, Command, parser::ValueSource};
use std::sync::OnceLock;

/// One flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) flag: String,
    pub(crate) value: String,
    /// `flag`, `environment` or `default`.
    pub(crate) from: &'static str,
}

static SETTINGS: OnceLock<Vec<Setting>> = OnceLock::new();

/// Keeps the flags of the verb that runs. Called once, at the start.
pub(crate) fn remember(command: &Command, matches: &ArgMatches) {
    let _ = SETTINGS.set(of_verb(command, matches));
}

/// Those that were remembered.
pub(crate) fn all() -> &'static [Setting] {
    SETTINGS.get().map_or(&[], Vec::as_slice)
}

fn of_verb(command: &Command, matches: &ArgMatches) -> Vec<Setting> {
    let Some((verb, matches)) = matches.subcommand() else { return Vec::new() };
    let Some(command) = command.find_subcommand(verb) else { return Vec::new() };
    let setting = |arg: &clap::Arg| {
        let id = arg.get_id().as_str();
        let values: Vec<String> =
            matches.try_get_raw(id).ok()??.map(|value| value.to_string_lossy().into_owned()).collect();
        let from = match matches.value_source(id)? {
            ValueSource::CommandLine => "flag",
            ValueSource::EnvVariable => "environment",
            _ => "default",
        };
        let flag = match (arg.get_long(), arg.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => id.to_uppercase(),
        };
        Some(Setting { flag, value: values.join(" "), from })
    };
    command.get_arguments().filter_map(setting).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: every flag that has a value is there, with its origin.
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn flags_and_defaults_are_told_apart() {
        let command = Cli::command();
        let line = "beam serve --self-signed --allow 10.1.0.0/16 --allow *.example.com --users /tmp/users -v";
        let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
        let settings = of_verb(&command, &matches);
        let found = |flag: &str| {
            let setting = settings.iter().find(|setting| setting.flag == flag)?;
            Some((setting.value.as_str(), setting.from))
        };
        assert_eq!(found("--allow"), Some(("10.1.0.0/16 *.example.com", "flag")));
        assert_eq!(found("--self-signed"), Some(("true", "flag")));
        assert_eq!(found("--users"), Some(("/tmp/users", "flag")));
        assert_eq!(found("--listen").unwrap().0, ":443");
        assert_eq!(found("--deny"), None, "it has no value");
        let url = "beam connect https://gw.example -D 1080";
        let matches = command.clone().try_get_matches_from(url.split(' ')).unwrap();
        let settings = of_verb(&command, &matches);
        let url = settings.iter().find(|setting| setting.flag == "URL").unwrap();
        assert_eq!(url.value, "https://gw.example");
        assert!(settings.iter().any(|setting| setting.flag == "-D" && setting.value == "1080"));
    }
}
