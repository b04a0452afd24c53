//! Certificates, keys and tokens from files: who the gateway is, and who a client says it is.

use crate::{
    cli::{CertificateArgs, ServeArgs},
    failure::Failure,
};
use anyhow::{Context, anyhow, bail};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fs,
    io::Write,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A certificate chain, leaf first, and the key of the leaf.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Credentials {
    pub(crate) fn load(cert: &Path, key: &Path) -> anyhow::Result<Self> {
        let chain = certificates(cert)?;
        Ok(Self { chain, key: key_file(key)? })
    }

    /// A key alone: its certificate is made here, by itself, and says nothing but the key. For a gateway that knows it.
    pub(crate) fn of_key(path: &Path) -> anyhow::Result<Self> {
        let key = key_file(path)?;
        let pair = rcgen::KeyPair::try_from(&key).with_context(|| {
            let path = path.display();
            format!(
                "{path}: no certificate can be made from this key; it must be PKCS#8 of ECDSA P-256 or P-384, Ed25519 or \
                 RSA, as beam key gen makes it, or: openssl pkcs8 -topk8 -nodes -in {path}"
            )
        })?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "beam key");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&pair).context("can't sign the certificate of a key")?;
        Ok(Self { chain: vec![certificate.der().clone()], key })
    }
}

/// The private key of a PEM file.
pub(crate) fn key_file(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        anyhow!(
            "{0} holds no readable PEM private key: {error}; it needs a PKCS#8, PKCS#1 or SEC1 one; see what it holds: \
             ls -l {0}; grep BEGIN {0}",
            path.display()
        )
    })
}

/// Two files and the flags that named them, for messages about their relation.
pub(crate) fn pair_of_files(cert_flag: &str, cert: &Path, key_flag: &str, key: &Path) -> String {
    format!("{cert_flag} {} and {key_flag} {}", cert.display(), key.display())
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| {
            anyhow!(
                "can't read {0}: {error}; it must be a PEM file that beam may read; see: ls -l {0}",
                path.display()
            )
        })?
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not a PEM certificate file", path.display()))?;
    if chain.is_empty() {
        bail!(
            "{0} holds no PEM certificate; it needs at least one `-----BEGIN CERTIFICATE-----`; see what it holds: \
             grep BEGIN {0}",
            path.display()
        );
    }
    Ok(chain)
}

/// The authorities of a PEM file.
pub(crate) fn authorities(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .with_context(|| format!("{} holds a certificate that can't be an authority", path.display()))?;
    }
    Ok(roots)
}

/// The gateway's certificate: from files, or self-signed.
pub(crate) fn gateway(args: &ServeArgs) -> Result<Credentials, Failure> {
    match kept(args)? {
        Some(credentials) => Ok(credentials),
        None => self_signed(&args.state_dir).map_err(Failure::Config),
    }
}

/// The same, where it is there; `None`: it is yet to be made.
pub(crate) fn kept(args: &ServeArgs) -> Result<Option<Credentials>, Failure> {
    let CertificateArgs { tls_cert, tls_key } = &args.certificate;
    match args.self_signed && (tls_cert.is_none() || tls_key.is_none()) {
        true => kept_self_signed(&args.state_dir).map_err(Failure::Config),
        false => of_files(&args.certificate).map(Some),
    }
}

/// The certificate that flags name, of a server that is to make none.
pub(crate) fn of_files(args: &CertificateArgs) -> Result<Credentials, Failure> {
    let CertificateArgs { tls_cert: Some(cert), tls_key: Some(key) } = args else {
        return Err(Failure::Config(anyhow!(
            "no certificate: give --tls-cert FILE and --tls-key FILE, or --self-signed to have one made"
        )));
    };
    Credentials::load(cert, key).map_err(Failure::Config)
}

/// Where it is from, for messages; `directory` is that of self-signed ones which are kept.
pub(crate) fn whence(args: &CertificateArgs, directory: Option<&Path>) -> String {
    match (args, directory) {
        (CertificateArgs { tls_cert: Some(cert), tls_key: Some(key) }, _) => {
            pair_of_files("--tls-cert", cert, "--tls-key", key)
        }
        (_, Some(directory)) => format!("the self-signed certificate in {}", directory.display()),
        (_, None) => "the self-signed certificate".to_owned(),
    }
}

fn self_signed_files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("self-signed.crt"), dir.join("self-signed.key"))
}

fn kept_self_signed(dir: &Path) -> anyhow::Result<Option<Credentials>> {
    let (cert, key) = self_signed_files(dir);
    if !(cert.exists() && key.exists()) {
        return Ok(None);
    }
    Credentials::load(&cert, &key).map(Some)
}

/// A self-signed certificate for this run only.
pub(crate) fn passing() -> anyhow::Result<Credentials> {
    make_self_signed().map(|made| made.0)
}

/// Makes a self-signed certificate and keeps it in `dir`, so that pins survive a restart.
fn self_signed(dir: &Path) -> anyhow::Result<Credentials> {
    let (cert, key) = self_signed_files(dir);
    let (credentials, cert_pem, key_pem) = make_self_signed()?;
    if let Err(error) = keep(dir, &[(&cert, &cert_pem, 0o644), (&key, &key_pem, 0o600)]) {
        tracing::warn!(
            "the self-signed certificate lasts for this run only: {error:#}; give --state-dir DIR to keep it"
        );
    }
    Ok(credentials)
}

