//! `beam key show`: what a file holds. Never what is secret in it.

use crate::{failure::Failure, identity};
use anyhow::{anyhow, bail};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{PemObject, SectionKind},
};
use serde::Serialize;
use std::{fmt::Write as _, fs, os::unix::fs::MetadataExt as _, path::Path};
use tunnel::tls::Fingerprint;
use upstream::users;
use x509_parser::{prelude::FromDer as _, public_key::PublicKey, x509::SubjectPublicKeyInfo};

/// Name of the JSON object's shape.
const SCHEMA: &str = "beam.key.v1";

/// A file of keys, certificates or a token.
#[derive(Debug, PartialEq, Serialize)]
struct Shown {
    schema: &'static str,
    file: String,
    /// `0600`
    mode: String,
    owner: u32,
    group: u32,
    readable_by: &'static str,
    /// What its mode should be changed to.
    advice: Option<String>,
    holds: Vec<Item>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Item {
    PrivateKey {
        algorithm: String,
        /// What a gateway knows it by.
        key: String,
    },
    Certificate {
        /// For `--pin`.
        fingerprint: String,
        key: Option<String>,
        subject: String,
        names: Vec<String>,
        issuer: String,
        not_before: String,
        not_after: String,
        days_left: i64,
    },
    Token {
        /// As the users file has it.
        hash: String,
    },
    Other {
        what: String,
    },
}

impl Item {
    fn is_secret(&self) -> bool {
        matches!(self, Self::PrivateKey { .. } | Self::Token { .. })
    }
}

pub(super) fn run(path: &Path, json: bool) -> Result<(), Failure> {
    let shown = look(path)?;
    if json {
        say!("{}", serde_json::to_string(&shown).map_err(Failure::runtime)?);
    } else {
        say_text!("{}", text(&shown));
    }
    Ok(())
}

fn look(path: &Path) -> Result<Shown, Failure> {
    let bytes = super::read(path)?;
    let metadata = fs::metadata(path).map_err(Failure::config)?;
    let mode = metadata.mode() & 0o7777;
    let holds = items(&bytes).map_err(|error| Failure::Config(error.context(path.display().to_string())))?;
    let readable_by = match (mode & 0o004 != 0, mode & 0o040 != 0) {
        (true, _) => "everybody",
        (false, true) => "its owner and its group",
        (false, false) => "its owner",
    };
    let is_open = holds.iter().any(Item::is_secret) && mode & super::OTHERS != 0;
    let advice = is_open.then(|| format!("chmod 0600 {}", path.display()));
    Ok(Shown {
        schema: SCHEMA,
        file: path.display().to_string(),
        mode: format!("{mode:04o}"),
        owner: metadata.uid(),
        group: metadata.gid(),
        readable_by,
        advice,
        holds,
    })
}

fn items(bytes: &[u8]) -> anyhow::Result<Vec<Item>> {
    let sections: Result<Vec<(SectionKind, Vec<u8>)>, _> = PemObject::pem_slice_iter(bytes).collect();
    let sections = sections.map_err(|error| anyhow!("its PEM is damaged: {error}"))?;
    if sections.is_empty() {
        return Ok(vec![token(bytes)?]);
    }
    sections.into_iter().map(|(kind, der)| item(kind, der)).collect()
}

fn item(kind: SectionKind, der: Vec<u8>) -> anyhow::Result<Item> {
    Ok(match kind {
        SectionKind::Certificate => certificate(&der.into())?,
        SectionKind::PrivateKey => private_key(&PrivateKeyDer::Pkcs8(der.into()))?,
        SectionKind::RsaPrivateKey => private_key(&PrivateKeyDer::Pkcs1(der.into()))?,
        SectionKind::EcPrivateKey => private_key(&PrivateKeyDer::Sec1(der.into()))?,
        other => Item::Other { what: format!("{other:?}") },
    })
}

fn certificate(der: &CertificateDer<'_>) -> anyhow::Result<Item> {
    let facts = identity::facts(der)?;
    Ok(Item::Certificate {
        fingerprint: Fingerprint::of(der).to_string(),
        key: Fingerprint::of_key(der).map(|key| key.to_string()),
        subject: facts.subject,
        names: facts.names,
        issuer: facts.issuer,
        not_before: facts.not_before,
        not_after: facts.not_after,
        days_left: facts.days_left,
    })
}

fn private_key(key: &PrivateKeyDer<'static>) -> anyhow::Result<Item> {
    let provider = tunnel::tls::provider();
    let hash = super::hash(key)?.to_string();
    let public = provider.key_provider.load_private_key(key.clone_key())?;
    let algorithm = public.public_key().map_or("unknown".to_owned(), |spki| algorithm(&spki));
    Ok(Item::PrivateKey { algorithm, key: hash })
}

fn algorithm(spki: &[u8]) -> String {
    let Ok((_, spki)) = SubjectPublicKeyInfo::from_der(spki) else { return "unknown".to_owned() };
    match spki.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size()),
        _ if spki.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => spki.algorithm.algorithm.to_id_string(),
    }
}

