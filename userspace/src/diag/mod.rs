//! `beam diag`: one archive with what somebody needs who is to find out what is wrong, and no secret in it.
//!
//! ```text
//!  doctor -j ┐
//!  status, show NOUN, log ── control socket ┤         ┌── [`scrub`] ──► parts, each bounded ──► tar
//!  metrics ── --metrics ADDR ┤ ──► bytes, or why not ─┤
//!  NICs, /proc ── [`host`] ──┘                        └──► manifest.json: every part, its size or why it is missing
//! ```
//! A part that can't be had is no failure: the daemon may be dead, which is what the archive is made for.

mod daemon;
mod host;
mod scrub;
mod tar;

use crate::{cli::DiagArgs, failure::Failure, progress::Progress, show::Noun};
use anyhow::{Context, anyhow};
use clap::ValueEnum as _;
use scrub::Scrubber;
use serde::Serialize;
use serde_json::Value;
use std::{
    fs::{self, OpenOptions},
    io::{IsTerminal, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

const SCHEMA: &str = "beam.diag.v1";
/// All parts together; what comes after is told as missing.
const ARCHIVE_BYTES_MAX: usize = 32 << 20;
/// One part; the rest is cut off, and the manifest says so.
const PART_BYTES_MAX: usize = 2 << 20;
/// The doctor may try to bind sockets, and a NIC may take its time.
const DOCTOR_WITHIN: Duration = Duration::from_secs(60);
const JOURNAL_WITHIN: Duration = Duration::from_secs(10);
const JOURNAL_LINES: &str = "5000";

/// One part as the manifest tells it.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_off_after: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Manifest<'a> {
    schema: &'static str,
    version: &'static str,
    unix_s: u64,
    control: String,
    is_root: bool,
    parts: &'a [Told],
}

/// What was collected.
struct Archive {
    scrubber: Scrubber,
    parts: Vec<(String, Vec<u8>)>,
    told: Vec<Told>,
    bytes: usize,
    progress: Progress,
}

impl Archive {
    fn add(&mut self, name: &str, part: Result<String, String>) {
        let mut told = Told { name: name.to_owned(), bytes: None, missing: None, cut_off_after: None };
        match part.map(|text| self.scrubber.clean(&text).into_bytes()) {
            Ok(bytes) if self.bytes >= ARCHIVE_BYTES_MAX => {
                told.missing = Some(format!("the archive is full; this part has {} bytes", bytes.len()));
            }
            Ok(mut bytes) => {
                if bytes.len() > PART_BYTES_MAX {
                    bytes.truncate(PART_BYTES_MAX);
                    told.cut_off_after = Some(PART_BYTES_MAX);
                }
                told.bytes = Some(bytes.len());
                self.bytes += bytes.len();
                self.parts.push((name.to_owned(), bytes));
            }
            Err(why) => told.missing = Some(self.scrubber.clean(&why)),
        }
        self.told.push(told);
    }

    fn add_json(&mut self, name: &str, part: Result<Value, String>) {
        self.add(name, part.map(|value| format!("{value:#}\n")));
    }

    fn missing(&self) -> impl Iterator<Item = &Told> {
        self.told.iter().filter(|told| told.missing.is_some())
    }
}

pub(crate) fn run(args: &DiagArgs) -> Result<(), Failure> {
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::Config(anyhow!(
            "the archive is no text for a terminal; name a file (-o FILE), or pipe it: beam diag -o - | ..."
        )));
    }
    let unix_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let path = args.output.clone().unwrap_or_else(|| format!("beam-diag-{unix_s}.tar").into());
    let archive = collect(args);
    let bytes = packed(&archive, args, unix_s).map_err(Failure::runtime)?;
    let size_bytes = bytes.len();
    if to_stdout {
        std::io::stdout().write_all(&bytes).map_err(Failure::runtime)?;
    } else {
        write_whole(&path, &bytes).map_err(Failure::Runtime)?;
    }
    let Archive { progress, told, .. } = &archive;
    let missing: Vec<String> = archive
        .missing()
        .map(|told| format!("  {}: {}", told.name, told.missing.as_deref().unwrap_or_default()))
        .collect();
    progress.aside(|| {
        // Where the archive itself is standard output, nothing else may be.
        let there = told.len() - missing.len();
        let place = if to_stdout { "standard output".to_owned() } else { path.display().to_string() };
        let mut text = format!("wrote {place}: {there} parts, {size_bytes} bytes, readable by you alone\n");
        if !missing.is_empty() {
            text.push_str(&format!("not in it:\n{}\n", missing.join("\n")));
        }
        text.push_str("It holds no keys, tokens or passwords, but addresses and names of clients: read it before you send it.\n");
        let _ = if to_stdout { std::io::stderr().write_all(text.as_bytes()) } else { std::io::stdout().write_all(text.as_bytes()) };
    });
    Ok(())
}

