//! What the programs that measure print as one object, and how it is read again.

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, io::Write, path::Path};

/// An object that was printed once.
///
/// # Errors
/// If the file can't be read, or holds another shape.
pub fn kept<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read(file).with_context(|| file.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| file.display().to_string())
}

/// An object on a line of its own.
///
/// # Errors
/// If it can't be written.
pub fn print_json(mut out: impl Write, object: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut out, object).context("standard output")?;
    Ok(writeln!(out)?)
}
