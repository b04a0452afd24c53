//! Goal: the configuration of a daemon is what its flags, its environment and its file say, in this order; `beam check`
//! shows it and finds what is wrong with it; `beam reload` takes over what may change, `beam drain` waits for the end.
//! Method: the binary itself, with an environment of its own for each question. The flags are those that `beam check -j`
//! lists, so that a new one is covered from its first day. Daemons run in the rig's namespaces.
//!
//! This file asks `beam check`; [`live`] has the daemons.

mod live;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const BEAM: &str = env!("CARGO_BIN_EXE_beam");

/// A directory that is gone with the test.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("beam-test-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("make a directory");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("write a file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs beam with nothing in its environment but this.
fn beam(args: &[OsString], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BEAM);
    command.env_clear().args(args).envs(env.iter().copied());
    command.output().expect("run beam")
}

fn check_j(file: &Path, line: &[&str], env: &[(&str, &str)]) -> Value {
    let mut args: Vec<OsString> = ["check", "-j", "-c"].iter().map(Into::into).collect();
    args.push(file.into());
    args.extend(line.iter().map(Into::into));
    let out = beam(&args, env);
    let object: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|error| {
        panic!("beam {args:?} with {env:?}: {error}: {}", String::from_utf8_lossy(&out.stderr))
    });
    assert_eq!(object["schema"], "beam.check.v1");
    assert_eq!(object["ok"] == true, out.status.success(), "{object:#}");
    object
}

fn settings(object: &Value) -> BTreeMap<String, Value> {
    let list = object["verbs"][0]["settings"].as_array().unwrap_or_else(|| panic!("no settings: {object:#}"));
    list.iter().map(|setting| (setting["key"].as_str().expect("text").to_owned(), setting.clone())).collect()
}

/// Three values of a flag that differ from each other and from its default: for the file, as TOML has it, the environment
/// and the command line.
fn values(setting: &Value, default: Option<&str>) -> [String; 3] {
    let key = setting["key"].as_str().expect("text");
    let choices: &[&str] = match key {
        "xdp" => &["native", "skb", "off"],
        "zero-copy" => &["on", "off", "auto"],
        "hugepages" | "sandbox" => &["off", "auto", "off"],
        "capture-keylog" => &["off", "on", "off"],
        "simd" => &["ring", "aesni", "avx2"],
        "retry" => &["always", "off", "always"],
        "0rtt" => &["off", "on", "off"],
        "cc" => &["bbr", "newreno", "bbr"],
        "log-format" => &["json", "text", "json"],
        "queues" | "cpus" => &["0", "0-1", "1"],
        "frame-size" => &["2048", "4096", "2048"],
        "url" => &["https://a.example", "https://b.example", "https://c.example"],
        "listen" | "metrics" => &[":1", ":2", ":3"],
        "socks" => &["1", "2", "3"],
        "local-forward" | "remote-forward" => &["1:a:1", "2:a:1", "3:a:1/udp"],
        "stdio" => &["a:1", "a:2", "a:3"],
        "ip-pool" | "ip-route" | "route" | "announce" => &["10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/10"],
        "allow-listen" => &["1", "2", "3"],
        "memory-limit" => &["1MiB", "2MiB", "3GiB"],
        // Names, paths, numbers and times read well as numbers.
        _ => &["11", "12", "13"],
    };
    let distinct = choices.iter().filter(|&&choice| Some(choice) != default).count();
    assert!(distinct >= 1, "{key}");
    [0, 1, 2].map(|i| choices[i].to_owned())
}

/// A flag wins over the environment, that over the file, the file over the default: for every flag of both daemons.
#[test]
fn every_flag_has_its_precedence() {
    let directory = Directory::new("precedence");
    let empty = directory.write("empty.toml", "");
    for verb in ["serve", "connect"] {
        let plain: &[&str] = if verb == "serve" { &[] } else { &["https://gw.example"] };
        let bare = settings(&check_j(&empty, &[&[verb], plain].concat(), &[]));
        assert!(bare.len() > 25, "{verb}: {} flags", bare.len());
        for (key, setting) in &bare {
            if key == "config" {
                continue;
            }
            one_flag(&directory, verb, key, setting, &bare);
        }
    }
}

/// What a flag can't be without.
fn beside(verb: &str, key: &str) -> &'static [&'static str] {
    match (verb, key) {
        (_, "tls-cert") => &["--tls-key=/k"],
        (_, "tls-key") => &["--tls-cert=/k"],
        (_, "cert") => &["--key=/k"],
        (_, "key") => &["--cert=/k"],
        ("serve", "lan" | "ip-route") => &["--ip-pool=10.9.0.0/16"],
        ("connect", "lan") => &["--announce=10.9.0.0/16"],
        (_, "route" | "announce") => &["--tun=t0"],
        _ => &[],
    }
}

