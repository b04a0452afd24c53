//! `beam check`: the configuration that a daemon would have, where each value comes from, and what is wrong with it.
//!
//! ```text
//!  FILE, environment, flags ──► config::load ──► settings, printed as a file ─┐
//!                                     └──► the checks of `serve` or `connect` ─┴─► ok, or exit code 3
//! ```
//! The checks are those that a start makes before it touches the host. Files are read, and nothing else is looked at:
//! interfaces, ports and privileges are `beam doctor`'s.

use crate::{
    alerts,
    cli::{CheckArgs, ConnectArgs, ServeArgs, Verb},
    config::{self, Loaded, Refused},
    connect,
    failure::Failure,
    identity, inner, interface, serve,
    settings::{self, Setting, UNSET},
    supervisor,
};
use anyhow::anyhow;
use clap::error::ErrorKind;
use serde_json::{Value, json};
use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Name of the JSON object's shape.
const SCHEMA: &str = "beam.check.v1";

/// What `beam check` found out about one verb.
struct Report {
    verb: String,
    file: Option<PathBuf>,
    settings: Vec<Setting>,
    warnings: Vec<String>,
    problems: Vec<String>,
    /// What this user may not read.
    unseen: Vec<String>,
}

pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    log_warnings();
    let reports = match reports(args) {
        Ok(reports) => reports,
        Err(Refused::Usage(error)) => error.exit(),
        Err(refused) => {
            if args.json {
                print(&format!("{}\n", object(&[], &refused.lines())));
            }
            return Err(refused.into());
        }
    };
    if args.json {
        print(&format!("{}\n", object(&reports, &[])));
    } else {
        reports.iter().for_each(|report| print(&text(report)));
    }
    let problems: Vec<_> = reports.iter().flat_map(|report| &report.problems).cloned().collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Failure::Config(anyhow!("{}", problems.join("\nbeam: ")))),
    }
}

fn print(text: &str) {
    // Nobody may be there to read it; the exit code still tells.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// What a start would warn of goes to standard error.
fn log_warnings() {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).without_time();
    let _ = log.with_max_level(tracing::Level::WARN).with_ansi(false).try_init();
}

fn reports(args: &CheckArgs) -> Result<Vec<Report>, Refused> {
    let default = config::default_path();
    let path = args.config.as_deref().or(default.as_deref());
    if !args.line.is_empty() {
        return Ok(vec![report(&args.line, args.config.as_deref())?]);
    }
    let verbs = path.map(config::verbs).transpose()?.unwrap_or_default();
    let verbs = if verbs.is_empty() { vec!["serve".to_owned()] } else { verbs };
    verbs.iter().map(|verb| of_table(verb, path)).collect()
}

/// A verb as it would be started by its table alone: what it lacks is wrong with the table.
fn of_table(verb: &str, path: Option<&Path>) -> Result<Report, Refused> {
    report(&[verb.into()], path).or_else(|refused| match refused {
        Refused::Usage(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            let lacks = match error.get(clap::error::ContextKind::InvalidArg) {
                Some(clap::error::ContextValue::Strings(names)) => names.join(", "),
                _ => error.to_string(),
            };
            let file = path.map_or_else(|| verb.to_owned(), |path| path.display().to_string());
            let problem =
                format!("{file}: [{verb}] lacks {lacks}: add it to the table, or give it as a flag");
            Ok(Report {
                verb: verb.to_owned(),
                file: path.map(Path::to_owned),
                settings: Vec::new(),
                warnings: Vec::new(),
                problems: vec![problem],
                unseen: Vec::new(),
            })
        }
        other => Err(other),
    })
}

/// The verb of a line, which begins with its name.
fn report(line: &[OsString], path: Option<&Path>) -> Result<Report, Refused> {
    let named =
        path.map(|path| [OsStr::new("--config="), path.as_os_str()].into_iter().collect::<OsString>());
    let (verb, flags) =
        line.split_first().map_or((OsString::new(), line), |(verb, flags)| (verb.clone(), flags));
    let line =
        [vec![OsString::from("beam"), verb.clone()], named.into_iter().collect(), flags.to_vec()].concat();
    let Loaded { cli, settings, file, warnings } = config::load(&line)?;
    let checks = match &cli.verb {
        Verb::Serve(args) => of_gateway(args),
        Verb::Connect(args) => of_client(args),
        _ => {
            let error = clap::Error::raw(
                ErrorKind::InvalidSubcommand,
                "beam check takes `serve` or `connect`, which have a configuration\n",
            );
            return Err(Refused::Usage(Box::new(error)));
        }
    };
    let verb = verb.to_string_lossy().into_owned();
    let settings = settings::shown(settings);
    let mut report = Report { verb, file, settings, warnings, problems: Vec::new(), unseen: Vec::new() };
    for failure in checks.into_iter().filter_map(Result::err) {
        let text = failure.to_string();
        // A file that this user may not read may be right.
        let list = if is_denied(&text) { &mut report.unseen } else { &mut report.problems };
        if !list.contains(&text) {
            list.push(text);
        }
    }
    Ok(report)
}

