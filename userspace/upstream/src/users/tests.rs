//! Goal: only the right token opens, a file that others can write is refused, an edit is all or nothing.
//! Method: real files in a directory of the test's own.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    sync::atomic::{AtomicUsize, Ordering},
};

use proptest::prelude::*;

use super::*;

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("beam-users-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join("users");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn entries(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The policy of a line without options.
fn open() -> ClientPolicy {
    ClientPolicy::default()
}

fn names(path: &Path) -> Vec<String> {
    list(path).unwrap().into_iter().map(|listed| listed.name).collect()
}

fn malformed(text: &[u8]) -> (usize, Malformed) {
    file::parse(text).unwrap_err()
}

#[test]
fn the_right_token_and_no_other() {
    let dir = Dir::new();
    let text = format!(
        "# users\n\n{}  # on call\n\t{}\n",
        hash_line("alice", "beam_one").unwrap(),
        hash_line("bob@example", "beam_two").unwrap()
    );
    let users = Users::load(&dir.file(&text, 0o640)).unwrap();
    assert_eq!(users.len(), 2);
    let alice = users.authenticate("beam_one").unwrap();
    assert_eq!((&*alice.name, alice.how), ("alice", How::Token));
    assert_eq!(users.authenticate("beam_two").unwrap().to_string(), "bob@example");
    for wrong in ["", "beam_on", "beam_one ", "beam_One", "alice", "beam_one\0"] {
        assert_eq!(users.authenticate(wrong), None, "{wrong:?}");
    }
    assert_eq!(format!("{users:?}"), "Users(2)", "no hash reaches a log");
}

#[test]
fn a_token_is_bounded() {
    let dir = Dir::new();
    let (fits, too_long) = ("x".repeat(TOKEN_BYTES_MAX), "x".repeat(TOKEN_BYTES_MAX + 1));
    let text = format!("{}\n{}\n", hash_line("a", &fits).unwrap(), hash_line("b", &too_long).unwrap());
    let users = Users::load(&dir.file(&text, 0o600)).unwrap();
    assert!(users.authenticate(&fits).is_some());
    assert!(users.authenticate(&too_long).is_none());
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let dir = Dir::new();
    for mode in [0o660, 0o602, 0o666, 0o622] {
        let path = dir.file("", mode);
        let error = Users::load(&path).unwrap_err();
        assert!(matches!(error, UsersError::Writable { mode: seen, .. } if seen == mode));
        let text = error.to_string();
        assert!(text.contains(&format!("{mode:04o}")) && text.contains("chmod 0640 "), "{text}");
        assert!(add(&path, "x", &open()).is_err() && remove(&path, "x").is_err());
    }
    for mode in [0o600, 0o640, 0o644, 0o440] {
        assert!(Users::load(&dir.file("", mode)).unwrap().is_empty());
    }
}

#[test]
fn what_cannot_be_read_says_so() {
    let dir = Dir::new();
    assert!(matches!(Users::load(&dir.0.join("none")), Err(UsersError::Io { .. })));
    assert!(matches!(Users::load(&dir.0), Err(UsersError::NotAFile { .. })));
    assert!(matches!(remove(&dir.0.join("none"), "x"), Err(UsersError::Io { .. })));
    assert!(dir.entries().is_empty());
}

#[test]
fn malformed_lines_are_refused_by_number() {
    let good = hash_line("alice", "one").unwrap();
    let hash = good.split_once(' ').unwrap().1;
    let line = |text: &str| malformed(format!("# first\n{text}\n").as_bytes());
    assert_eq!(line("bob"), (2, Malformed::ProofMissing));
    assert_eq!(line("bob # sha256:"), (2, Malformed::ProofMissing));
    for bad in [
        "bob beam_secret".to_string(),
        "bob md5:00".to_string(),
        format!("bob {}", &hash[..hash.len() - 1]),
        format!("bob {hash}0"),
        format!("bob {}", hash.replacen(|c: char| c.is_ascii_digit(), "g", 20)),
        format!("bob {}", hash.to_uppercase()),
        "bob sha256:".to_string(),
    ] {
        assert_eq!(line(&bad), (2, Malformed::Proof), "{bad}");
    }
    assert_eq!(
        line(&format!("bob {hash} admin")),
        (2, Malformed::Option(OptionError::Unknown("admin".into())))
    );
    assert_eq!(line(&format!("b/b {hash}")), (2, Malformed::Name("b/b".into())));
    let long = "n".repeat(NAME_LEN_MAX + 1);
    assert_eq!(line(&format!("{long} {hash}")), (2, Malformed::Name(long)));
    assert_eq!(malformed(b"# x\n#\n\xff\n"), (3, Malformed::NotText));
    let other = hash_line("alice", "two").unwrap();
    assert_eq!(
        malformed(format!("{good}\n{other}").as_bytes()),
        (2, Malformed::DuplicateName("alice".into()))
    );
    let shared = hash_line("bob", "one").unwrap();
    assert_eq!(
        malformed(format!("{good}\n{shared}").as_bytes()),
        (2, Malformed::DuplicateHash("alice".into()))
    );
    assert!(file::parse(format!("bob sha256:{}\r\n", hash[7..].to_uppercase()).as_bytes()).is_ok());
}

#[test]
fn an_error_never_repeats_what_may_be_a_token() {
    let dir = Dir::new();
    let error = Users::load(&dir.file("alice beam_secret\n", 0o600)).unwrap_err().to_string();
    assert!(!error.contains("secret") && error.contains("line 1"), "{error}");
}

#[test]
fn add_list_remove() {
    let dir = Dir::new();
    let path = dir.0.join("users");
    let alice = add(&path, "alice", &open()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let bob = add(&path, "bob", &open()).unwrap();
    assert_eq!(names(&path), ["alice", "bob"]);
    let users = Users::load(&path).unwrap();
    assert_eq!(&*users.authenticate(&alice).unwrap().name, "alice");
    assert_eq!(&*users.authenticate(&bob).unwrap().name, "bob");
    assert!(matches!(add(&path, "alice", &open()), Err(UsersError::Exists { .. })));
    assert!(matches!(add(&path, "a b", &open()), Err(UsersError::Name(_))));
    assert!(matches!(remove(&path, "carol"), Err(UsersError::Unknown { .. })));
    remove(&path, "alice").unwrap();
    let users = Users::load(&path).unwrap();
    assert_eq!((users.authenticate(&alice), users.len()), (None, 1));
    assert_eq!(dir.entries(), ["users"], "nothing is left beside it");
}

/// Options belong to a name: by token, by certificate, and for nobody that the file doesn't know.
#[test]
fn options_are_found_by_name() {
    let dir = Dir::new();
    let path = dir.0.join("users");
    let limited = ClientPolicy::parse(["max-flows=3", "max-rate=50M"]).unwrap();
    let token = add(&path, "alice", &limited).unwrap();
    add_certificate(&path, "site-7", &ClientPolicy::parse(["routes=10.7.0.0/16"]).unwrap()).unwrap();
    add_certificate(&path, "lost", &ClientPolicy::parse(["disabled"]).unwrap()).unwrap();
    assert!(matches!(add_certificate(&path, "alice", &open()), Err(UsersError::Exists { .. })));
    assert!(matches!(add_certificate(&path, "a b", &open()), Err(UsersError::Name(_))));
    let users = Users::load(&path).unwrap();
    assert_eq!(users.len(), 1, "one has a token");
    let alice = users.authenticate(&token).unwrap();
    assert_eq!(**users.policy(&alice.name), limited);
    assert_eq!(users.policy("site-7").to_string(), "routes=10.7.0.0/16");
    assert!(users.policy("lost").disabled);
    assert_eq!(**users.policy("stranger"), open());
    assert_eq!(users.policies().count(), 3);
    let listed = list(&path).unwrap();
    let seen: Vec<_> = listed
        .iter()
        .map(|l| (l.name.as_str(), l.proof == Proof::Certificate, l.policy.to_string()))
        .collect();
    assert_eq!(
        seen,
        [
            ("alice", false, "max-flows=3 max-rate=50M".to_owned()),
            ("site-7", true, "routes=10.7.0.0/16".to_owned()),
            ("lost", true, "disabled".to_owned())
        ]
    );
}

/// A key belongs to one name, is no token, and opens nothing once it is gone or disabled.
#[test]
fn keys_have_one_owner() {
    let dir = Dir::new();
    let path = dir.0.join("users");
    let (one, other) = (KeyHash([1; 32]), KeyHash([0xab; 32]));
    add_key(&path, "carol", &one, &ClientPolicy::parse(["max-flows=3"]).unwrap()).unwrap();
    add_key(&path, "dave", &other, &ClientPolicy::parse(["disabled"]).unwrap()).unwrap();
    let token = add(&path, "alice", &open()).unwrap();
    assert!(
        matches!(add_key(&path, "eve", &one, &open()), Err(UsersError::KeyExists { other, .. }) if other == "carol")
    );
    assert!(matches!(add_key(&path, "carol", &KeyHash([2; 32]), &open()), Err(UsersError::Exists { .. })));
    assert!(matches!(add_key(&path, "a b", &KeyHash([2; 32]), &open()), Err(UsersError::Name(_))));
    let users = Users::load(&path).unwrap();
    let carol = users.key_owner(&one).unwrap();
    assert_eq!((&*carol.name, carol.how), ("carol", How::Key));
    assert_eq!((users.key_owner(&other), users.keys().collect::<Vec<_>>()), (None, vec![&one]));
    assert_eq!((users.len(), users.authenticate(&token).unwrap().how), (1, How::Token));
    let hex = "01".repeat(32);
    assert!(fs::read_to_string(&path).unwrap().starts_with(&format!("carol key:sha256:{hex} max-flows=3\n")));
    assert_eq!(list(&path).unwrap()[1].proof, Proof::Key(other));
    // The hash of a token is no key, nor the other way round.
    let crossed = format!("carol sha256:{hex}\ndave key:sha256:{hex}\n");
    let users = Users::load(&dir.file(&crossed, 0o600)).unwrap();
    assert_eq!(users.key_owner(&one).map(|owner| &*owner.name), Some("dave"));
    remove(&path, "dave").unwrap();
    assert_eq!(Users::load(&path).unwrap().key_owner(&one), None);
    let twice = format!("carol key:sha256:{hex}\ndave key:sha256:{hex}\n");
    assert_eq!(malformed(twice.as_bytes()), (2, Malformed::DuplicateKey("carol".into())));
    for bad in ["key:", "key:sha256:", "key:sha256:00", &format!("key:md5:{hex}"), &format!("key:{hex}")] {
        assert_eq!(malformed(format!("carol {bad}").as_bytes()), (1, Malformed::Proof), "{bad}");
    }
    for bad in ["", &hex, "sha1:00", &format!("sha256:{hex}0")] {
        assert!(bad.parse::<KeyHash>().unwrap_err().to_string().contains("beam key pub"), "{bad}");
    }
    assert_eq!(one.to_string().parse(), Ok(one));
}

#[test]
fn a_disabled_token_opens_nothing() {
    let dir = Dir::new();
    let line = hash_line("alice", "beam_one").unwrap();
    let users = Users::load(&dir.file(&format!("{line} disabled # until Monday\n"), 0o640)).unwrap();
    assert_eq!(users.authenticate("beam_one"), None);
    let users = Users::load(&dir.file(&format!("{line}\n"), 0o640)).unwrap();
    assert!(users.authenticate("beam_one").is_some());
}

/// An option that is wrong is refused by its line, and a word that may be a token is not repeated.
#[test]
fn a_bad_option_is_refused_by_number() {
    let dir = Dir::new();
    let line = hash_line("alice", "beam_one").unwrap();
    let error = |option: &str| {
        Users::load(&dir.file(&format!("# x\n{line} {option}\n"), 0o640)).unwrap_err().to_string()
    };
    let said = error("max-rate=lots");
    assert!(said.contains("line 2: max-rate: ") && said.contains("8k to 1000G"), "{said}");
    let said = error("beam_secret");
    assert!(said.contains("line 2: unknown option (not repeated") && !said.contains("secret"), "{said}");
}

#[test]
fn an_edit_keeps_comments_mode_and_the_link() {
    let dir = Dir::new();
    let text = format!("# kept\n\n{} # kept too", hash_line("alice", "one").unwrap());
    let path = dir.file(&text, 0o600);
    let link = dir.0.join("link");
    symlink(&path, &link).unwrap();
    add(&link, "bob", &open()).unwrap();
    let now = fs::read_to_string(&path).unwrap();
    assert!(now.starts_with(&format!("{text}\nbob sha256:")) && now.ends_with('\n'), "{now}");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    remove(&link, "bob").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{text}\n"));
}

#[test]
fn an_edit_of_a_malformed_file_leaves_it_alone() {
    let dir = Dir::new();
    let path = dir.file("alice\n", 0o600);
    assert!(matches!(add(&path, "bob", &open()), Err(UsersError::Malformed { line_number: 1, .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "alice\n");
    assert_eq!(dir.entries(), ["users"]);
}

#[test]
fn edits_at_once_lose_none() {
    let dir = Dir::new();
    let path = dir.0.join("users");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let path = &path;
            scope.spawn(move || {
                (0..8).for_each(|i| drop(add(path, &format!("u{worker}-{i}"), &open()).unwrap()))
            });
        }
    });
    assert_eq!(list(&path).unwrap().len(), 32);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = file::parse(&bytes);
    }

    #[test]
    fn a_written_line_reads_back(name in "[A-Za-z0-9._@-]{1,64}", token in "\\PC{1,64}") {
        let line = hash_line(&name, &token).unwrap();
        let lines = file::parse(line.as_bytes()).unwrap();
        let entry = lines[0].entry.as_ref().unwrap();
        prop_assert_eq!(&entry.name, &name);
        prop_assert_eq!(Some(entry.proof), TokenHash::of(&token).map(Proof::Token));
    }
}