fn one_flag(directory: &Directory, verb: &str, key: &str, setting: &Value, bare: &BTreeMap<String, Value>) {
    let default = setting["value"].as_str().filter(|_| setting["from"] == "default");
    let env = setting["env"].as_str().unwrap_or_else(|| panic!("{verb} {key} has no variable"));
    let is_switch = matches!(default, Some("true" | "false"));
    let [in_file, in_env, as_flag] = if is_switch {
        ["true", "false", "true"].map(String::from)
    } else if key == "verbose" {
        ["1", "2", "3"].map(String::from)
    } else {
        values(setting, default)
    };
    // As the default is written: numbers and switches are bare.
    let is_bare = is_switch || default.is_some_and(|value| value.bytes().all(|b| b.is_ascii_digit()));
    let is_bare = is_bare || ["max-retries", "verbose"].contains(&key);
    let line = if is_bare { format!("{key} = {in_file}") } else { format!("{key} = {in_file:?}") };
    let file = directory.write("one.toml", &format!("[{verb}]\n\n{line}\n"));
    let flag: Vec<String> = match () {
        () if key == "url" => vec![as_flag.clone()],
        () if key == "verbose" => vec!["-vvv".into()],
        () if is_switch => vec![format!("--{key}")],
        () => vec![format!("--{key}={as_flag}")],
    };
    let flag: Vec<&str> = flag.iter().map(String::as_str).collect();
    let url: &[&str] = if verb == "connect" && key != "url" { &["https://gw.example"] } else { &[] };
    let start = [&[verb], beside(verb, key), url].concat();
    let with_env: &[(&str, &str)] = &[(env, &in_env)];
    let asked = |line: &[&str], env: &[(&str, &str)]| {
        let object = check_j(&file, line, env);
        let found = settings(&object);
        // No other flag is touched.
        for (other, setting) in &found {
            let is_beside = beside(verb, key).iter().any(|flag| flag.starts_with(&format!("--{other}=")));
            if other != key && other != "config" && other != "url" && !is_beside {
                assert_eq!(setting, &bare[other], "{verb} {key} changed {other}");
            }
        }
        let setting = &found[key];
        if key == "alert-webhook" {
            // Others see only where it comes from.
            assert_eq!(setting["value"], "(secret)");
            let flag = line.iter().find_map(|word| word.strip_prefix("--alert-webhook="));
            let env = env.first().map(|(_, value)| *value);
            let value = flag.or(env).unwrap_or(&in_file).to_owned();
            return (value, setting["from"].as_str().expect("text").to_owned());
        }
        (
            setting["value"].as_str().expect("text").to_owned(),
            setting["from"].as_str().expect("text").to_owned(),
        )
    };
    let from_file = format!("{}:3", file.display());
    assert_eq!(asked(&start, &[]), (in_file.clone(), from_file), "{verb} {key} in the file");
    assert_eq!(asked(&start, with_env), (in_env.clone(), "environment".into()), "{verb} {key}: {env}");
    let flagged = [start, flag].concat();
    assert_eq!(asked(&flagged, &[]), (as_flag.clone(), "flag".into()), "{verb} {key} as a flag");
    assert_eq!(asked(&flagged, with_env), (as_flag, "flag".into()), "{verb} {key}: a flag over {env}");
}

