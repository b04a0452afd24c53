//! What the comparators `quinn-perf` and `tls-forward` share: TLS as beam has it by default, and how a flow names its target.
//!
//! The comparators are for a rig's own namespaces: whoever reaches one of their servers may connect through it to anything.

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The application protocol of a forwarded flow, a stream or a connection each: a header by [`target_header`], then bytes.
pub const ALPN_FORWARD: &[u8] = b"beam-forward";
/// What is read and written at once.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Bytes of a target's name, at most.
const TARGET_BYTES_MAX: usize = 255;

/// Where a server listens and who it is.
#[derive(Args)]
pub struct ServerArguments {
    /// Address and port to listen on; port 0 takes a free one, and `listening on` says which.
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Certificate chain in PEM, leaf first.
    #[arg(long, value_name = "FILE")]
    pub cert: PathBuf,
    /// Its private key in PEM.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

/// Where a client connects and whom it trusts.
#[derive(Args)]
pub struct ClientArguments {
    /// The server's address and port.
    #[arg(long, value_name = "ADDR")]
    pub connect: SocketAddr,
    /// Certificates that the client trusts, in PEM.
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// The name that the server's certificate must have; by default its address.
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
}

impl ClientArguments {
    /// The name to check the certificate for.
    #[must_use]
    pub fn name(&self) -> String {
        self.server_name.clone().unwrap_or_else(|| self.connect.ip().to_string())
    }
}

impl ServerArguments {
    /// TLS of a server.
    ///
    /// # Errors
    /// Which file could not be used, and why.
    pub fn tls(&self, protocols: &[&[u8]]) -> Result<ServerConfig> {
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("{}: a private key in PEM", self.key.display()))?;
        let mut tls = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(certificates(&self.cert)?, key)
            .with_context(|| format!("{} and {}", self.cert.display(), self.key.display()))?;
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(tls)
    }
}

impl ClientArguments {
    /// TLS of a client.
    ///
    /// # Errors
    /// Which file could not be used, and why.
    pub fn tls(&self, protocol: &[u8]) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).with_context(|| self.ca.display().to_string())?;
        }
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![protocol.to_vec()];
        Ok(tls)
    }
}

/// ring with AES-128-GCM alone, which beam prefers where the CPU has AES instructions: a comparison of ciphers is
/// `scripts/bench aead`'s business.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.with_context(|| format!("{}: certificates in PEM", file.display()))?;
    ensure!(
        !certificates.is_empty(),
        "{}: holds no certificate; one PEM block CERTIFICATE is needed",
        file.display()
    );
    Ok(certificates)
}

/// What a flow begins with: the target's length in one byte, then the target.
///
/// # Errors
/// When the target is longer than 255 bytes.
pub fn target_header(target: &str) -> Result<Vec<u8>> {
    ensure!(target.len() <= TARGET_BYTES_MAX, "a target of {} bytes; 255 at most", target.len());
    let mut header = vec![target.len() as u8];
    header.extend_from_slice(target.as_bytes());
    Ok(header)
}

/// The addresses of a target that came over the wire.
///
/// # Errors
/// When it is no HOST:PORT.
pub fn target_addresses(target: &[u8]) -> Result<Vec<SocketAddr>> {
    let text = std::str::from_utf8(target).context("the target is no text")?;
    Ok(text.to_socket_addrs().with_context(|| format!("`{text}` is no HOST:PORT"))?.collect())
}
