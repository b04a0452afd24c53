//! The system calls that a thread may make, each with its reason. These tables *are* the filters.
//!
//! Found by `strace -f` of every end-to-end test, and completed by what the same code does elsewhere (another C library,
//! another kernel). What isn't here ends the process, with the name of the call ([`crate::trap`]).
//!
//! Calls that every packet makes have no condition on their arguments: the kernel remembers for each call number whether
//! its filters allow it whatever the arguments (Linux 5.11), and doesn't run them then.

use When::{Absent, Always, Bits, Both, Is, Refused};
use std::collections::BTreeSet;

/// A call that may be made.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As in libc's `SYS_...`. A CPU that doesn't have it needs no rule.
    pub name: &'static str,
    pub(crate) when: When,
    /// What for.
    pub why: &'static str,
}

/// A condition on its arguments, which are counted from 0. The kernel looks at 32 bits of those that are named here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Always,
    /// One of these.
    Is(u8, &'static [u32]),
    /// All bits of `set`, none of `clear`.
    Bits {
        argument: u8,
        set: u32,
        clear: u32,
    },
    /// Two arguments at once.
    Both((u8, &'static [u32]), (u8, &'static [u32])),
    /// It isn't made: the call fails with EACCES, and the caller goes on without.
    Refused,
    /// The same with ENOSYS: the C library has another call for the purpose.
    Absent,
}

const fn row(name: &'static str, when: When, why: &'static str) -> Row {
    Row { name, when, why }
}

const fn always(name: &'static str, why: &'static str) -> Row {
    row(name, Always, why)
}

const AF_UNIX: u32 = libc::AF_UNIX as u32;
const AF_INET: u32 = libc::AF_INET as u32;
const AF_INET6: u32 = libc::AF_INET6 as u32;
const AF_NETLINK: u32 = libc::AF_NETLINK as u32;
const AF_XDP: u32 = libc::AF_XDP as u32;
const NETLINK_ROUTE: u32 = libc::NETLINK_ROUTE as u32;
const NETLINK_GENERIC: u32 = libc::NETLINK_GENERIC as u32;
const FIONREAD: u32 = libc::FIONREAD as u32;
const FIONBIO: u32 = libc::FIONBIO as u32;
const SIOCETHTOOL: u32 = libc::SIOCETHTOOL as u32;
const SIOCGIFINDEX: u32 = libc::SIOCGIFINDEX as u32;
const SIOCGIFNAME: u32 = libc::SIOCGIFNAME as u32;
const TCGETS: u32 = libc::TCGETS as u32;
const TIOCGWINSZ: u32 = libc::TIOCGWINSZ as u32;
const PR_GET_NAME: u32 = libc::PR_GET_NAME as u32;
const PR_SET_NAME: u32 = libc::PR_SET_NAME as u32;
/// linux/prctl.h
const PR_SET_VMA: u32 = 0x5356_4d41;
const CLONE_THREAD: u32 = libc::CLONE_THREAD as u32;
const F_DUPFD_CLOEXEC: u32 = libc::F_DUPFD_CLOEXEC as u32;
const F_GETFD: u32 = libc::F_GETFD as u32;
const F_SETFD: u32 = libc::F_SETFD as u32;
const F_GETFL: u32 = libc::F_GETFL as u32;
const F_SETFL: u32 = libc::F_SETFL as u32;
/// linux/bpf.h
const BPF_MAP_DELETE_ELEM: u32 = 3;
const NOT_EXECUTABLE: When = Bits { argument: 2, set: 0, clear: libc::PROT_EXEC as u32 };

