//! TLS for both ends of a flow: one certificate, and the suite that is wanted at the head of the client's list, which
//! decides.

use super::null::without_protection;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig, version::TLS13};
use simd::Cipher;
use std::sync::Arc;

/// The application protocol; beam asks for it, so the bare pair does too.
const ALPN: &[u8] = b"h3";
pub(super) const SERVER_NAME: &str = "gateway.test";

/// Both ends' TLS.
pub(super) struct Tls {
    pub(super) client: QuicClientConfig,
    pub(super) server: QuicServerConfig,
}

impl Tls {
    /// With the suites of `provider`, that of `cipher` first; without a cipher, with packets that nobody protects.
    pub(super) fn new(provider: &CryptoProvider, cipher: Option<Cipher>) -> Self {
        let mut provider = provider.clone();
        if cipher.is_none() {
            for suite in &mut provider.cipher_suites {
                *suite = without_protection(*suite);
            }
        }
        let wanted = suite(cipher.unwrap_or(Cipher::Aes128Gcm));
        // Stable: the rest keeps its order.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != wanted);
        let provider = Arc::new(provider);
        let (chain, key) = crate::chain();
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).expect("a certificate that we made");
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a chain and its key");
        server.alpn_protocols = vec![ALPN.to_vec()];
        Self {
            client: client.try_into().expect("AES-128-GCM is among the suites"),
            server: server.try_into().expect("AES-128-GCM is among the suites"),
        }
    }
}

fn suite(cipher: Cipher) -> CipherSuite {
    match cipher {
        Cipher::Aes128Gcm => CipherSuite::TLS13_AES_128_GCM_SHA256,
        Cipher::Aes256Gcm => CipherSuite::TLS13_AES_256_GCM_SHA384,
        Cipher::ChaCha20Poly1305 => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    }
}

/// The transport of one end of any flow: beam's windows and ACK frequency, so that the flows differ in nothing else, and
/// the MTU from the start.
pub(super) fn transport(
    options: &tunnel::transport::TransportOptions,
    mtu: u16,
) -> quinn_proto::TransportConfig {
    let mut transport = options.build();
    transport.initial_mtu(mtu).mtu_discovery_config(None);
    transport
}
