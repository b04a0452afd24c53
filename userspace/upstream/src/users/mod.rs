//! Who may open a tunnel, and what each client may do: the users file, and the check of a token.
//!
//! ```text
//!  # name   proof: what is kept of the token, of a key, or `cert`                    options
//!  alice    sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//!  bob      sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752  max-flows=100 max-rate=50M
//!  carol    key:sha256:d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592
//!  site-7   cert                                                                     routes=10.7.0.0/16
//! ```
//!
//! Tokens are 32 random bytes, so a plain hash of one cannot be guessed from the file, and looking a hash up takes the
//! same time for any token as far as anyone who does not know SHA-256 preimages can tell: what a table lookup leaks is
//! about the hash, not the token. The options are those of [`ClientPolicy`]. They belong to the name, however its owner
//! proves to have it: a client certificate of the name `bob` has bob's limits, too. A certificate whose name isn't in
//! the file is let in all the same, with the default policy; whom the authority shall not let in gets `cert disabled`.
//!
//! A key is the SHA-256 of a public key (SubjectPublicKeyInfo in DER), which its owner proves in the TLS handshake by a
//! certificate of any issuer, name and dates. The certificate's own name counts for nothing then.

mod client;
mod file;
mod key;
mod rate;
mod token;

use std::{collections::HashMap, fmt, io, path::Path, path::PathBuf, sync::Arc};

pub use client::{ClientPolicy, OptionError, RULES_PER_CLIENT_MAX};
pub use file::{Listed, Proof, add, add_certificate, add_key, list, remove};
pub use key::{KeyHash, KeyHashError};
pub use rate::{Rate, RateError};
pub use token::{TokenHash, generate_token, hash_line};

use file::entries;

/// Users of one gateway: more than the connections that a worker takes by default, should each be another user's.
pub const USERS_MAX: usize = 131_072;
/// Longest token that is hashed at all; ours are 48 bytes, operators may bring their own.
pub const TOKEN_BYTES_MAX: usize = 1024;
/// Longest name of a user.
pub const NAME_LEN_MAX: usize = 64;

/// How a client proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// A bearer token of the users file.
    Token,
    /// A client certificate.
    Certificate,
    /// A key of the users file.
    Key,
}

/// A client that proved who it is. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The user's name, or the certificate's subject.
    pub name: Arc<str>,
    /// What the proof was.
    pub how: How,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The users file, read. Read-only; a reload loads another.
#[derive(Clone, Default)]
pub struct Users {
    by_hash: HashMap<TokenHash, Identity>,
    by_key: HashMap<KeyHash, Identity>,
    /// Every name of the file.
    policies: HashMap<Arc<str>, Arc<ClientPolicy>>,
    /// Of everybody else.
    default: Arc<ClientPolicy>,
}

/// The next command, where the errno tells it.
fn advice(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(".\n  make it with: beam user add NAME --users {path}"),
        io::ErrorKind::PermissionDenied => {
            format!(".\n  let beam's group read it: chgrp $(id -g) {path}; chmod 0640 {path}")
        }
        _ => String::new(),
    }
}

/// Why the users file cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// Opening, reading or writing failed.
    #[error("users file {}: {doing}: {source}{}", path.display(), advice(path, source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("users file {} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others could add themselves.
    #[error(
        "users file {} has mode {mode:04o}: its group or everybody may write to it, and so let themselves in.\n  mend it with: chmod 0640 {}",
        path.display(), path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line that is not `NAME sha256:HEX [OPTION...]`.
    #[error("users file {}, line {line_number}: {what}.\n  wanted: NAME sha256:<64 hex digits> [OPTION...]; beam user add NAME writes one", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line_number: usize,
        /// What is wrong with it.
        what: Malformed,
    },
    /// Larger than any users file of [`USERS_MAX`] users.
    #[error("users file {} is larger than {} bytes", path.display(), file::FILE_BYTES_MAX)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// `add` of a name that is there.
    #[error("user {name:?} is already in {}.\n  for a new token: beam user rm {name} && beam user add {name}", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// `add` of a key that is there.
    #[error("that key is in {} already, as user {other:?}.\n  give each user their own: beam key gen", path.display())]
    KeyExists {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        other: String,
    },
    /// `remove` of a name that is not there.
    #[error("user {name:?} is not in {}.\n  who is: beam user list", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// Not a name for a user.
    #[error("{0:?} is no user name: wanted 1 to {NAME_LEN_MAX} letters, digits, or any of . _ - @")]
    Name(String),
    /// The system has no randomness.
    #[error("the system's random number generator failed")]
    Random,
}

