//! The users file on disk: reading, and the edits of `beam user`.
//!
//! An edit keeps comments and order, holds a lock on the directory so that two edits cannot lose one, and replaces the
//! file in one step, so that a gateway that reloads sees the old file or the new one, never half of one.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use super::{
    ClientPolicy, Malformed, NAME_LEN_MAX, USERS_MAX, UsersError,
    key::KeyHash,
    token::{self, TokenHash},
};

/// Room for [`USERS_MAX`] users, at 80 bytes and a few options each, and as much again of comments.
pub(super) const FILE_BYTES_MAX: u64 = 32 << 20;
/// In the place of the token's hash: this client comes with a certificate.
const CERTIFICATE: &str = "cert";
/// In that place, before the hash of a key.
const KEY: &str = "key:";
/// Mode of a file that we make. One that is there keeps its own: a daemon may read it by its group.
const MODE: u32 = 0o600;
/// The bits that would let others in.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// One line, as it was, and the client in it.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    pub(super) entry: Option<Entry>,
}

/// A client of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) proof: Proof,
    pub(super) policy: ClientPolicy,
}

/// What a client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The token with this hash.
    Token(TokenHash),
    /// A certificate that the authorities signed.
    Certificate,
    /// This key.
    Key(KeyHash),
}

/// A client of the file, for a person to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub proof: Proof,
    /// What it may do.
    pub policy: ClientPolicy,
}

/// Reads and checks the file: its mode, each line, and that names and tokens are unique.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, UsersError> {
    let io_error = |doing| move |source| UsersError::Io { path: path.into(), doing, source };
    let file = File::open(path).map_err(io_error("cannot open it"))?;
    let metadata = file.metadata().map_err(io_error("cannot read its mode"))?;
    if !metadata.is_file() {
        return Err(UsersError::NotAFile { path: path.into() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(UsersError::Writable { path: path.into(), mode });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io_error("cannot read it"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(UsersError::TooLarge { path: path.into() });
    }
    parse(&bytes).map_err(|(line_number, what)| UsersError::Malformed {
        path: path.into(),
        line_number,
        what,
    })
}

/// The lines, or the number of the first bad one and what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Line>, (usize, Malformed)> {
    let mut names = HashSet::new();
    let mut by_hash: HashMap<TokenHash, String> = HashMap::new();
    let mut by_key: HashMap<KeyHash, String> = HashMap::new();
    let mut lines = Vec::new();
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let text_lines = bytes.split(|&b| b == b'\n').take(if bytes.is_empty() { 0 } else { usize::MAX });
    for (i, raw) in text_lines.enumerate() {
        let wrong = |what| (i + 1, what);
        let text = std::str::from_utf8(raw).map_err(|_| wrong(Malformed::NotText))?;
        let entry = parse_line(text).map_err(wrong)?;
        if let Some(Entry { name, proof, .. }) = &entry {
            if names.len() == USERS_MAX {
                return Err(wrong(Malformed::TooMany));
            }
            if !names.insert(name.clone()) {
                return Err(wrong(Malformed::DuplicateName(name.clone())));
            }
            let duplicate = match *proof {
                Proof::Token(hash) => by_hash.insert(hash, name.clone()).map(Malformed::DuplicateHash),
                Proof::Key(hash) => by_key.insert(hash, name.clone()).map(Malformed::DuplicateKey),
                Proof::Certificate => None,
            };
            if let Some(duplicate) = duplicate {
                return Err(wrong(duplicate));
            }
        }
        lines.push(Line { text: text.into(), entry });
    }
    Ok(lines)
}

/// `NAME sha256:HEX [OPTION...]`, `NAME key:sha256:HEX [OPTION...]`, `NAME cert [OPTION...]`, or nothing but blanks and a
/// comment.
fn parse_line(text: &str) -> Result<Option<Entry>, Malformed> {
    let content = text.split('#').next().unwrap_or_default();
    let mut fields = content.split_ascii_whitespace();
    let Some(name) = fields.next() else { return Ok(None) };
    check_name(name)?;
    let proof = fields.next().ok_or(Malformed::ProofMissing)?;
    let proof = match proof.strip_prefix(KEY) {
        Some(key) => Proof::Key(key.parse().map_err(|_| Malformed::Proof)?),
        None if proof == CERTIFICATE => Proof::Certificate,
        None => {
            let hash = proof.strip_prefix("sha256:").and_then(TokenHash::parse);
            Proof::Token(hash.ok_or(Malformed::Proof)?)
        }
    };
    let policy = ClientPolicy::parse(fields).map_err(Malformed::Option)?;
    Ok(Some(Entry { name: name.into(), proof, policy }))
}

pub(super) fn check_name(name: &str) -> Result<(), Malformed> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
    if (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(Malformed::Name(name.into()))
    }
}

