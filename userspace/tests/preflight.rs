//! Goal: bad input gets a clear error and its own exit code: what failed, the value seen, the value needed, the next
//! command; and whatever was begun is undone.
//! Method: tables of rows, each a command line run in a namespace prepared for it. All rows of a table run, then every
//! one that went wrong is told at once. The command in a message is executed where that proves the advice.

mod pair;
mod rig;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use pair::{FORWARD_PORT, LIMIT, Place, TUNNEL_PORT, path};
use rig::{Beam, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, Proc};

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
    /// Phrases of standard error.
    says: &'static [&'static str],
}

const ROW: Row = Row { name: "", before: "", after: "", by: "", env: &[], args: "", exit: 0, says: &[] };

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

#[test]
fn interfaces() {
    if !rig::root_or_skip("preflight: interfaces") {
        return;
    }
    let rows = [
        Row {
            name: "interface missing",
            args: "{serve} -i nope --xdp native",
            exit: 4,
            says: &["no interface nope", "there are: ", "g0", "g1", "lo", "--interface"],
            ..ROW
        },
        Row {
            name: "interface missing, without insisting on XDP",
            args: "{serve} -i nope",
            exit: 4,
            says: &["no interface nope", "there are: ", "--interface"],
            ..ROW
        },
        Row {
            name: "interface down",
            before: "ip link set g0 down",
            after: "ip link set g0 up",
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            says: &["interface g0 is down", "ip link set g0 up"],
            ..ROW
        },
        Row {
            name: "not an Ethernet interface",
            args: "{serve} -i lo --xdp native",
            exit: 4,
            says: &["interface lo has link type", "Ethernet", "--interface", "--xdp off"],
            ..ROW
        },
        Row {
            name: "driver without native XDP",
            before: "ip link add br0 type bridge; ip link set br0 up",
            after: "ip link del br0",
            args: "{serve} -i br0 --xdp native",
            exit: 4,
            says: &["interface br0 takes no native XDP program", "EOPNOTSUPP", "--xdp auto or --xdp skb"],
            ..ROW
        },
        Row {
            name: "MTU too large",
            before: "ip link set g0 mtu 9000",
            after: "ip link set g0 mtu 1500",
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            says: &["interface g0 has MTU 9000", "3818 at most", "ip link set g0 mtu 3818"],
            ..ROW
        },
        Row {
            name: "queue that does not exist",
            args: "{serve} -i g0 --xdp native --queues 0,7",
            exit: 4,
            says: &["no queue 7", "it has 2 (0 to 1)", "--queues", "ethtool -L g0 combined 8"],
            ..ROW
        },
        Row {
            name: "queue that does not exist, without insisting on XDP",
            args: "{serve} -i g0 --queues 0,7",
            exit: 4,
            says: &["no queue 7", "it has 2 (0 to 1)", "--queues"],
            ..ROW
        },
        Row {
            name: "zero-copy insisted on",
            args: "{serve} -i g0 --zero-copy on",
            exit: 4,
            says: &["queue 0 of g0 has no zero-copy", "EOPNOTSUPP", "--zero-copy auto"],
            ..ROW
        },
        Row {
            name: "memory that may be locked",
            by: LITTLE_MEMLOCK,
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            says: &["UMEM", "RLIMIT_MEMLOCK is 65536 bytes", "50331648 bytes", "ulimit -l 49152", "--umem"],
            ..ROW
        },
        Row {
            name: "XDP without an interface",
            args: "{serve} --xdp native",
            exit: 3,
            says: &["AF_XDP needs an interface", "-i IF", "--xdp off"],
            ..ROW
        },
        Row {
            name: "ring size",
            args: "{serve} -i g0 --ring-size 1000",
            exit: 3,
            says: &["--ring-size is 1000", "a power of two from 64 to 65536"],
            ..ROW
        },
        Row {
            name: "frame size",
            args: "{serve} -i g0 --frame-size 1500",
            exit: 3,
            says: &["--frame-size is 1500", "2048 or 4096"],
            ..ROW
        },
        Row {
            name: "UMEM smaller than its rings",
            args: "{serve} -i g0 --umem 1",
            exit: 3,
            says: &["--umem is", "8 to 8192 MiB"],
            ..ROW
        },
        Row {
            name: "CPU that is not there",
            args: "{serve} -i g0 --cpus 0,999",
            exit: 3,
            says: &["--cpus names CPU 999", "this process may use"],
            ..ROW
        },
    ];
    check(&Place::new(), Ns::Gateway, &rows);
}