/// With its certificate and key in PEM.
fn make_self_signed() -> anyhow::Result<(Credentials, String, String)> {
    let pair =
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).context("can't make a P-256 key")?;
    let mut params =
        rcgen::CertificateParams::new(vec!["beam.invalid".to_owned()]).context("certificate parameters")?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "beam gateway (self-signed)");
    let certificate = params.self_signed(&pair).context("can't sign the certificate")?;
    let key = PrivateKeyDer::try_from(pair.serialize_der()).map_err(|e| anyhow!("key in DER: {e}"))?;
    let credentials = Credentials { chain: vec![certificate.der().clone()], key };
    Ok((credentials, certificate.pem(), pair.serialize_pem()))
}

fn keep(dir: &Path, files: &[(&PathBuf, &str, u32)]) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
    for (path, text, mode) in files {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(*mode)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// The bearer token of a file: its first line.
pub(crate) fn token(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).map_err(|error| {
        anyhow!(
            "can't read the token file {0}: {error}; its first line must be the token that `beam user add` printed, and beam \
             must be able to read it; see: ls -l {0}",
            path.display()
        )
    })?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        bail!(
            "{} holds no token: its first line must be the token that `beam user add` printed",
            path.display()
        );
    }
    Ok(token.to_owned())
}

/// What a certificate says, for people.
#[derive(Debug)]
pub(crate) struct CertificateFacts {
    pub(crate) subject: String,
    pub(crate) names: Vec<String>,
    pub(crate) issuer: String,
    /// `2026-11-26 08:00:00 UTC`
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    /// Its time has begun.
    pub(crate) has_begun: bool,
    /// Negative: it has expired.
    pub(crate) days_left: i64,
}

/// Reads a certificate.
pub(crate) fn facts(leaf: &CertificateDer<'_>) -> anyhow::Result<CertificateFacts> {
    use x509_parser::{extensions::GeneralName, prelude::FromDer, time::ASN1Time};
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(leaf)?;
    let alternative = certificate.subject_alternative_name()?;
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    });
    let validity = certificate.validity();
    Ok(CertificateFacts {
        subject: certificate.subject().to_string(),
        names: names.collect(),
        issuer: certificate.issuer().to_string(),
        not_before: written(validity.not_before),
        not_after: written(validity.not_after),
        has_begun: validity.not_before <= ASN1Time::now(),
        days_left: (validity.not_after.timestamp() - ASN1Time::now().timestamp()).div_euclid(86_400),
    })
}

/// `2026-11-26 08:00:00 UTC`
pub(crate) fn written(time: x509_parser::time::ASN1Time) -> String {
    let time = time.to_datetime();
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    format!("{year}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", u8::from(month))
}

/// When a certificate expires, in seconds since 1970.
pub(crate) fn not_after_s(leaf: &CertificateDer<'_>) -> Option<i64> {
    use x509_parser::prelude::FromDer;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(leaf).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Whether a certificate's time is over. One that can't be read was not verified either.
pub(crate) fn is_expired(leaf: &CertificateDer<'_>) -> bool {
    use x509_parser::{prelude::FromDer, time::ASN1Time};
    let parsed = x509_parser::certificate::X509Certificate::from_der(leaf);
    parsed.is_ok_and(|(_, certificate)| ASN1Time::now() > certificate.validity().not_after)
}

/// The name in a verified client certificate: its common name, else its first DNS or e-mail name.
pub(crate) fn certificate_name(leaf: &CertificateDer<'_>) -> Option<String> {
    use x509_parser::{extensions::GeneralName, prelude::FromDer};
    const NAME_BYTES_MAX: usize = 64;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(leaf).ok()?;
    let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    let alternative = || {
        let names = &certificate.subject_alternative_name().ok()??.value.general_names;
        names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => Some(*name),
            _ => None,
        })
    };
    let printable =
        |name: &&str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    common
        .filter(printable)
        .map(str::to_owned)
        .or_else(|| alternative().filter(|name| printable(name)).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    //! Goal: a self-signed certificate is the same after a restart, and its key is for us alone; an expired one is known.
    use super::*;

    #[test]
    fn self_signed_is_kept() {
        let dir = std::env::temp_dir().join(format!("beam-identity-{}", std::process::id()));
        let first = self_signed(&dir).unwrap();
        let second = kept_self_signed(&dir).unwrap().unwrap();
        assert_eq!(first.chain[0], second.chain[0]);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(dir.join("self-signed.key")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(certificate_name(&first.chain[0]).as_deref(), Some("beam gateway (self-signed)"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_certificate_whose_time_is_over_is_known() {
        let made = |last_year: i32| {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["beam.invalid".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
            CertificateDer::from(params.self_signed(&key).unwrap().der().to_vec())
        };
        assert!(is_expired(&made(2020)));
        assert!(!is_expired(&made(4000)));
        assert!(!is_expired(&CertificateDer::from(b"no certificate".to_vec())));
    }
}