/// Adds a user with a new token and returns the token, which is kept nowhere. Makes the file if there is none.
///
/// # Errors
/// [`UsersError`]; the file is then as it was.
pub fn add(path: &Path, name: &str, policy: &ClientPolicy) -> Result<String, UsersError> {
    let token = token::generate_token()?;
    add_line(path, name, token::hash_line(name, &token)?, policy)?;
    Ok(token)
}

/// Adds the options of a client that comes with a certificate of that name. Makes the file if there is none.
///
/// # Errors
/// [`UsersError`]; the file is then as it was.
pub fn add_certificate(path: &Path, name: &str, policy: &ClientPolicy) -> Result<(), UsersError> {
    check_name(name).map_err(|_| UsersError::Name(name.into()))?;
    add_line(path, name, format!("{name} {CERTIFICATE}"), policy)
}

/// Adds a client that comes with this key. Makes the file if there is none.
///
/// # Errors
/// [`UsersError`]; the file is then as it was.
pub fn add_key(path: &Path, name: &str, key: &KeyHash, policy: &ClientPolicy) -> Result<(), UsersError> {
    check_name(name).map_err(|_| UsersError::Name(name.into()))?;
    add_line(path, name, format!("{name} {KEY}{key}"), policy)
}

fn add_line(path: &Path, name: &str, line: String, policy: &ClientPolicy) -> Result<(), UsersError> {
    edit(path, true, |lines| {
        if entries(lines).any(|there| there.name == name) {
            return Err(UsersError::Exists { path: path.into(), name: name.into() });
        }
        let key = line.split_once(KEY).and_then(|(_, key)| key.parse().ok()).map(Proof::Key);
        if let Some(there) = entries(lines).find(|there| Some(there.proof) == key) {
            return Err(UsersError::KeyExists { path: path.into(), other: there.name.clone() });
        }
        lines.push(Line { text: format!("{line} {policy}").trim_end().into(), entry: None });
        Ok(())
    })
}

/// Removes a user; a gateway forgets the token at its next reload.
///
/// # Errors
/// [`UsersError`]; the file is then as it was.
pub fn remove(path: &Path, name: &str) -> Result<(), UsersError> {
    edit(path, false, |lines| {
        let before = lines.len();
        lines.retain(|line| line.entry.as_ref().is_none_or(|there| there.name != name));
        if lines.len() == before {
            return Err(UsersError::Unknown { path: path.into(), name: name.into() });
        }
        Ok(())
    })
}

/// The clients in the order of the file.
///
/// # Errors
/// As [`super::Users::load`].
pub fn list(path: &Path) -> Result<Vec<Listed>, UsersError> {
    let lines = read(path)?;
    let listed = entries(&lines).map(|entry| Listed {
        name: entry.name.clone(),
        proof: entry.proof,
        policy: entry.policy.clone(),
    });
    Ok(listed.collect())
}

pub(super) fn entries(lines: &[Line]) -> impl Iterator<Item = &Entry> {
    lines.iter().filter_map(|line| line.entry.as_ref())
}

/// Reads, changes, writes beside and renames, under a lock on the directory.
fn edit(
    path: &Path,
    create: bool,
    change: impl FnOnce(&mut Vec<Line>) -> Result<(), UsersError>,
) -> Result<(), UsersError> {
    let io_error = |doing| move |source| UsersError::Io { path: path.into(), doing, source };
    // Through a symbolic link: the file that it names is replaced, not the link.
    let target = match fs::canonicalize(path) {
        Err(error) if create && error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
        found => found.map_err(io_error("cannot open it"))?,
    };
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(parent).map_err(io_error("cannot open its directory"))?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive)
        .map_err(|errno| io_error("cannot lock its directory")(errno.into()))?;
    let mut lines = match read(&target) {
        Err(UsersError::Io { source, .. }) if create && source.kind() == io::ErrorKind::NotFound => {
            Vec::new()
        }
        read => read?,
    };
    change(&mut lines)?;
    let text: String = lines.iter().map(|line| format!("{}\n", line.text)).collect();
    let beside = temporary_name(&target);
    let written = write_beside(&target, &beside, &text).and_then(|()| fs::rename(&beside, &target));
    if written.is_err() {
        // Best effort: what matters, the file itself, was not touched.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(io_error("cannot replace it"))?;
    directory.sync_all().map_err(io_error("cannot sync its directory"))
}

/// In the same directory, so that the rename stays within one file system; the lock makes it ours.
fn temporary_name(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".new");
    target.with_file_name(name)
}

/// Writes the new file with the owner, group and mode of the old one: the daemon may read it by its group only.
fn write_beside(target: &Path, beside: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    let mut mode = MODE;
    match fs::metadata(target) {
        Ok(old) => {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            mode = old.mode() & 0o7777;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