/// Some errors keep their cause as text alone.
fn is_denied(text: &str) -> bool {
    text.contains("Permission denied")
}

type Checks = Vec<Result<(), Failure>>;

fn of_gateway(args: &ServeArgs) -> Checks {
    let certificate = || match identity::kept(args)? {
        Some(credentials) => serve::server_tls(args, credentials, None).map(drop),
        None => Ok(()),
    };
    vec![
        certificate(),
        serve::users(args).map(drop),
        serve::authorities_file(args).map(drop),
        serve::policy(args).map(drop),
        serve::listen_policy(&args.allow_listen).map(drop),
        serve::must_admit(args),
        alerts::Plan::of(&args.daemon.alerts).map(drop),
        args.listen.resolve(std::net::Ipv4Addr::UNSPECIFIED.into()).map(drop).map_err(Failure::Config),
        if args.ip_pool.is_empty() { Ok(()) } else { inner::realm(args).map(drop) },
        interface::check(&args.path, args.lan.as_deref()),
        supervisor::cpus(args.path.cpus.as_ref().map(|list| list.0.as_slice()), 1).map(drop),
        args.path.simd.level().map(drop).map_err(Failure::preflight),
    ]
}

fn of_client(args: &ConnectArgs) -> Checks {
    let token = || args.gateway.token_file.as_deref().map(identity::token).transpose();
    vec![
        connect::must_carry(args),
        alerts::Plan::of(&args.daemon.alerts).map(drop),
        connect::gateway::client_tls(&args.gateway).map(drop),
        token().map(drop).map_err(Failure::Config),
        connect::publications(args).map(drop),
        inner::check_client(args),
        interface::check(&args.path, args.lan.as_deref()),
        supervisor::cpus(args.path.cpus.as_ref().map(|list| list.0.as_slice()), 1).map(drop),
        args.path.simd.level().map(drop).map_err(Failure::preflight),
    ]
}

/// As a configuration file, in which what is there by default is a comment.
fn text(report: &Report) -> String {
    let Report { verb, file, settings, warnings, problems, unseen } = report;
    let from = file.as_ref().map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    let mut out = format!("# beam {verb}, configured by {from}, the environment and flags\n[{verb}]\n");
    let lines = settings.iter().filter(|setting| setting.from != UNSET);
    let lines: Vec<_> = lines
        .filter_map(|setting| {
            let line = setting.toml.as_ref()?;
            let sign = if setting.from == "default" { "#" } else { "" };
            Some((format!("{sign}{line}"), &setting.from))
        })
        .collect();
    const WIDTH_MAX: usize = 60;
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(WIDTH_MAX);
    for (line, from) in lines {
        let _ = writeln!(out, "{line:width$}  # {from}");
    }
    for (what, list) in [("warning", warnings), ("not seen", unseen)] {
        for one in list {
            let _ = writeln!(out, "# {what}: {}", one.replace('\n', "\n#   "));
        }
    }
    let verdict = match (problems.len(), unseen.len()) {
        (0, 0) => "ok".to_owned(),
        (0, n) => format!("ok as far as it could be seen: run it as root to see the other {n}"),
        (n, _) => format!("{n} thing(s) wrong"),
    };
    let _ =
        writeln!(out, "# {verdict}; interfaces, ports and privileges are not looked at here: beam doctor\n");
    out
}

fn object(reports: &[Report], wrong: &[String]) -> Value {
    let setting = |setting: &Setting| {
        let is_set = setting.from != UNSET;
        json!({
            "flag": setting.flag, "key": setting.key, "env": setting.env, "from": setting.from,
            "value": is_set.then_some(&setting.value), "line": setting.toml,
        })
    };
    let verb = |report: &Report| {
        json!({
            "verb": report.verb,
            "file": report.file,
            "settings": report.settings.iter().map(setting).collect::<Vec<_>>(),
            "warnings": report.warnings,
            "problems": report.problems,
            "unseen": report.unseen,
        })
    };
    json!({
        "schema": SCHEMA,
        "ok": wrong.is_empty() && reports.iter().all(|report| report.problems.is_empty()),
        "problems": wrong,
        "verbs": reports.iter().map(verb).collect::<Vec<_>>(),
    })
}
