//! A ticket's facts back into the value that rustls resumes from: a handshake in memory.

use super::{Ticket, hkdf, store, verifier};
use crate::protection::suites;
use rustls::client::Tls13ClientSessionValue;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::quic::{ClientConnection, KeyChange, ServerConnection, Version};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Flights of a TLS 1.3 handshake with room to spare: one each way, and the client's Finished.
const ROUNDS_MAX: usize = 4;

/// The value for `ticket` under `config`, the very configuration that will use it; `None` if it can't be had, or if the
/// certificates of the ticket's connection would be refused today.
pub(super) fn rehydrate(
    config: &ClientConfig,
    name: ServerName<'static>,
    ticket: &Ticket,
) -> Option<Tls13ClientSessionValue> {
    let now = config.time_provider.current_time()?;
    let mut client = config.clone();
    client.time_provider = Arc::new(At(ticket.issued_unix_s));
    let handshake = || handshake(client, name, ticket);
    let (done, mut values) =
        store::collecting(|| verifier::rehydrating(now, || hkdf::answering(ticket.psk.clone(), handshake)));
    // Of one message there is one value.
    let value = values.pop().filter(|_| values.is_empty())?;
    done.filter(|()| u16::from(value.suite().common.suite) == ticket.suite)?;
    Some(value)
}

/// Our client against a server of the ticket's making, and then the ticket's message.
fn handshake(client: ClientConfig, name: ServerName<'static>, ticket: &Ticket) -> Option<()> {
    let server = Arc::new(server(ticket)?);
    let mut client = ClientConnection::new(Arc::new(client), Version::V1, name, Vec::new()).ok()?;
    let mut server = ServerConnection::new(server, Version::V1, ticket.quic_params.clone()).ok()?;
    for _ in 0..ROUNDS_MAX {
        pass(|out| client.write_hs(out), |flight| server.read_hs(flight))?;
        pass(|out| server.write_hs(out), |flight| client.read_hs(flight))?;
        if !client.is_handshaking() && !server.is_handshaking() {
            return client.read_hs(&ticket.message).ok();
        }
    }
    None
}

/// Takes everything that one side has to say now to the other, level by level: rustls refuses bytes of two in one.
fn pass(
    mut write: impl FnMut(&mut Vec<u8>) -> Option<KeyChange>,
    mut read: impl FnMut(&[u8]) -> Result<(), rustls::Error>,
) -> Option<()> {
    loop {
        let mut flight = Vec::new();
        let change = write(&mut flight);
        if change.is_none() && flight.is_empty() {
            return Some(());
        }
        read(&flight).ok()?;
    }
}

fn server(ticket: &Ticket) -> Option<ServerConfig> {
    let suite = suites().iter().find(|suite| u16::from(suite.suite()) == ticket.suite)?;
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![*suite], ..default_provider() });
    let chain = ticket.chain.iter().cloned().map(CertificateDer::from).collect();
    let key = CertifiedKey::new(chain, key()?);
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .ok()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(One(Arc::new(key))));
    server.alpn_protocols = vec![ticket.alpn.clone()];
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Some(server)
}

/// Some key: nobody looks at what it signs.
fn key() -> Option<Arc<dyn SigningKey>> {
    static KEY: OnceLock<Option<Arc<dyn SigningKey>>> = OnceLock::new();
    let made = || {
        let random = ring::rand::SystemRandom::new();
        let curve = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let key = ring::signature::EcdsaKeyPair::generate_pkcs8(curve, &random).ok()?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.as_ref().to_vec()));
        default_provider().key_provider.load_private_key(key).ok()
    };
    KEY.get_or_init(made).clone()
}

#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// The time at which the ticket came, so that its age is counted from there.
#[derive(Debug)]
struct At(u64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}