#[test]
fn ports_and_privilege() {
    if !rig::root_or_skip("preflight: ports and privilege") {
        return;
    }
    let place = Place::new();
    let taken = place.rig.within(Ns::Gateway, || UdpSocket::bind((GATEWAY_V4, TUNNEL_PORT))).unwrap();
    let in_use: &[&str] = &["UDP 198.18.0.1:4433 is already in use", "ss -ulpn 'sport = :4433'", "--listen"];
    let rows = [
        Row { name: "port in use", args: "{serve} --xdp off", exit: 4, says: in_use, ..ROW },
        Row {
            name: "port in use, with XDP",
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            says: in_use,
            ..ROW
        },
    ];
    check(&place, Ns::Gateway, &rows);
    drop(taken);

    let rows = [
        Row {
            name: "no capability, and native XDP insisted on",
            by: NOBODY,
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            says: &[
                "lacks CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW",
                "setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock+ep {dir}/beam",
            ],
            ..ROW
        },
        Row {
            name: "one capability missing",
            by: "setpriv --bounding-set=-net_raw --inh-caps=-all",
            args: "{serve} -i g0 --xdp skb",
            exit: 4,
            says: &["lacks CAP_NET_RAW;", "setcap "],
            ..ROW
        },
        Row {
            name: "privileged port without privilege",
            by: NOBODY,
            args: "serve -l 198.18.0.1:443 --xdp off {tls} {users}",
            exit: 4,
            says: &["UDP port 443", "CAP_NET_BIND_SERVICE", "ip_unprivileged_port_start=443", "--listen"],
            ..ROW
        },
        Row {
            name: "address of another host",
            args: "serve -l 198.18.0.77:4433 --xdp off {tls} {users}",
            exit: 4,
            says: &["198.18.0.77 is not an address of this host", "ip -brief address", "--listen :4433"],
            ..ROW
        },
        Row {
            name: "address that does not resolve",
            args: "serve -l nowhere.invalid:4433 --xdp off {tls} {users}",
            exit: 3,
            says: &["nowhere.invalid", "give an IP address"],
            ..ROW
        },
        Row {
            name: "control socket where a file is",
            before: "echo kept > {dir}/open/file",
            after: "test $(cat {dir}/open/file) = kept",
            args: "{serve} --xdp off --control {dir}/open/file",
            exit: 4,
            says: &["{dir}/open/file is there and is no control socket", "--control PATH"],
            ..ROW
        },
        Row {
            name: "control socket where one may not write",
            by: NOBODY,
            args: "{serve} --xdp off --control {dir}/closed.sock",
            exit: 4,
            says: &["control socket {dir}/closed.sock", "Permission denied", "--control PATH"],
            ..ROW
        },
    ];
    check(&place, Ns::Gateway, &rows);
}

/// Two programs in turn: one attached by netlink, as older tools do, and another beam's bpf_link. The advice is followed.
#[test]
fn another_xdp_program() {
    if !rig::root_or_skip("preflight: another XDP program") {
        return;
    }
    let place = Place::new();
    let object = foreign_program(place.rig.directory());
    let attach = ["link", "set", "dev", "g0", "xdpgeneric", "obj", &object, "sec", "xdp"];
    place.rig.ip(Ns::Gateway, &attach);
    let rows = [Row {
        name: "foreign program",
        before: ": xdp is there already",
        args: "{serve} -i g0 --xdp native",
        exit: 4,
        says: &["g0 already runs XDP program somebody_else (id ", "skb", "ip link set dev g0 xdpgeneric off"],
        ..ROW
    }];
    check(&place, Ns::Gateway, &rows);
    assert_eq!(place.rig.xdp_hook(Ns::Gateway, "g0"), Some("skb"), "beam left the other program alone");
    // It may also go round it, if it says so.
    let mut fallback = place.gateway(GATEWAY_V4, &["-i", "g0"]);
    let said = fallback.process.stderr();
    assert!(said.contains("no AF_XDP on g0") && said.contains("already runs XDP program"), "{said}");
    assert_eq!(fallback.process.terminate(LIMIT).code(), Some(0));
    place.rig.ip(Ns::Gateway, &["link", "set", "dev", "g0", "xdpgeneric", "off"]);

    let mut first = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let second = "serve -l 198.18.0.1:4434 {tls} {users} -i g0 --xdp native";
    let says: &[&str] = &["XDP program beam_steer (id ", "native", "bpftool link detach id "];
    let rows = [Row { name: "another beam", before: ": xdp", args: second, exit: 4, says, ..ROW }];
    check(&place, Ns::Gateway, &rows);
    assert_eq!(first.process.terminate(LIMIT).code(), Some(0));
    assert!(!place.rig.has_xdp(Ns::Gateway, "g0"));
}

