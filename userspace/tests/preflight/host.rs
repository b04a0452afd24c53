//! What the host may lack: interfaces, queues, modes, memory, ports, capabilities; and other XDP programs in the way.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::pair::{self, FORWARD_PORT, LIMIT, Place, TUNNEL_PORT, path};
use crate::rig::{self, Beam, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, Proc};
use crate::{LITTLE_MEMLOCK, NOBODY, ROW, Row, check, fill, open_for_others};

#[test]
fn interfaces() {
    if !rig::root_or_skip("preflight: interfaces") {
        return;
    }
    let rows = [
        Row {
            name: "interface missing",
            voice: ["no interface nope", "nope", "there are: lo, g0, g1", "--interface"],
            args: "{serve} -i nope --xdp native",
            exit: 4,
            ..ROW
        },
        Row {
            name: "interface missing, without insisting on XDP",
            voice: ["no interface nope", "nope", "there are: lo, g0, g1", "--interface"],
            args: "{serve} -i nope",
            exit: 4,
            ..ROW
        },
        Row {
            name: "interface down",
            voice: ["interface g0", "is down", "must be up", "ip link set g0 up"],
            before: "ip link set g0 down",
            after: "ip link set g0 up",
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            says: &["interface g0 is down"],
            ..ROW
        },
        Row {
            name: "not an Ethernet interface",
            voice: ["interface lo", "link type Loopback", "need Ethernet", "--interface, or --xdp off"],
            args: "{serve} -i lo --xdp native",
            exit: 4,
            says: &["interface lo has link type"],
            ..ROW
        },
        Row {
            name: "driver without native XDP",
            voice: [
                "interface br0 takes no native XDP program",
                "EOPNOTSUPP",
                "native XDP",
                "--xdp auto or --xdp skb",
            ],
            before: "ip link add br0 type bridge; ip link set br0 up",
            after: "ip link del br0",
            args: "{serve} -i br0 --xdp native",
            exit: 4,
            ..ROW
        },
        Row {
            name: "MTU too large",
            voice: ["interface g0", "MTU 9000", "3818 at most", "ip link set g0 mtu 3818"],
            before: "ip link set g0 mtu 9000",
            after: "ip link set g0 mtu 1500",
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            says: &["interface g0 has MTU 9000"],
            ..ROW
        },
        Row {
            name: "queue that does not exist",
            voice: ["no queue 7", "it has 2", "(0 to 1)", "--queues"],
            args: "{serve} -i g0 --xdp native --queues 0,7",
            exit: 4,
            says: &["its driver has 2 at most"],
            ..ROW
        },
        Row {
            name: "queue that does not exist, without insisting on XDP",
            voice: ["no queue 7", "it has 2", "(0 to 1)", "--queues"],
            args: "{serve} -i g0 --queues 0,7",
            exit: 4,
            says: &["it has 2 (0 to 1)"],
            ..ROW
        },
        Row {
            name: "queue that is turned off",
            before: "ethtool -L g0 rx 1",
            after: "ethtool -L g0 rx 2",
            args: "{serve} -i g0 --xdp native --queues 0,1",
            exit: 4,
            voice: ["no queue 1", "it has 1", "(0 to 0)", "ethtool -L g0 rx 2"],
            ..ROW
        },
        Row {
            name: "zero-copy insisted on",
            voice: [
                "queue 0 of g0 has no zero-copy",
                "EOPNOTSUPP",
                "must have xsk-zerocopy",
                "--zero-copy auto",
            ],
            args: "{serve} -i g0 --zero-copy on",
            exit: 4,
            ..ROW
        },
        Row {
            name: "memory that may be locked",
            voice: ["UMEM", "RLIMIT_MEMLOCK is 65536 bytes", "50331648 bytes are needed", "ulimit -l 49152"],
            by: LITTLE_MEMLOCK,
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            says: &["--umem"],
            ..ROW
        },
        Row {
            name: "XDP without an interface",
            voice: ["AF_XDP", "needs an interface", "-i IF", "--xdp off"],
            args: "{serve} --xdp native",
            exit: 3,
            says: &["AF_XDP needs an interface"],
            ..ROW
        },
        Row {
            name: "ring size",
            voice: ["--ring-size", "is 1000", "a power of two from 64 to 65536", "--ring-size VALUE"],
            args: "{serve} -i g0 --ring-size 1000",
            exit: 3,
            says: &["--ring-size is 1000"],
            ..ROW
        },
        Row {
            name: "frame size",
            voice: ["--frame-size", "is 1500", "2048 or 4096", "--frame-size VALUE"],
            args: "{serve} -i g0 --frame-size 1500",
            exit: 3,
            says: &["--frame-size is 1500"],
            ..ROW
        },
        Row {
            name: "UMEM smaller than its rings",
            voice: ["--umem", "1048576 bytes", "8 to 8192 MiB", "--umem VALUE"],
            args: "{serve} -i g0 --umem 1",
            exit: 3,
            says: &["--umem is"],
            ..ROW
        },
        Row {
            name: "CPU that is not there",
            voice: ["--cpus", "CPU 999", "this process may use", "--cpus LIST"],
            args: "{serve} -i g0 --cpus 0,999",
            exit: 3,
            says: &["--cpus names CPU 999"],
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
    let rows = [
        Row {
            name: "port in use",
            voice: ["UDP 198.18.0.1:4433", "is already in use", "another port", "ss -ulpn 'sport = :4433'"],
            args: "{serve} --xdp off",
            exit: 4,
            ..ROW
        },
        Row {
            name: "port in use, with XDP",
            voice: ["UDP 198.18.0.1:4433", "is already in use", "another port", "ss -ulpn 'sport = :4433'"],
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            ..ROW
        },
    ];
    check(&place, Ns::Gateway, &rows);
    drop(taken);

    let rows = [
        Row {
            name: "no capability, and native XDP insisted on",
            voice: [
                "this process lacks",
                "CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW;",
                "it needs CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW",
                "setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock,cap_net_bind_service+ep {dir}/beam",
            ],
            by: NOBODY,
            args: "{serve} -i g0 --xdp native",
            exit: 4,
            says: &["lacks CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW"],
            ..ROW
        },
        Row {
            name: "one capability missing",
            voice: [
                "this process lacks",
                "CAP_NET_RAW;",
                "it needs CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW",
                "setcap ",
            ],
            by: "setpriv --bounding-set=-net_raw --inh-caps=-all",
            args: "{serve} -i g0 --xdp skb",
            exit: 4,
            says: &["lacks CAP_NET_RAW;"],
            ..ROW
        },
        Row {
            name: "privileged port without privilege",
            voice: ["UDP port 443", "443", "CAP_NET_BIND_SERVICE", "cap_net_bind_service+ep"],
            by: NOBODY,
            args: "serve -l 198.18.0.1:443 --xdp off {tls} {users}",
            exit: 4,
            says: &["ip_unprivileged_port_start=443", "--listen"],
            ..ROW
        },
        Row {
            name: "address of another host",
            voice: ["198.18.0.77", "is not an address of this host", "--listen :4433", "ip -brief address"],
            args: "serve -l 198.18.0.77:4433 --xdp off {tls} {users}",
            exit: 4,
            says: &["198.18.0.77 is not an address of this host"],
            ..ROW
        },
        Row {
            name: "address that does not resolve",
            voice: [
                "nowhere.invalid:4433",
                "does not resolve",
                "a name that does is needed",
                "getent hosts nowhere.invalid",
            ],
            args: "serve -l nowhere.invalid:4433 --xdp off {tls} {users}",
            exit: 3,
            says: &["give an IP address"],
            ..ROW
        },
        Row {
            name: "control socket where a file is",
            voice: ["{dir}/open/file", "is there", "is no control socket", "--control PATH"],
            before: "echo kept > {dir}/open/file",
            after: "test $(cat {dir}/open/file) = kept",
            args: "{serve} --xdp off --control {dir}/open/file",
            exit: 4,
            says: &["{dir}/open/file is there and is no control socket"],
            ..ROW
        },
        Row {
            name: "control socket where one may not write",
            voice: ["control socket {dir}/closed.sock", "Permission denied", "--control", "--control PATH"],
            by: NOBODY,
            args: "{serve} --xdp off --control {dir}/closed.sock",
            exit: 4,
            ..ROW
        },
        Row {
            name: "metrics' port in use",
            args: "{serve} --xdp off --metrics 198.18.0.1:9100",
            exit: 4,
            voice: [
                "--metrics: can't listen on 198.18.0.1:9100",
                "Address already in use",
                "another port",
                "ss -ltnp 'sport = :9100'",
            ],
            ..ROW
        },
        Row {
            name: "control socket of another beam",
            args: "{serve} --xdp off --control {dir}/other.sock",
            exit: 4,
            voice: ["another beam", "answers on {dir}/other.sock", "stop it", "--control PATH"],
            ..ROW
        },
    ];
    let _metrics = place.rig.within(Ns::Gateway, || TcpListener::bind((GATEWAY_V4, 9100))).unwrap();
    let _other = UnixListener::bind(place.rig.directory().join("other.sock")).unwrap();
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
        voice: [
            "interface g0",
            "runs XDP program somebody_else (id ",
            "beam doesn't replace it",
            "ip link set dev g0 xdpgeneric off",
        ],
        before: ": xdp is there already",
        args: "{serve} -i g0 --xdp native",
        exit: 4,
        says: &["g0 already runs XDP program somebody_else (id ", "skb"],
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
    let rows = [Row {
        name: "another beam",
        voice: [
            "interface g0",
            "runs XDP program beam_steer (id ",
            "beam doesn't replace it",
            "bpftool link detach id ",
        ],
        before: ": xdp",
        args: second,
        exit: 4,
        says,
        ..ROW
    }];
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
