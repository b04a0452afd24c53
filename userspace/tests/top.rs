//! `beam top` before a real gateway: on a terminal that changes its size and is as it was before afterwards, however that
//! ends; in a pipe; and while the daemon comes and goes. What is on the screen, cell by cell, is held by the unit tests.
//!
//! Method: a pty of our own and a gateway on loopback, no privilege needed. Words are looked for in what is written; a
//! word that a screen already shows isn't written again, so each wait is for one that is new.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use pair::{LIMIT, path};
use rig::{Proc, binary};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use tools::loopback::{Gateway, Place};
use tools::terminal::Terminal;

/// As crossterm writes them: into the alternate screen, out of it, and the cursor back.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const CURSOR_BACK: &str = "\x1b[?25h";

fn top_on(terminal: &Terminal, gateway: &Gateway) -> Proc {
    let control = path(&gateway.control);
    let top = terminal.run("top", binary(), &["top", "-d", "0.2", "--control", &control], "xterm-256color");
    terminal.wait_for(0, "worker", LIMIT);
    top
}

/// It has ended well, and the terminal is the user's again.
fn assert_restored(terminal: &Terminal, mut top: Proc, before: &rustix::termios::Termios) {
    let status = top.wait(LIMIT);
    assert!(status.success(), "{status}: {}", top.stderr());
    terminal.wait_for(0, CURSOR_BACK, LIMIT);
    let all = terminal.since(0);
    assert!(all.rfind(LEAVE) > all.rfind(ENTER), "the alternate screen is left");
    let (before, after) = (before, terminal.state());
    assert_eq!((before.local_modes, before.input_modes), (after.local_modes, after.input_modes));
    assert_eq!((before.output_modes, before.control_modes), (after.output_modes, after.control_modes));
}

#[test]
fn the_screen_follows_the_terminal_and_the_daemon_and_leaves_no_trace() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    let terminal = Terminal::new(80, 24);
    let before = terminal.state();
    let top = top_on(&terminal, &gateway);
    assert_ne!(terminal.state().local_modes, before.local_modes, "keys come one by one");
    // The hint for which 80 columns have no room.
    assert!(!terminal.since(0).contains("arrows"));
    terminal.resize(120, 40);
    terminal.wait_for(0, "arrows", LIMIT);
    terminal.resize(30, 5);
    terminal.resize(120, 40);
    let mark = terminal.mark();
    terminal.press("h");
    terminal.wait_for(mark, "Ctrl-L", LIMIT);
    let mark = terminal.mark();
    terminal.press("hp");
    terminal.wait_for(mark, "PAUSED", LIMIT);
    terminal.press("p");
    let mark = terminal.mark();
    gateway.kill();
    terminal.wait_for(mark, "answer", LIMIT);
    let mark = terminal.mark();
    let gateway = place.gateway(&[]);
    terminal.wait_for(mark, "ready", LIMIT);
    terminal.press("q");
    assert_restored(&terminal, top, &before);
    gateway.stop();
}

#[test]
fn signals_give_the_terminal_back() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    for end in [Some(Signal::TERM), Some(Signal::INT), Some(Signal::HUP), None] {
        let terminal = Terminal::new(80, 24);
        let before = terminal.state();
        let top = top_on(&terminal, &gateway);
        match end {
            Some(signal) => top.signal(signal),
            // As a raw terminal passes it on.
            None => terminal.press("\x03"),
        }
        assert_restored(&terminal, top, &before);
    }
    gateway.stop();
}

// Goal: Ctrl-Z stops it and gives the terminal back meanwhile, `fg` goes on. Method: a shell with job control.
#[test]
fn it_can_be_suspended_and_resumed() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    let terminal = Terminal::new(100, 30);
    let mut shell = terminal.run("bash", "bash", &["--norc", "--noprofile", "-i"], "xterm-256color");
    let binary = binary();
    let beam = binary.to_str().unwrap();
    terminal.press(&format!("{beam} top -d 0.2 --control {}\n", path(&gateway.control)));
    terminal.wait_for(0, "worker", LIMIT);
    let mark = terminal.mark();
    terminal.press("\x1a");
    terminal.wait_for(mark, LEAVE, LIMIT);
    // Which bash says on its standard error.
    shell.wait_for_line("Stopped", LIMIT);
    let mark = terminal.mark();
    // What is typed while it runs is for it: the shell hears beforehand what to do afterwards.
    terminal.press("fg; exit\n");
    terminal.wait_for(mark, ENTER, LIMIT);
    terminal.wait_for(mark, "worker", LIMIT);
    assert!(!terminal.since(mark).contains(LEAVE));
    terminal.press("q");
    terminal.wait_for(mark, LEAVE, LIMIT);
    assert!(shell.wait(LIMIT).success());
    gateway.stop();
}

#[test]
fn where_there_is_no_screen_there_is_plain_text() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    let control = path(&gateway.control);
    let once = ["top", "--once", "-d", "0.2", "--control", &control];
    for (args, term) in [(&once[..], "xterm"), (&["top", "-d", "0.2", "--control", &control], "dumb")] {
        let terminal = Terminal::new(80, 24);
        let mut top = terminal.run("top", binary(), args, term);
        terminal.wait_for(0, "(nothing was dropped)", LIMIT);
        assert!(!terminal.since(0).contains('\x1b'), "{term}");
        if args.contains(&"--once") {
            assert!(top.wait(LIMIT).success());
        }
    }
    gateway.stop();
}

#[test]
fn a_pipe_gets_a_block_each_interval_and_hears_of_a_daemon_that_goes() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    let mut command = Command::new(binary());
    command.args(["top", "-d", "0.1", "--control", &path(&gateway.control)]).stdout(Stdio::piped());
    let mut top = Proc::spawn("top", &mut command);
    let mut lines = BufReader::new(top.stdout()).lines().map(Result::unwrap);
    let mut until = |wanted: &str| {
        let found = lines.by_ref().find(|line| line.contains(wanted));
        found.unwrap_or_else(|| panic!("the output ends before {wanted:?}"))
    };
    for _ in 0..3 {
        assert!(until("beam 0").contains(": ready, up "));
        assert!(until("worker").contains("tx pkt/s"));
        until("(no client is connected)");
    }
    gateway.kill();
    until("the daemon is dead");
    let gateway = place.gateway(&[]);
    until(": ready, up ");
    drop(lines);
    // With nobody to read it, it ends.
    assert!(top.wait(LIMIT).success());
    gateway.stop();
}

#[test]
fn without_a_daemon_the_exit_code_is_5_and_a_wrong_interface_is_3() {
    let place = Place::new();
    let run = |args: &[&str]| {
        let done = Command::new(binary()).args(args).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let nowhere = path(&place.file("none.sock"));
    for more in [&["--once"][..], &[]] {
        let (code, complaint) = run(&[&["top", "--control", &nowhere], more].concat());
        assert_eq!(code, Some(5), "{complaint}");
        assert!(complaint.contains(&nowhere), "{complaint}");
    }
    let gateway = place.gateway(&[]);
    let (code, complaint) = run(&["top", "-i", "eth9", "--control", &path(&gateway.control)]);
    assert_eq!(code, Some(3));
    assert!(complaint.contains("eth9") && complaint.contains("kernel UDP"), "{complaint}");
    gateway.stop();
}
