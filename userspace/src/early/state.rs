//! The state directory: where it is, and the disk level of the caches in it.

use super::secrets;
use cache::{Disk, Loudness};
use confine::Room;
use std::{
    env,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tunnel::Secrets;

/// Where a daemon of root keeps its state.
pub(crate) const SYSTEM_DIRECTORY: &str = "/var/lib/beam";

/// An open state directory. Caches have a directory of their own in it, which is narrowed to 0700.
pub(crate) struct State {
    disk: Option<Arc<Disk>>,
    secrets: Secrets,
}

impl State {
    /// The gateway's. Where the directory can't be used, that is said once, and everything lasts for this run only.
    pub(crate) fn gateway(directory: &Path) -> Self {
        let (secrets, trouble) = secrets::load_or_make(&directory.join("secrets"));
        let loudness = if trouble.is_some() { Loudness::Debug } else { Loudness::Warning };
        if let Some(error) = trouble {
            tracing::warn!(
                "session tickets, tokens and secrets last for this run only: {error:#}; run: mkdir -p -m 700 {}, or give --state-dir DIR",
                directory.display()
            );
        }
        let disk = Disk::new(&directory.join("cache").join("gateway.redb"), loudness);
        start(&disk);
        Self { disk: Some(disk), secrets }
    }

    /// None: nothing of before, and nothing is left.
    pub(crate) fn memory() -> Self {
        Self { disk: None, secrets: Secrets::random() }
    }

    /// The client's. A directory that nobody named is used if it can be.
    pub(crate) fn client(named: Option<&Path>) -> Self {
        let loudness = if named.is_some() { Loudness::Warning } else { Loudness::Debug };
        let disk = of_client(named).map(|directory| {
            // What can't be made now is said when something is to be written. Later it is out of reach.
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            Disk::new(&directory.join("cache").join("client.redb"), loudness)
        });
        disk.iter().for_each(start);
        // A client's connections end with it, and nobody but it reads its CIDs.
        Self { disk, secrets: Secrets::random() }
    }

    pub(crate) fn disk(&self) -> Option<Arc<Disk>> {
        self.disk.clone()
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

/// Starts the thread that writes, which is to be confined like others of the control plane: a worker, which may have the
/// first thing to write, is no parent for it.
fn start(disk: &Arc<Disk>) {
    // Without it the queue fills up, and what doesn't fit is counted.
    if let Err(error) = confine::within(Room::Control, || disk.start()) {
        tracing::warn!("no thread for {}: {error}", disk.path().display());
    }
}

/// Where a client keeps its state: where it is told to, or where its user's state is.
pub(crate) fn of_client(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(users_directory)
}

/// As the XDG Base Directory Specification has it; root's is the system's.
fn users_directory() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(SYSTEM_DIRECTORY.into());
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    state.map(|state| state.join("beam"))
}