/// Compiles a program that passes every packet; clang is there, for xsk-rs needs it to build.
fn foreign_program(directory: &Path) -> String {
    let (source, object) = (directory.join("foreign.c"), directory.join("foreign.o"));
    let program = "__attribute__((section(\"xdp\"), used)) int somebody_else(void *packet) { return 2; }\n\
                   char _license[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";
    fs::write(&source, program).expect("write the foreign program");
    let mut clang = Command::new("clang");
    let done = clang.args(["-target", "bpf", "-O2", "-g", "-c", "-o"]).arg(&object).arg(&source).status();
    assert!(done.expect("run clang").success(), "clang -target bpf failed");
    path(&object)
}

/// Without privilege, and without insisting on XDP, beam says what it lacks and works.
#[test]
fn without_privilege_it_falls_back_aloud_and_works() {
    if !rig::root_or_skip("preflight: fallback without privilege") {
        return;
    }
    let place = Place::new();
    open_for_others(&place);
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let start = |ns: Ns, name: &str, args: String| {
        let mut by = NOBODY.split(' ');
        let mut command = place.rig.command(ns, by.next().unwrap());
        let control = place.rig.directory().join(format!("open/{name}.sock"));
        command.args(by).arg(place.rig.directory().join("beam")).args(fill(&place, &args));
        let beam = Beam { process: Proc::spawn(name, command.arg("--control").arg(&control)), control };
        beam.wait_until_ready();
        beam
    };
    let gateway = start(Ns::Gateway, "gateway", "{serve} -i g0 --xdp auto".into());
    let forward = format!("-L {FORWARD_PORT}:{} -i c0 --token-file {{dir}}/alice.token", http.address());
    let client =
        start(Ns::Client, "client", format!("connect https://{GATEWAY_V4}:{TUNNEL_PORT} {{ca}} {forward}"));
    place.curl(&[&format!("http://127.0.0.1:{FORWARD_PORT}/1000000")]);
    assert_eq!(http.body_bytes(), 1_000_000);
    for (beam, interface) in [(&gateway, "g0"), (&client, "c0")] {
        let said = beam.process.wait_for_line("no AF_XDP on", LIMIT);
        assert!(said.contains(interface) && said.contains("WARN"), "{said}");
        assert!(said.contains("lacks CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW"), "{said}");
        let status = beam.status();
        for worker in pair::workers(&status) {
            assert_eq!(worker["xdp_mode"], "off");
            assert!(worker["xdp_why"].to_string().contains("CAP_BPF"), "{status:#}");
        }
    }
}