/// One line of printable characters.
fn token(bytes: &[u8]) -> anyhow::Result<Item> {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim_end();
    let is_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !is_word || text.len() > users::TOKEN_BYTES_MAX {
        bail!(
            "it holds neither a PEM key or certificate nor a token (one word); for a users file: beam user list"
        );
    }
    let line = users::hash_line("token", text)?;
    Ok(Item::Token { hash: line.split(' ').next_back().unwrap_or_default().to_owned() })
}

fn text(shown: &Shown) -> String {
    let Shown { schema: _, file, mode, owner, group, readable_by, advice, holds } = shown;
    let mut out = format!("{file}: mode {mode}, uid {owner}, gid {group}: {readable_by} may read it\n");
    if let Some(advice) = advice {
        let _ = writeln!(out, "  WARNING: it holds a secret; mend it with: {advice}");
    }
    for item in holds {
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(out, "  {name:12} {value}");
        };
        match item {
            Item::PrivateKey { algorithm, key } => {
                row("private key", algorithm);
                row("identity", &format!("{key}   (beam user add NAME --key)"));
            }
            Item::Certificate {
                fingerprint,
                key,
                subject,
                names,
                issuer,
                not_before,
                not_after,
                days_left,
            } => {
                row("certificate", subject);
                row("names", &names.join(", "));
                row("issuer", if issuer == subject { "itself" } else { issuer });
                row("valid", &format!("{not_before} to {not_after}: {}", left(*days_left)));
                row("fingerprint", &format!("{fingerprint}   (--pin)"));
                if let Some(key) = key {
                    row("identity", &format!("{key}   (beam user add NAME --key)"));
                }
            }
            Item::Token { hash } => {
                row("token", "");
                row("hash", &format!("{hash}   (as in the users file)"));
            }
            Item::Other { what } => row("other", what),
        }
    }
    out
}

fn left(days: i64) -> String {
    match days {
        0.. => format!("{days} days left"),
        _ => format!("EXPIRED {} days ago", -days),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each kind of file is told by what it is, a secret that others may read is warned of, and none is printed.
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn files_are_told_apart() {
        let dir = std::env::temp_dir().join(format!("beam-key-show-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = |text: &str, mode| {
            let path = dir.join("file");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            look(&path).map(|shown| (shown.advice.is_some(), text_of(&shown), shown.holds))
        };
        fn text_of(shown: &Shown) -> String {
            text(shown)
        }
        let made = rcgen::generate_simple_self_signed(["gw.example".into()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());

        let (warned, said, holds) = file(&key, 0o600).unwrap();
        let [Item::PrivateKey { algorithm, key: of_key }] = &holds[..] else { panic!("{holds:?}") };
        assert!(!warned && algorithm == "ECDSA P-256" && said.contains("its owner may read it"), "{said}");
        let secret = key.lines().nth(1).unwrap();
        assert!(!said.contains(secret));

        let (warned, said, holds) = file(&format!("{cert}{key}"), 0o644).unwrap();
        assert!(warned && said.contains("chmod 0600") && said.contains("everybody may read it"), "{said}");
        let [Item::Certificate { key: of_cert, names, .. }, Item::PrivateKey { .. }] = &holds[..] else {
            panic!("{holds:?}")
        };
        assert_eq!((of_cert.as_ref(), &names[..]), (Some(of_key), &["gw.example".to_owned()][..]));

        let (warned, said, holds) = file("beam_secret\n", 0o640).unwrap();
        assert!(warned && !said.contains("secret;\n") && !said.contains("beam_secret"), "{said}");
        // printf beam_secret | sha256sum
        let hash = "sha256:ad5724201ef4cc190a80330e67e12c614cbc55365b1f85feab34fa9cde3775da".to_owned();
        assert_eq!(holds, [Item::Token { hash }]);

        for nothing in ["", "two words\n", "alice sha256:00\n", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
            assert!(file(nothing, 0o600).is_err(), "{nothing:?}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
