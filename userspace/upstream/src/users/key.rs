//! Public keys and their hashes.

use std::{fmt, str::FromStr};

use super::token;

/// SHA-256 of a public key (SubjectPublicKeyInfo in DER): what a client that comes by key is known by. Written `sha256:`
/// and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// A key's hash that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no hash of a key: wanted is sha256: and 64 hex digits, as `beam key pub` prints it")]
pub struct KeyHashError(String);

impl FromStr for KeyHash {
    type Err = KeyHashError;

    fn from_str(text: &str) -> Result<Self, KeyHashError> {
        let hash = text.strip_prefix("sha256:").and_then(token::parse_hex);
        hash.map(Self).ok_or_else(|| KeyHashError(text.chars().take(100).collect()))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
