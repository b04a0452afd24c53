//! One illness at a time: told exactly, mended by the command that was printed.

use std::fs;
use std::path::Path;

use crate::pair::{LIMIT, Place};
use crate::rig::{self, Ns, Proc};
use crate::{doctor, foreign_program, shell};

/// An illness of the gateway's namespace.
struct Row {
    /// The check that tells.
    check: &'static str,
    /// Shell commands that make it ill, and that clean up after the mending.
    before: &'static str,
    after: &'static str,
    args: &'static str,
    outcome: &'static str,
    /// A phrase of what was seen.
    seen: &'static str,
    /// The command that mends it, as printed; `{foreign}` and such are filled in.
    mend: &'static str,
    /// Words of the command that stand for what only the operator knows, and what they are here.
    knows: (&'static str, &'static str),
}

const ROW: Row = Row {
    check: "",
    before: "",
    after: "",
    args: "-i g0",
    outcome: "FAIL",
    seen: "",
    mend: "",
    knows: ("", ""),
};

#[test]
fn each_illness_is_told_and_mended_by_the_command_that_was_printed() {
    if !rig::root_or_skip("doctor: illnesses") {
        return;
    }
    let place = Place::new();
    let attach: &'static str =
        Box::leak(format!("ip link set dev g0 xdpgeneric obj {} sec xdp", foreign_program(&place)).into());
    let rows = [
        Row { check: "link", before: "ip link set g0 down", seen: "down", mend: "ip link set g0 up", ..ROW },
        Row {
            check: "mtu",
            before: "ip link set g0 mtu 9000",
            seen: "MTU 9000",
            mend: "ip link set g0 mtu 3504",
            after: "ip link set g0 mtu 1500",
            ..ROW
        },
        Row {
            check: "mtu",
            before: "ip link set g0 mtu 3600",
            outcome: "WARN",
            seen: "MTU 3600",
            mend: "ip link set g0 mtu 3504",
            after: "ip link set g0 mtu 1500",
            ..ROW
        },
        Row {
            check: "master",
            before: "ip link add br0 type bridge; ip link set g0 master br0",
            outcome: "WARN",
            seen: "a member of bridge br0",
            mend: "ip link set g0 nomaster",
            after: "ip link del br0",
            ..ROW
        },
        Row {
            check: "xdp-program",
            before: attach,
            seen: "XDP program somebody_else (id ",
            mend: "ip link set dev g0 xdpgeneric off",
            ..ROW
        },
        Row {
            check: "channels",
            args: "-i g0 --queues 0",
            outcome: "WARN",
            seen: "2 queue(s) of 2 possible, 1 served",
            mend: "ethtool -L g0 rx 1",
            after: "ethtool -L g0 rx 2",
            ..ROW
        },
        Row {
            check: "channels",
            before: "ethtool -L g0 rx 1",
            args: "-i g0 --queues 0,1",
            seen: "1 queue(s) of 2 possible, but --queues names 1",
            mend: "ethtool -L g0 rx 2",
            ..ROW
        },
        Row {
            check: "route",
            args: "-i g0 --peer 198.19.77.1",
            seen: "no route to 198.19.77.1",
            mend: "ip route add 198.19.77.1 via ROUTER dev g0",
            knows: ("ROUTER", "198.18.0.2"),
            after: "ip route del 198.19.77.1",
            ..ROW
        },
        Row {
            check: "neighbour",
            args: "-i g0 --peer 198.18.0.77:4433",
            seen: "198.18.0.77 doesn't answer to ARP on g0",
            mend: "ip neigh replace 198.18.0.77 lladdr MAC dev g0   # if it is, and keeps silent",
            knows: ("MAC", "02:00:00:00:00:77"),
            after: "ip neigh del 198.18.0.77 dev g0",
            ..ROW
        },
    ];
    for row in &rows {
        println!("--- {} {}", row.check, row.args);
        shell(&place, row.before);
        let args = format!("{} {}", row.check, row.args);
        let ill = doctor(&place, "", &args);
        assert_eq!(ill.outcome(row.check), row.outcome, "{:#}", ill.json);
        assert!(ill.seen(row.check).contains(row.seen), "{:?} of {:#}", row.seen, ill.json);
        let commands = ill.commands(row.check);
        assert!(commands.contains(&row.mend), "{:?} of {commands:?}", row.mend);
        let (word, value) = row.knows;
        shell(&place, &if word.is_empty() { row.mend.to_owned() } else { row.mend.replace(word, value) });
        let well = doctor(&place, "", &args);
        assert_eq!(well.outcome(row.check), "PASS", "after {}: {:#}", row.mend, well.json);
        shell(&place, row.after);
    }
    // Nothing to mend on this host: the flags are what's wrong.
    let wrong = doctor(&place, "", "link -i nope");
    assert!(wrong.seen("link").contains("no interface nope; there are: "), "{:#}", wrong.json);
    let wrong = doctor(&place, "", "route -i g0 --peer https://198.19.0.2");
    assert_eq!((wrong.outcome("route"), wrong.commands("route")), ("WARN", vec!["beam serve -i g1 ..."]));
    let wrong = doctor(&place, "", "xdp-features -i g0 --zero-copy on");
    assert_eq!(wrong.commands("xdp-features"), ["beam serve --zero-copy auto ..."], "{:#}", wrong.json);
}