/// A worker: packets, flows, nothing that opens a file, starts a thread or asks for a privilege.
pub static WORKER: &[Row] = &[
    // Its sleep and its letters.
    always("epoll_pwait2", "the one sleep of a worker, to the nanosecond"),
    always("epoll_pwait", "the same where the kernel is older than 5.11"),
    always("epoll_wait", "the same, by the C library's choice"),
    always("epoll_ctl", "watching sockets that come and go"),
    always("read", "TCP flows, the TUN device, the eventfd that wakes it"),
    always("write", "TCP flows, the eventfds that wake other workers, the log"),
    always("writev", "a TCP flow's chunks at once; a packet and its vnet header to the TUN device"),
    always("readv", "the same, the other way"),
    // Packets.
    always("recvmsg", "datagrams with their ECN marks and addresses"),
    always("recvmmsg", "the same in batches"),
    always(
        "recvfrom",
        "TCP flows, netlink, datagrams of local sockets; the wake-up of an RX ring under busy polling",
    ),
    always("sendmsg", "datagrams with GSO, ECN and source address"),
    always("sendmmsg", "the same in batches"),
    always("sendto", "the wake-up of a TX ring; netlink; local datagrams"),
    always("poll", "the wake-up of a fill ring"),
    always("ppoll", "the same, by the C library's choice"),
    // Sockets of flows.
    row(
        "socket",
        Is(0, &[AF_INET, AF_INET6]),
        "upstreams, listeners of -R, and the kernel's idea of a source address",
    ),
    row(
        "socket",
        Both((0, &[AF_NETLINK]), (2, &[NETLINK_ROUTE])),
        "a client hears of changed paths; counters of the TUN device",
    ),
    always("connect", "upstreams; UDP flows"),
    always("bind", "listeners of -R, UDP flows, netlink groups"),
    always("listen", "listeners of -R"),
    always("accept4", "connections to -L, -D and -R"),
    always("shutdown", "the end of one direction of a flow"),
    always("close", "the end of a flow"),
    always("getsockname", "where a flow's socket is bound"),
    always("getpeername", "who has come to a listener"),
    always("getsockopt", "how a connect went (SO_ERROR); statistics of an AF_XDP socket"),
    always(
        "setsockopt",
        "TCP_NODELAY, IPV6_V6ONLY, SO_REUSEADDR, ECN and MTU discovery of UDP flows, SO_LINGER",
    ),
    row(
        "fcntl",
        Is(1, &[F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC]),
        "non-blocking sockets; a second handle of one",
    ),
    row("ioctl", Is(1, &[FIONBIO, FIONREAD]), "non-blocking sockets, the standard library's way"),
    always("fstat", "which row of /proc/net/udp is its own socket's"),
    always("lseek", "that table, read from its start again"),
    row("bpf", Is(0, &[BPF_MAP_DELETE_ELEM]), "a worker that ends takes its queues out of the steering map"),
    // Memory.
    row("mmap", NOT_EXECUTABLE, "mimalloc's segments"),
    row("mprotect", NOT_EXECUTABLE, "guard pages; the C library's own heap"),
    always("munmap", "memory goes back; the rings and the UMEM of a queue at its end"),
    always("madvise", "memory that is idle goes back"),
    always("mremap", "a table that grows"),
    always("brk", "the C library's own heap"),
    // Time, chance, threads.
    always("clock_gettime", "where the vDSO has no clock"),
    always("clock_nanosleep", "a lock that is held for long (crossbeam, mimalloc) backs off"),
    always("nanosleep", "the same, by the C library's choice"),
    always("futex", "locks and channels"),
    always("sched_yield", "a spinning lock lets others go first"),
    always("getrandom", "connection IDs, keys, nonces"),
    always("gettid", "stack guards of the standard library; a panic's message"),
    always("getpid", "how the process is ended when a call is forbidden"),
    always("getcpu", "mimalloc's NUMA node, where the vDSO doesn't tell"),
    always("sched_getaffinity", "the C library counts CPUs for its heap"),
    row(
        "prctl",
        Is(0, &[PR_GET_NAME, PR_SET_NAME, PR_SET_VMA]),
        "the thread's name, in messages; names of mimalloc's memory",
    ),
    always("rt_sigaction", "abort, and the message about a forbidden call"),
    always("rt_sigprocmask", "the end of a thread; abort"),
    always("rt_sigreturn", "after SIGTERM, SIGHUP: any thread may be the one that is interrupted"),
    always("sigaltstack", "the end of a thread: its stack for overflows goes"),
    always("tgkill", "abort, and the end by a forbidden call"),
    always("restart_syscall", "a sleep goes on after the process was stopped"),
    always("exit", "the end of a worker"),
    always("exit_group", "the end of the process, by a panic within a panic"),
    // Asked for in vain. Killing for these would turn a panic's backtrace, or a C library that looks for CPUs, into the end.
    row("openat", Refused, "a backtrace, the C library's count of CPUs: both do without"),
    row("open", Refused, "as openat"),
    row("access", Refused, "mimalloc looks for NUMA nodes"),
    row("faccessat", Refused, "as access"),
    row("newfstatat", Refused, "as openat"),
    row("statx", Refused, "as openat"),
    row("stat", Refused, "as openat"),
    row("readlink", Refused, "a backtrace looks for its binary"),
    row("readlinkat", Refused, "as readlink"),
    row("getcwd", Refused, "a backtrace shortens paths"),
];