/// What is wrong with a line of the users file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
    /// Not a user name.
    #[error("{0:?} is no user name (1 to {NAME_LEN_MAX} letters, digits, or any of . _ - @)")]
    Name(String),
    /// The second field is missing.
    #[error("the token's hash is missing")]
    ProofMissing,
    /// The second field is none of the three. It is not repeated: it may be a token.
    #[error(
        "the second field is not sha256: and 64 hex digits, nor key:sha256: and 64, nor cert (never put a token itself here)"
    )]
    Proof,
    /// A further field.
    #[error(transparent)]
    Option(OptionError),
    /// The name is in the file twice.
    #[error("user {0:?} is in the file already")]
    DuplicateName(String),
    /// Two users, one token.
    #[error("user {0:?} has the same token; give each user their own")]
    DuplicateHash(String),
    /// Two users, one key.
    #[error("user {0:?} has the same key; give each user their own")]
    DuplicateKey(String),
    /// Too many.
    #[error("more than {USERS_MAX} users")]
    TooMany,
}

impl Users {
    /// Reads the users file.
    ///
    /// # Errors
    /// [`UsersError`]: unreadable, writable by others, or a line that is malformed or a duplicate.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let lines = file::read(path)?;
        let mut users = Self::default();
        for entry in entries(&lines) {
            let name: Arc<str> = entry.name.as_str().into();
            match entry.proof {
                Proof::Token(hash) => {
                    users.by_hash.insert(hash, Identity { name: name.clone(), how: How::Token });
                }
                Proof::Key(hash) => {
                    users.by_key.insert(hash, Identity { name: name.clone(), how: How::Key });
                }
                Proof::Certificate => {}
            }
            let policy = if entry.policy == *users.default {
                users.default.clone()
            } else {
                entry.policy.clone().into()
            };
            users.policies.insert(name, policy);
        }
        Ok(users)
    }

    /// Whose token is this?
    #[must_use]
    pub fn authenticate(&self, token: &str) -> Option<Identity> {
        self.owner(&TokenHash::of(token)?).cloned()
    }

    /// Whose token has this hash? Asked again of the next users file, about a client that showed the token before.
    #[must_use]
    pub fn owner(&self, hash: &TokenHash) -> Option<&Identity> {
        self.by_hash.get(hash).filter(|identity| !self.policy(&identity.name).disabled)
    }

    /// Whose key is this?
    #[must_use]
    pub fn key_owner(&self, key: &KeyHash) -> Option<&Identity> {
        self.by_key.get(key).filter(|identity| !self.policy(&identity.name).disabled)
    }

    /// Every key that opens something.
    pub fn keys(&self) -> impl Iterator<Item = &KeyHash> {
        self.by_key.keys().filter(|key| self.key_owner(key).is_some())
    }

    /// What the client of that name may do; the default where the file doesn't speak of it.
    #[must_use]
    pub fn policy(&self, name: &str) -> &Arc<ClientPolicy> {
        self.policies.get(name).unwrap_or(&self.default)
    }

    /// Every client of the file, in no order.
    pub fn policies(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<ClientPolicy>)> {
        self.policies.iter()
    }

    /// How many users with a token there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// True if nobody can authenticate with a token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.len())
    }
}

#[cfg(test)]
mod tests;