#[test]
fn files_of_a_gateway() {
    if !rig::root_or_skip("preflight: files of a gateway") {
        return;
    }
    let users = "{serve-bare} {tls} --xdp off --users";
    let users =
        |file: &str| -> &'static str { Box::leak(format!("{users} {{dir}}/{file}").into_boxed_str()) };
    let rows = [
        Row {
            name: "key of another certificate",
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.pem --tls-key {dir}/client.key",
            exit: 3,
            says: &["{dir}/client.key", "{dir}/server.pem", "does not belong to the certificate", "openssl"],
            ..ROW
        },
        Row {
            name: "certificate file missing",
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/none.pem --tls-key {dir}/server.key",
            exit: 3,
            says: &["{dir}/none.pem", "No such file"],
            ..ROW
        },
        Row {
            name: "certificate file without a certificate",
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.key --tls-key {dir}/server.key",
            exit: 3,
            says: &["{dir}/server.key holds no PEM certificate", "BEGIN CERTIFICATE"],
            ..ROW
        },
        Row {
            name: "key file without a key",
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.pem --tls-key {dir}/server.pem",
            exit: 3,
            says: &["{dir}/server.pem holds no readable PEM private key", "PKCS#8"],
            ..ROW
        },
        Row {
            name: "no certificate",
            args: "{serve-bare} {users} --xdp off",
            exit: 3,
            says: &["no certificate", "--tls-cert", "--tls-key", "--self-signed"],
            ..ROW
        },
        Row {
            name: "certificate without its key",
            args: "{serve-bare} {users} --xdp off --tls-cert {dir}/server.pem",
            exit: 2,
            says: &["--tls-key"],
            ..ROW
        },
        Row {
            name: "users file missing",
            args: users("none"),
            exit: 3,
            says: &["users file {dir}/none", "No such file", "beam user add NAME --users {dir}/none"],
            ..ROW
        },
        Row {
            name: "users file unreadable",
            before: "cp {dir}/users {dir}/secret; chmod 0600 {dir}/secret",
            by: NOBODY,
            args: users("secret"),
            exit: 3,
            says: &["users file {dir}/secret", "Permission denied", "chmod 0640 {dir}/secret"],
            ..ROW
        },
        Row {
            name: "users file that its group may write",
            before: "cp {dir}/users {dir}/loose; chmod 0660 {dir}/loose",
            args: users("loose"),
            exit: 3,
            says: &["users file {dir}/loose has mode 0660", "chmod 0640 {dir}/loose"],
            ..ROW
        },
        Row {
            name: "users file with a line that is none",
            before: "echo 'alice plaintext' > {dir}/broken",
            args: users("broken"),
            exit: 3,
            says: &["users file {dir}/broken, line 1", "sha256:<64 hex digits>", "beam user add"],
            ..ROW
        },
        Row {
            name: "nobody could use it",
            args: "{serve-bare} {tls} --xdp off",
            exit: 3,
            says: &["--users FILE", "beam user add NAME", "--client-ca FILE"],
            ..ROW
        },
        Row {
            name: "client CA missing",
            args: "{serve-bare} {tls} --xdp off --client-ca {dir}/none.pem",
            exit: 3,
            says: &["{dir}/none.pem", "No such file"],
            ..ROW
        },
        Row {
            name: "destination that is none",
            args: "serve -l :4433 {tls} {users} --xdp off --allow 198.19.0.0/33",
            exit: 3,
            says: &["198.19.0.0/33"],
            ..ROW
        },
    ];
    check(&Place::new(), Ns::Gateway, &rows);
}

