//! The gateway's secrets over a restart: tokens that it has given prove addresses still, and whoever holds a connection of
//! the last run is told at once that it is gone (a stateless reset).

use anyhow::{Context, anyhow};
use ring::digest::{SHA256, digest};
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};
use tunnel::{CidKey, Secrets};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"beamsec1";
const KEYS_BYTES: usize = 16 + 64 + 64;
const CHECK_BYTES: usize = 32;

/// The secrets kept in `path`, or fresh ones that are kept there from now on.
///
/// # Errors
/// They can't be kept. What is returned with the error serves for this run.
pub(crate) fn load_or_make(path: &Path) -> Result<Secrets, (Secrets, anyhow::Error)> {
    match fs::read(path).map(Zeroizing::new) {
        Ok(bytes) => match read(&bytes) {
            Some(secrets) => return Ok(secrets),
            None => tracing::warn!(
                "{} holds no secrets of beam ({} bytes) and is written anew: clients prove their addresses again",
                path.display(),
                bytes.len()
            ),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err((
                Secrets::random(),
                anyhow!(error).context(format!("can't read {}", path.display())),
            ));
        }
    }
    let secrets = Secrets::random();
    match keep(path, &secrets) {
        Ok(()) => Ok(secrets),
        Err(error) => Err((secrets, error)),
    }
}

fn read(bytes: &[u8]) -> Option<Secrets> {
    let (body, check) = bytes.split_at_checked(MAGIC.len() + KEYS_BYTES)?;
    if body[..MAGIC.len()] != *MAGIC || check != digest(&SHA256, body).as_ref() {
        return None;
    }
    let (cid, rest) = body[MAGIC.len()..].split_first_chunk::<16>()?;
    let (reset, rest) = rest.split_first_chunk::<64>()?;
    let (token, _) = rest.split_first_chunk::<64>()?;
    Some(Secrets { cid_key: CidKey(*cid), reset_key: *reset, token_key: *token })
}

/// Writes them whole or not at all.
fn keep(path: &Path, secrets: &Secrets) -> anyhow::Result<()> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAGIC.len() + KEYS_BYTES + CHECK_BYTES));
    bytes.extend(MAGIC);
    bytes.extend(secrets.cid_key.0);
    bytes.extend(secrets.reset_key);
    bytes.extend(secrets.token_key);
    let check = digest(&SHA256, &bytes);
    bytes.extend(check.as_ref());
    let directory = path.parent().ok_or_else(|| anyhow!("{} is in no directory", path.display()))?;
    fs::create_dir_all(directory).with_context(|| format!("can't make {}", directory.display()))?;
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written.with_context(|| format!("can't write {}", path.display()))?;
    // A secret that is lost with the power costs its holders a round trip.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Goal: secrets are the same after a restart and for us alone; any damage makes fresh ones.
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_are_kept_and_damage_makes_fresh_ones() {
        let directory = std::env::temp_dir().join(format!("beam-secrets-{}", std::process::id()));
        let path = directory.join("secrets");
        let first = load_or_make(&path).unwrap();
        assert_eq!(load_or_make(&path).unwrap().token_key, first.token_key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let good = fs::read(&path).unwrap();
        for at in 0..=good.len() {
            let mut bad = good.clone();
            match bad.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => drop(bad.pop()),
            }
            fs::write(&path, &bad).unwrap();
            assert_ne!(load_or_make(&path).unwrap().token_key, first.token_key, "byte {at}");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(load_or_make(&path).unwrap().reset_key, first.reset_key);
        fs::remove_dir_all(&directory).unwrap();
        fs::write(&directory, b"").unwrap();
        assert!(load_or_make(&path).is_err());
        fs::remove_file(&directory).unwrap();
    }
}
