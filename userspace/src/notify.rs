//! What the service manager hears (sd_notify(3)): one datagram to the socket that `NOTIFY_SOCKET` names, a path or, with `@`,
//! an abstract name. Without it nobody listens, and nothing is done.
//!
//! | when | what |
//! |---|---|
//! | a gateway serves; a client's first tunnel is up | `READY=1`, `STATUS=` |
//! | a reload begins | `RELOADING=1`, `MONOTONIC_USEC=` |
//! | it is over, well or not | `READY=1`, `STATUS=` with the outcome |
//! | a drain begins, or the daemon ends at once | `STOPPING=1`, `STATUS=`, `EXTEND_TIMEOUT_USEC=` as long as the drain may take |
//! | twice in `WATCHDOG_USEC`, if every worker has answered | `WATCHDOG=1` |
//!
//! A client whose gateway can't be reached isn't ready, as in `beam status`: what is ordered after its unit finds a tunnel.
//! It goes on trying as long as the unit's `TimeoutStartSec=` lets it (`infinity` for a host that boots without a network).

use crate::{supervisor::Supervisor, worker::mail::Command};
use std::{
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Beyond what a drain may take: the end of workers, tickets on disk.
const END_MARGIN: Duration = Duration::from_secs(5);

/// The socket, connected before files go out of reach.
static MANAGER: OnceLock<UnixDatagram> = OnceLock::new();
static READY: AtomicBool = AtomicBool::new(false);
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Finds the service manager, if there is one.
pub(crate) fn open() {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    match connect(&name) {
        Ok(socket) => drop(MANAGER.set(socket)),
        Err(error) => tracing::warn!(
            "the service manager hears nothing: NOTIFY_SOCKET={} can't be used: {error}",
            name.to_string_lossy()
        ),
    }
}

fn connect(name: &OsString) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that hangs doesn't hang a worker.
    socket.set_nonblocking(true)?;
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("it is neither a path nor @ and a name")),
    };
    socket.connect_addr(&address)?;
    Ok(socket)
}

fn send(lines: &[&str]) {
    let Some(manager) = MANAGER.get() else { return };
    if let Err(error) = manager.send(lines.join("\n").as_bytes()) {
        tracing::debug!(%error, "the service manager takes no message");
    }
}

/// Status is one line.
fn status(text: &str) -> String {
    format!("STATUS={}", text.replace('\n', " "))
}

/// The daemon does what it is for.
pub(crate) fn ready(text: &str) {
    // A tunnel that comes up during a drain changes nothing.
    if !STOPPING.load(Ordering::SeqCst) {
        READY.store(true, Ordering::SeqCst);
        send(&["READY=1", &status(text)]);
    }
}

/// Files are read again, and what comes of it. Of a client without a tunnel the manager hears nothing: it would be ready
/// afterwards.
pub(crate) fn reload(read: impl FnOnce() -> Result<String, String>) -> Result<String, String> {
    let was_ready = READY.load(Ordering::SeqCst);
    if was_ready {
        reloading();
    }
    let outcome = read();
    if was_ready {
        ready(outcome.as_ref().unwrap_or_else(|error| error));
    }
    outcome
}

fn reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let usec = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000;
    send(&["RELOADING=1", &format!("MONOTONIC_USEC={usec}"), "STATUS=reading files again"]);
}

/// The daemon ends, at the latest after `within`. Said once.
pub(crate) fn stopping(within: Duration, text: &str) {
    if !STOPPING.swap(true, Ordering::SeqCst) {
        let usec = (within + END_MARGIN).as_micros();
        send(&["STOPPING=1", &status(text), &format!("EXTEND_TIMEOUT_USEC={usec}")]);
    }
}

/// How often the manager wants a sign of life, if it does.
fn watchdog_interval() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let usec = number("WATCHDOG_USEC").filter(|&usec| usec > 0)?;
    // Meant for another process, if it says so.
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    is_ours.then(|| Duration::from_micros(usec))
}

/// Starts the thread that gives signs of life, where they are wanted.
pub(crate) fn watch(supervisor: &Arc<Supervisor>) -> io::Result<()> {
    let Some(interval) = watchdog_interval().filter(|_| MANAGER.get().is_some()) else { return Ok(()) };
    let supervisor = supervisor.clone();
    std::thread::Builder::new().name("beam-watchdog".into()).spawn(move || {
        let mut silent_before = Vec::new();
        loop {
            let silent = silent_workers(&supervisor);
            if silent.is_empty() {
                send(&["WATCHDOG=1"]);
            } else if silent != silent_before {
                tracing::error!(
                    "worker(s) {silent:?} don't answer: the service manager's watchdog is not reset, and restarts this daemon after {:.1} s",
                    interval.as_secs_f64()
                );
            }
            silent_before = silent;
            std::thread::sleep(interval / 2);
        }
    })?;
    Ok(())
}

/// Workers that don't report in time.
fn silent_workers(supervisor: &Supervisor) -> Vec<u8> {
    let answers = supervisor.ask_all(Command::Snapshot);
    let answered = |id: &u8| answers.iter().any(|snapshot| snapshot.id == *id);
    (0..supervisor.seats.len() as u8).filter(|id| !answered(id)).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: both kinds of names are reached, and what is none is refused with what it should be.
    use super::*;

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let name = format!("beam-notify-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let path = std::env::temp_dir().join(&name);
        for (listener, name) in [
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), OsString::from(format!("@{name}"))),
            (UnixDatagram::bind(&path).unwrap(), path.clone().into()),
        ] {
            connect(&name).unwrap().send(b"READY=1").unwrap();
            let mut buffer = [0; 16];
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        std::fs::remove_file(path).unwrap();
        assert!(connect(&"vsock:2:1".into()).unwrap_err().to_string().contains("neither a path"));
        assert_eq!(status("a\nb"), "STATUS=a b");
    }
}
