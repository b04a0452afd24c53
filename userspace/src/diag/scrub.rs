//! Secrets out of whatever is archived.
//!
//! beam logs none and shows none: this is the second fence. Known ones (what the files hold that the daemon was given) are
//! looked for by their text, in every part; of others, what a private key or a credential looks like.

use std::{collections::BTreeSet, fs, path::Path};

const REDACTED: &str = "[redacted by beam diag]";
/// A shorter text would be found where it means nothing.
const SECRET_BYTES_MIN: usize = 8;
const SECRETS_MAX: usize = 4_096;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Words before a value that nobody else may know, in a line of text or in JSON.
const KEYS: [&str; 7] = ["authorization", "token", "password", "passwd", "secret", "api_key", "apikey"];

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Scrubber {
    known: BTreeSet<String>,
}

impl Scrubber {
    /// A file that is a secret: a token, a key.
    pub(super) fn learn_file(&mut self, path: &Path) {
        for line in small_file(path).lines().filter(|line| !line.starts_with("-----")) {
            line.split_whitespace().for_each(|word| self.learn(word));
        }
    }

    /// A users file: the hashes of its tokens.
    pub(super) fn learn_users(&mut self, path: &Path) {
        let text = small_file(path);
        text.split_whitespace()
            .filter_map(|word| word.strip_prefix("sha256:"))
            .for_each(|hash| self.learn(hash));
    }

    fn learn(&mut self, word: &str) {
        if word.len() >= SECRET_BYTES_MIN && self.known.len() < SECRETS_MAX {
            self.known.insert(word.to_owned());
        }
    }

    /// The text without them.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REDACTED);
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut within_key = false;
        for line in text.split_inclusive('\n') {
            if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
                within_key = !line.contains("-----END");
                out.push_str(REDACTED);
                out.push('\n');
            } else if within_key {
                within_key = !line.contains("-----END");
            } else {
                out.push_str(&without_credentials(line));
            }
        }
        out
    }
}

fn small_file(path: &Path) -> String {
    let is_small = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= FILE_BYTES_MAX);
    is_small.then(|| fs::read_to_string(path).ok()).flatten().unwrap_or_default()
}

/// `token=abc`, `"token": "abc"`, `authorization: Bearer abc` without the value. A path that a flag names stays.
fn without_credentials(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut out = line.to_owned();
    for key in KEYS {
        let mut from = 0;
        while let Some(found) = lower[from..].find(key) {
            let start = from + found + key.len();
            from = start;
            let Some(value) = value_after(line, start) else { continue };
            let said = &line[value.clone()];
            if said.len() >= SECRET_BYTES_MIN && !said.starts_with(['/', '.']) && !said.starts_with(REDACTED)
            {
                out = out.replace(said, REDACTED);
            }
        }
    }
    out
}

/// Where the value is that follows a key: after `=` or `:`, quoted or not, past the name of a scheme.
fn value_after(line: &str, start: usize) -> Option<std::ops::Range<usize>> {
    let rest = &line[start..];
    let separator = rest.trim_start_matches(['"', '\'', ' ']);
    let value = separator.strip_prefix([':', '='])?.trim_start_matches(['"', '\'', ' ', '\\']);
    let value = ["Bearer ", "bearer ", "Basic ", "basic "]
        .iter()
        .find_map(|scheme| value.strip_prefix(scheme))
        .unwrap_or(value);
    let end = value.find(['"', '\'', ' ', ',', '}', '\n', '\\', ';', '&']).unwrap_or(value.len());
    let from = line.len() - value.len();
    (end > 0).then_some(from..from + end)
}

#[cfg(test)]
mod tests {
    //! Goal: known secrets and what looks like one are gone; paths, names and everything else stay.
    use super::*;

    #[test]
    fn known_secrets_are_gone_wherever_they_are() {
        let directory = std::env::temp_dir().join(format!("beam-scrub-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let mut scrubber = Scrubber::default();
        scrubber.learn_file(&file("token", "a-token-of-this-test\n"));
        scrubber.learn_file(&file(
            "key",
            "-----BEGIN PRIVATE KEY-----\nMHcCAQEEAAAA\n-----END PRIVATE KEY-----\n",
        ));
        scrubber.learn_users(&file(
            "users",
            "alice-and-bob sha256:00112233445566778899aabbccddeeff max-flows=10\n",
        ));
        scrubber.learn_file(&directory.join("none"));
        fs::remove_dir_all(&directory).unwrap();
        let text = "x a-token-of-this-test y\nalice-and-bob 00112233445566778899aabbccddeeff MHcCAQEEAAAA max-flows=10\n";
        let clean = format!("x {REDACTED} y\nalice-and-bob {REDACTED} {REDACTED} max-flows=10\n");
        assert_eq!(scrubber.clean(text), clean);
    }

    #[test]
    fn keys_and_credentials_are_known_by_their_looks() {
        let scrubber = Scrubber::default();
        let key =
            "before\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nAAAA\n-----END EC PRIVATE KEY-----\nafter\n";
        assert_eq!(scrubber.clean(key), format!("before\n{REDACTED}\nafter\n"));
        for (line, said) in [
            ("authorization: Bearer abcdefgh123", "authorization: Bearer [redacted by beam diag]"),
            ("{\"token\": \"abcdefgh123\", \"x\": 1}", "{\"token\": \"[redacted by beam diag]\", \"x\": 1}"),
            ("url=https://h/?token=abcdefgh123&x=1", "url=https://h/?token=[redacted by beam diag]&x=1"),
            ("--token-file /etc/beam/alice.token", "--token-file /etc/beam/alice.token"),
            (
                "{\"flag\":\"--token-file\",\"value\":\"/etc/beam/t\"}",
                "{\"flag\":\"--token-file\",\"value\":\"/etc/beam/t\"}",
            ),
            ("tokens: 3 of 10 are left", "tokens: 3 of 10 are left"),
            ("a token is missing", "a token is missing"),
        ] {
            assert_eq!(scrubber.clean(line), said);
        }
    }
}