/// The holder is named, and gone once it was told to go.
#[test]
fn a_taken_port_and_sshs_own() {
    if !rig::root_or_skip("doctor: ports") {
        return;
    }
    let place = Place::new();
    let python = |name: &str, code: &str| {
        let mut command = place.rig.command(Ns::Gateway, "python3");
        let code =
            format!("import socket, sys, ctypes\n{code}\nprint('ready', file=sys.stderr, flush=True)\n");
        let process = Proc::spawn(name, command.args(["-c", &(code + "import time; time.sleep(600)")]));
        process.wait_for_line("ready", LIMIT);
        process
    };
    let listen = "listen --listen 198.18.0.1:4433";
    assert_eq!(doctor(&place, "", listen).outcome("listen"), "PASS");
    let mut holder = python(
        "holder",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('198.18.0.1', 4433))",
    );
    let ill = doctor(&place, "", listen);
    let told = format!("UDP 198.18.0.1:4433 is taken by python3 (pid {})", holder.pid());
    assert_eq!(ill.seen("listen"), told);
    let [command] = ill.commands("listen")[..] else { panic!("{:#}", ill.json) };
    assert_eq!(command, format!("kill {}", holder.pid()));
    shell(&place, command);
    holder.wait(LIMIT);
    assert_eq!(doctor(&place, "", listen).outcome("listen"), "PASS");
    assert_eq!(doctor(&place, "", "listen --listen 198.18.0.77:4433").outcome("listen"), "FAIL");

    // PR_SET_NAME is 15. One connection over g0, and one that isn't.
    let server = python(
        "sshd",
        "ctypes.CDLL(None).prctl(15, b'sshd', 0, 0, 0)\n\
         s = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\ns.bind(('', 2222))\n\
         s.listen()\nlocal = socket.create_connection(('127.0.0.1', 2222))",
    );
    let over_g0 = place.rig.within(Ns::Client, || std::net::TcpStream::connect("198.18.0.1:2222")).unwrap();
    let well = doctor(&place, "", "ssh -i g0 --listen :443");
    assert_eq!(well.outcome("ssh"), "PASS", "{:#}", well.json);
    let told = "sshd listens on 2222; 1 ssh connection(s) over g0: it stays with the kernel";
    assert!(well.seen("ssh").starts_with(told), "{:#}", well.json);
    let ill = doctor(&place, "", "ssh -i g0 --listen :2222");
    assert_eq!(
        (ill.outcome("ssh"), ill.commands("ssh")),
        ("WARN", vec!["beam serve --listen :443 ..."]),
        "{:#}",
        ill.json
    );
    drop((server, over_g0));
}

#[test]
fn locked_memory() {
    if !rig::root_or_skip("doctor: locked memory") {
        return;
    }
    let place = Place::new();
    // Root as a small container has it. Little UMEM: a root without CAP_SYS_RESOURCE can raise no limit beyond its own.
    let small = "setpriv --bounding-set=-ipc_lock,-sys_resource --inh-caps=-all";
    let by = format!("prlimit --memlock=65536:65536 {small}");
    let ill = doctor(&place, &by, "memlock -i g0 --xdp native --umem 3");
    assert_eq!(ill.outcome("memlock"), "FAIL", "{:#}", ill.json);
    assert!(ill.seen("memlock").starts_with("RLIMIT_MEMLOCK is 65536 bytes"), "{:#}", ill.json);
    assert!(ill.of("memlock")["needed"].as_str().unwrap().starts_with("6291456 bytes of UMEM"));
    let command = ill.commands("memlock")[0];
    assert_eq!(command, "ulimit -l 6144");
    let beam = crate::program(&place, small);
    shell(&place, &format!("{command}; {small} {beam} doctor memlock -i g0 --xdp native --umem 3 --strict"));
    // Where beam may step down, it isn't a reason not to start.
    assert_eq!(doctor(&place, &by, "memlock -i g0").outcome("memlock"), "WARN");
    assert_eq!(doctor(&place, "", "memlock -i g0").outcome("memlock"), "PASS");
}

#[test]
fn certificates() {
    if !rig::root_or_skip("doctor: certificates") {
        return;
    }
    let place = Place::new();
    let file = place.rig.directory().join("leaf.pem");
    let judged = |from: i64, to: i64| {
        write_certificate(&file, from, to);
        let report = doctor(&place, "", &format!("certificate --tls-cert {}", file.display()));
        println!("{}", report.seen("certificate"));
        report
    };
    let renewal = format!("certbot renew && beam reload   # or whatever writes {}", file.display());
    let expired = judged(-30, -1);
    assert_eq!(
        (expired.outcome("certificate"), expired.commands("certificate")[0]),
        ("FAIL", renewal.as_str())
    );
    assert!(expired.seen("certificate").starts_with("gateway.beam.example: expired on "));
    let soon = judged(-30, 5);
    assert_eq!((soon.outcome("certificate"), soon.commands("certificate")[0]), ("WARN", renewal.as_str()));
    let early = judged(2, 60);
    assert_eq!(
        (early.outcome("certificate"), early.commands("certificate")),
        ("FAIL", vec!["timedatectl status"])
    );
    // What the renewal would have done.
    assert_eq!(judged(-1, 90).outcome("certificate"), "PASS");
    fs::write(&file, "no certificate").unwrap();
    let report = doctor(&place, "", &format!("certificate --tls-cert {}", file.display()));
    assert_eq!(report.outcome("certificate"), "FAIL");
}

/// A certificate that is valid so many days from now on, until so many days from now.
fn write_certificate(file: &Path, from_days: i64, to_days: i64) {
    let now = std::time::SystemTime::now();
    let at = |days: i64| {
        let span = std::time::Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - span } else { now + span }
    };
    let key = rcgen::KeyPair::generate().expect("generate a key");
    let mut params = rcgen::CertificateParams::new(vec!["gateway.beam.example".to_owned()]).expect("a name");
    (params.not_before, params.not_after) = (at(from_days).into(), at(to_days).into());
    let certificate = params.self_signed(&key).expect("sign a certificate");
    fs::write(file, certificate.pem()).expect("write a certificate");
}
