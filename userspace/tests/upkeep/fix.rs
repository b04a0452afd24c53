//! `beam doctor --fix`, `--undo`, `--dry-run`.

use std::fs;
use std::net::{TcpListener, TcpStream};

use crate::pair::until;
use crate::rig::{self, GATEWAY_INNER_V4, Ns, Rig};
use crate::{beam, shell};

/// Three things that `FIX` mends: the link is down, the MTU is too large for XDP, and a queue that is asked for is off.
const SPOIL: &str = "ip link set g0 up; ip link set g0 mtu 9000; ethtool -L g0 rx 1; ip link set g0 down";
const FIX: &str = "doctor link mtu channels -i g0 --queues 0-1 --fix";
const UNDO: &str = "doctor --undo";
/// Places where a fix of three knobs, and its undo, may be told to die.
const FIX_PLACES: u32 = 12;
const UNDO_PLACES: u32 = 9;

/// Everything that ethtool and ip say of g0's settings.
fn settings(rig: &Rig) -> String {
    let script = "ethtool -k g0; ethtool -l g0; ip link show g0 | grep -o 'mtu [0-9]*'; \
                  ip link show g0 | sed -n 's/.*<\\(.*\\)>.*/,\\1,/p' | grep -q ,UP, && echo up || echo down";
    shell(rig, script)
}

fn die_at(place: &str) -> [(&str, &str); 1] {
    [("BEAM_DOCTOR_DIE_AT", place)]
}

#[test]
fn a_fix_that_is_killed_anywhere_is_undone_exactly() {
    if !rig::root_or_skip("a_fix_that_is_killed_anywhere_is_undone_exactly") {
        return;
    }
    let rig = Rig::new();
    shell(&rig, SPOIL);
    let before = settings(&rig);
    // Whole, first: it does what it says, and so does the way back.
    let fixed = beam(&rig, FIX, &[]);
    fixed.is(
        0,
        &["DONE     link g0: down -> up", "MTU of g0: 9000 -> 3", "rx channels of g0: 1 -> 2", "0 failed"],
    );
    assert_ne!(settings(&rig), before);
    beam(&rig, FIX, &[]).is(0, &["3 passed"]);
    beam(&rig, UNDO, &[]).is(0, &["rx channels of g0: 2 -> 1", " -> 9000", "link g0: up -> down"]);
    assert_eq!(settings(&rig), before);
    beam(&rig, UNDO, &[]).is(0, &["nothing to undo"]);

    for place in 1..=FIX_PLACES {
        let killed = beam(&rig, FIX, &die_at(&place.to_string()));
        assert_eq!(killed.code, None, "at {place}: {killed:#?}");
        let undone = beam(&rig, UNDO, &[]);
        assert_eq!(
            (undone.code, settings(&rig)),
            (Some(0), before.clone()),
            "killed at {place}: {undone:#?}"
        );
    }
    let too_far = beam(&rig, FIX, &die_at(&(FIX_PLACES + 1).to_string()));
    too_far.is(0, &[]);

    // The undo may be killed as well, and is taken up again.
    for place in 1..=UNDO_PLACES {
        let killed = beam(&rig, UNDO, &die_at(&place.to_string()));
        assert_eq!(killed.code, None, "at {place}: {killed:#?}");
        let undone = beam(&rig, UNDO, &[]);
        assert_eq!(
            (undone.code, settings(&rig)),
            (Some(0), before.clone()),
            "killed at {place}: {undone:#?}"
        );
        beam(&rig, FIX, &[]).is(0, &[]);
    }
}

