//! A terminal for a program under test: a pty of some size, whose other end the test reads and types at.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::rig::{Proc, patiently};

#[derive(Default)]
struct Seen {
    bytes: Mutex<Vec<u8>>,
    changed: Condvar,
}

/// See the module.
pub(crate) struct Terminal {
    ours: File,
    /// Held so that what the program leaves of the terminal's state can be asked for after its end.
    theirs: OwnedFd,
    seen: Arc<Seen>,
}

impl Terminal {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let open = File::options().read(true).write(true).open(name.to_str().unwrap());
        let theirs = OwnedFd::from(open.unwrap());
        let seen = Arc::<Seen>::default();
        let (mut reader, of_thread) = (File::from(ours.try_clone().unwrap()), seen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                of_thread.bytes.lock().unwrap().extend_from_slice(&buffer[..length]);
                of_thread.changed.notify_all();
            }
        });
        let terminal = Self { ours: ours.into(), theirs, seen };
        terminal.resize(columns, rows);
        terminal
    }

    /// Starts a program whose controlling terminal this is, as a terminal of that `TERM`.
    pub(crate) fn run(&self, name: &str, program: impl AsRef<OsStr>, args: &[&str], term: &str) -> Proc {
        // setsid makes it the controlling terminal, then becomes the program: the pid stays.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program).args(args);
        command.env("TERM", term).env("LANG", "C.UTF-8").env_remove("LC_ALL").env_remove("NO_COLOR");
        let end = || Stdio::from(self.theirs.try_clone().unwrap());
        command.stdin(end()).stdout(end());
        Proc::spawn(name, &mut command)
    }

    /// The program hears of it by SIGWINCH.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.ours, size).unwrap();
    }

    pub(crate) fn press(&self, keys: &str) {
        (&self.ours).write_all(keys.as_bytes()).unwrap();
    }

    /// How the terminal treats what is typed and printed.
    pub(crate) fn state(&self) -> Termios {
        tcgetattr(self.theirs.as_fd()).unwrap()
    }

    /// Bytes that the program has written.
    pub(crate) fn mark(&self) -> usize {
        self.seen.bytes.lock().unwrap().len()
    }

    /// All of them behind a mark.
    pub(crate) fn since(&self, mark: usize) -> String {
        String::from_utf8_lossy(&self.seen.bytes.lock().unwrap()[mark..]).into_owned()
    }

    /// Waits until `text` was written behind the mark.
    pub(crate) fn wait_for(&self, mark: usize, text: &str, limit: Duration) {
        let deadline = Instant::now() + patiently(limit);
        let mut bytes = self.seen.bytes.lock().unwrap();
        while !String::from_utf8_lossy(&bytes[mark..]).contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no {text:?} within {limit:?}, but {:?}",
                String::from_utf8_lossy(&bytes[mark..])
            );
            bytes = self.seen.changed.wait_timeout(bytes, left).unwrap().0;
        }
    }
}
