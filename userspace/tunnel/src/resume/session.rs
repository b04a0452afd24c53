//! quinn's TLS session with an ear on the CRYPTO stream, and the client configuration that makes it.

use super::{MESSAGE_BYTES_MAX, Ticket, Vault, hkdf, message, rehydrate::rehydrate, store};
use quinn_proto::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicClientConfig};
use quinn_proto::crypto::{
    ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};
use rustls::client::Tls13ClientSessionValue;
use rustls::pki_types::{CertificateDer, ServerName};
use std::any::Any;
use std::sync::Arc;

/// A client whose tickets come from a vault and go there.
pub struct ResumingClient {
    quic: Arc<QuicClientConfig>,
    tls: Arc<rustls::ClientConfig>,
    vault: Arc<dyn Vault>,
}

impl ResumingClient {
    /// `tls` must come from `tls::client_tls` with early data, whose session store this relies on.
    pub(crate) fn new(
        tls: rustls::ClientConfig,
        vault: Arc<dyn Vault>,
    ) -> Result<Self, NoInitialCipherSuite> {
        let tls = Arc::new(tls);
        Ok(Self { quic: Arc::new(QuicClientConfig::try_from(tls.clone())?), tls, vault })
    }

    fn value(&self, server_name: &str) -> Option<Tls13ClientSessionValue> {
        let name = ServerName::try_from(server_name).ok()?.to_owned();
        let ticket = self.vault.take()?;
        let value = rehydrate(&self.tls, name, &ticket);
        if value.is_none() {
            tracing::debug!("{ticket:?} can't be used any more: a full handshake it is");
        }
        value
    }
}

impl ClientConfig for ResumingClient {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let value = self.value(server_name);
        let start = || self.quic.clone().start_session(version, server_name, params);
        let inner = store::laying_out(value, start)?;
        Ok(Box::new(Listening { inner, of: self, messages: Messages::default() }))
    }
}

/// A session that notes its tickets.
struct Listening {
    inner: Box<dyn Session>,
    of: Arc<ResumingClient>,
    messages: Messages,
}

impl Listening {
    /// Pairs the messages with the PSKs derived for them, and hands the tickets to the vault.
    fn keep(&self, tickets: Vec<Vec<u8>>, derived: hkdf::Derived, values: &[Tls13ClientSessionValue]) {
        let Some(value) = values.first() else { return };
        let Some(now) = self.of.tls.time_provider.current_time() else { return };
        let chain = self.inner.peer_identity().and_then(|any| any.downcast().ok());
        let Some(chain) = chain.map(|chain: Box<Vec<CertificateDer<'static>>>| *chain) else { return };
        let data = self.inner.handshake_data().and_then(|any| any.downcast().ok());
        let Some(alpn) = data.and_then(|data: Box<HandshakeData>| data.protocol) else { return };
        for message in tickets {
            let nonce = message::nonce(&message);
            let Some((_, psk)) = derived.iter().find(|(of, _)| nonce == Some(of)) else { continue };
            self.of.vault.put(Ticket {
                psk: psk.clone(),
                suite: value.suite().common.suite.into(),
                issued_unix_s: now.as_secs(),
                quic_params: value.quic_params(),
                alpn: alpn.clone(),
                chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
                message,
            });
        }
    }
}

impl Session for Listening {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let tickets = self.messages.push(buf);
        if tickets.is_empty() {
            return self.inner.read_handshake(buf);
        }
        let read = || self.inner.read_handshake(buf);
        let ((outcome, derived), values) = store::collecting(|| hkdf::capturing(read));
        if outcome.is_ok() {
            self.keep(tickets, derived, &values);
        }
        outcome
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

/// Finds the NewSessionTicket messages in a stream of handshake messages. Holds one of them at most; of all others only
/// how much is still to come.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// A message's header, or as much as has come; then, of a ticket, all of it.
    held: Vec<u8>,
    /// Bytes of a message that isn't wanted.
    skip_bytes: usize,
}

impl Messages {
    /// Takes the next bytes; returns the tickets that they complete.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut tickets = Vec::new();
        loop {
            let skipped = self.skip_bytes.min(bytes.len());
            self.skip_bytes -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return tickets;
            }
            let missing = message::HEADER_BYTES.saturating_sub(self.held.len()).min(bytes.len());
            self.held.extend(&bytes[..missing]);
            bytes = &bytes[missing..];
            let [kind, a, b, c] = self.held[..message::HEADER_BYTES.min(self.held.len())] else {
                return tickets;
            };
            let whole = message::HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
            if kind != message::NEW_SESSION_TICKET || whole > MESSAGE_BYTES_MAX {
                self.held.clear();
                self.skip_bytes = whole - message::HEADER_BYTES;
                continue;
            }
            let more = (whole - self.held.len()).min(bytes.len());
            self.held.extend(&bytes[..more]);
            bytes = &bytes[more..];
            if self.held.len() == whole {
                tickets.push(std::mem::take(&mut self.held));
            }
        }
    }
}
