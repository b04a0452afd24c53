//! From a flag's definition to its key: what the key may hold, an example, and the words of the command line that say the
//! same. The definitions are clap's; nothing is written down twice.

use super::document::{Entry, Item, Scalar, Value, Wrong};
use clap::{
    Arg, ArgAction, Command,
    builder::Resettable,
    error::{ContextKind, ContextValue},
};
use std::{any::TypeId, ffi::OsString, path::PathBuf};

/// Flags that are no keys: a file doesn't name itself.
const NO_KEYS: [&str; 3] = ["config", "help", "version"];

/// A flag as a key of the file.
pub(super) struct Key<'a> {
    pub(super) name: String,
    pub(super) arg: &'a Arg,
}

/// The keys of a verb.
pub(super) fn of(verb: &Command) -> Vec<Key<'_>> {
    let args = verb.get_arguments().filter(|arg| !NO_KEYS.contains(&arg.get_id().as_str()));
    args.map(|arg| Key { name: key_of(arg), arg }).collect()
}

/// The long flag without its dashes; a positional's own name.
pub(crate) fn key_of(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().as_str().replace('_', "-"), str::to_owned)
}

/// Whether others are not to see its value. The path of a secret is none.
pub(crate) fn is_secret(arg: &Arg) -> bool {
    const SIGNS: [&str; 5] = ["token", "secret", "password", "passphrase", "webhook"];
    let is_path = arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
    !is_path && SIGNS.iter().any(|sign| key_of(arg).contains(sign))
}

/// A flag's values as a line of the file; `None` where it has none, or is no key.
pub(crate) fn line(arg: &Arg, values: &[String]) -> Option<String> {
    if NO_KEYS.contains(&arg.get_id().as_str()) {
        return None;
    }
    let key = Key { name: key_of(arg), arg };
    let first = values.first()?;
    let value = match () {
        () if key.is_switch() || key.is_number() => first.clone(),
        () if key.is_list() => {
            format!("[{}]", values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", "))
        }
        () => quoted(first),
    };
    Some(format!("{} = {value}", key.name))
}

/// As a string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A definition without its relations to others: what is left can be judged by itself.
pub(super) fn alone(arg: Arg) -> Arg {
    arg.required(false).requires(Resettable::Reset).conflicts_with(Resettable::Reset).group(Resettable::Reset)
}

