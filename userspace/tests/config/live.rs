//! Daemons that run by a file: reloaded while they serve, drained by the verb.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::BEAM;
use crate::pair::{FORWARD_PORT, LIMIT, Place, TUNNEL_PORT, path, until};
use crate::rig::{self, Beam, EchoServer, GATEWAY_V4, Ns, ORIGIN_V4, Proc, pattern};

/// A gateway's file with `more` lines.
fn gateway_file(place: &Place, more: &str) -> std::path::PathBuf {
    let (cert, key) = (path(&place.pki.server_cert), path(&place.pki.server_key));
    let text = format!(
        "[serve]\nlisten = \"{GATEWAY_V4}:{TUNNEL_PORT}\"\nxdp = \"off\"\nusers = {:?}\ntls-cert = {cert:?}\n\
         tls-key = {key:?}\n{more}",
        path(&place.users)
    );
    let file = place.rig.directory().join("gateway.toml");
    fs::write(&file, text).expect("write the file");
    file
}

/// `beam ARGS --control ...` of a daemon: its exit code, and what it said on both outputs.
fn order(daemon: &Beam, args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(BEAM).args(args).arg("--control").arg(&daemon.control).output().expect("run beam");
    let said = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8(said).expect("text"))
}

/// `None` where the client cut it off while it connected: a flow that is refused may end so soon.
fn try_dial(place: &Place) -> Option<TcpStream> {
    let to = SocketAddr::from(([127, 0, 0, 1], FORWARD_PORT));
    let stream = match place.rig.within(Ns::Client, || TcpStream::connect_timeout(&to, LIMIT)) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
        dialled => dialled.expect("connect"),
    };
    stream.set_read_timeout(Some(LIMIT)).expect("set a read timeout");
    Some(stream)
}

fn dial(place: &Place) -> TcpStream {
    try_dial(place).expect("nothing refuses it")
}

fn echoes(stream: &mut TcpStream) -> bool {
    let said: Vec<u8> = (0..1000).map(pattern).collect();
    let mut heard = vec![0; said.len()];
    stream.write_all(&said).and_then(|()| stream.read_exact(&mut heard)).is_ok() && heard == said
}

fn config_of(daemon: &Beam, key: &str) -> Value {
    let (code, said) = order(daemon, &["show", "config", "-j"]);
    assert_eq!(code, Some(0), "{said}");
    let shown: Value = serde_json::from_str(&said).expect("one JSON object");
    let rows = shown["rows"].as_array().expect("rows");
    rows.iter().find(|row| row["flag"] == key).cloned().unwrap_or(Value::Null)
}

/// A gateway by its file alone, with a flow through it. The file changes: what may be taken over is, and cuts what it
/// forbids; what needs a restart is named, and stays; a file that is wrong changes nothing.
#[test]
fn a_reload_reads_the_file_again() {
    if !rig::root_or_skip("a_reload_reads_the_file_again") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let allow = "allow = [\"198.19.0.0/24\"]\n";
    let file = gateway_file(&place, allow);
    let gateway = Beam::start(&place.rig, Ns::Gateway, "gateway", &["serve", "-c", &path(&file)]);
    gateway.process.wait_for_line(&format!("configuration from {}", file.display()), LIMIT);
    let client = place.client(GATEWAY_V4, &echo.address().to_string(), &["--xdp", "off"]);
    let mut flow = dial(&place);
    assert!(echoes(&mut flow));
    assert_eq!(config_of(&gateway, "--allow")["from"], format!("{}:7", file.display()));

    // The same file: nothing to say about it.
    let (code, said) = order(&gateway, &["reload"]);
    assert!(code == Some(0) && said.starts_with("reloaded: 1 client(s) in the users file"), "{said}");

    // A limit, and something that can't change; the flow goes on.
    gateway_file(
        &place,
        &format!("# a line more\n{allow}ring-size = 1024\nmax-connections = 7\ndrain-timeout = \"9m\"\n"),
    );
    let (code, said) = order(&gateway, &["reload"]);
    assert_eq!(code, Some(0), "{said}");
    let wanted =
        "reloaded: changed: drain-timeout, max-connections; needs a restart, and is as before: ring-size; ";
    // In the order of the help.
    let sorted = |text: &str| {
        let mut words: Vec<_> = text.split([' ', ',', ';']).map(str::to_owned).collect();
        words.sort();
        words
    };
    let head = said.split(" 1 client(s)").next().expect("split yields one item");
    assert_eq!(sorted(&format!("{head} ")), sorted(wanted), "{said}");
    assert_eq!(config_of(&gateway, "--ring-size")["value"], "2048", "what is in effect is shown");
    assert_eq!(config_of(&gateway, "--max-connections")["value"], "7");
    assert_eq!(config_of(&gateway, "--allow")["from"], format!("{}:8", file.display()), "its line has moved");
    assert!(echoes(&mut flow));

    // A wrong file: all of it stays, by both ways.
    gateway_file(&place, "allow = [\"198.19.0.0/24\"]\nlisen = 1\ndeny = [\"198.19.0.2\"]\n");
    let (code, said) = order(&gateway, &["reload"]);
    assert_eq!(code, Some(1), "{said}");
    let wanted =
        format!("reload failed, nothing has changed: {}:8:1: [serve] lisen: no such key", file.display());
    assert!(said.contains(&wanted), "{said}");
    gateway.process.signal(Signal::HUP);
    gateway.process.wait_for_line("ERROR reload failed, nothing has changed", LIMIT);
    assert!(echoes(&mut flow));

    // A rule that forbids where the flow goes, by SIGHUP: it is cut, and no other is let through.
    gateway_file(&place, &format!("{allow}deny = [\"198.19.0.2\"]\n"));
    gateway.process.signal(Signal::HUP);
    gateway.process.wait_for_line("0 connection(s) closed, 1 flow(s) cut", LIMIT);
    assert!(!echoes(&mut flow), "the flow is cut");
    assert!(!try_dial(&place).is_some_and(|mut flow| echoes(&mut flow)), "and a new one refused");
    client.process.wait_for_line("refused 198.19.0.2", LIMIT);

    // A client takes nothing over, and says so.
    let (code, said) = order(&client, &["reload"]);
    assert!(code == Some(0) && said.contains("a client takes no other without a restart"), "{said}");
}