/// What check prints is a file that says the same.
#[test]
fn what_check_prints_is_a_configuration() {
    let directory = Directory::new("printed");
    let file = directory.write(
        "first.toml",
        "[serve]\nself-signed = true\nallow = [\"10.0.0.0/8\", \"*.example.com:443\"]\nring-size = 0x400\n\
         verbose = 1\nstate-dir = \"/var/lib/\\\"b\\\\eam\\u0009\"\n[connect]\nurl = \"https://gw.example\"\ntun = true\n\
         route = [\"10.0.0.0/8\"]\nonce = false\n",
    );
    let print = |file: &Path, verb: &str| {
        let out = beam(&["check".into(), "-c".into(), file.into(), verb.into()], &[]);
        String::from_utf8(out.stdout).expect("text")
    };
    for verb in ["serve", "connect"] {
        let second = directory.write("second.toml", &print(&file, verb));
        let of = |file: &Path| {
            let found = settings(&check_j(file, &[verb], &[]));
            let lines = found.into_iter().filter(|(key, _)| key != "config");
            lines.map(|(key, setting)| (key, setting["value"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(of(&file), of(&second), "{verb}");
    }
}

/// A line of standard error for each thing that is wrong, and the exit code that says whose fault it is.
#[test]
fn what_is_wrong_has_its_exit_code() {
    let directory = Directory::new("codes");
    let wrong = directory.write("wrong.toml", "[serve]\nlisen = \":1\"\nxdp = \"fast\"\n");
    let incomplete = directory.write("incomplete.toml", "[connect]\nsocks = 1080\n");
    let exclusive = directory.write("exclusive.toml", "[serve]\nself-signed = true\n");
    let file = |path: &Path| path.display().to_string();
    let (w, i, e) = (file(&wrong), file(&incomplete), file(&exclusive));
    let pin = "[connect]\nurl = \"https://gw.example\"\npin = \"sha256:beef\"\n";
    let p = file(&directory.write("pin.toml", pin));
    let loose = directory.write("loose-users", "");
    fs::set_permissions(&loose, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    for (line, code, said) in [
        (
            format!("serve -c {w}"),
            3,
            vec![format!("{w}:2:1: [serve] lisen: no such key; did you mean listen?"), format!("{w}:3:7: ")],
        ),
        (
            format!("check -c {w}"),
            3,
            vec![
                format!("{w}:2:1: "),
                format!("{w}:3:7: [serve] xdp = \"fast\": wanted one of auto, native, skb, off"),
            ],
        ),
        (
            "serve -c /none/beam.toml".into(),
            3,
            vec!["configuration file /none/beam.toml: No such file".into(), "--config FILE".into()],
        ),
        ("check -c /none/beam.toml".into(), 3, vec!["/none/beam.toml".into()]),
        (format!("check -c {i}"), 3, vec![format!("{i}: [connect] lacks <URL>: add it to the table")]),
        (format!("connect -c {i}"), 2, vec!["<URL>".into(), "Usage".into()]),
        (
            format!("serve -c {e} --tls-cert /c --tls-key /k"),
            3,
            vec![format!("{e}:2:1: [serve] self-signed: "), "exclude each other".into()],
        ),
        (
            format!("check -c {e} serve --allow 10.0.0.0/99"),
            3,
            vec!["--allow".into(), "10.0.0.0/99".into(), "nobody could use this gateway".into()],
        ),
        (format!("check -c {e} serve --users {}", loose.display()), 3, vec!["chmod".into()]),
        (format!("check -c {e} serve --xdp native"), 3, vec!["AF_XDP needs an interface".into()]),
        (format!("check -c {p}"), 3, vec!["--pin".into(), "nothing to carry".into()]),
        ("check serve --xdp fast".into(), 2, vec!["possible values".into()]),
        ("check status".into(), 2, vec!["beam check takes `serve` or `connect`".into()]),
        ("check frobnicate".into(), 2, vec!["frobnicate".into()]),
    ] {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let out = beam(&words, &[]);
        let heard = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "beam {line}: {heard}");
        for phrase in said {
            assert!(heard.contains(&phrase), "beam {line} does not say {phrase:?}:\n{heard}");
        }
        assert!(!heard.contains("panicked"), "{heard}");
    }
    // Machines hear it too.
    let object = check_j(&wrong, &[], &[]);
    assert_eq!(object["problems"].as_array().map(Vec::len), Some(2), "{object:#}");
}

/// What this user may not read is no mistake of the file.
#[test]
fn check_needs_no_root_and_says_what_it_could_not_see() {
    if !rig::root_or_skip("check_needs_no_root_and_says_what_it_could_not_see") {
        return;
    }
    let directory = Directory::new("unseen");
    let users = directory.write("users", "");
    let text =
        format!("[serve]\nself-signed = true\nusers = {users:?}\nallow = \"10.0.0.0/8\"\nxdp = \"off\"\n");
    let file = directory.write("beam.toml", &text);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("chmod");
    };
    mode(&users, 0o600);
    let copy = rig::copied_to(&directory.0);
    mode(&directory.0, 0o755);
    let nobody = |path: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(&copy);
        let out = command.args(["check", "-c"]).arg(path).output().expect("run setpriv");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let (code, said, complaint) = nobody(&file);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(said.contains(&format!("# not seen: users file {}", users.display())), "{said}");
    assert!(said.contains("# ok as far as it could be seen"), "{said}");
    // Root sees it all.
    let object = check_j(&file, &[], &[]);
    assert_eq!(object["verbs"][0]["unseen"], serde_json::json!([]));
    // The file itself is another matter.
    mode(&file, 0o600);
    let (code, _, complaint) = nobody(&file);
    assert_eq!(code, Some(3));
    assert!(
        complaint.contains("Permission denied") && complaint.contains("member of its group"),
        "{complaint}"
    );
}
