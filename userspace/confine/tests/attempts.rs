//! Goal: a confined thread can do its work and nothing that it was not given: each forbidden call ends the process with a
//! message that names it, each file out of reach is refused, and nothing is left of its capabilities.
//! Method: this binary runs itself again for each attempt (a confined thread has no way back), and looks at how the
//! child ended and what it said.
#![expect(unsafe_code, reason = "system calls as somebody who took a thread over would make them")]
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

use confine::{Capabilities, Files, Plan, Room};
use std::{
    fs, io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, Output},
};

const ATTEMPT: &str = "BEAM_CONFINE_ATTEMPT";
const PLACE: &str = "BEAM_CONFINE_PLACE";

/// Has a child make an attempt.
fn attempt(name: &str, place: &Place) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "in_a_child", "--nocapture"]);
    child.env(ATTEMPT, name).env(PLACE, &place.0).env("RUST_BACKTRACE", "0").output().unwrap()
}

/// A directory with `read/file`, `write/` and `outside/file`.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        // Not under a directory that every confined thread may read.
        let path = std::env::temp_dir().join(format!("beam-confine-{name}-{}", std::process::id()));
        for directory in ["read", "write", "outside"] {
            fs::create_dir_all(path.join(directory)).unwrap();
        }
        fs::write(path.join("read/file"), b"1").unwrap();
        fs::write(path.join("outside/file"), b"2").unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn call(number: libc::c_long, arguments: [libc::c_long; 4]) -> io::Result<libc::c_long> {
    let [a, b, c, d] = arguments;
    // SAFETY: the arguments are numbers and null pointers, for which the kernel fails at worst.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What a worker that was taken over would like to do, by name; all of it ends the process.
fn forbidden(name: &str) -> Option<io::Result<libc::c_long>> {
    let number = |value: i32| libc::c_long::from(value);
    let (raw, datagram) = (number(libc::SOCK_RAW), number(libc::SOCK_DGRAM));
    Some(match name {
        "execve" => call(libc::SYS_execve, [0; 4]),
        "execveat" => call(libc::SYS_execveat, [0; 4]),
        "clone" => call(libc::SYS_clone, [number(libc::SIGCHLD), 0, 0, 0]),
        "ptrace" => call(libc::SYS_ptrace, [libc::c_long::from(libc::PTRACE_TRACEME), 0, 0, 0]),
        "process_vm_writev" => call(libc::SYS_process_vm_writev, [1, 0, 0, 0]),
        "io_uring_setup" => call(libc::SYS_io_uring_setup, [1, 0, 0, 0]),
        "mount" => call(libc::SYS_mount, [0; 4]),
        "unshare" => call(libc::SYS_unshare, [number(libc::CLONE_NEWUSER), 0, 0, 0]),
        "setns" => call(libc::SYS_setns, [0; 4]),
        "setuid" => call(libc::SYS_setuid, [0; 4]),
        "init_module" => call(libc::SYS_init_module, [0; 4]),
        "keyctl" => call(libc::SYS_keyctl, [0; 4]),
        "memfd_create" => call(libc::SYS_memfd_create, [0; 4]),
        "bpf" => call(libc::SYS_bpf, [5, 0, 0, 0]),
        "socket of AF_PACKET" => call(libc::SYS_socket, [number(libc::AF_PACKET), raw, 0, 0]),
        "socket of AF_XDP" => call(libc::SYS_socket, [number(libc::AF_XDP), raw, 0, 0]),
        "socket of NETLINK_GENERIC" => {
            call(libc::SYS_socket, [number(libc::AF_NETLINK), raw, number(libc::NETLINK_GENERIC), 0])
        }
        "socket of AF_VSOCK" => call(libc::SYS_socket, [number(libc::AF_VSOCK), datagram, 0, 0]),
        "socket of AF_ALG" => call(libc::SYS_socket, [number(libc::AF_ALG), datagram, 0, 0]),
        _ => return forbidden_to_workers(name),
    })
}

/// The same, less what the control plane is allowed.
fn forbidden_to_workers(name: &str) -> Option<io::Result<libc::c_long>> {
    let number = |value: i32| libc::c_long::from(value);
    let executable = number(libc::PROT_READ | libc::PROT_EXEC);
    let anonymous = number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    Some(match name {
        "mmap of code" => call(libc::SYS_mmap, [0, 4096, executable, anonymous]),
        "mprotect to code" => call(libc::SYS_mprotect, [0, 0, executable, 0]),
        "prctl of dumpable" => call(libc::SYS_prctl, [number(libc::PR_SET_DUMPABLE), 1, 0, 0]),
        "ioctl of a terminal" => call(libc::SYS_ioctl, [0, libc::TIOCSTI as libc::c_long, 0, 0]),
        "socket of AF_UNIX" => {
            call(libc::SYS_socket, [number(libc::AF_UNIX), number(libc::SOCK_STREAM), 0, 0])
        }
        "clone3" => call(libc::SYS_clone3, [0; 4]),
        "unlinkat" => call(libc::SYS_unlinkat, [0; 4]),
        "renameat2" => call(libc::SYS_renameat2, [0; 4]),
        "kill" => call(libc::SYS_kill, [1, 0, 0, 0]),
        "dup3" => call(libc::SYS_dup3, [0, 5, 0, 0]),
        "capset" => call(libc::SYS_capset, [0; 4]),
        "prlimit64" => call(libc::SYS_prlimit64, [1, 0, 0, 0]),
        _ => return None,
    })
}

const EVERYBODY: [&str; 19] = [
    "execve",
    "execveat",
    "clone",
    "ptrace",
    "process_vm_writev",
    "io_uring_setup",
    "mount",
    "unshare",
    "setns",
    "setuid",
    "init_module",
    "keyctl",
    "memfd_create",
    "socket of AF_PACKET",
    "socket of AF_XDP",
    "socket of NETLINK_GENERIC",
    "socket of AF_VSOCK",
    "socket of AF_ALG",
    "bpf",
];
const WORKERS: [&str; 12] = [
    "mmap of code",
    "mprotect to code",
    "prctl of dumpable",
    "ioctl of a terminal",
    "socket of AF_UNIX",
    "clone3",
    "unlinkat",
    "renameat2",
    "kill",
    "dup3",
    "capset",
    "prlimit64",
];
/// Of [`EVERYBODY`], what the control plane needs.
const CONTROLS: [&str; 2] = ["bpf", "socket of NETLINK_GENERIC"];

fn killed(output: &Output) -> bool {
    output.status.signal() == Some(libc::SIGSYS)
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ends_with_a_message(room: &str, name: &str, place: &Place) {
    let output = attempt(&format!("{room}: {name}"), place);
    let said = errors(&output);
    assert!(killed(&output), "{room}, {name}: {:?}\n{said}", output.status);
    let call = name.split(' ').next().unwrap();
    let expected = format!("beam: thread {room} made the system call {call} (");
    let lines = said.lines().filter(|line| line.contains("seccomp filter")).count();
    assert!(said.contains(&expected) && lines == 1, "{room}, {name}: {said}");
}

#[test]
fn forbidden_calls_end_the_process_with_their_name() {
    let place = Place::new("forbidden");
    for name in EVERYBODY.into_iter().chain(WORKERS) {
        ends_with_a_message("worker", name, &place);
    }
    for name in EVERYBODY.into_iter().filter(|name| !CONTROLS.contains(name)) {
        ends_with_a_message("control", name, &place);
    }
    // A device thread's one call more isn't the control plane's.
    let output = attempt("device: socket of AF_XDP", &place);
    assert!(!killed(&output), "{}", errors(&output));
}

#[test]
fn what_each_room_needs_works_and_files_outside_are_refused() {
    let place = Place::new("allowed");
    let landlock = confine_level(&place);
    for room in ["worker", "control", "hook"] {
        let output = attempt(&format!("{room}: work"), &place);
        assert!(output.status.success(), "{room}: {:?}\n{}", output.status, errors(&output));
    }
    let output = attempt("control: files", &place);
    assert!(output.status.success(), "{:?}\n{}", output.status, errors(&output));
    if landlock == "0" {
        println!("SKIPPED in part: this kernel has no landlock");
    }
}

/// The landlock ABI that a child found.
fn confine_level(place: &Place) -> String {
    let said = attempt("control: level", place);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.lines().find_map(|line| line.split("landlock ").nth(1).map(str::to_owned)).unwrap()
}

/// The other side: does nothing unless it is asked to.
#[test]
fn in_a_child() {
    let Ok(asked) = std::env::var(ATTEMPT) else { return };
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let (room, what) = asked.split_once(": ").unwrap();
    let files = Files { read: vec![place.join("read/file")], write: vec![place.join("write")] };
    let report = confine::prepare(Plan { files, hook: None }).unwrap();
    let (name, what) = (room.to_owned(), what.to_owned());
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let room = match &*name {
            "worker" => Room::Worker,
            "control" => Room::Control,
            "device" => Room::Device(Capabilities::NET_RAW),
            _ => Room::Hook,
        };
        confine::enter(room).unwrap();
        if room == Room::Control {
            assert!(rustix::thread::capabilities(None).unwrap().permitted.is_empty());
        }
        match &*what {
            "level" => println!("landlock {}", report.landlock_abi),
            "work" => work(room, report.landlock_abi > 0),
            "files" => files_of_control(&place, report.landlock_abi > 0),
            call => drop(forbidden(call).expect("an attempt that is known")),
        }
    });
    thread.unwrap().join().unwrap();
}

