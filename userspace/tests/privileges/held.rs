//! A thread that is held: it runs no further, while the rest of its process does.

use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

/// Goes on when it is dropped.
pub(crate) struct Held(Pid);

impl Held {
    /// Stops one thread of another process. To be dropped on the same thread of this one.
    pub(crate) fn hold(thread: i32) -> Self {
        let thread = Pid::from_raw(thread);
        ptrace::attach(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}
