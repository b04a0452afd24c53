//! The gateway's TLS session: rustls while it shakes hands, and afterwards only what a connection still needs.
//!
//! quinn's own session keeps rustls' whole state for as long as the connection lives, about 4 KB, though a server has no
//! more use for it: QUIC knows no renegotiation and no KeyUpdate message (RFC 9001 section 6), no post-handshake
//! authentication is ever asked for, and the tickets leave with the answer to the client's Finished. So once the
//! handshake is done and its last bytes are handed over, rustls is dropped, which wipes its secrets. What stays: the
//! secrets of the next key phase ([`Phases`]), who the peer is, and what was agreed on.

use crate::protection::Phases;
use quinn_proto::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicServerConfig};
use quinn_proto::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};
use rustls::pki_types::CertificateDer;
use rustls::quic::{Connection, DirectionalKeys, KeyChange, ServerConnection, Version};
use std::any::Any;
use std::sync::Arc;

/// The version of QUIC that the engine speaks, and the only one that it lets in.
const VERSION: Version = Version::V1;
/// How many of our connection IDs the client is ready to hold (RFC 9000 section 18.2). It is kept from quinn, which then
/// goes by the default, 2: one in use and one to move to, which is replaced as soon as the client has moved. More would be
/// 70 bytes each in our tables, and a frame in the handshake.
const ACTIVE_CONNECTION_ID_LIMIT: u64 = 0x0e;
/// TLS' alert for a message that has no place (RFC 8446 section 6.2).
const UNEXPECTED_MESSAGE: u8 = 10;

/// quinn's form of the gateway's TLS.
pub struct GatewayTls {
    tls: Arc<rustls::ServerConfig>,
    /// For Initial packets and Retry, which need no session.
    initial: QuicServerConfig,
}

impl GatewayTls {
    pub(super) fn new(tls: rustls::ServerConfig) -> Result<Self, NoInitialCipherSuite> {
        let tls = Arc::new(tls);
        Ok(Self { initial: QuicServerConfig::try_from(tls.clone())?, tls })
    }
}

impl ServerConfig for GatewayTls {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.initial.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.initial.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let mut bytes = Vec::new();
        params.write(&mut bytes);
        let stage = match ServerConnection::new(self.tls.clone(), VERSION, bytes) {
            Ok(rustls) => Stage::Handshake(Box::new(Connection::Server(rustls))),
            // rustls' complaints are about configurations: no TLS 1.3, no suite for QUIC, a wrong size of early data.
            Err(error) => Stage::Broken(error.to_string()),
        };
        Box::new(GatewaySession { of: self, version, is_known: false, phases: None, stage })
    }
}

struct GatewaySession {
    of: Arc<GatewayTls>,
    version: u32,
    /// quinn has been told that the handshake's data is there.
    is_known: bool,
    phases: Option<Phases>,
    stage: Stage,
}

enum Stage {
    Handshake(Box<Connection>),
    Settled(Box<Settled>),
    /// rustls never began: every handshake fails with this reason.
    Broken(String),
}

/// What is left of a handshake.
struct Settled {
    chain: Option<Box<[CertificateDer<'static>]>>,
    alpn: Option<Box<[u8]>>,
    server_name: Option<Box<str>>,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<GatewaySession>() <= 56 && size_of::<Settled>() <= 48);

impl Settled {
    fn of(rustls: &Connection) -> Self {
        let chain = rustls.peer_certificates();
        let chain = chain.map(|chain| chain.iter().map(|der| der.clone().into_owned()).collect());
        let alpn = rustls.alpn_protocol().map(Box::from);
        Self { chain, alpn, server_name: server_name(rustls).map(Box::from) }
    }
}

fn server_name(rustls: &Connection) -> Option<&str> {
    match rustls {
        Connection::Server(server) => server.server_name(),
        Connection::Client(_) => None,
    }
}

impl GatewaySession {
    /// Drops rustls once there is nothing left for it to do.
    fn settle(&mut self) {
        if let Stage::Handshake(rustls) = &self.stage
            && !rustls.is_handshaking()
            && self.phases.is_some()
        {
            self.stage = Stage::Settled(Box::new(Settled::of(rustls)));
        }
    }
}

fn error(code: TransportErrorCode, reason: String) -> TransportError {
    TransportError { code, frame: None, reason }
}

impl Session for GatewaySession {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let rustls = match &mut self.stage {
            Stage::Handshake(rustls) => rustls,
            Stage::Settled(_) => {
                let reason = "a TLS message after the handshake, where QUIC has none for a client to send";
                return Err(error(TransportErrorCode::crypto(UNEXPECTED_MESSAGE), reason.into()));
            }
            Stage::Broken(reason) => return Err(error(TransportErrorCode::INTERNAL_ERROR, reason.clone())),
        };
        if let Err(refusal) = rustls.read_hs(buf) {
            let reason = refusal.to_string();
            return Err(match rustls.alert() {
                Some(alert) => error(TransportErrorCode::crypto(alert.into()), reason),
                None => error(TransportErrorCode::PROTOCOL_VIOLATION, format!("TLS error: {reason}")),
            });
        }
        let is_known =
            rustls.alpn_protocol().is_some() || server_name(rustls).is_some() || !rustls.is_handshaking();
        Ok(is_known && !std::mem::replace(&mut self.is_known, true))
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let Stage::Handshake(rustls) = &mut self.stage else { return None };
        let before = buf.len();
        match rustls.write_hs(buf) {
            Some(KeyChange::Handshake { keys }) => Some(quinn_keys(keys.local, keys.remote)),
            Some(KeyChange::OneRtt { keys, next }) => {
                self.phases = Some(Phases::new(next, &*keys.local.packet));
                Some(quinn_keys(keys.local, keys.remote))
            }
            None => {
                // quinn asks until nothing comes, tickets included.
                if buf.len() == before {
                    self.settle();
                }
                None
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.phases.as_mut().map(Phases::next_keys)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let (protocol, server_name) = match &self.stage {
            _ if !self.is_known => return None,
            Stage::Handshake(rustls) => {
                (rustls.alpn_protocol().map(Vec::from), server_name(rustls).map(String::from))
            }
            Stage::Settled(settled) => {
                (settled.alpn.as_deref().map(Vec::from), settled.server_name.as_deref().map(String::from))
            }
            Stage::Broken(_) => return None,
        };
        Some(Box::new(HandshakeData { protocol, server_name }))
    }

    /// As quinn's own: a `Vec<CertificateDer>`.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let chain: Vec<CertificateDer<'static>> = match &self.stage {
            Stage::Handshake(rustls) => {
                rustls.peer_certificates()?.iter().map(|der| der.clone().into_owned()).collect()
            }
            Stage::Settled(settled) => settled.chain.as_deref()?.to_vec(),
            Stage::Broken(_) => return None,
        };
        Some(Box::new(chain))
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, _side: Side) -> Keys {
        match self.of.initial.initial_keys(self.version, dst_cid) {
            Ok(keys) => keys,
            Err(UnsupportedVersion) => unreachable!("quinn starts no session of a version that has no keys"),
        }
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let Stage::Handshake(rustls) = &self.stage else { return None };
        let keys = rustls.zero_rtt_keys()?;
        Some((Box::new(keys.header), Box::new(keys.packet)))
    }

