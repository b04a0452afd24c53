//! Goal: bad input gets a clear error and its own exit code: what failed, the value seen, the value needed, the next
//! command; and whatever was begun is undone.
//! Method: tables of rows, each a command line run in a namespace prepared for it. All rows of a table run, then every
//! one that went wrong is told at once. The command in a message is executed where that proves the advice.
//!
//! This file runs rows; the tables are in [`host`] (interfaces, ports, privilege), [`files`], [`flags`] and [`trust`].

mod files;
mod flags;
mod host;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;
mod trust;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pair::{FORWARD_PORT, LIMIT, Place, TUNNEL_PORT, path};
use rig::{GATEWAY_V4, Ns, Proc};

const BEAM: &str = env!("CARGO_BIN_EXE_beam");
/// Becomes a user without any capability.
const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all";
/// Root as a small container has it: little locked memory, and no way round the limit.
const LITTLE_MEMLOCK: &str =
    "prlimit --memlock=65536:65536 setpriv --bounding-set=-ipc_lock,-sys_resource --inh-caps=-all";

/// One command line and what has to come of it. Words in braces stand for the place's files, see [`fill`].
struct Row {
    name: &'static str,
    /// Shell commands in the namespace, before and after.
    before: &'static str,
    after: &'static str,
    /// What the command is run by.
    by: &'static str,
    env: &'static [(&'static str, &'static str)],
    args: &'static str,
    exit: i32,
    /// The four parts of the voice, each a phrase of the message: what failed, the value seen, the value needed, the next
    /// command. No row with an exit code of a daemon's start may lack one.
    voice: [&'static str; 4],
    /// More phrases of standard error.
    says: &'static [&'static str],
}

const ROW: Row =
    Row { name: "", before: "", after: "", by: "", env: &[], args: "", exit: 0, voice: [""; 4], says: &[] };
/// Names of the parts.
const VOICE: [&str; 4] = ["what failed", "the value seen", "the value needed", "the next command"];
/// Exit codes of a start that the files or the host stand against.
const START_FAILURES: [i32; 2] = [3, 4];

/// Runs every row in the namespace and panics with all that went wrong.
fn check(place: &Place, ns: Ns, rows: &[Row]) {
    open_for_others(place);
    let wrong: Vec<String> = rows.iter().filter_map(|row| run_row(place, ns, row).err()).collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n\n{}", wrong.len(), rows.len(), wrong.join("\n\n"));
}

