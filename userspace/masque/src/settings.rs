//! The SETTINGS frame (RFC 9114 section 7.2.4).

use crate::{BEAM_LISTEN, Code, ConnectionError, varint};
use bytes::BufMut;

pub(crate) const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
pub(crate) const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
pub(crate) const QPACK_BLOCKED_STREAMS: u64 = 0x07;
pub(crate) const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
pub(crate) const H3_DATAGRAM: u64 = 0x33;

/// Peers send 4 to 8 settings in under 50 bytes; more than this is not a peer that means well.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 1024;
const SETTING_COUNT_MAX: usize = 64;

/// What the peer announced, or the defaults while it has not. Invariant: identifiers are unique and sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pairs: Vec<(u64, u64)>,
}

impl Settings {
    /// The value of any setting; `None` when the peer did not send it.
    #[must_use]
    pub fn get(&self, identifier: u64) -> Option<u64> {
        let at = self.pairs.binary_search_by_key(&identifier, |pair| pair.0).ok()?;
        self.pairs.get(at).map(|pair| pair.1)
    }

    /// The largest field section that the peer takes; `None` is unlimited.
    #[must_use]
    pub fn max_field_section_bytes(&self) -> Option<u64> {
        self.get(MAX_FIELD_SECTION_SIZE)
    }

    /// Extended CONNECT is welcome (RFC 9220).
    #[must_use]
    pub fn enable_connect_protocol(&self) -> bool {
        self.get(ENABLE_CONNECT_PROTOCOL) == Some(1)
    }

    /// HTTP datagrams in QUIC DATAGRAM frames are welcome (RFC 9297). It is an H3_SETTINGS_ERROR when the peer's
    /// transport parameters have no datagrams; the driver knows those.
    #[must_use]
    pub fn h3_datagram(&self) -> bool {
        self.get(H3_DATAGRAM) == Some(1)
    }

    /// The gateway offers `beam-listen` (see [`crate::listen`]).
    #[must_use]
    pub fn beam_listen(&self) -> bool {
        self.get(BEAM_LISTEN) == Some(1)
    }

    /// QPACK_MAX_TABLE_CAPACITY. We never use the peer's table; this is for reports.
    #[must_use]
    pub fn qpack_max_table_capacity(&self) -> u64 {
        self.get(QPACK_MAX_TABLE_CAPACITY).unwrap_or(0)
    }

    /// QPACK_BLOCKED_STREAMS; for reports.
    #[must_use]
    pub fn qpack_blocked_streams(&self) -> u64 {
        self.get(QPACK_BLOCKED_STREAMS).unwrap_or(0)
    }

    /// For a file: what a client remembers of a server with its tickets (RFC 9114 section 7.2.4.2).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for &(identifier, value) in &self.pairs {
            varint::write(&mut out, identifier);
            varint::write(&mut out, value);
        }
        out
    }

    /// What [`Settings::to_bytes`] wrote; `None` if it is not that.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let fits = bytes.len() as u64 <= PAYLOAD_BYTES_MAX;
        fits.then(|| Self::parse(bytes).ok()).flatten()
    }

    /// Whether a client that kept to `before` in its early data keeps to these: nothing that was offered is withdrawn, no
    /// limit lowered.
    pub(crate) fn honours(&self, before: &Self) -> bool {
        let limit = |settings: &Self| settings.max_field_section_bytes().unwrap_or(u64::MAX);
        let offers = |settings: &Self| {
            [settings.enable_connect_protocol(), settings.h3_datagram(), settings.beam_listen()]
        };
        let kept = offers(before).into_iter().zip(offers(self)).all(|(before, now)| now || !before);
        kept && limit(self) >= limit(before)
    }

    /// Parses a whole payload.
    pub(crate) fn parse(mut payload: &[u8]) -> Result<Self, ConnectionError> {
        let mut pairs = Vec::new();
        while !payload.is_empty() {
            if pairs.len() == SETTING_COUNT_MAX {
                let what = "more than 64 settings";
                return Err(ConnectionError::new(Code::H3_EXCESSIVE_LOAD, what, payload.len() as u64));
            }
            let identifier = take(&mut payload)?;
            let value = take(&mut payload)?;
            check(identifier, value)?;
            pairs.push((identifier, value));
        }
        pairs.sort_unstable();
        match pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => {
                Err(ConnectionError::new(Code::H3_SETTINGS_ERROR, "the same setting occurs twice", pair[0].0))
            }
            None => Ok(Self { pairs }),
        }
    }
}

fn take(payload: &mut &[u8]) -> Result<u64, ConnectionError> {
    let truncated = ConnectionError::new(
        Code::H3_FRAME_ERROR,
        "SETTINGS ends in the middle of a setting",
        payload.len() as u64,
    );
    let (value, size_bytes) = varint::read(payload).ok_or(truncated)?;
    *payload = &payload[size_bytes..];
    Ok(value)
}

fn check(identifier: u64, value: u64) -> Result<(), ConnectionError> {
    match identifier {
        // Those of HTTP/2 that have no counterpart (RFC 9114 section 11.2.2).
        0x00 | 0x02..=0x05 => {
            Err(ConnectionError::new(Code::H3_SETTINGS_ERROR, "a setting that HTTP/3 reserves", identifier))
        }
        ENABLE_CONNECT_PROTOCOL | H3_DATAGRAM if value > 1 => Err(ConnectionError::new(
            Code::H3_SETTINGS_ERROR,
            "a setting that is neither 0 nor 1",
            identifier,
        )),
        _ => Ok(()),
    }
}

/// Writes a SETTINGS frame.
pub(crate) fn write_frame(out: &mut impl BufMut, pairs: &[(u64, u64)]) {
    let payload_bytes: usize = pairs
        .iter()
        .map(|&(identifier, value)| varint::size_bytes(identifier) + varint::size_bytes(value))
        .sum();
    varint::write(out, crate::frame::SETTINGS);
    varint::write(out, payload_bytes as u64);
    for &(identifier, value) in pairs {
        varint::write(out, identifier);
        varint::write(out, value);
    }
}

/// A reserved identifier, `0x1f * N + 0x21`, for any seed.
pub(crate) fn reserved_identifier(seed: u64) -> u64 {
    0x1f * (seed & 0xffff_ffff) + 0x21
}