/// What the control plane does beside [`WORKER`]'s calls, less what that one is refused.
pub static CONTROL: &[Row] = &[
    // Threads, but no processes.
    row(
        "clone",
        Bits { argument: 0, set: CLONE_THREAD, clear: 0 },
        "threads for callers of the control socket, for workers, for a drain",
    ),
    row("clone3", Absent, "its flags can't be looked at; the C library takes clone then"),
    always("set_robust_list", "the start of a thread"),
    always("rseq", "the start of a thread"),
    always("set_tid_address", "the start of a thread"),
    always("sched_setaffinity", "workers are pinned"),
    always("sched_setscheduler", "thread libraries ask"),
    always("sched_getparam", "as above"),
    always("sched_getscheduler", "as above"),
    always("membarrier", "crossbeam's epochs"),
    // Files, as far as landlock lets them.
    always("openat", "certificates, users, the configuration again; the resolver's files; caches"),
    always("open", "as openat"),
    always("newfstatat", "as openat"),
    always("stat", "as openat"),
    always("lstat", "as openat"),
    always("statx", "as openat"),
    always("statfs", "what file system a cache is on"),
    always("fstatfs", "as statfs"),
    always("access", "is a file there"),
    always("faccessat", "as access"),
    always("faccessat2", "as access"),
    always("readlink", "links of configured files"),
    always("readlinkat", "as readlink"),
    always("getcwd", "relative paths of the command line"),
    always("getdents64", "directories: certificates of the system, CPUs, devices"),
    always("pread64", "caches on disk"),
    always("pwrite64", "caches on disk"),
    always("preadv", "caches on disk"),
    always("pwritev", "caches on disk"),
    always("fsync", "what was written stays"),
    always("fdatasync", "what was written stays"),
    always("flock", "one process has a cache"),
    always("fcntl", "locks of a cache; what descriptors are"),
    always("ftruncate", "caches grow and shrink"),
    always("fallocate", "caches grow"),
    always("fadvise64", "files that are copied"),
    always("copy_file_range", "files that are copied"),
    always("sendfile", "captures, files that are copied"),
    always("splice", "captures, standard input and output of -W"),
    always("mkdir", "the state directory"),
    always("mkdirat", "the state directory"),
    always("rename", "a new file takes the place of an old one"),
    always("renameat", "as rename"),
    always("renameat2", "as rename"),
    always("unlink", "the control socket at the end; a file that was replaced"),
    always("unlinkat", "as unlink"),
    always("rmdir", "as unlink"),
    always("chmod", "state is for its owner only"),
    always("fchmod", "state is for its owner only"),
    always("fchmodat", "state is for its owner only"),
    always("fchown", "a file that is replaced keeps its owner"),
    always("umask", "state is for its owner only"),
    // Sockets: the control socket, the resolver, netlink, the service manager.
    row(
        "socket",
        Is(0, &[AF_UNIX, AF_INET, AF_INET6]),
        "the control socket, DNS, metrics and web hooks; a handle for ioctl",
    ),
    row(
        "socket",
        Both((0, &[AF_NETLINK]), (2, &[NETLINK_ROUTE, NETLINK_GENERIC])),
        "links, routes, neighbours, ethtool; the C library asks for addresses",
    ),
    row("socketpair", Is(0, &[AF_UNIX]), "self-pipes of signals, -W"),
    always("accept", "as accept4"),
    always("pselect6", "libraries of the resolver"),
    always("select", "libraries of the resolver"),
    always("pipe2", "self-pipes"),
    always("eventfd2", "wakers"),
    always("epoll_create1", "wakers"),
    always("timerfd_create", "wakers"),
    always("timerfd_settime", "wakers"),
    always("dup", "descriptors that are passed"),
    always("dup2", "standard output of -W is closed for its reader"),
    always("dup3", "as dup2"),
    row(
        "ioctl",
        Is(1, &[FIONBIO, FIONREAD, SIOCETHTOOL, SIOCGIFINDEX, SIOCGIFNAME, TCGETS, TIOCGWINSZ]),
        "drivers and channels of a NIC; its index; terminals that a log goes to",
    ),
    always(
        "bpf",
        "steering counters and maps, by descriptor; a new program needs a capability that isn't there",
    ),
    // Memory and the process.
    always("mmap", "the resolver loads libraries (NSS), so that its mappings may be executable"),
    always("mprotect", "as mmap"),
    always("mlock", "keys"),
    always("mlock2", "keys"),
    always("munlock", "keys"),
    always("mincore", "a backtrace"),
    always("msync", "caches on disk"),
    always("prlimit64", "descriptors and locked memory that are left"),
    always("getrlimit", "as prlimit64"),
    always("getrusage", "CPU time, for metrics"),
    always("times", "CPU time, for metrics"),
    always("sysinfo", "memory of the host, for alerts"),
    always("uname", "the resolver, the version in diagnostics"),
    always("getuid", "the resolver; whose state directory"),
    always("geteuid", "as getuid"),
    always("getgid", "as getuid"),
    always("getegid", "as getuid"),
    always("getgroups", "as getuid"),
    always("getppid", "the service manager's watchdog"),
    always("capget", "what is left, for the log"),
    always("capset", "a thread that is started gives up what it has"),
    always("prctl", "what a thread gives up: the bounding set, new privileges"),
    always("seccomp", "the narrower filter of a worker"),
    always("landlock_create_ruleset", "the files that a worker can't reach"),
    always("landlock_add_rule", "as above"),
    always("landlock_restrict_self", "as above"),
    always("kill", "signals to itself"),
    always("rt_sigtimedwait", "signals that are waited for"),
    always("rt_sigsuspend", "signals that are waited for"),
    always("sigaltstack", "the start and end of a thread"),
    always("clock_getres", "timers"),
    always("gettimeofday", "where the vDSO has no clock"),
    always("time", "where the vDSO has no clock"),
];