impl Key<'_> {
    fn is_switch(&self) -> bool {
        matches!(self.arg.get_action(), ArgAction::SetTrue)
    }

    fn is_count(&self) -> bool {
        matches!(self.arg.get_action(), ArgAction::Count)
    }

    fn is_list(&self) -> bool {
        matches!(self.arg.get_action(), ArgAction::Append)
    }

    /// A flag that also means something without a value.
    fn is_optional(&self) -> bool {
        self.arg.get_num_args().is_some_and(|range| range.min_values() == 0 && range.takes_values())
            && !self.is_switch()
            && !self.is_count()
    }

    fn parses_to(&self, types: &[TypeId]) -> bool {
        let own = self.arg.get_value_parser().type_id();
        types.iter().any(|of| own == *of)
    }

    fn is_number(&self) -> bool {
        let of = TypeId::of::<u32>;
        self.is_count()
            || self.parses_to(&[
                of(),
                TypeId::of::<u8>(),
                TypeId::of::<u16>(),
                TypeId::of::<u64>(),
                TypeId::of::<usize>(),
                TypeId::of::<f64>(),
            ])
    }

    /// Anything is a name or a path, so a number in its place is taken for a slip.
    fn is_free_text(&self) -> bool {
        self.parses_to(&[TypeId::of::<String>(), TypeId::of::<PathBuf>(), TypeId::of::<OsString>()])
    }

    pub(super) fn is_secret(&self) -> bool {
        is_secret(self.arg)
    }

    /// What the key wants, in words.
    fn wanted(&self) -> String {
        let one = match () {
            () if self.is_switch() => "true or false".to_owned(),
            () if self.is_number() => "a number".to_owned(),
            () if self.is_optional() => "true or a text in quotes".to_owned(),
            () => "a text in quotes".to_owned(),
        };
        if self.is_list() { format!("{one}, or a list of such") } else { one }
    }

    /// A line that could stand in the file.
    pub(super) fn example(&self) -> String {
        let (name, value) = (&self.name, self.example_value());
        match () {
            () if self.is_switch() => format!("{name} = true"),
            () if self.is_number() => format!("{name} = {value}"),
            () if self.is_list() => format!("{name} = [{value:?}]"),
            () => format!("{name} = {value:?}"),
        }
    }

    /// A value that parses.
    pub(super) fn example_value(&self) -> String {
        if self.is_count() {
            return "1".to_owned();
        }
        let first = self.arg.get_possible_values().first().map(|value| value.get_name().to_owned());
        let default = self.arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        if let Some(known) = default.or(first) {
            return known;
        }
        let unit =
            self.arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        let known = EXAMPLES.iter().find(|(of, _)| *of == unit);
        known.map_or_else(|| unit.to_lowercase(), |(_, example)| (*example).to_owned())
    }

    /// The words of the command line that say what the entry says; or what is wrong with it. `table` is for the words.
    pub(super) fn words(&self, table: &str, entry: &Entry) -> Result<Vec<OsString>, Vec<Wrong>> {
        let items: &[Item] = match &entry.value {
            Value::One(item) => std::slice::from_ref(item),
            Value::List(items) if self.is_list() => items,
            Value::List(_) => {
                let text = format!(
                    "[{table}] {}: seen a list, wanted {}; such as: {}",
                    self.name,
                    self.wanted(),
                    self.example()
                );
                return Err(vec![Wrong { place: entry.place, text }]);
            }
        };
        let (mut words, mut wrong) = (Vec::new(), Vec::new());
        for item in items {
            match self.words_of(item) {
                Ok(more) => words.extend(more),
                Err(why) => {
                    let (name, seen) = (&self.name, item.scalar.shown());
                    // A secret is no less one where it is wrong.
                    let seen = if self.is_secret() { "a value".to_owned() } else { seen };
                    let text = format!("[{table}] {name} = {seen}: {why}; such as: {}", self.example());
                    wrong.push(Wrong { place: item.place, text });
                }
            }
        }
        if wrong.is_empty() { Ok(words) } else { Err(wrong) }
    }

    fn words_of(&self, item: &Item) -> Result<Vec<OsString>, String> {
        let flag = format!("--{}", self.name);
        let text = match &item.scalar {
            Scalar::Bool(false) if self.is_switch() => return Ok(Vec::new()),
            // What has a default is never without.
            Scalar::Bool(false) if self.is_optional() && self.arg.get_default_values().is_empty() => {
                return Ok(Vec::new());
            }
            Scalar::Bool(true) if self.is_switch() => return Ok(vec![flag.into()]),
            Scalar::Bool(true) if self.is_optional() => return self.meant_by(&[flag.into()]),
            Scalar::Number(digits) if self.is_count() => {
                let count = digits.parse::<u8>().map_err(|_| "wanted a number from 0 to 255".to_owned())?;
                return Ok(vec![flag.into(); count.into()]);
            }
            Scalar::Number(digits) if !self.is_switch() && !self.is_free_text() => digits,
            Scalar::Text(text) if !self.is_switch() && !self.is_number() => text,
            _ => return Err(format!("wanted {}", self.wanted())),
        };
        let words = match self.arg.is_positional() {
            true => vec![OsString::from(text)],
            // One word, so that a value may begin with a dash.
            false => vec![OsString::from(format!("{flag}={text}"))],
        };
        self.meant_by(&words)?;
        Ok(words)
    }

    /// Has clap judge the flag by itself. What it was understood as, spelt out: a flag without its value would swallow the
    /// word behind it.
    fn meant_by(&self, words: &[OsString]) -> Result<Vec<OsString>, String> {
        let arg = alone(self.arg.clone()).env(Resettable::Reset).default_values(Vec::<&str>::new());
        let id = arg.get_id().clone();
        let judge = Command::new("beam").no_binary_name(true).disable_help_flag(true).arg(arg);
        let matches = judge.try_get_matches_from(words).map_err(|error| complaint(&error))?;
        let raw = matches.get_raw(id.as_str()).into_iter().flatten();
        Ok(raw.map(|value| [format!("--{}=", self.name).as_ref(), value].into_iter().collect()).collect())
    }
}

/// What clap has to say about a value, without the flag and the usage.
fn complaint(error: &clap::Error) -> String {
    use std::error::Error as _;
    if let Some(source) = error.source() {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) => format!("wanted one of {}", valid.join(", ")),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    }
}

/// Values of flags that have no default, by what the help calls them.
const EXAMPLES: [(&str, &str); 20] = [
    ("FILE", "/etc/beam/FILE"),
    ("DIR", "/var/lib/beam"),
    ("PATH", "/run/beam/beam.sock"),
    ("IF", "eth0"),
    ("NAME", "beam0"),
    ("URL", "https://gateway.example"),
    ("CIDR", "10.0.0.0/8"),
    ("CIDR[:PORTS]|NAME[:PORTS]", "10.1.0.0/16:443"),
    ("[ADDR:]PORTS", "8080-8090"),
    ("[BIND:]PORT:HOST:HOSTPORT[/udp]", "8080:web.example:80"),
    ("[BIND:]PORT", "1080"),
    ("HOST:PORT", "ssh.example:22"),
    ("LIST", "2-5"),
    ("SIZE", "512MiB"),
    ("N", "10"),
    ("[ADDR]:PORT", "127.0.0.1:9090"),
    ("ADDR", "127.0.0.1:9090"),
    ("RULE", "latency_p95 > 1ms for 30s"),
    ("PROGRAM", "/usr/local/bin/on-alert"),
    ("sha256:HEX", "sha256:HEX"),
];

/// The nearest of some names, if it is near enough to be meant.
pub(super) fn nearest<'a>(meant: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let spelt = meant.replace('_', "-").to_lowercase();
    let score = |name: &'a str| (strsim::jaro_winkler(&spelt, name), name);
    let best = names.into_iter().map(score).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score > 0.8).map(|(_, name)| name)
}
