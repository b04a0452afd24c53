//! `beam key`: keys that clients are known by, as `wg genkey` and `wg pubkey` have it, and a look into files of them.

mod show;

use crate::{
    cli::{KeyArgs, KeyVerb},
    failure::Failure,
    identity,
};
use anyhow::{Context, anyhow};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::Path,
};
use upstream::users::KeyHash;
use zeroize::Zeroizing;

/// No key or certificate file is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The permission bits of others than the owner.
const OTHERS: u32 = 0o077;

pub(crate) fn run(args: &KeyArgs) -> Result<(), Failure> {
    match &args.verb {
        KeyVerb::Gen { output } => generate(output.as_deref()),
        KeyVerb::Pub { file } => {
            let pem = match file {
                Some(path) => read(path)?,
                None => read_all(io::stdin().lock(), "standard input")?,
            };
            let from = file.as_deref().map_or("standard input".into(), |path| path.display().to_string());
            let key = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|_| anyhow!("{from} holds no PEM private key; make one with: beam key gen -o FILE"))
                .map_err(Failure::Config)?;
            say!("{}", hash(&key).map_err(Failure::Config)?);
            Ok(())
        }
        KeyVerb::Show { file, json } => show::run(file, *json),
    }
}

/// What a gateway knows this key by.
pub(crate) fn hash(key: &PrivateKeyDer<'_>) -> anyhow::Result<KeyHash> {
    let provider = tunnel::tls::provider();
    let key = provider.key_provider.load_private_key(key.clone_key());
    let key = key.context("the private key can't be used; needed: ECDSA P-256 or P-384, Ed25519, or RSA")?;
    let public = key.public_key().context("the private key doesn't tell its public key")?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &public);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    Ok(KeyHash(hash))
}

fn generate(output: Option<&Path>) -> Result<(), Failure> {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .context("can't make a P-256 key")
        .map_err(Failure::Runtime)?;
    let pem = Zeroizing::new(pair.serialize_pem());
    let Some(path) = output else {
        if others_may_read(io::stdout().as_fd()) {
            eprintln!(
                "beam: warning: standard output is a file that others may read; next time: umask 077, or beam key gen -o FILE"
            );
        }
        say_text!("{}", *pem);
        return io::stdout().flush().context("can't write to standard output").map_err(Failure::Runtime);
    };
    write_new(path, &pem).map_err(Failure::Config)?;
    let identity = identity::key_file(path).and_then(|key| hash(&key)).map_err(Failure::Config)?;
    eprintln!("beam: wrote {} (0600); on the gateway: beam user add NAME --key {identity}", path.display());
    Ok(())
}

/// A file that isn't there yet, for its owner alone. Where the file system can't keep others out, nothing stays.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = path.display();
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow!("{shown} is there already, and a key that is overwritten is lost; name a new file")
        }
        _ => anyhow!("can't write {shown}: {error}"),
    })?;
    let written = match others_may_read(file.as_fd()) {
        true => Err(anyhow!(
            "others may read what is written to {shown}: its file system knows no modes; name a file on another"
        )),
        false => file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("can't write {shown}")),
    };
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

/// Whether it is a file that its mode opens to others. A pipe or a terminal is none.
fn others_may_read(file: BorrowedFd<'_>) -> bool {
    let Ok(owned) = file.try_clone_to_owned() else { return false };
    let metadata = File::from(owned).metadata();
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & OTHERS != 0)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()));
    read_all(file.map_err(Failure::Config)?, &path.display().to_string())
}

fn read_all(from: impl Read, name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("can't read {name}")).map_err(Failure::Config)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::Config(anyhow!("{name} is longer than {FILE_BYTES_MAX} bytes: no key file is")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    //! Goal: a key's hash is that of its public key, whichever way it is looked at, and a key file is never overwritten.
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_certificate_made_from_it() {
        let dir = std::env::temp_dir().join(format!("beam-key-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("client.key");
        generate(Some(&path)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = std::fs::read(&path).unwrap();
        assert!(generate(Some(&path)).unwrap_err().to_string().contains("is there already"));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        let key = identity::key_file(&path).unwrap();
        let credentials = identity::Credentials::of_key(&path).unwrap();
        let of_certificate = tunnel::tls::Fingerprint::of_key(&credentials.chain[0]).unwrap();
        let by_rcgen = rcgen::KeyPair::from_pem(std::str::from_utf8(&before).unwrap()).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&by_rcgen);
        let wanted = ring::digest::digest(&ring::digest::SHA256, &spki);
        assert_eq!(hash(&key).unwrap().0, wanted.as_ref());
        assert_eq!(of_certificate.0, wanted.as_ref());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
