//! Files within reach of a thread, by landlock. The rules name directories, not files: a file that is replaced by a
//! rename is another file. What is open already stays open.

use crate::{Plan, Room, sys};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The newest ABI whose rights are handled: those that came later concern what nobody here does.
const KNOWN: ABI = ABI::V7;

/// Read by every control thread: the resolver's and TLS's configuration, the libraries that the resolver loads, what the
/// kernel tells of this process, of devices and of itself.
const SYSTEM: [&str; 16] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/ca-certificates",
    "/proc/self",
    "/proc/meminfo",
    "/proc/sys",
    "/proc/version",
    "/sys/class/net",
    "/sys/devices",
    // Where /etc/resolv.conf may lead, now or later.
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/connman",
];
/// Files of devices: read and written.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/urandom"];
/// What the operator's program may run, beside itself.
const PROGRAMS: [&str; 5] = ["/bin", "/sbin", "/usr", "/lib", "/lib64"];

/// Files that a daemon needs after its start.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Files that are read again: whatever is beside them is within reach.
    pub read: Vec<PathBuf>,
    /// Directories that are written to.
    pub write: Vec<PathBuf>,
}

/// What the kernel has.
pub(crate) struct Level {
    /// 0 where there is none.
    pub(crate) abi: i32,
    pub(crate) why_not: &'static str,
}

pub(crate) fn level() -> Level {
    match sys::landlock_abi() {
        Ok(abi) => Level { abi: abi.min(KNOWN as i32), why_not: "" },
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Level { abi: 0, why_not: "it is in the kernel, but off: boot with lsm=landlock,..." }
        }
        Err(_) => Level { abi: 0, why_not: "it takes Linux 5.13 with CONFIG_SECURITY_LANDLOCK" },
    }
}

impl Level {
    /// Confines the calling thread.
    pub(crate) fn restrict(&self, plan: &Plan, room: Room) -> Result<(), RulesetError> {
        if self.abi == 0 {
            return Ok(());
        }
        // The operator's program reads and writes what its user may: what it logs to, nobody here knows.
        let all = if room == Room::Hook { AccessFs::Execute.into() } else { AccessFs::from_all(KNOWN) };
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .create()?
            .no_new_privs(false);
        for (path, access) in grants(plan, room) {
            // What isn't there needs no rule. The rights that only directories have don't apply to files.
            let Ok(fd) = PathFd::new(&path) else { continue };
            let is_directory = fs::metadata(&path).is_ok_and(|meta| meta.is_dir());
            let access = if is_directory { access } else { access & AccessFs::from_file(KNOWN) };
            rules = rules.add_rule(PathBeneath::new(fd, access))?;
        }
        let status = rules.restrict_self()?;
        if status.ruleset == RulesetStatus::NotEnforced {
            tracing::warn!("landlock enforces nothing, though the kernel says that it has it");
        }
        Ok(())
    }
}

fn grants(plan: &Plan, room: Room) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let own = || own_paths(&plan.files);
    let all = |paths: &[&str], access: BitFlags<AccessFs>| -> Vec<_> {
        paths.iter().map(|path| (PathBuf::from(path), access)).collect()
    };
    match room {
        // It has all that it reads and writes open.
        Room::Worker => Vec::new(),
        Room::Hook => {
            let mut grants = all(&PROGRAMS, AccessFs::Execute.into());
            // Where it is, since an editor puts a new file in its place.
            let places = plan.hook.iter().flat_map(|program| directories_of(program));
            grants.extend(places.map(|place| (place, AccessFs::Execute.into())));
            grants
        }
        Room::Control | Room::Device(_) | Room::Broker(_) => {
            // A library that the resolver loads is mapped to be run: landlock asks for no right to do that.
            let mut grants = all(&SYSTEM, read);
            grants.extend(all(&DEVICES, read | AccessFs::WriteFile));
            let write = AccessFs::from_write(KNOWN) | read;
            let write = write
                & !(AccessFs::MakeChar
                    | AccessFs::MakeBlock
                    | AccessFs::MakeFifo
                    | AccessFs::MakeSym
                    | AccessFs::IoctlDev);
            let (reads, writes) = own();
            grants.extend(reads.into_iter().map(|path| (path, read)));
            grants.extend(writes.into_iter().map(|path| (path, write)));
            grants
        }
    }
}

/// Directories to read and to write.
fn own_paths(files: &Files) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let mut reads: BTreeSet<PathBuf> = files.read.iter().flat_map(|file| directories_of(file)).collect();
    // Where the files of the resolver really are: /etc/resolv.conf is a link as often as not.
    reads.extend(["/etc/resolv.conf", "/etc/hosts"].iter().flat_map(|file| directories_of(Path::new(file))));
    (reads, files.write.iter().cloned().collect())
}

/// The directory that a file is named in, and the one that it is in.
fn directories_of(file: &Path) -> Vec<PathBuf> {
    let parent = |file: &Path| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(parent) => Some(parent.to_owned()),
        None => None,
    };
    let named = parent(file);
    let real = fs::canonicalize(file).ok().as_deref().and_then(parent);
    named.into_iter().chain(real).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: a file is found again where it is, also through links (`live/cert.pem` of Let's Encrypt) and when it is
    //! named without a directory.
    use super::*;

    #[test]
    fn directories_of_links_and_bare_names() {
        let place = std::env::temp_dir().join(format!("beam-confine-{}", std::process::id()));
        let (live, archive) = (place.join("live"), place.join("archive"));
        fs::create_dir_all(&live).unwrap();
        fs::create_dir_all(&archive).unwrap();
        fs::write(archive.join("cert1.pem"), b"").unwrap();
        std::os::unix::fs::symlink("../archive/cert1.pem", live.join("cert.pem")).unwrap();
        let archive = fs::canonicalize(archive).unwrap();
        assert_eq!(directories_of(&live.join("cert.pem")), [live, archive]);
        fs::remove_dir_all(place).unwrap();
        assert_eq!(directories_of(Path::new("users")), [PathBuf::from(".")]);
        assert!(directories_of(Path::new("/")).is_empty());
    }

    #[test]
    fn a_worker_opens_nothing() {
        assert!(grants(&Plan::default(), Room::Worker).is_empty());
    }
}
