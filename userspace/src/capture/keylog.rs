//! TLS secrets for `beam capture --keylog`, in the format of NSS (SSLKEYLOGFILE), as Wireshark reads it.
//!
//! Every TLS configuration of the daemon has [`Tee`] as its key log. rustls asks it `will_log` before it computes anything
//! for it: while no such capture runs, that is one load of a flag a secret, some five a handshake. One capture at a time
//! may have the secrets; only root and the daemon's own user may ask for them, and `--capture-keylog off` forbids it.

use crossbeam::queue::ArrayQueue;
use std::{
    fmt::Write as _,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use zeroize::Zeroizing;

/// Lines that wait for the plane, which looks fifty times a second: five a handshake.
pub(crate) const LINES_MAX: usize = 4096;

/// Whether anybody listens. Only [`Secrets`] turns it on.
static ON: AtomicBool = AtomicBool::new(false);
static TAKEN: AtomicBool = AtomicBool::new(false);
static MISSED: AtomicU64 = AtomicU64::new(0);
static QUEUE: OnceLock<ArrayQueue<Zeroizing<String>>> = OnceLock::new();

/// The key log of rustls.
#[derive(Debug)]
pub(crate) struct Tee;

impl rustls::KeyLog for Tee {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let Some(queue) = QUEUE.get().filter(|_| ON.load(Ordering::Acquire)) else { return };
        if queue.push(line(label, client_random, secret)).is_err() {
            MISSED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn will_log(&self, _label: &str) -> bool {
        ON.load(Ordering::Relaxed)
    }
}

fn line(label: &str, client_random: &[u8], secret: &[u8]) -> Zeroizing<String> {
    // As long as it will be: growing would leave a copy behind.
    let mut line = String::with_capacity(label.len() + 2 * (client_random.len() + secret.len()) + 3);
    line.push_str(label);
    for bytes in [client_random, secret] {
        line.push(' ');
        bytes.iter().for_each(|byte| {
            let _ = write!(line, "{byte:02x}");
        });
    }
    line.push('\n');
    Zeroizing::new(line)
}

/// The one listener. Dropping it turns the log off and forgets what waits.
#[derive(Debug)]
pub(crate) struct Secrets(());

impl Secrets {
    /// Begins to listen; `None` if somebody does already.
    pub(crate) fn listen() -> Option<Self> {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return None;
        }
        QUEUE.get_or_init(|| ArrayQueue::new(LINES_MAX));
        MISSED.store(0, Ordering::Relaxed);
        ON.store(true, Ordering::Release);
        Some(Self(()))
    }

    /// What has come since the last call.
    pub(crate) fn take(&self) -> Zeroizing<String> {
        let mut lines = Zeroizing::new(String::new());
        if let Some(queue) = QUEUE.get() {
            // As many as there are now: a flood of handshakes doesn't hold the caller here.
            for line in std::iter::from_fn(|| queue.pop()).take(LINES_MAX) {
                lines.push_str(&line);
            }
        }
        lines
    }

    pub(crate) fn missed(&self) -> u64 {
        MISSED.load(Ordering::Relaxed)
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        ON.store(false, Ordering::SeqCst);
        if let Some(queue) = QUEUE.get() {
            while queue.pop().is_some() {}
        }
        TAKEN.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: nothing is logged unless somebody listens, one does at a time, and the format is NSS's. One test, for it is
    //! one log a process.
    use super::*;
    use rustls::KeyLog as _;

    #[test]
    fn one_listener_gets_lines_and_nobody_else_does() {
        assert!(!Tee.will_log("CLIENT_TRAFFIC_SECRET_0"));
        Tee.log("LOST", &[0], &[0]);
        let secrets = Secrets::listen().unwrap();
        assert!(Secrets::listen().is_none());
        assert!(Tee.will_log("CLIENT_TRAFFIC_SECRET_0"));
        Tee.log("CLIENT_TRAFFIC_SECRET_0", &[0x0a, 0xff], &[1, 2]);
        assert_eq!(secrets.take().as_str(), "CLIENT_TRAFFIC_SECRET_0 0aff 0102\n");
        for _ in 0..LINES_MAX + 3 {
            Tee.log("X", &[], &[]);
        }
        assert_eq!(secrets.missed(), 3);
        drop(secrets);
        assert!(!Tee.will_log("CLIENT_TRAFFIC_SECRET_0"));
        let again = Secrets::listen().unwrap();
        assert!(again.take().is_empty(), "what waited is forgotten");
    }
}