/// A hook runs the operator's program, which is refused what no alert needs: to change the kernel, other processes,
/// mounts, namespaces.
pub static HOOK_REFUSED: &[&str] = &[
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "personality",
    "pivot_root",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
];

/// Calls that a worker may make.
pub(crate) fn worker_count() -> usize {
    let made = WORKER.iter().filter(|row| !matches!(row.when, Refused | Absent));
    made.map(|row| row.name).collect::<BTreeSet<_>>().len()
}

/// [`WORKER`]'s rows that [`CONTROL`] doesn't replace, and those.
pub(crate) fn control() -> impl Iterator<Item = &'static Row> {
    let replaced = |row: &&Row| !CONTROL.iter().any(|other| other.name == row.name);
    WORKER.iter().filter(replaced).chain(CONTROL)
}

/// [`control`]'s rows and the socket that a new NIC queue needs.
pub(crate) fn device() -> impl Iterator<Item = &'static Row> {
    static XDP: &[Row] = &[row("socket", Is(0, &[AF_XDP]), "the socket of a queue that came later")];
    control().chain(XDP)
}

#[cfg(test)]
mod tests {
    //! Goal: every row is a call that exists, with a reason, and no row contradicts another of its table.
    use super::*;
    use crate::names;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn rows_name_calls_and_reasons() {
        for row in WORKER.iter().chain(CONTROL) {
            assert!(names::number(row.name).is_some(), "{} is no system call", row.name);
            assert!(!row.why.is_empty(), "{}", row.name);
        }
        for name in HOOK_REFUSED {
            assert!(names::number(name).is_some(), "{name} is no system call");
        }
    }

    #[test]
    fn a_call_with_several_rows_has_a_condition_in_each() {
        for table in [WORKER.iter().collect::<Vec<_>>(), control().collect(), device().collect()] {
            for row in &table {
                let rows = table.iter().filter(|other| other.name == row.name).count();
                assert!(rows == 1 || matches!(row.when, Is(..) | Both(..) | Bits { .. }), "{}", row.name);
            }
        }
    }
}
