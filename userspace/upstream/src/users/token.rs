//! Tokens and their hashes.

use std::fmt;

use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};

use super::{TOKEN_BYTES_MAX, UsersError, file::check_name};

/// So that secret scanners, and people, see what it is.
const PREFIX: &str = "beam_";
const RANDOM_BYTES: usize = 32;

/// What is kept of a token. It opens nothing, and prints as nothing all the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token; `None` for what is none: empty, or longer than [`TOKEN_BYTES_MAX`].
    #[must_use]
    pub fn of(token: &str) -> Option<Self> {
        (1..=TOKEN_BYTES_MAX).contains(&token.len()).then(|| hash(token))
    }

    /// 64 hex digits.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        parse_hex(hex).map(Self)
    }
}

/// 64 hex digits.
pub(super) fn parse_hex(hex: &str) -> Option<[u8; 32]> {
    let digits = hex.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(hash)
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// A new token: `beam_` and 32 random bytes in base64url.
///
/// # Errors
/// [`UsersError::Random`] if the system gives no randomness.
pub fn generate_token() -> Result<String, UsersError> {
    let mut random = [0u8; RANDOM_BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| UsersError::Random)?;
    Ok(format!("{PREFIX}{}", base64url(&random)))
}

/// The line of the users file for this user and token, without a line feed.
///
/// # Errors
/// [`UsersError::Name`].
pub fn hash_line(name: &str, token: &str) -> Result<String, UsersError> {
    check_name(name).map_err(|_| UsersError::Name(name.into()))?;
    let hex: String = hash(token).0.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{name} sha256:{hex}"))
}

pub(super) fn hash(token: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    TokenHash(hash)
}

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |chunk: &[u8]| {
        let mut three = [0u8; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        let digits: [char; 4] =
            [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift) as usize & 63]));
        digits.into_iter().take(chunk.len() + 1)
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_of_rfc_4648_section_10() {
        for (plain, wanted) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64url(plain.as_bytes()), wanted);
        }
        assert_eq!(base64url(&[0xfb, 0xff, 0xfe]), "-__-");
    }

    #[test]
    fn tokens_are_long_and_different() {
        let (one, other) = (generate_token().unwrap(), generate_token().unwrap());
        assert_ne!(one, other);
        assert!(one.starts_with(PREFIX) && one.len() == PREFIX.len() + 43, "{one}");
    }

    #[test]
    fn the_hash_is_sha256() {
        // FIPS 180-2 appendix B.1.
        assert_eq!(
            hash_line("alice", "abc").unwrap(),
            "alice sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(matches!(hash_line("a b", "abc"), Err(UsersError::Name(_))));
        assert!(matches!(hash_line("#a", "abc"), Err(UsersError::Name(_))));
    }
}