fn work(room: Room, landlock: bool) {
    // Memory, sockets, locks, time: everybody's.
    let many: Vec<u8> = vec![1; 8 << 20];
    assert_eq!(many.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 8 << 20);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _there = std::net::TcpStream::connect(address).unwrap();
    let (here, _) = listener.accept().unwrap();
    here.set_nonblocking(true).unwrap();
    here.set_nodelay(true).unwrap();
    let open = fs::read("/etc/passwd");
    match room {
        Room::Worker => {
            assert_eq!(open.unwrap_err().raw_os_error(), Some(libc::EACCES), "a worker opens nothing");
        }
        Room::Hook => {
            let said = Command::new("/bin/echo").arg("here").output().unwrap();
            assert_eq!(said.stdout, b"here\n");
            let elsewhere = std::env::current_exe().unwrap();
            let run = Command::new(elsewhere).output();
            let is_refused = run.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES));
            assert!(is_refused || !landlock, "only the program and system directories are run");
            let error = call(libc::SYS_mount, [0; 4]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        }
        _ => {
            open.unwrap();
            std::thread::spawn(|| ()).join().unwrap();
            // It may look a name up, whatever comes of it.
            let _ = std::net::ToSocketAddrs::to_socket_addrs(&"localhost:1");
        }
    }
}

fn files_of_control(place: &std::path::Path, landlock: bool) {
    assert_eq!(fs::read(place.join("read/file")).unwrap(), b"1");
    // One that is replaced is read, too.
    fs::write(place.join("write/new"), b"3").unwrap();
    fs::rename(place.join("write/new"), place.join("write/other")).unwrap();
    fs::create_dir(place.join("write/inner")).unwrap();
    assert_eq!(fs::read(place.join("write/other")).unwrap(), b"3");
    if !landlock {
        return;
    }
    let refused = |result: io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EACCES));
    refused(fs::read(place.join("outside/file")).map(drop));
    refused(fs::write(place.join("outside/file"), b""));
    refused(fs::write(place.join("read/file"), b""));
    refused(fs::remove_file(place.join("read/file")));
    refused(fs::read_dir("/root").map(drop));
    refused(fs::read("/proc/1/status").map(drop));
}
