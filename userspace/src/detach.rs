//! `beam detach`: takes beam's XDP programs off that nothing runs behind any more. It works with the daemon dead.
//!
//! beam attaches by a bpf_link, which goes with its process; what stays was pinned, is held by somebody else, or was
//! attached by netlink. Another's program is never touched: it is named, with the command.

use crate::{cli::DetachArgs, failure::Failure};
use anyhow::anyhow;
use std::{collections::BTreeMap, fs, path::Path};
use xsk::AttachedProgram;

/// One interface may have a program in the driver and another in the generic hook.
const PROGRAMS_MAX: usize = 2;
/// Processes named that hold one program.
const HOLDERS_SAID_MAX: usize = 5;

/// What came of one interface.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Detached(Vec<String>),
    /// Nothing was there.
    Nothing,
    Refused(String),
}

pub(crate) fn run(args: &DetachArgs) -> Result<(), Failure> {
    let interfaces = if args.all {
        let links = xsk::look::links()
            .map_err(|error| Failure::Runtime(anyhow!("asking for interfaces: {error}")))?;
        links.into_iter().map(|link| link.name).collect()
    } else {
        args.interfaces.clone()
    };
    let (mut detached, mut refused) = (0, Vec::new());
    for interface in &interfaces {
        match one(interface, args)? {
            Came::Detached(what) => {
                what.iter().for_each(|what| say!("{interface}: detached {what}"));
                detached += what.len();
            }
            Came::Nothing if args.all => {}
            Came::Nothing => say!("{interface}: no XDP program is attached"),
            Came::Refused(why) => refused.push(format!("{interface}: {why}")),
        }
    }
    if !refused.is_empty() {
        return Err(Failure::Preflight(anyhow!("{}", refused.join("\n"))));
    }
    if args.all && detached == 0 {
        say!("no interface has an XDP program of beam's");
    }
    Ok(())
}

fn one(interface: &str, args: &DetachArgs) -> Result<Came, Failure> {
    let mut detached = Vec::new();
    for _ in 0..PROGRAMS_MAX {
        let Some(program) = xsk::attached(interface).map_err(Failure::preflight)? else { break };
        let AttachedProgram { name, id, mode, .. } = &program;
        let what = format!("XDP program {name} (id {id}, {mode})");
        if !program.is_beam {
            // With --all, others' programs are none of the question.
            if args.all {
                say!("{interface}: left {what}, which is not beam's");
                break;
            }
            let command = program.removal(interface);
            return Ok(Came::Refused(format!(
                "{what} is not beam's, and is left alone. If it may go: {command}"
            )));
        }
        let holders = holders(&program);
        if !holders.is_empty() && !args.force {
            let who =
                holders.iter().take(HOLDERS_SAID_MAX).map(Holder::to_string).collect::<Vec<_>>().join(", ");
            return Ok(Came::Refused(format!(
                "{what} is in use by {who}. Stop that first, which detaches it: kill -TERM {}; or, to have the kernel get \
                 its packets: beam detach -i {interface} --force",
                holders[0].pid
            )));
        }
        xsk::detach(interface, &program).map_err(|error| refusal(error, &program.removal(interface)))?;
        let still = xsk::attached(interface).map_err(Failure::preflight)?;
        if still.is_some_and(|still| still.id == *id) {
            return Err(Failure::Runtime(anyhow!(
                "{interface} still runs {what} after the kernel was asked to detach it; try: {}",
                program.removal(interface)
            )));
        }
        detached.push(what);
    }
    Ok(if detached.is_empty() { Came::Nothing } else { Came::Detached(detached) })
}

fn refusal(error: xsk::OpenError, command: &str) -> Failure {
    Failure::Preflight(anyhow!(
        "{error}; CAP_NET_ADMIN and CAP_SYS_ADMIN are needed, and this process has not both or the kernel has another \
         reason; as root: {command}"
    ))
}

/// A process that has a program, or its link, open.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    name: String,
    /// Its listening Unix socket, where it has one: a daemon's control socket.
    control: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {}", self.name, self.pid)?;
        match &self.control {
            Some(path) => write!(f, ", control socket {path})"),
            None => write!(f, ")"),
        }
    }
}

/// Who has it open, as far as this process may see. The file descriptors of /proc tell.
fn holders(program: &AttachedProgram) -> Vec<Holder> {
    let own = std::process::id();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != own && holds(pid, program)).map(holder).collect()
}

fn holds(pid: u32, program: &AttachedProgram) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    files.into_iter().any(|file| {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let facts = facts(&text);
        let is = |key: &str, id: u32| facts.get(key).is_some_and(|value| **value == id.to_string());
        is("prog_id", program.id) || program.link_id.is_some_and(|id| is("link_id", id))
    })
}

/// `key:<tab>value` lines.
fn facts(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim())).collect()
}

fn holder(pid: u32) -> Holder {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let listening: BTreeMap<&str, &str> = table.lines().filter_map(listening).collect();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let control = files.into_iter().find_map(|file| {
        let target = fs::read_link(file.path()).ok()?;
        let inode = inode(&target)?;
        listening.get(inode.as_str()).map(|path| (*path).to_owned())
    });
    Holder { pid, name, control }
}

fn inode(target: &Path) -> Option<String> {
    Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
}

/// Inode and path of a listening socket of /proc/net/unix: `Num RefCount Protocol Flags Type St Inode Path`.
fn listening(line: &str) -> Option<(&str, &str)> {
    const ACCEPTS_CONNECTIONS: &str = "00010000";
    let columns: Vec<&str> = line.split_whitespace().collect();
    (columns.get(3)? == &ACCEPTS_CONNECTIONS).then_some((*columns.get(6)?, *columns.get(7)?))
}

#[cfg(test)]
mod tests {
    //! Goal: what /proc says of descriptors and sockets is read as the kernel writes it. What is detached, and what isn't,
    //! is shown by tests/detach.rs.
    use super::*;

    #[test]
    fn lines_of_proc() {
        let info = "pos:\t0\nflags:\t02000002\nlink_type:\txdp\nlink_id:\t7\nprog_tag:\t3b185187f1855c4c\nprog_id:\t41\n";
        let read = facts(info);
        assert_eq!((read["link_id"], read["prog_id"], read["link_type"]), ("7", "41", "xdp"));
        let line = "ffff8881: 00000002 00000000 00010000 0001 01 32817 /run/beam/beam.sock";
        assert_eq!(listening(line), Some(("32817", "/run/beam/beam.sock")));
        assert_eq!(listening("ffff8881: 00000003 00000000 00000000 0001 03 32818 /run/beam/beam.sock"), None);
        assert_eq!(listening("Num RefCount"), None);
        assert_eq!(inode(Path::new("socket:[32817]")).as_deref(), Some("32817"));
        assert_eq!(inode(Path::new("anon_inode:bpf_link")), None);
    }

    #[test]
    fn a_holder_is_named_with_its_control_socket() {
        let control = Some("/run/beam/beam.sock".to_owned());
        let holder = Holder { pid: 7, name: "beam".into(), control };
        assert_eq!(holder.to_string(), "beam (pid 7, control socket /run/beam/beam.sock)");
        assert_eq!(Holder { control: None, ..holder }.to_string(), "beam (pid 7)");
    }
}