/// What clap refuses is said with the usage, and is told apart from what the files or the host lack.
#[test]
fn flags() {
    if !rig::root_or_skip("preflight: flags") {
        return;
    }
    let rows = [
        Row { name: "no verb", args: "--none", exit: 2, says: &["--none", "Usage"], ..ROW },
        Row {
            name: "unknown mode",
            args: "{serve} --xdp fast",
            exit: 2,
            says: &["fast", "auto, native, skb, off"],
            ..ROW
        },
        Row {
            name: "from the environment too",
            env: &[("BEAM_XDP", "fast")],
            args: "{serve}",
            exit: 2,
            says: &["fast", "auto, native, skb, off"],
            ..ROW
        },
        Row {
            name: "queues backwards",
            args: "{serve} --queues 3-1",
            exit: 2,
            says: &["3-1", "runs backwards"],
            ..ROW
        },
        Row {
            name: "CPUs that are no numbers",
            args: "{serve} --cpus a",
            exit: 2,
            says: &["`a` is not a list such as 0-3 or 0,2"],
            ..ROW
        },
        Row { name: "port", args: "serve -l :99999", exit: 2, says: &["`99999` is not a port"], ..ROW },
        Row {
            name: "time",
            args: "{serve} --drain-timeout 5parsecs",
            exit: 2,
            says: &["parsecs", "ms, s, m or h"],
            ..ROW
        },
        Row { name: "no URL", args: "connect", exit: 2, says: &["<URL>", "Usage"], ..ROW },
        Row {
            name: "URL without TLS",
            args: "connect http://gw.example -D 1080",
            exit: 2,
            says: &["https://HOST[:PORT]"],
            ..ROW
        },
        Row {
            name: "forward without a destination",
            args: "connect https://gw.example -L 8080:web",
            exit: 2,
            says: &["8080:web", "[BIND:]PORT:HOST:HOSTPORT"],
            ..ROW
        },
        Row {
            name: "stdio beside a forward",
            args: "connect https://gw.example -W h:1 -D 1080",
            exit: 2,
            says: &["-W", "cannot be used with"],
            ..ROW
        },
        Row {
            name: "nothing to carry",
            args: "connect https://gw.example",
            exit: 3,
            says: &["nothing to carry", "-L", "-D", "-W"],
            ..ROW
        },
        Row {
            name: "status without a daemon",
            args: "status --control {dir}/none.sock",
            exit: 5,
            says: &["no daemon at {dir}/none.sock", "beam serve", "--control PATH"],
            ..ROW
        },
        Row {
            name: "status of a dead daemon",
            before: "python3 -c \"import socket;socket.socket(socket.AF_UNIX).bind('{dir}/dead.sock')\"",
            args: "status --control {dir}/dead.sock",
            exit: 5,
            says: &["{dir}/dead.sock", "nobody listens", "--control PATH"],
            ..ROW
        },
        Row {
            name: "status without permission",
            before: "python3 -c \"import socket;socket.socket(socket.AF_UNIX).bind('{dir}/shut.sock')\"; \
                     chmod 0600 {dir}/shut.sock",
            by: NOBODY,
            args: "status --control {dir}/shut.sock",
            exit: 5,
            says: &["{dir}/shut.sock", "permission denied", "run as root"],
            ..ROW
        },
    ];
    check(&Place::new(), Ns::Client, &rows);
}

#[test]
fn files_and_ports_of_a_client() {
    if !rig::root_or_skip("preflight: files and ports of a client") {
        return;
    }
    let place = Place::new();
    let _taken = place.rig.within(Ns::Client, || TcpListener::bind(("127.0.0.1", 1080))).unwrap();
    let rows = [
        Row {
            name: "token file missing",
            args: "{connect} {ca} --token-file {dir}/none",
            exit: 3,
            says: &["token file {dir}/none", "No such file"],
            ..ROW
        },
        Row {
            name: "token file empty",
            before: ": > {dir}/empty",
            args: "{connect} {ca} --token-file {dir}/empty",
            exit: 3,
            says: &["{dir}/empty holds no token", "beam user add"],
            ..ROW
        },
        Row {
            name: "pin that is no fingerprint",
            args: "{connect} --pin sha256:beef",
            exit: 3,
            says: &["--pin", "sha256:beef", "64 hexadecimal digits"],
            ..ROW
        },
        Row {
            name: "CA file missing",
            args: "{connect} --ca {dir}/none.pem",
            exit: 3,
            says: &["{dir}/none.pem", "No such file"],
            ..ROW
        },
        Row {
            name: "key of another client certificate",
            args: "{connect} {ca} --cert {dir}/client.pem --key {dir}/stranger.key",
            exit: 3,
            says: &["{dir}/client.pem", "{dir}/stranger.key", "does not belong to the certificate"],
            ..ROW
        },
        Row {
            name: "SOCKS port in use",
            args: "{connect} {ca} -D 1080",
            exit: 4,
            says: &["can't listen on 127.0.0.1:1080 for -D", "ss -ltnp 'sport = :1080'", "another port"],
            ..ROW
        },
        Row {
            name: "no route to the gateway",
            args: "connect https://203.0.113.1 -D 1081 -i c0 --xdp native",
            exit: 4,
            says: &["no route to the gateway 203.0.113.1:443", "ip route get 203.0.113.1"],
            ..ROW
        },
        Row {
            name: "gateway name that does not resolve",
            args: "connect https://gateway.invalid --once -D 1081 --xdp off",
            exit: 1,
            says: &["gateway name gateway.invalid", "does not exist", "getent hosts gateway.invalid"],
            ..ROW
        },
        Row {
            name: "gateway that is not there",
            args: "{connect} {ca} --xdp native -i c0",
            exit: 1,
            says: &["198.18.0.1:4433", "no answer", "is `beam serve` running there", "UDP port 4433"],
            ..ROW
        },
    ];
    check(&place, Ns::Client, &rows);
}

