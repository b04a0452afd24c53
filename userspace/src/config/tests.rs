//! Goal: every flag of both daemons is a key and a variable; what the file says counts where nothing else is said, is held
//! to the same relations as flags, and what is wrong in it is told by its place.
//! Method: the flags are taken from clap's definitions, so that a new one is covered from its first day; files are written
//! to a directory of the test. What the environment overrides is in `tests/config`, where processes have one each.

use super::*;
use crate::cli::Verb;
use std::{fs, os::unix::fs::PermissionsExt as _};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("beam-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Loads a command line, with `-c` and a file of this text behind it.
    fn load(&self, line: &str, text: &str) -> Result<Loaded, Refused> {
        let path = self.0.join("beam.toml");
        fs::write(&path, text).unwrap();
        let words = line.split(' ').map(OsString::from);
        load(&words.chain(["-c".into(), path.into()]).collect::<Vec<_>>())
    }

    /// Without the file's name.
    fn wrong(&self, line: &str, text: &str) -> Vec<String> {
        let Err(refused @ Refused::File { .. }) = self.load(line, text) else {
            panic!("{line} with {text:?} was not refused for its file")
        };
        let path = format!("{}:", self.0.join("beam.toml").display());
        refused.lines().iter().map(|line| line.strip_prefix(&path).unwrap().to_owned()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const DAEMONS: [&str; 2] = ["serve", "connect"];

/// What a verb needs on its command line.
fn line_of(verb: &str) -> &'static str {
    match verb {
        "serve" => "beam serve",
        _ => "beam connect https://gw.example",
    }
}

#[test]
fn every_flag_is_a_key_and_a_variable() {
    let command = Cli::command();
    for verb in DAEMONS {
        for arg in command.find_subcommand(verb).unwrap().get_arguments() {
            let id = arg.get_id();
            if ["help", "version"].contains(&id.as_str()) {
                continue;
            }
            assert!(arg.get_long().is_some() || arg.is_positional(), "{verb} {id}: no long flag");
            let env = arg.get_env().unwrap_or_else(|| panic!("{verb} {id}: no variable")).to_string_lossy();
            let key = key_of(arg);

            assert_eq!(env, format!("BEAM_{}", key.replace('-', "_").to_uppercase()), "{verb} {id}");
        }
    }
}

/// The example in a key's error message is right: alone in a file, it is taken over.
#[test]
fn every_example_is_taken() {
    let directory = Directory::new("examples");
    let command = Cli::command();
    for verb in DAEMONS {
        let command = command.find_subcommand(verb).unwrap();
        for key in keys::of(command) {
            let text = format!("[{verb}]\n{}\n", key.example());
            let line = if key.arg.is_positional() { "beam connect" } else { line_of(verb) };
            match directory.load(line, &text) {
                Ok(loaded) => {
                    let setting = loaded.settings.iter().find(|setting| setting.key == key.name).unwrap();
                    assert!(
                        setting.from.ends_with("beam.toml:2"),
                        "{verb} {}: from {}",
                        key.name,
                        setting.from
                    );
                    assert_eq!(setting.toml.as_deref(), Some(key.example().as_str()));
                }
                // Some keys need another one beside them, and say which.
                Err(refused) => {
                    let lines = refused.lines();
                    assert!(lines[0].contains(": needs "), "{verb}: {text}{lines:?}");
                }
            }
        }
    }
}

#[test]
fn the_file_counts_where_nothing_else_is_said() {
    let directory = Directory::new("counts");
    let text = "[serve]\nself-signed = true\nallow = [\"10.0.0.0/8\", \"a.example\"]\ndrain-timeout = 5\n\
                listen = \":1\"\nverbose = 2\nqueues = \"0-1\"\n[connect]\nonce = true\n";
    let Loaded { cli, settings, file, .. } = directory.load("beam serve -l :2 --queues all", text).unwrap();
    let Verb::Serve(args) = cli.verb else { panic!() };
    assert!(args.self_signed && args.allow == ["10.0.0.0/8", "a.example"]);
    assert_eq!(args.drain_timeout, std::time::Duration::from_secs(5));
    assert_eq!((args.listen.port, args.daemon.log.verbose), (2, 2));
    assert_eq!(args.path.queues, crate::cli::Queues::All, "a flag wins, also with the default's value");
    let from = |key: &str| settings.iter().find(|setting| setting.key == key).unwrap().from.clone();
    assert_eq!(file, Some(directory.0.join("beam.toml")));
    assert!(from("allow").ends_with("beam.toml:3"), "{}", from("allow"));
    assert_eq!([from("listen"), from("queues"), from("retry")], ["flag", "flag", "default"]);
    assert_eq!(from("deny"), crate::settings::UNSET);
}

/// A switch can be left off in the file, a device be left to its default name; no list is an empty list.
#[test]
fn values_of_every_kind() {
    let directory = Directory::new("kinds");
    let text = "[connect]\nurl = \"https://gw.example\"\ntun = true\nonce = false\nsocks = [1080, \"[::1]:1081\"]\n\
                local-forward = \"1:h:2\"\nroute = []\npool = 0x10\nverbose = 0\n";
    let Loaded { cli, settings, .. } = directory.load("beam connect", text).unwrap();
    let Verb::Connect(args) = cli.verb else { panic!() };
    assert_eq!((args.tun.as_deref(), args.once, args.pool), (Some("beam0"), false, 16));
    assert_eq!((args.socks.len(), args.local_forwards.len(), args.route.len()), (2, 1, 0));
    let from = |key: &str| settings.iter().find(|setting| setting.key == key).unwrap().from.clone();
    assert!(from("once").ends_with(":4") && from("verbose").ends_with(":9") && from("tun").ends_with(":3"));
    // What follows isn't taken for the device's name.
    let line = "beam connect https://gw.example";
    let Verb::Connect(args) = directory.load(line, "[connect]\ntun = true\n").unwrap().cli.verb else {
        panic!()
    };
    assert_eq!((args.tun.as_deref(), &*args.gateway.url.host), (Some("beam0"), "gw.example"));
    let text = "[connect]\ntun = false\n";
    let Verb::Connect(args) = directory.load(line, text).unwrap().cli.verb else { panic!() };
    assert_eq!(args.tun, None);
}

/// What clap refuses on a command line, it refuses in a file, in whichever way the two share it out.
#[test]
fn relations_hold() {
    let directory = Directory::new("relations");
    for (line, text, wanted) in [
        (
            "beam serve",
            "self-signed = true\ntls-cert = \"/c\"\ntls-key = \"/k\"\n",
            &["2:1: [serve] self-signed: ", "3:1: [serve] tls-cert: "][..],
        ),
        (
            "beam serve --self-signed",
            "tls-cert = \"/c\"\ntls-key = \"/k\"\n",
            &["2:1: [serve] tls-cert: --tls-cert <FILE> and --self-signed exclude each other, and the other"],
        ),
        (
            "beam serve",
            "# nothing\ntls-cert = \"/c\"\n",
            &["3:1: [serve] tls-cert: needs --tls-key <FILE> beside it"],
        ),
        ("beam serve", "ip-route = [\"10.0.0.0/8\"]\n", &["2:1: [serve] ip-route: needs --ip-pool"]),
        (
            "beam serve",
            "ip-pool = \"10.0.0.0/8\"\nlan = \"a\"\ntun = \"b\"\n",
            &["3:1: [serve] lan: ", "4:1: [serve] tun: "],
        ),
    ] {
        let lines = directory.wrong(line, &format!("[serve]\n{text}"));
        assert_eq!(lines.len(), wanted.len(), "{lines:?}");
        for (line, wanted) in lines.iter().zip(wanted) {
            assert!(line.starts_with(wanted), "{line} should begin with {wanted}");
        }
    }
    for (text, wanted) in [
        ("stdio = \"h:1\"\nsocks = 1\n", "excl"),
        ("pin = \"a\"\ninsecure = true\n", "excl"),
        ("route = \"10.0.0.0/8\"\n", "needs <--tun [<NAME>]|--lan <IF>>"),
        ("tun = true\nlan = \"a\"\nannounce = \"10.0.0.0/8\"\n", "excl"),
        ("lan = \"a\"\n", "needs --announce"),
        ("cert = \"/c\"\n", "needs --key"),
    ] {
        let lines = directory.wrong("beam connect https://gw.example", &format!("[connect]\n{text}"));
        assert!(lines.iter().all(|line| line.contains(wanted)), "{text}: {lines:?}");
    }
    // One half each.
    assert!(directory.load("beam serve --tls-key /k", "[serve]\ntls-cert = \"/c\"\n").is_ok());
    assert!(directory.load("beam serve --ip-pool 10.0.0.0/8", "[serve]\nlan = \"a\"\n").is_ok());
    // A value that isn't one excludes nothing; one that is overridden neither.
    assert!(
        directory
            .load("beam serve", "[serve]\nself-signed = false\ntls-cert = \"/c\"\ntls-key = \"/k\"\n")
            .is_ok()
    );
    // Flags among themselves are usage, as ever.
    let refused = directory.load("beam serve --tls-cert /c", "[serve]\ncc = \"bbr\"\n");
    assert!(matches!(refused, Err(Refused::Usage(_))));
}

#[test]
fn what_is_wrong_is_told_by_its_place() {
    let directory = Directory::new("wrong");
    for (text, wanted) in [
        (
            "lisen = \":1\"",
            "2:1: [serve] lisen: no such key; did you mean listen? Such as: listen = \":443\"",
        ),
        ("TLS_CERT = \"/c\"", "2:1: [serve] TLS_CERT: no such key; did you mean tls-cert?"),
        ("socks = 1", "2:1: [serve] socks: no such key; it belongs to [connect]"),
        (
            "qwerty = 1",
            "2:1: [serve] qwerty: no such key; the keys are the long flags of `beam serve --help`",
        ),
        ("config = \"/c\"", "2:1: [serve] config: no such key"),
        (
            "self-signed = 1",
            "2:15: [serve] self-signed = 1: wanted true or false; such as: self-signed = true",
        ),
        ("ring-size = \"1\"", "2:13: [serve] ring-size = \"1\": wanted a number; such as: ring-size = 2048"),
        ("users = 7", "2:9: [serve] users = 7: wanted a text in quotes"),
        ("listen = true", "2:10: [serve] listen = true: wanted a text in quotes"),
        (
            "allow = [\n  \"a\",\n  2,\n]",
            "4:3: [serve] allow = 2: wanted a text in quotes, or a list of such",
        ),
        ("allow = [[\"a\"]]", "2:10: [serve] allow = a list: wanted"),
        ("cpus = [\"1\"]", "2:1: [serve] cpus: seen a list, wanted a text in quotes"),
        (
            "xdp = \"fast\"",
            "2:7: [serve] xdp = \"fast\": wanted one of auto, native, skb, off; such as: xdp = \"auto\"",
        ),
        ("queues = \"3-1\"", "2:10: [serve] queues = \"3-1\": range `3-1` runs backwards"),
        ("ip-pool = [\"10.0.0.0/8\", \"10.0.0.0/99\"]", "2:26: [serve] ip-pool = \"10.0.0.0/99\": "),
        ("umem = -1", "2:8: [serve] umem = -1: "),
        ("umem = 1e400000000000000000000000000000000000000000", "2:"),
        ("umem = 99999999999999999999999999999999999999999999", "2:"),
        ("verbose = 256", "2:11: [serve] verbose = 256: wanted a number from 0 to 255"),
        ("tun = false", "2:7: [serve] tun = false: wanted true or a text in quotes"),
        ("listen = 1979-05-27", "2:10: [serve] listen = a date or a time of day: wanted"),
        ("listen.x = 1", "2:1: [serve] listen = a table: wanted"),
        ("listen = \":1\"\nlisten = \":2\"", "3:1: no TOML: duplicate key"),
        ("listen = ", "2:"),
        ("[server]", "2:2: [server]: no such table; did you mean [serve]? There are [serve] and [connect]"),
        (
            "[connect]\nurl = \"http://h\"",
            "3:7: [connect] url = \"http://h\": `http://h`: the form is https://HOST",
        ),
    ] {
        let lines = directory.wrong("beam serve", &format!("[serve]\n{text}\n"));
        assert!(lines[0].starts_with(wanted), "{text}: {lines:?}");
    }
    let lines = directory.wrong("beam serve", "listen = \":1\"\n[serve]\nxdp = \"fast\"\ncc = \"slow\"\n");
    let places: Vec<_> = lines.iter().map(|line| line.split(" ").next().unwrap()).collect();
    assert_eq!(places, ["1:1:", "3:7:", "4:6:"], "all at once, in order");
}

#[test]
fn files_that_cannot_be_read() {
    let directory = Directory::new("files");
    let refused = |path: &Path| {
        let line = ["beam".into(), "serve".into(), "-c".into(), path.into()];
        load(&line).err().map(|refused| refused.lines().join("\n")).unwrap_or_default()
    };
    let none = refused(&directory.0.join("none"));
    assert!(none.contains("No such file") && none.contains("--config FILE"), "{none}");
    let bytes = directory.0.join("bytes");
    fs::write(&bytes, b"[serve]\n# \xff\n").unwrap();
    assert!(refused(&bytes).contains("line 2 is no UTF-8"));
    fs::write(&bytes, vec![b'\n'; (1 << 20) + 1]).unwrap();
    assert!(refused(&bytes).contains("longer than 1024 KiB"));
    assert_eq!(refused(Path::new("/dev/null")), "");
}

/// A secret in a file that everybody may read is warned of, and shown to nobody.
#[test]
fn secrets_are_found_by_their_names() {
    let is_secret = |arg: clap::Arg| keys::is_secret(&arg);
    assert!(is_secret(clap::Arg::new("a").long("alert-webhook")));
    assert!(!is_secret(clap::Arg::new("a").long("token-file").value_parser(clap::value_parser!(PathBuf))));
    assert!(!is_secret(clap::Arg::new("a").long("listen")));
    let directory = Directory::new("secrets");
    let text = "[serve]\nalert-webhook = \"https://hooks.example/abc\"\n";
    let path = directory.0.join("beam.toml");
    for (mode, warned) in [(0o640, false), (0o644, true)] {
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = directory.load("beam serve", text).unwrap();
        assert_eq!(loaded.warnings.len(), usize::from(warned), "{mode:o}: {:?}", loaded.warnings);
        assert!(loaded.warnings.iter().all(|w| w.contains(":2: alert-webhook") && w.contains("chmod o-r")));
        let shown = crate::settings::shown(loaded.settings);
        let webhook = shown.iter().find(|setting| setting.key == "alert-webhook").unwrap();
        assert_eq!(
            (webhook.value.as_str(), webhook.toml.as_deref()),
            ("(secret)", Some("alert-webhook = \"(secret)\""))
        );
    }
    let lines = directory.wrong("beam serve", "[serve]\nalert-webhook = 7\n");
    assert!(lines[0].contains("alert-webhook = a value: wanted"), "{lines:?}");
}