/// `beam drain` shows what is left, ends when the flows end, and tells how it went.
#[test]
fn the_drain_verb_waits_for_the_flows() {
    if !rig::root_or_skip("the_drain_verb_waits_for_the_flows") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let file = gateway_file(&place, "allow = \"198.19.0.0/24\"\ndrain-timeout = \"10m\"\n");
    let mut gateway = Beam::start(&place.rig, Ns::Gateway, "gateway", &["serve", "-c", &path(&file)]);
    let mut client = place.client(GATEWAY_V4, &echo.address().to_string(), &["--xdp", "off"]);
    let mut flow = dial(&place);
    assert!(echoes(&mut flow));

    // Without waiting: begun, and said to have begun.
    let (code, said) = order(&gateway, &["drain", "--no-wait"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("draining: 1 flow(s) may finish within 600 s"), "{said}");
    gateway.process.wait_for_line("draining: 1 flow(s)", LIMIT);
    // A second one joins, and hears of the end.
    let mut drain = drain_of(&gateway.control, &[]);
    drain.wait_for_line("draining: 1 flow(s) left", LIMIT);
    assert!(echoes(&mut flow), "a running flow goes on");
    flow.shutdown(Shutdown::Write).expect("half-close");
    assert_eq!(flow.read(&mut [0; 1]).expect("its end"), 0);
    assert_eq!(drain.wait(LIMIT).code(), Some(0));
    let mut said = String::new();
    drain.stdout().read_to_string(&mut said).expect("read");
    assert_eq!(said, "drained: every flow has finished\n");
    assert_eq!(gateway.process.wait(LIMIT).code(), Some(0));
    assert_eq!(order(&gateway, &["drain"]).0, Some(5), "there is nobody any more");

    // A client's; one without flows is over at once.
    let (code, said) = order(&client, &["drain", "-j"]);
    assert_eq!(code, Some(0), "{said}");
    let object: Value = serde_json::from_str(&said).expect("one JSON object");
    assert_eq!((&object["schema"], &object["stopped"]), (&"beam.drain.v1".into(), &true.into()));
    assert_eq!(client.process.wait(LIMIT).code(), Some(0));
}

/// Flows that don't finish are cut off, and that is a failure of the drain; a second signal leaves it without its end.
#[test]
fn the_drain_verb_tells_what_was_cut() {
    if !rig::root_or_skip("the_drain_verb_tells_what_was_cut") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    for (timeout, code, says) in
        [("300ms", 1, "1 flow(s) did not finish in time"), ("10m", 1, "before its drain was over")]
    {
        let file =
            gateway_file(&place, &format!("allow = \"198.19.0.0/24\"\ndrain-timeout = \"{timeout}\"\n"));
        let mut gateway = Beam::start(&place.rig, Ns::Gateway, "gateway", &["serve", "-c", &path(&file)]);
        let client = place.client(GATEWAY_V4, &echo.address().to_string(), &["--xdp", "off"]);
        let mut flow = dial(&place);
        assert!(echoes(&mut flow));
        until("the gateway has the flow", || gateway.status(), |status| status["flows"] == 1);
        let mut drain = drain_of(&gateway.control, &[]);
        if timeout == "10m" {
            drain.wait_for_line("draining: 1 flow(s) left", LIMIT);
            gateway.process.signal(Signal::TERM);
        }
        assert_eq!(drain.wait(LIMIT).code(), Some(code));
        assert!(drain.stderr().contains(says), "{}", drain.stderr());
        assert_eq!(gateway.process.wait(LIMIT).code(), Some(0));
        drop(client);
    }
}

fn drain_of(control: &Path, more: &[&str]) -> Proc {
    let mut command = Command::new(BEAM);
    command.arg("drain").args(more).arg("--control").arg(control).stdout(Stdio::piped());
    Proc::spawn("drain", &mut command)
}