#[test]
fn trust_between_client_and_gateway() {
    if !rig::root_or_skip("preflight: trust") {
        return;
    }
    let place = Place::new();
    place.rig.set_hosts(Ns::Client, &format!("{GATEWAY_V4} other.beam.example\n"));
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "off"]);
    let seen: &'static str = Box::leak(gateway.fingerprint().into_boxed_str());
    let pinned = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let says: &'static [&'static str] = Box::leak(Box::new([seen, pinned]));
    let refused: &'static str = Box::leak(
        format!("connect https://{GATEWAY_V4}:{TUNNEL_PORT} {{ca}} --xdp off --token-file {{dir}}/alice.token -W 192.0.2.1:80")
            .into_boxed_str(),
    );
    let rows = [
        Row {
            name: "pin mismatch",
            args: Box::leak(format!("{{connect}} --xdp off --pin {pinned}").into_boxed_str()),
            exit: 1,
            says,
            ..ROW
        },
        Row {
            name: "authority that did not sign",
            before: "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other \
                     -keyout {dir}/other.key -out {dir}/other.pem",
            args: "{connect} --xdp off --ca {dir}/other.pem",
            exit: 1,
            says: &["198.18.0.1", "certificate", "UnknownIssuer", "--ca", "--pin"],
            ..ROW
        },
        Row {
            name: "certificate of another name",
            args: "connect https://other.beam.example:4433 {ca} --xdp off --once -D 1080",
            exit: 1,
            says: &[
                "other.beam.example",
                "not valid for name",
                "gateway.beam.example",
                "in the URL",
                "--pin",
            ],
            ..ROW
        },
        Row {
            name: "wrong token",
            before: "echo wrong > {dir}/wrong",
            args: "connect https://198.18.0.1:4433 {ca} --xdp off --token-file {dir}/wrong -W 198.19.0.2:80",
            exit: 1,
            says: &["refused 198.19.0.2:80", "407", "--token-file"],
            ..ROW
        },
        Row {
            name: "no token",
            args: "connect https://198.18.0.1:4433 {ca} --xdp off -W 198.19.0.2:80",
            exit: 1,
            says: &["refused 198.19.0.2:80", "401", "--token-file"],
            ..ROW
        },
        Row { name: "denied destination", args: refused, exit: 1, says: &["403", "--allow"], ..ROW },
    ];
    check(&place, Ns::Client, &rows);
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));

    let args = fill(&place, "{serve-bare} {tls} --client-ca {dir}/ca.pem --xdp off");
    let _gateway = Beam::start(&place.rig, Ns::Gateway, "strict", &pair::words(&args));
    let rows = [
        Row {
            name: "client certificate missing",
            args: "{connect} {ca} --xdp off",
            exit: 1,
            says: &["198.18.0.1", "certificate", "--cert", "--key"],
            ..ROW
        },
        Row {
            name: "client certificate missing, and no --once: trying again would not help",
            args: "connect https://198.18.0.1:4433 {ca} --xdp off -D 1080",
            exit: 1,
            says: &["198.18.0.1", "certificate", "--cert", "--key"],
            ..ROW
        },
        Row {
            name: "client certificate of a stranger",
            args: "{connect} {ca} --xdp off --cert {dir}/stranger.pem --key {dir}/stranger.key",
            exit: 1,
            says: &["198.18.0.1", "certificate", "--cert", "--key"],
            ..ROW
        },
    ];
    check(&place, Ns::Client, &rows);
    let good = fill(&place, "{connect} {ca} --xdp off --cert {dir}/client.pem --key {dir}/client.key");
    let mut accepted = Beam::start(&place.rig, Ns::Client, "accepted", &pair::words(&good));
    assert_eq!(accepted.process.terminate(LIMIT).code(), Some(0));
}