    /// Clients only.
    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        match &self.stage {
            Stage::Handshake(rustls) => rustls.is_handshaking(),
            Stage::Settled(_) => false,
            Stage::Broken(_) => true,
        }
    }

    /// quinn asks a server's session once, at the client's first flight.
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Stage::Handshake(rustls) = &self.stage else { return Ok(None) };
        let Some(mut bytes) = rustls.quic_transport_parameters() else { return Ok(None) };
        let fewer_cids = without(bytes, ACTIVE_CONNECTION_ID_LIMIT);
        // First as they came, so that what is wrong with them is found.
        TransportParameters::read(Side::Server, &mut bytes)?;
        Ok(Some(TransportParameters::read(Side::Server, &mut &fewer_cids[..])?))
    }

    /// Only clients get a Retry.
    fn is_valid_retry(&self, _orig_dst_cid: &ConnectionId, _header: &[u8], _payload: &[u8]) -> bool {
        false
    }

    /// Nobody asks for it, and what it would be made from is wiped.
    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

/// Transport parameters but for one.
fn without(mut bytes: &[u8], unwanted: u64) -> Vec<u8> {
    let mut rest = Vec::with_capacity(bytes.len());
    while let Some((id, after)) = varint(bytes)
        && let Some((value_bytes, after)) = varint(after)
        && let Some((_, after)) = after.split_at_checked(value_bytes as usize)
    {
        if id != unwanted {
            rest.extend(&bytes[..bytes.len() - after.len()]);
        }
        bytes = after;
    }
    rest.extend(bytes);
    rest
}

/// RFC 9000 section 16.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(1 << (bytes.first()? >> 6))?;
    let value = number.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    Some((value & (u64::MAX >> (66 - 8 * number.len())), rest))
}

fn quinn_keys(local: DirectionalKeys, remote: DirectionalKeys) -> Keys {
    Keys {
        header: KeyPair { local: Box::new(local.header), remote: Box::new(remote.header) },
        packet: KeyPair { local: Box::new(local.packet), remote: Box::new(remote.packet) },
    }
}

#[cfg(test)]
mod tests {
    //! Goal: one parameter is taken out, whatever its size and place, and what isn't parameters is left as it is.
    use super::*;

    #[test]
    fn one_parameter_is_left_out() {
        let with = [0x01, 2, 0x40, 0x64, 0x0e, 1, 5, 0x40, 0x0e, 0x40, 2, 9, 9, 0x20, 0];
        assert_eq!(without(&with, 0x0e), [0x01, 2, 0x40, 0x64, 0x20, 0]);
        assert_eq!(without(&with, 0x07), with);
        for broken in [&[][..], &[0x0e], &[0x0e, 5, 1], &[0x40], &[0x0e, 0xc0, 0, 0]] {
            assert_eq!(without(broken, 0x0e), broken);
        }
        assert_eq!(
            varint(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c, 7]),
            Some((151_288_809_941_952_652, &[7][..]))
        );
        assert_eq!(varint(&[0x7b, 0xbd]), Some((15_293, &[][..])));
        assert_eq!(varint(&[0x25]), Some((37, &[][..])));
    }
}