#[test]
fn what_others_turned_since_stays_and_a_dry_run_turns_nothing() {
    if !rig::root_or_skip("what_others_turned_since_stays_and_a_dry_run_turns_nothing") {
        return;
    }
    let rig = Rig::new();
    shell(&rig, "ip link set g0 mtu 9000");
    let fix = "doctor mtu -i g0 --fix";
    let before = settings(&rig);
    let planned = beam(&rig, &format!("{fix} --dry-run"), &[]);
    planned.is(0, &["# MTU of g0 is 9000, to be 3", "\nip link set g0 mtu 3"]);
    assert_eq!(settings(&rig), before);
    assert!(!rig.directory().join("state/doctor.journal").exists(), "a dry run keeps no journal");
    // Its output is a script that does the same.
    shell(&rig, &planned.stdout);
    beam(&rig, "doctor mtu -i g0", &[]).is(0, &["1 passed"]);
    shell(&rig, "ip link set g0 mtu 9000");

    beam(&rig, fix, &[]).is(0, &["DONE"]);
    beam(&rig, &format!("{UNDO} --dry-run"), &[]).is(0, &["\nip link set g0 mtu 9000"]);
    shell(&rig, "ip link set g0 mtu 1400");
    let left = beam(&rig, UNDO, &[]);
    left.is(0, &["LEFT     MTU of g0: 1400, wanted 9000", "somebody else", "beam doctor --undo --force"]);
    assert!(settings(&rig).contains("mtu 1400"));
    beam(&rig, &format!("{UNDO} --force"), &[]).is(0, &["MTU of g0: 1400 -> 9000"]);
    assert_eq!(settings(&rig), before);

    // One object for programs.
    let json = beam(&rig, &format!("{fix} -j"), &[]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("one JSON object");
    assert_eq!(report["schema"], "beam.doctor.fix.v1");
    assert_eq!((&report["acts"][0]["came"], &report["acts"][0]["seen"]), (&"done".into(), &"9000".into()));
    beam(&rig, UNDO, &[]).is(0, &["DONE"]);
}

/// A journal as another beam may have left it: of an offload, of an earlier boot, of an interface that is gone.
#[test]
fn a_journal_of_another_time_or_place() {
    if !rig::root_or_skip("a_journal_of_another_time_or_place") {
        return;
    }
    let rig = Rig::new();
    let before = settings(&rig);
    assert!(before.contains("generic-receive-offload: off"), "{before}");
    let script =
        "cat /proc/sys/kernel/random/boot_id; stat -L -c %i /proc/self/ns/net; cat /sys/class/net/g0/ifindex";
    let told = shell(&rig, script);
    let [boot, netns, index] = told.lines().collect::<Vec<_>>()[..] else { panic!("{told}") };
    let line = |step: u32, knob: &str, [was, is]: [&str; 2], [boot, netns, index]: [&str; 3]| {
        format!(
            "{{\"line\":\"intent\",\"step\":{step},\"knob\":{knob},\"before\":\"{was}\",\"after\":\"{is}\",\
             \"place\":{{\"boot\":\"{boot}\",\"netns\":{netns},\"index\":{index},\"unix_s\":0}}}}\n"
        )
    };
    let gro = r#"{"kind":"feature","interface":"g0","feature":"rx-gro"}"#;
    let mtu = |interface: &str| format!(r#"{{"kind":"mtu","interface":"{interface}"}}"#);
    let journal = [
        line(0, gro, ["on", "off"], [boot, netns, index]),
        line(1, &mtu("g0"), ["1300", "1500"], ["another-boot", netns, index]),
        line(2, &mtu("g0"), ["1300", "1500"], [boot, netns, "9999"]),
        line(3, &mtu("nope"), ["1300", "1500"], [boot, netns, "9999"]),
        line(4, &mtu("g0"), ["1300", "1500"], [boot, "1", index]),
        line(5, r#"{"kind":"file","path":"/etc/passwd"}"#, ["x", "y"], [boot, netns, "null"]),
    ]
    .concat();
    let path = rig.directory().join("state/doctor.journal");
    fs::create_dir_all(path.parent().expect("it has one")).expect("make the state directory");
    fs::write(&path, journal).expect("write a journal");
    beam(&rig, UNDO, &[]).is(
        1,
        &[
            "DONE     gro of g0: off -> on   (ethtool -K g0 gro on)",
            "before this boot",
            "another interface has that name now",
            "the interface is gone",
            "in another network namespace (inode 1;",
            "/etc/passwd is not a file of the kernel",
            "1 of 6 could not be undone",
        ],
    );
    let expected = before.replace("generic-receive-offload: off", "generic-receive-offload: on");
    assert_eq!(settings(&rig), expected);
    // What belongs elsewhere, and what failed, waits; the rest is settled.
    let again = beam(&rig, UNDO, &[]);
    again.is(1, &["in another network namespace", "1 of 2 could not be undone"]);
}

#[test]
fn nothing_is_cut_off_without_a_word() {
    if !rig::root_or_skip("nothing_is_cut_off_without_a_word") {
        return;
    }
    let rig = Rig::new();
    shell(&rig, "ip link set g0 mtu 9000; ip link set g1 mtu 9000; ip route add default via 198.18.0.2");
    let ssh = rig.within(Ns::Gateway, || TcpListener::bind((GATEWAY_INNER_V4, 22))).expect("listen as sshd");
    let session =
        rig.within(Ns::Origin, || TcpStream::connect((GATEWAY_INNER_V4, 22))).expect("connect as ssh");
    let fix = "doctor mtu -i g0 -i g1 --fix";
    let refused = beam(&rig, fix, &[]);
    refused.is(
        4,
        &[
            "REFUSED  MTU of g0",
            "g0 carries the default route",
            "REFUSED  MTU of g1",
            "g1 carries the ssh session of 198.19.0.2",
            "--allow-link-drop",
            "2 of 2 were not turned",
        ],
    );
    assert_eq!(shell(&rig, "cat /sys/class/net/g?/mtu"), "9000\n9000\n");
    beam(&rig, &format!("{fix} --allow-link-drop"), &[]).is(0, &["DONE     MTU of g0", "DONE     MTU of g1"]);
    beam(&rig, UNDO, &[]).is(4, &["REFUSED  MTU of g1", "2 of 2 were not undone"]);
    drop((session, ssh));
    shell(&rig, "ip route del default");
    // The connection's end takes its time; then nothing stands against it.
    let undone = || beam(&rig, UNDO, &[]).code;
    until("the undo goes through", undone, |code| *code == Some(0));
    assert_eq!(shell(&rig, "cat /sys/class/net/g?/mtu"), "9000\n9000\n");
}

#[test]
fn without_root_nothing_is_turned() {
    if !rig::root_or_skip("without_root_nothing_is_turned") {
        return;
    }
    let rig = Rig::new();
    shell(&rig, "ip link set g0 mtu 9000");
    let program = rig.directory().join("beam");
    fs::copy(rig::binary(), &program).expect("copy the binary");
    let by = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all";
    let fix = format!("{by} {} doctor mtu -i g0 --fix || echo code $?", program.display());
    let said = shell(&rig, &format!("({fix}) 2>&1"));
    assert!(said.contains("undo journal") && said.contains("as root") && said.contains("code 4"), "{said}");
    assert!(settings(&rig).contains("mtu 9000"));
}
