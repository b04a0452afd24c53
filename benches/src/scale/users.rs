//! The users of a gateway: names and tokens that follow from a number, so that nothing needs to be kept.

use anyhow::{Context, Result};
use ring::digest::{SHA256, digest};
use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Names and tokens.
#[derive(Clone, Debug)]
pub(super) struct Users {
    count: u32,
    /// So that the tokens of one run open nothing in another.
    secret: [u8; 32],
}

impl Users {
    /// Fresh ones.
    pub(super) fn new(count: u32) -> Result<Self> {
        let mut secret = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret)
            .ok()
            .context("the system's random source failed")?;
        Ok(Self { count: count.max(1), secret })
    }

    /// As long as those that `beam user add` makes.
    pub(super) fn token(&self, tunnel: u32) -> String {
        let user = tunnel % self.count;
        let mut text = String::from("beam_");
        let hash = digest(&SHA256, &[&self.secret[..], &user.to_be_bytes()].concat());
        hex(&mut text, &hash.as_ref()[..21]);
        text
    }

    /// The users file.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = BufWriter::new(file.with_context(|| path.display().to_string())?);
        let mut line = String::new();
        for user in 0..self.count {
            line.clear();
            write!(line, "user-{user} sha256:")?;
            hex(&mut line, digest(&SHA256, self.token(user).as_bytes()).as_ref());
            writeln!(file, "{line}")?;
        }
        file.flush().with_context(|| path.display().to_string())
    }
}

fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // A String takes everything.
        let _ = write!(out, "{byte:02x}");
    }
}
