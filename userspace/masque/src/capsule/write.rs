//! Capsules to bytes. A datagram's headers go right in front of its payload, so that all of it leaves as one chunk.

use super::{
    ADDRESS_ASSIGN, ADDRESS_REQUEST, BEAM_ACCEPT, BEAM_CLOSE, Capsule, DATAGRAM, ROUTE_ADVERTISEMENT,
};
use crate::{DATA_HEADER_BYTES_MAX, data_header, datagram::Prefix, varint};
use bytes::{BufMut, Bytes, BytesMut};

/// Room to leave in front of a payload for DATA header, capsule header and context id in their longest forms.
pub const CAPSULE_PREFIX_BYTES_MAX: usize = DATA_HEADER_BYTES_MAX + 1 + 2 * varint::VARINT_BYTES_MAX;

impl Capsule {
    fn kind(&self) -> u64 {
        match self {
            Self::Datagram(_) => DATAGRAM,
            Self::AddressAssign(_) => ADDRESS_ASSIGN,
            Self::AddressRequest(_) => ADDRESS_REQUEST,
            Self::RouteAdvertisement(_) => ROUTE_ADVERTISEMENT,
            Self::Accept(_) => BEAM_ACCEPT,
            Self::Close(_) => BEAM_CLOSE,
        }
    }

    fn payload(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Datagram(payload) => return payload.clone(),
            Self::AddressAssign(assign) => assign.encode(&mut out),
            Self::AddressRequest(request) => request.encode(&mut out),
            Self::RouteAdvertisement(routes) => routes.encode(&mut out),
            Self::Accept(accept) => accept.encode(&mut out),
            Self::Close(close) => close.encode(&mut out),
        }
        out.freeze()
    }

    /// Appends type, length and payload.
    pub fn encode(&self, out: &mut impl BufMut) {
        let payload = self.payload();
        varint::write(out, self.kind());
        varint::write(out, payload.len() as u64);
        out.put_slice(&payload);
    }

    /// A DATA frame that carries this capsule, for control; datagrams have [`write_datagram_capsule_before`].
    #[must_use]
    pub fn data_frame(&self) -> Bytes {
        let mut capsule = BytesMut::new();
        self.encode(&mut capsule);
        let mut out = BytesMut::with_capacity(DATA_HEADER_BYTES_MAX + capsule.len());
        out.put_slice(data_header(capsule.len()).as_ref());
        out.put_slice(&capsule);
        out.freeze()
    }
}

/// Appends what goes in front of a datagram's payload inside a DATA frame: capsule type, length, context id.
///
/// To a `connect-udp` client nothing but this may be sent: libcurl (`lib/vquic/capsule.c`) drops the connection on
/// any other capsule type, and on a context id that is not the single byte 0.
pub fn write_datagram_capsule_header(out: &mut impl BufMut, context_id: u64, payload_bytes: usize) {
    varint::write(out, DATAGRAM);
    varint::write(out, (varint::size_bytes(context_id) + payload_bytes) as u64);
    varint::write(out, context_id);
}

/// All that goes in front of a datagram's payload on a stream: DATA header, capsule header, context id.
#[must_use]
pub fn datagram_capsule_frame(context_id: u64, payload_bytes: usize) -> Prefix {
    let value_bytes = varint::size_bytes(context_id) + payload_bytes;
    let capsule_bytes = 1 + varint::size_bytes(value_bytes as u64) + value_bytes;
    Prefix::of(|out| {
        out.put_slice(data_header(capsule_bytes).as_ref());
        write_datagram_capsule_header(out, context_id, payload_bytes);
    })
}

/// Writes [`datagram_capsule_frame`] right in front of the payload at `payload_start..payload_start + payload_bytes` and
/// returns where the frame starts now.
///
/// # Panics
/// When fewer bytes than that lie in front of the payload: leave [`CAPSULE_PREFIX_BYTES_MAX`].
pub fn write_datagram_capsule_before(
    buffer: &mut [u8],
    payload_start: usize,
    payload_bytes: usize,
    context_id: u64,
) -> usize {
    datagram_capsule_frame(context_id, payload_bytes).write_before(buffer, payload_start)
}