fn run_row(place: &Place, ns: Ns, row: &Row) -> Result<(), String> {
    shell(place, ns, row.before)?;
    let mut args = fill(place, row.args);
    if !row.args.contains("--control") && !row.args.starts_with("user ") {
        args.extend(["--control".into(), path(&place.rig.directory().join("open/row.sock"))]);
    }
    let mut command = if row.by.is_empty() {
        place.rig.command(ns, BEAM)
    } else {
        let mut by = row.by.split(' ');
        let mut command = place.rig.command(ns, by.next().expect("split yields one item at least"));
        command.args(by).arg(place.rig.directory().join("beam"));
        command
    };
    let mut child = Proc::spawn(row.name, command.args(&args).envs(row.env.iter().copied()));
    let status = child.wait(LIMIT);
    let (said, attached) = (child.stderr(), place.rig.has_xdp(ns, ns.interface()));
    shell(place, ns, row.after)?;
    println!("--- {}: {status}\n{said}", row.name);
    let mut wrong = complaints(&said);
    if status.code() != Some(row.exit) {
        wrong.push(format!("{status}, wanted exit code {}", row.exit));
    }
    let missing = row.says.iter().map(|phrase| fill(place, phrase).join(" ")).filter(|p| !said.contains(p));
    wrong.extend(missing.map(|phrase| format!("does not say {phrase:?}")));
    wrong.extend(out_of_voice(place, row, &said));
    if row.exit != 0 && said.contains("INFO ready") && !row.args.contains("-W ") {
        wrong.push("said that it was ready".into());
    }
    // A row that puts another program there takes it away itself.
    if attached && !row.before.contains("xdp") {
        wrong.push("left an XDP program attached".into());
    }
    if place.rig.directory().join("open/row.sock").exists() {
        wrong.push("left its control socket behind".into());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{}: beam {}\n  {}\n  it said:\n{said}", row.name, args.join(" "), wrong.join("\n  ")))
}

/// Parts of the voice that the message lacks. They are looked for in the message itself, not in the log before it.
fn out_of_voice(place: &Place, row: &Row, said: &str) -> Vec<String> {
    let start = said.rfind("\nbeam: ").map_or(0, |line_end| line_end + 1);
    let parts = VOICE.iter().zip(row.voice);
    let wrong = parts.filter_map(|(part, phrase)| {
        let phrase = fill(place, phrase).join(" ");
        let is_owed = START_FAILURES.contains(&row.exit);
        let is_there = if phrase.is_empty() { !is_owed } else { said[start..].contains(&phrase) };
        (!is_there).then(|| format!("does not tell {part}: {phrase:?}"))
    });
    wrong.collect()
}

/// What no message may look like.
fn complaints(said: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for sign in ["panicked at", "RUST_BACKTRACE", " { ", "Error(", "Some("] {
        if said.contains(sign) {
            wrong.push(format!("says {sign:?}, which is Rust's word to a programmer"));
        }
    }
    let last = said.lines().rev().find(|line| line.starts_with("beam: ")).unwrap_or_default();
    let (before, after) = last.split_once("(os error").unwrap_or((last, "; no errno"));
    // `beam: No such file or directory (os error 2)` says neither what nor what to do.
    if before.matches(": ").count() < 2 && !after.contains([';', ':']) {
        wrong.push("tells an errno and nothing else".into());
    }
    wrong
}

/// `{dir}` and the flags that most rows share.
fn fill(place: &Place, text: &str) -> Vec<String> {
    let dir = path(place.rig.directory());
    let tls = format!("--tls-cert {dir}/server.pem --tls-key {dir}/server.key");
    let serve = format!("serve -l {GATEWAY_V4}:{TUNNEL_PORT} --allow 198.19.0.0/24");
    let connect = format!("connect https://{GATEWAY_V4}:{TUNNEL_PORT} --once -L {FORWARD_PORT}:h.example:80");
    text.replace("{serve}", &format!("{serve} {{tls}} {{users}}"))
        .replace("{serve-bare}", &serve)
        .replace("{connect}", &connect)
        .replace("{ca}", &format!("--ca {dir}/ca.pem"))
        .replace("{tls}", &tls)
        .replace("{users}", &format!("--users {dir}/open/users"))
        .replace("{dir}", &dir)
        .split(' ')
        .map(String::from)
        .collect()
}

fn shell(place: &Place, ns: Ns, script: &str) -> Result<(), String> {
    if script.is_empty() {
        return Ok(());
    }
    let script = fill(place, script).join(" ");
    let out = place.rig.command(ns, "sh").args(["-ec", &script]).output().expect("run sh");
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{script}: {}", String::from_utf8_lossy(&out.stderr)))
}

/// A directory that anybody may write to, a users file that anybody may read, and the binary where anybody reaches it.
fn open_for_others(place: &Place) {
    let dir = place.rig.directory();
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    let open = dir.join("open");
    fs::create_dir_all(&open).expect("make the open directory");
    mode(&open, 0o777);
    fs::copy(&place.users, open.join("users")).expect("copy the users file");
    mode(&open.join("users"), 0o644);
    for file in [&place.pki.server_cert, &place.pki.server_key, &place.pki.ca, &place.token] {
        mode(file, 0o644);
    }
    fs::copy(BEAM, dir.join("beam")).expect("copy the binary");
}
