//! Goal: a client by key is who its key's owner is and nobody else, until it is taken back; what `beam enroll` prints is
//! all that a client needs.
//! Method: real processes in real namespaces. Keys are made and read by `beam key`, and read by OpenSSL where it is there;
//! the attacks are certificates that the test signs with the known key. What is pasted is run by a real shell.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use pair::{FORWARD_PORT, LIMIT, Place, TUNNEL_PORT, path, pattern_sha256, until, words};
use rig::{Beam, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, Proc, authority, binary};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BODY_BYTES: u64 = 50_000;

fn beam(args: &[&str]) -> Output {
    Command::new(binary()).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Its standard output; panics unless it ends well.
fn done(args: &[&str]) -> String {
    let out = beam(args);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "beam {}: {}: {said}", args.join(" "), out.status);
    String::from_utf8(out.stdout).unwrap()
}

fn fetch(place: &Place) {
    let url = format!("http://127.0.0.1:{FORWARD_PORT}/{BODY_BYTES}");
    assert_eq!(place.curl(&[&url]), (BODY_BYTES, pattern_sha256(BODY_BYTES)));
}

/// The clients that have a connection, by name.
fn present(gateway: &Beam) -> Vec<String> {
    let shown: Value =
        serde_json::from_str(&done(&["show", "clients", "-j", "--control", &path(&gateway.control)]))
            .unwrap();
    let rows = shown["rows"].as_array().unwrap().iter();
    let here = rows.filter(|row| row["connections"].as_u64().unwrap() > 0);
    let mut names: Vec<_> = here.map(|row| row["client"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn reload(gateway: &Beam) -> String {
    done(&["reload", "--control", &path(&gateway.control)])
}

/// A new key, and what a gateway knows it by.
fn key(place: &Place, name: &str) -> (String, String) {
    let file = path(&place.rig.directory().join(name));
    done(&["key", "gen", "-o", &file]);
    let identity = done(&["key", "pub", &file]).trim().to_owned();
    (file, identity)
}

/// A certificate of any name that the key signs for itself.
fn forge(place: &Place, key: &str, name: &str) -> PathBuf {
    let pair = rcgen::KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec![format!("{name}.example")]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let file = place.rig.directory().join(format!("forged-{name}.pem"));
    fs::write(&file, params.self_signed(&pair).unwrap().pem()).unwrap();
    file
}

/// A client of this proof, with a forward to the origin.
fn client(place: &Place, name: &str, to: &str, proof: &[&str]) -> Beam {
    let args = connect_args(place, to, proof);
    Beam::start(&place.rig, Ns::Client, name, &words(&args))
}

fn connect_args(place: &Place, to: &str, proof: &[&str]) -> Vec<String> {
    let mut args = vec!["connect".into(), format!("https://{}", authority(GATEWAY_V4, TUNNEL_PORT))];
    args.extend(["--ca".into(), path(&place.pki.ca), "-L".into(), format!("{FORWARD_PORT}:{to}")]);
    args.extend(["--xdp".into(), "off".into()]);
    args.extend(proof.iter().map(|&word| word.into()));
    args
}

#[test]
fn a_key_opens_what_its_owner_may_until_it_is_taken_back() {
    if !rig::root_or_skip("a_key_opens_what_its_owner_may_until_it_is_taken_back") {
        return;
    }
    let place = Place::new();
    let server = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let to = server.address().to_string();
    let users = path(&place.users);
    let (carol, identity) = key(&place, "carol.key");
    let (stranger, _) = key(&place, "unlisted.key");
    // The authority's clients come as before, beside it.
    let gateway =
        place.gateway(GATEWAY_V4, &["--xdp", "off", "--cpus", "0", "--client-ca", &path(&place.pki.ca)]);
    done(&["user", "add", "carol", "--users", &users, "--key", &identity, "--max-flows", "50"]);
    assert!(reload(&gateway).contains("1 added"));
    let listed: Value = serde_json::from_str(&done(&["user", "list", "-j", "--users", &users])).unwrap();
    let row = listed["users"].as_array().unwrap().iter().find(|row| row["name"] == "carol").unwrap().clone();
    assert_eq!((&row["proof"], &row["key"]), (&"key".into(), &identity.clone().into()));

    let mut by_key = client(&place, "carol", &to, &["--key", &carol]);
    fetch(&place);
    assert_eq!(present(&gateway), ["carol"]);
    assert_eq!(by_key.process.terminate(LIMIT).code(), Some(0));
    // Again, by the ticket of the first time: the key stands in it.
    let mut resumed = client(&place, "again", &to, &["--key", &carol]);
    fetch(&place);
    assert_eq!(present(&gateway), ["carol"]);
    assert_eq!(resumed.process.terminate(LIMIT).code(), Some(0));

    // Whatever the certificate of that key says, it is carol's; of another key it is nobody's.
    let forged = path(&forge(&place, &carol, "alice"));
    let mut liar = client(&place, "liar", &to, &["--cert", &forged, "--key", &carol]);
    fetch(&place);
    assert_eq!(present(&gateway), ["carol"]);
    for proof in [
        &["--key", &stranger[..]][..],
        &["--cert", &path(&forge(&place, &stranger, "carol")), "--key", &stranger],
    ] {
        let args = connect_args(&place, "192.0.2.1:80", proof);
        let args: Vec<String> =
            args.into_iter().map(|arg| arg.replace(&FORWARD_PORT.to_string(), "0")).collect();
        let mut refused = Beam::launch(&place.rig, Ns::Client, "stranger", &words(&args));
        assert_eq!(refused.process.wait(LIMIT).code(), Some(1));
        let said = refused.process.stderr();
        assert!(said.contains("does not accept our certificate") && said.contains("beam key pub"), "{said}");
    }
    let (cert, cert_key) = (path(&place.pki.client_cert), path(&place.pki.client_key));
    let token = path(&place.token);
    for (name, proof) in
        [("client", &["--cert", &cert[..], "--key", &cert_key][..]), ("alice", &["--token-file", &token])]
    {
        let args = connect_args(&place, &to, proof);
        let args: Vec<String> =
            args.into_iter().map(|arg| arg.replace(&FORWARD_PORT.to_string(), "18081")).collect();
        let mut other = Beam::start(&place.rig, Ns::Client, name, &words(&args));
        place.curl(&["http://127.0.0.1:18081/1"]);
        let here = present(&gateway);
        assert!(here.len() == 2 && here.iter().any(|there| there == name), "{name}: {here:?}");
        assert_eq!(other.process.terminate(LIMIT).code(), Some(0));
        until("it is gone", || present(&gateway), |present| present == &["carol"]);
    }

    // Taken back: the connection is closed, and the liar's ticket, which has a certificate of the name alice, makes it
    // nobody. A user of that name is there.
    let (_, other_identity) = key(&place, "other.key");
    done(&["user", "add", "other", "--users", &users, "--key", &other_identity]);
    done(&["user", "rm", "carol", "--users", &users]);
    let said = reload(&gateway);
    assert!(said.contains("1 removed") && said.contains("1 connection(s) closed"), "{said}");
    until("carol is gone", || present(&gateway), Vec::is_empty);
    let refused =
        until("the liar is back, and refused", || refused_count(&place, &gateway), |&count| count > 0);
    assert!(refused > 0 && present(&gateway).is_empty());
    assert_eq!(
        liar.process.terminate(LIMIT).code(),
        Some(0),
        "it came in by its ticket, which opens nothing"
    );
}

/// How many requests were refused for want of a proof, after one more try.
fn refused_count(place: &Place, gateway: &Beam) -> u64 {
    let mut curl = place.rig.command(Ns::Client, "curl");
    let url = format!("http://127.0.0.1:{FORWARD_PORT}/1");
    let tried = curl.args(["-q", "-sS", "--noproxy", "*", "--max-time", "2", &url]).output().unwrap();
    assert!(!tried.status.success(), "nobody is let in");
    gateway.status()["counters"]["refused_unauthenticated"].as_u64().unwrap_or(0)
}

/// `beam key` by itself: what it writes, what it says, and that others agree.
#[test]
fn keys_are_made_read_and_explained() {
    let dir = std::env::temp_dir().join(format!("beam-keys-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = path(&dir.join("client.key"));
    done(&["key", "gen", "-o", &file]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = beam(&["key", "gen", "-o", &file]);
    assert_eq!(again.status.code(), Some(3), "a key is never overwritten");
    let identity = done(&["key", "pub", &file]);
    let from_pipe =
        Command::new(binary()).args(["key", "pub"]).stdin(fs::File::open(&file).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8(from_pipe.stdout).unwrap(), identity);
    let shown: Value = serde_json::from_str(&done(&["key", "show", "-j", &file])).unwrap();
    assert_eq!(
        (&shown["schema"], &shown["mode"], &shown["advice"]),
        (&"beam.key.v1".into(), &"0600".into(), &Value::Null)
    );
    assert_eq!(
        (&shown["holds"][0]["type"], &shown["holds"][0]["algorithm"]),
        (&"private-key".into(), &"ECDSA P-256".into())
    );
    assert_eq!(shown["holds"][0]["key"], identity.trim());
    if let Ok(out) =
        Command::new("openssl").args(["pkey", "-in", &file, "-pubout", "-outform", "DER"]).output()
    {
        assert_eq!(identity.trim(), format!("sha256:{}", pair::sha256(&out.stdout)));
    }
    // As wg genkey warns: standard output is a file that others may read.
    let open = fs::File::create(dir.join("open")).unwrap();
    open.set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
    let warned = Command::new(binary()).args(["key", "gen"]).stdout(open).output().unwrap();
    assert!(warned.status.success() && String::from_utf8_lossy(&warned.stderr).contains("others may read"));
    let said = done(&["key", "show", &path(&dir.join("open"))]);
    assert!(
        said.contains("WARNING") && said.contains("chmod 0600") && said.contains("private key"),
        "{said}"
    );
    for (args, says) in [
        (&["key", "show", "/no/such/file"][..], "/no/such/file"),
        (&["key", "show", "/etc/passwd"], "neither a PEM key or certificate nor a token"),
        (&["key", "pub", "/etc/passwd"], "beam key gen"),
        (&["user", "add", "carol", "--users", "/dev/null", "--key", "sha256:00"], "beam key pub"),
    ] {
        let out = beam(args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(3) && said.contains(says), "{args:?}: {said}");
    }
    fs::remove_dir_all(&dir).unwrap();
}

/// The client's shell, at home in a directory of the rig, with beam on its path.
fn shell(place: &Place, name: &str, script: &str) -> Proc {
    let home = place.rig.directory().join("home");
    fs::create_dir_all(&home).unwrap();
    let binary = PathBuf::from(binary());
    let bin = binary.parent().unwrap();
    let mut command = place.rig.command(Ns::Client, "sh");
    command.args(["-c", script]).env("HOME", &home).env("BEAM_XDP", "off");
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    Proc::spawn(name, &mut command)
}

#[test]
fn what_is_pasted_opens_a_tunnel() {
    if !rig::root_or_skip("what_is_pasted_opens_a_tunnel") {
        return;
    }
    let place = Place::new();
    let server = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let args = place.serve_args(GATEWAY_V4, &["--xdp", "off", "--cpus", "0", "--self-signed"]);
    let gateway = Beam::start(&place.rig, Ns::Gateway, "gateway", &words(&args));
    let control = path(&gateway.control);
    let forward = format!("{FORWARD_PORT}:{}", server.address());

    let pasted = done(&["enroll", "dave", "--control", &control, "--", "-L", &forward]);
    let pin = gateway.fingerprint();
    assert!(
        pasted.contains(&format!("beam connect https://{}:{TUNNEL_PORT} --pin {pin}", GATEWAY_V4)),
        "{pasted}"
    );
    let mut client = shell(&place, "dave", &pasted);
    client.wait_for_line("ready: ", LIMIT);
    fetch(&place);
    assert_eq!(present(&gateway), ["dave"]);
    let token = place.rig.directory().join(format!("home/.config/beam/dave@{GATEWAY_V4}.token"));
    assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    // The shell waits for beam.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", client.pid())).unwrap();
    let beam_pid: i32 = children.trim().parse().expect("the shell has one child");
    kill_process(Pid::from_raw(beam_pid).unwrap(), Signal::TERM).unwrap();
    assert_eq!(client.wait(LIMIT).code(), Some(0));
    until("it is gone", || present(&gateway), Vec::is_empty);

    // Nobody twice, and then nothing has changed.
    let before = fs::read(&place.users).unwrap();
    let twice = beam(&["enroll", "dave", "--control", &control]);
    assert_eq!((twice.status.code(), fs::read(&place.users).unwrap() == before), (Some(3), true));
    let wrong = beam(&["enroll", "eve", "--control", &control, "--", "--nonsense"]);
    assert_eq!((wrong.status.code(), fs::read(&place.users).unwrap() == before), (Some(3), true));
    let nobody = beam(&["enroll", "eve", "--control", "/no/such/socket"]);
    assert_eq!(nobody.status.code(), Some(5));

    // The other form: a configuration file, and the token beside it.
    let forward = forward.replace(&FORWARD_PORT.to_string(), "18081");
    let out = beam(&["enroll", "erin", "--control", &control, "--format", "toml", "--", "-L", &forward]);
    let (table, said) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert!(out.status.success(), "{said}");
    let token = said.split_whitespace().find(|word| word.starts_with("beam_")).expect("a token").to_owned();
    assert!(!table.contains(&token));
    let (config, token_file) =
        (place.rig.directory().join("client.toml"), place.rig.directory().join("erin.token"));
    fs::write(&token_file, token).unwrap();
    let etc = format!("/etc/beam/connect/erin@{GATEWAY_V4}.token");
    assert!(table.contains(&etc), "{table}");
    fs::write(&config, table.replace(&etc, &path(&token_file))).unwrap();
    let args = ["connect", "-c", &path(&config), "--xdp", "off"];
    let _client = Beam::start(&place.rig, Ns::Client, "erin", &args);
    assert_eq!(place.curl(&["http://127.0.0.1:18081/1"]).0, 1);
    assert_eq!(present(&gateway), ["erin"]);
}
