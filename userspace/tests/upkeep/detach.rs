//! `beam detach`: beam's leftovers go, others' programs stay, and one that is in use goes only when told so.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::beam;
use crate::pair::{LIMIT, Place, path, until};
use crate::rig::{self, GATEWAY_V4, Ns, Rig};

const NATIVE: [&str; 4] = ["--xdp", "native", "-i", "g0"];

/// A BPF file system of the test's own, for what is to outlive its process; gone with the guard. Not the host's in /sys: `ip -n`
/// mounts another /sys for itself.
struct Pins(String);

impl Pins {
    fn new(rig: &Rig) -> Self {
        let place = path(&rig.directory().join("bpf"));
        std::fs::create_dir_all(&place).expect("make a directory");
        rig::must("mount", &["-t", "bpf", "bpf", &place]);
        Self(place)
    }

    /// Pins a `link` or a `prog`; its path.
    fn pin(&self, what: &str, id: u64) -> String {
        let pin = format!("{}/{what}", self.0);
        rig::must("bpftool", &[what, "pin", "id", &id.to_string(), &pin]);
        pin
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = rig::output("umount", &[&self.0]);
    }
}

fn bpftool(args: &[&str]) -> Value {
    let out = rig::output("bpftool", &[&["-j"], args].concat()).expect("run bpftool");
    serde_json::from_slice(&out.stdout).expect("bpftool -j prints JSON")
}

/// Ids of the program on g0 and of its link.
fn ids(rig: &Rig) -> (u64, Option<u64>) {
    let out = rig::output("ip", &["-n", &rig.netns(Ns::Gateway), "-j", "-d", "link", "show", "dev", "g0"]);
    let links: Value = serde_json::from_slice(&out.expect("run ip").stdout).expect("ip -j prints JSON");
    let program = links[0]["xdp"]["prog"]["id"].as_u64().expect("a program is attached");
    let all = bpftool(&["link", "show"]);
    let of_program = |link: &&Value| link["prog_id"].as_u64() == Some(program);
    let link = all.as_array().into_iter().flatten().find(of_program).and_then(|link| link["id"].as_u64());
    (program, link)
}

#[test]
fn leftovers_go_and_what_is_in_use_stays() {
    if !rig::root_or_skip("leftovers_go_and_what_is_in_use_stays") {
        return;
    }
    let place = Place::new();
    let rig = &place.rig;
    beam(rig, "detach -i g0", &[]).is(0, &["g0: no XDP program is attached"]);
    beam(rig, "detach -i nope", &[]).is(4, &["no interface nope; there are: "]);
    beam(rig, "detach", &[]).is(2, &["--interface", "--all"]);

    // In use: who uses it is said.
    let mut gateway = place.gateway(GATEWAY_V4, &NATIVE);
    let pid = format!("beam (pid {}, control socket {})", gateway.process.pid(), path(&gateway.control));
    beam(rig, "detach -i g0", &[]).is(4, &["beam_steer", "in use by", &pid, "kill -TERM", "--force"]);
    beam(rig, "detach --all", &[]).is(4, &[&pid]);
    assert!(rig.has_xdp(Ns::Gateway, "g0"));

    // A link that was pinned outlives its process.
    let (program, link) = ids(rig);
    let pins = Pins::new(rig);
    pins.pin("link", link.expect("beam attaches by a link"));
    let pinned_program = pins.pin("prog", program);
    gateway.process.kill();
    assert!(rig.has_xdp(Ns::Gateway, "g0"), "the pin keeps it");
    beam(rig, "detach -i g0", &[])
        .is(0, &[&format!("g0: detached XDP program beam_steer (id {program}, native)")]);
    assert!(!rig.has_xdp(Ns::Gateway, "g0"));

    // One that was attached without a link stays for ever.
    rig.ip(Ns::Gateway, &["link", "set", "dev", "g0", "xdpgeneric", "pinned", &pinned_program]);
    drop(pins);
    assert_eq!(rig.xdp_hook(Ns::Gateway, "g0"), Some("skb"));
    beam(rig, "detach --all", &[]).is(0, &["g0: detached XDP program beam_steer", "skb"]);
    assert!(!rig.has_xdp(Ns::Gateway, "g0"));
    beam(rig, "detach --all", &[]).is(0, &["no interface has an XDP program of beam's"]);

    // By force: the daemon carries on by its kernel sockets.
    let mut gateway = place.gateway(GATEWAY_V4, &NATIVE);
    beam(rig, "detach -i g0 --force", &[]).is(0, &["detached XDP program beam_steer"]);
    until("the program is off", || rig.has_xdp(Ns::Gateway, "g0"), |there| !there);
    assert_eq!(gateway.status()["ready"], true);
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
}

/// Programs that pass every packet: one of another name, and one that only calls itself beam's.
#[test]
fn others_programs_stay() {
    if !rig::root_or_skip("others_programs_stay") {
        return;
    }
    let rig = Rig::new();
    for name in ["somebody_else", "beam_steer"] {
        let object = compile(rig.directory(), name);
        rig.ip(Ns::Gateway, &["link", "set", "dev", "g0", "xdpgeneric", "obj", &object, "sec", "xdp"]);
        let refused = beam(&rig, "detach -i g0", &[]);
        refused.is(
            4,
            &[&format!("XDP program {name} (id "), "is not beam's", "ip link set dev g0 xdpgeneric off"],
        );
        beam(&rig, "detach -i g0 --force", &[]).is(4, &["is not beam's"]);
        beam(&rig, "detach --all", &[])
            .is(0, &["g0: left XDP program", "no interface has an XDP program of beam's"]);
        assert_eq!(rig.xdp_hook(Ns::Gateway, "g0"), Some("skb"), "{name} is still there");
        rig.ip(Ns::Gateway, &["link", "set", "dev", "g0", "xdpgeneric", "off"]);
    }
}

fn compile(directory: &Path, name: &str) -> String {
    let (source, object) = (directory.join("program.c"), directory.join("program.o"));
    let text = format!(
        "__attribute__((section(\"xdp\"), used)) int {name}(void *packet) {{ return 2; }}\n\
         char _license[] __attribute__((section(\"license\"), used)) = \"GPL\";\n"
    );
    std::fs::write(&source, text).expect("write a program");
    let mut clang = Command::new("clang");
    let done = clang.args(["-target", "bpf", "-O2", "-g", "-c", "-o"]).arg(&object).arg(&source).status();
    assert!(done.expect("run clang").success(), "clang -target bpf failed");
    path(&object)
}
