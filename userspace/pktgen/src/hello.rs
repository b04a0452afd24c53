//! A TLS ClientHello (RFC 8446) with QUIC transport parameters (RFC 9001 8.2), such as an HTTP/3 client sends: a server
//! that takes it has to answer with its certificate and a signature.

use rand::{RngExt as _, rngs::SmallRng};

/// Writes handshake messages: each block with its length in front.
struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A block behind a length of `length_bytes`.
    fn block(&mut self, length_bytes: usize, body: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.0.resize(at + length_bytes, 0);
        body(self);
        let length = (self.0.len() - at - length_bytes).to_be_bytes();
        self.0[at..at + length_bytes].copy_from_slice(&length[length.len() - length_bytes..]);
    }

    fn extension(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.put(&kind.to_be_bytes());
        self.block(2, body);
    }

    /// A transport parameter below 64 whose value is bytes.
    fn parameter(&mut self, id: u8, value: &[u8]) {
        self.put(&[id, value.len() as u8]);
        self.put(value);
    }
}

/// The message; `scid` is the source connection ID of the packet that carries it.
pub(crate) fn client_hello(rng: &mut SmallRng, scid: &[u8]) -> Vec<u8> {
    let (random, key): ([u8; 32], [u8; 32]) = (rng.random(), rng.random());
    let mut message = Writer(Vec::with_capacity(320));
    message.put(&[1]);
    message.block(3, |hello| {
        hello.put(&[3, 3]);
        hello.put(&random);
        // No session to resume; AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305; no compression.
        hello.put(&[0, 0, 6, 0x13, 1, 0x13, 2, 0x13, 3, 1, 0]);
        hello.block(2, |extensions| {
            // supported_groups: X25519.
            extensions.extension(10, |e| e.put(&[0, 2, 0, 0x1d]));
            // signature_algorithms: ECDSA P-256 and P-384, Ed25519, RSA-PSS, RSA.
            let algorithms = [4, 3, 5, 3, 8, 7, 8, 4, 8, 5, 8, 6, 4, 1];
            extensions.extension(13, |e| e.block(2, |e| e.put(&algorithms)));
            // application_layer_protocol_negotiation.
            extensions.extension(16, |e| e.block(2, |e| e.block(1, |e| e.put(b"h3"))));
            // supported_versions: TLS 1.3.
            extensions.extension(43, |e| e.put(&[2, 3, 4]));
            // key_share: any 32 bytes are an X25519 key.
            extensions.extension(51, |e| {
                e.block(2, |e| {
                    e.put(&[0, 0x1d]);
                    e.block(2, |e| e.put(&key));
                });
            });
            extensions.extension(57, |e| transport_parameters(e, scid));
        });
    });
    message.0
}

fn transport_parameters(to: &mut Writer, scid: &[u8]) {
    const MIB: [u8; 4] = (0x8000_0000u32 | 1 << 20).to_be_bytes();
    const HUNDRED: [u8; 2] = (0x4000u16 | 100).to_be_bytes();
    // max_idle_timeout: 30 s.
    to.parameter(0x01, &(0x8000_0000u32 | 30_000).to_be_bytes());
    for data in [0x04, 0x05, 0x06, 0x07] {
        to.parameter(data, &MIB);
    }
    for streams in [0x08, 0x09] {
        to.parameter(streams, &HUNDRED);
    }
    // initial_source_connection_id; max_datagram_frame_size.
    to.parameter(0x0f, scid);
    to.parameter(0x20, &(0x4000u16 | 1200).to_be_bytes());
}
