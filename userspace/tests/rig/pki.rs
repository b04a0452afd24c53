//! Certificates and users files for one test: a CA, the gateway's leaf, a client's leaf, and a stranger's CA.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{GATEWAY_INNER_V4, GATEWAY_NAME, GATEWAY_V4, GATEWAY_V6, GATEWAY_VLAN_V4};

/// Paths of PEM files under one directory. `stranger` is signed by a CA that nobody here trusts.
#[derive(Debug)]
pub(crate) struct Pki {
    pub(crate) ca: PathBuf,
    pub(crate) server_cert: PathBuf,
    pub(crate) server_key: PathBuf,
    pub(crate) client_cert: PathBuf,
    pub(crate) client_key: PathBuf,
    pub(crate) stranger_cert: PathBuf,
    pub(crate) stranger_key: PathBuf,
}

impl Pki {
    /// Makes everything afresh in `directory`.
    pub(crate) fn create(directory: &Path) -> Self {
        let ours = authority("beam test CA");
        let theirs = authority("a stranger's CA");
        let ca = write(directory, "ca.pem", &ours.pem());
        let (server_cert, server_key) = leaf(directory, "server", &ours, ExtendedKeyUsagePurpose::ServerAuth);
        let (client_cert, client_key) = leaf(directory, "client", &ours, ExtendedKeyUsagePurpose::ClientAuth);
        let (stranger_cert, stranger_key) =
            leaf(directory, "stranger", &theirs, ExtendedKeyUsagePurpose::ClientAuth);
        Self { ca, server_cert, server_key, client_cert, client_key, stranger_cert, stranger_key }
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("generate a CA key");
    CertifiedIssuer::self_signed(params, key).expect("sign a CA certificate")
}

fn leaf(
    directory: &Path,
    name: &str,
    issuer: &CertifiedIssuer<'_, KeyPair>,
    usage: ExtendedKeyUsagePurpose,
) -> (PathBuf, PathBuf) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = alt_names(name, &usage);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("generate a leaf key");
    let certificate = params.signed_by(&key, issuer).expect("sign a leaf certificate");
    let key_path = write(directory, &format!("{name}.key"), &key.serialize_pem());
    fs::set_permissions(&key_path, fs::Permissions::from_mode(0o600)).expect("restrict a key file");
    (write(directory, &format!("{name}.pem"), &certificate.pem()), key_path)
}

fn alt_names(name: &str, usage: &ExtendedKeyUsagePurpose) -> Vec<SanType> {
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("an ASCII name"));
    if *usage != ExtendedKeyUsagePurpose::ServerAuth {
        return vec![dns(&format!("{name}.beam.example"))];
    }
    let addresses: [IpAddr; 5] = [
        GATEWAY_V4.into(),
        GATEWAY_V6.into(),
        GATEWAY_INNER_V4.into(),
        GATEWAY_VLAN_V4.into(),
        IpAddr::from([127, 0, 0, 1]),
    ];
    [dns(GATEWAY_NAME), dns("localhost")].into_iter().chain(addresses.map(SanType::IpAddress)).collect()
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap_or_else(|e| panic!("write {path:?}: {e}"));
    path
}

/// Writes `users` (`name sha256:<hex>` a line, mode 0640) and one `NAME.token` file for each user.
pub(crate) fn write_users(directory: &Path, users: &[(&str, &str)]) -> PathBuf {
    let mut text = String::new();
    for (name, token) in users {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{name} sha256:{hex}\n"));
        let token_path = write(directory, &format!("{name}.token"), &format!("{token}\n"));
        fs::set_permissions(&token_path, fs::Permissions::from_mode(0o600)).expect("restrict a token file");
    }
    let path = write(directory, "users", &text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("restrict the users file");
    path
}