fn collect(args: &DiagArgs) -> Archive {
    let progress = Progress::begin("collecting");
    let control = args.control.control.as_path();
    let mut archive =
        Archive { scrubber: Scrubber::default(), parts: Vec::new(), told: Vec::new(), bytes: 0, progress };
    archive.progress.step("what the daemon says");
    // First, for it tells which secrets to look for in all that follows.
    let config = daemon::show(control, Noun::Config);
    if let Ok(config) = &config {
        learn_secrets(&mut archive.scrubber, config);
    }
    let metrics = match &config {
        Ok(config) => match daemon::flag(config, "--metrics") {
            Some(address) => daemon::metrics(address),
            None => Err("the daemon runs without --metrics".to_owned()),
        },
        Err(why) => Err(why.clone()),
    };
    let status = daemon::status(control);
    let interfaces = interfaces(args, status.as_ref().ok());
    archive.add("version.txt", Ok(version()));
    archive.add_json("daemon/status.json", status);
    for &noun in Noun::value_variants().iter().filter(|&&noun| noun != Noun::Config) {
        archive.add_json(&format!("daemon/show-{}.json", noun.word()), daemon::show(control, noun));
    }
    archive.add_json("daemon/config.json", config);
    archive.add("daemon/metrics.txt", metrics);
    archive.add("daemon/log.txt", daemon::log(control));
    archive.progress.step("the journal");
    archive.add("journal.txt", journal());
    archive.progress.step("what the doctor says");
    archive.add("doctor.json", doctor(&interfaces));
    archive.progress.step("NICs and the kernel");
    archive.add_json("network/nics.json", host::nics().map_err(|error| error.to_string()));
    archive.add("host/sysctls.txt", Ok(host::sysctls()));
    for (name, path) in host::FILES {
        let part = host::read(path).map_err(|error| format!("{path}: {error}"));
        archive.add(
            name,
            part.map(|(bytes, more)| {
                let rest = if more { "\n(cut off here)\n" } else { "" };
                format!("{}{rest}", String::from_utf8_lossy(&bytes))
            }),
        );
    }
    archive
}

fn version() -> String {
    format!("beam {}\n{} bits, {}\n", env!("CARGO_PKG_VERSION"), usize::BITS, std::env::consts::ARCH)
}

/// What the files hold that the daemon was given.
fn learn_secrets(scrubber: &mut Scrubber, config: &Value) {
    for flag in ["--tls-key", "--key", "--token-file"] {
        if let Some(path) = daemon::flag(config, flag) {
            scrubber.learn_file(Path::new(path));
        }
    }
    if let Some(path) = daemon::flag(config, "--users") {
        scrubber.learn_users(Path::new(path));
    }
}

/// Those that were named, and the daemon's.
fn interfaces(args: &DiagArgs, status: Option<&Value>) -> Vec<String> {
    let mut names = args.interfaces.clone();
    let of_daemon = status.and_then(|status| status["interfaces"].as_array()).into_iter().flatten();
    names.extend(of_daemon.filter_map(|interface| Some(interface["name"].as_str()?.to_owned())));
    names.sort();
    names.dedup();
    names
}

/// In a process of its own: whatever it meets, the archive comes about.
fn doctor(interfaces: &[String]) -> Result<String, String> {
    let own = std::env::current_exe().map_err(|error| format!("where beam is can't be told: {error}"))?;
    let mut command = Command::new(own);
    command.args(["doctor", "-j"]).args(interfaces.iter().flat_map(|name| ["-i", name]));
    output(&mut command, DOCTOR_WITHIN)
}

/// What systemd's journal has of beam, where there is one.
fn journal() -> Result<String, String> {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "-q", "-o", "short-iso", "-n", JOURNAL_LINES, "-u", "beam*"]);
    match output(&mut command, JOURNAL_WITHIN)? {
        text if text.trim().is_empty() => Err("journalctl has nothing of a unit beam*".to_owned()),
        text => Ok(text),
    }
}

/// What a command prints, of a bounded size and in bounded time. Its exit code doesn't matter (the doctor's tells what it
/// found), but silence does.
fn output(command: &mut Command, within: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || bounded(stdout));
    let complaints = std::thread::spawn(move || bounded(stderr));
    let until = Instant::now() + within;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            _ => break None,
        }
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = reader.join().unwrap_or_default();
    match status {
        None => Err(format!("{name} took longer than {} s", within.as_secs())),
        Some(status) if text.trim().is_empty() && !status.success() => {
            Err(format!("{name}: {status}: {}", complaints.join().unwrap_or_default().trim()))
        }
        Some(_) => Ok(text),
    }
}

/// The start of what a pipe carries; the rest is read, too, so that nobody waits for room in it.
fn bounded(pipe: Option<impl Read>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut bytes = Vec::new();
    let _ = pipe.by_ref().take(PART_BYTES_MAX as u64).read_to_end(&mut bytes);
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    String::from_utf8_lossy(&bytes).into_owned()
}

fn packed(archive: &Archive, args: &DiagArgs, unix_s: u64) -> anyhow::Result<Vec<u8>> {
    let manifest = Manifest {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        unix_s,
        control: args.control.control.display().to_string(),
        is_root: rustix::process::geteuid().is_root(),
        parts: &archive.told,
    };
    let mut out = Vec::with_capacity(archive.bytes + archive.bytes / 4);
    let manifest = serde_json::to_vec_pretty(&manifest)?;
    tar::append(&mut out, "beam-diag/manifest.json", &manifest, unix_s)?;
    for (name, bytes) in &archive.parts {
        tar::append(&mut out, &format!("beam-diag/{name}"), bytes, unix_s)?;
    }
    tar::finish(&mut out)?;
    Ok(out)
}

/// Whole or not at all, and for its owner only.
fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name =
        path.file_name().ok_or_else(|| anyhow!("-o {} is no file name", path.display()))?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside: PathBuf = path.with_file_name(name);
    let advice = || format!("can't write {}; name another place: -o FILE", path.display());
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.with_context(advice)
}
