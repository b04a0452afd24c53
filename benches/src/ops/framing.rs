//! `masque_framing`: a CONNECT's HEADERS and its answer (QPACK), DATA frames of a bulk transfer, and a packet of
//! `connect-udp` as a QUIC datagram and as a capsule. What is decoded is compared with what was encoded.

use super::{Done, Meter, Op};
use bytes::{Bytes, BytesMut};
use masque::{
    CAPSULE_PREFIX_BYTES_MAX, CONTEXT_PAYLOAD, Capsule, CapsuleLimits, CapsuleSet, Capsules,
    DATA_HEADER_BYTES_MAX, Item, Kind, Limits, MessageReader, RequestHead, RequestReader, ResponseTo,
    context_id, datagram_prefix, encode_request, encode_response, read_datagram, write_data_header_before,
    write_datagram_capsule_before,
};
use std::hint::black_box;

const MESSAGES: u64 = 64;
/// What beam reads from a socket at once, and so writes in one DATA frame.
const BLOCK_BYTES: usize = 64 << 10;
const PACKET_BYTES: usize = 1200;
/// The fifth request stream of a client.
const STREAM: u64 = 16;
const AUTHORITY: &str = "www.example.com:443";
const UDP_PATH: &str = "/.well-known/masque/udp/192.0.2.6/443/";
const FIELDS: [(&str, &str); 1] =
    [("proxy-authorization", "Bearer beam_0123456789012345678901234567890123456789012")];

pub(super) fn ops() -> Vec<Op> {
    let connect = || encode_request(&RequestHead::connect(black_box(AUTHORITY), &FIELDS));
    let udp = || {
        encode_request(&RequestHead::capsule_tunnel(
            masque::CONNECT_UDP,
            "gateway.test",
            black_box(UDP_PATH),
            &FIELDS,
        ))
    };
    vec![
        repeated("connect_encode", "message", move || {
            black_box(connect());
        }),
        repeated("connect_udp_encode", "message", move || {
            black_box(udp());
        }),
        decoded_request(
            "connect_decode",
            connect(),
            |kind| matches!(kind, Kind::Connect { authority } if authority.to_string() == AUTHORITY),
        ),
        decoded_request("connect_udp_decode", udp(), |kind| {
            matches!(kind, Kind::ExtendedConnect { protocol, path, .. }
                if protocol == masque::CONNECT_UDP && path == UDP_PATH)
        }),
        repeated("response_encode", "message", || {
            black_box(encode_response(black_box(200), &[]));
        }),
        decoded_response(),
        data_encode(),
        data_decode(),
        datagram(),
        capsule_encode(),
        capsule_decode(),
    ]
}

/// `work` for each of [`MESSAGES`].
fn repeated(name: &str, unit: &'static str, work: impl Fn() + Clone + 'static) -> Op {
    Op::simple(format!("masque_framing/{name}"), unit, MESSAGES, move || {
        let work = work.clone();
        move || (0..MESSAGES).for_each(|_| work())
    })
}

fn decoded_request(name: &str, message: Bytes, right: fn(&Kind) -> bool) -> Op {
    repeated(name, "message", move || {
        let mut reader = RequestReader::request(Limits { extended_connect: true, ..Limits::default() });
        reader.push(black_box(message.clone()));
        let Ok(Some(Item::Headers(request))) = reader.next() else { panic!("a request") };
        assert!(right(&request.kind) && request.authorization.is_some(), "{request:?}");
    })
}

fn decoded_response() -> Op {
    let message = encode_response(200, &[]);
    repeated("response_decode", "message", move || {
        let mut reader = MessageReader::response(Limits::default(), ResponseTo::Connect);
        reader.push(black_box(message.clone()));
        let Ok(Some(Item::Headers(response))) = reader.next() else { panic!("a response") };
        assert_eq!(response.status, 200);
    })
}

/// The header in front of a block that lies in memory already.
fn data_encode() -> Op {
    Op::simple("masque_framing/data_encode".into(), "frame", MESSAGES, || {
        let mut block = vec![7; DATA_HEADER_BYTES_MAX + BLOCK_BYTES];
        move || {
            for _ in 0..MESSAGES {
                let start =
                    write_data_header_before(black_box(&mut block), DATA_HEADER_BYTES_MAX, BLOCK_BYTES);
                assert!(start < DATA_HEADER_BYTES_MAX);
            }
        }
    })
}

/// A tunnel's bytes out of DATA frames of 64 KB, in chunks as QUIC brings them: a packet's payload each.
fn data_decode() -> Op {
    const FRAMES: u64 = 16;
    const CHUNK_BYTES: usize = 1400;
    let done = Done { units: FRAMES, bytes: FRAMES * BLOCK_BYTES as u64 };
    Op::new("masque_framing/data_decode".into(), "frame", done, move |_| {
        let mut block = BytesMut::from(&[7; DATA_HEADER_BYTES_MAX + BLOCK_BYTES][..]);
        let start = write_data_header_before(&mut block, DATA_HEADER_BYTES_MAX, BLOCK_BYTES);
        let frame = block.freeze().slice(start..);
        let stream: Bytes = (0..FRAMES).flat_map(|_| frame.iter().copied()).collect();
        let mut reader = MessageReader::response(Limits::default(), ResponseTo::Connect);
        reader.push(encode_response(200, &[]));
        assert!(matches!(reader.next(), Ok(Some(Item::Headers(_)))));
        let mut chunks = Vec::new();
        move |meter: &mut dyn Meter| {
            let pieces = stream.len().div_ceil(CHUNK_BYTES);
            let piece = |n: usize| stream.slice(n * CHUNK_BYTES..stream.len().min((n + 1) * CHUNK_BYTES));
            chunks.extend((0..pieces).map(piece));
            let mut bytes = 0;
            meter.measure(&mut || {
                for chunk in chunks.drain(..) {
                    reader.push(chunk);
                    while let Ok(Some(Item::Data(data))) = reader.next() {
                        bytes += black_box(data).len() as u64;
                    }
                }
            });
            assert_eq!(bytes, done.bytes, "all of the payload, and nothing else");
            done
        }
    })
}

/// A packet into a QUIC datagram's payload, and out again.
fn datagram() -> Op {
    Op::simple("masque_framing/datagram_both_ways".into(), "packet", MESSAGES, || {
        let room = CAPSULE_PREFIX_BYTES_MAX;
        let mut buffer = vec![7; room + PACKET_BYTES];
        let start = datagram_prefix(STREAM, CONTEXT_PAYLOAD).write_before(&mut buffer, room);
        let sent = Bytes::from(buffer.clone()).slice(start..);
        move || {
            for _ in 0..MESSAGES {
                let prefix = datagram_prefix(black_box(STREAM), CONTEXT_PAYLOAD);
                assert_eq!(prefix.write_before(&mut buffer, room), start);
                let (stream, datagram) = read_datagram(black_box(sent.clone())).expect("well-formed");
                let (context, payload) = context_id(datagram).expect("well-formed");
                assert_eq!((stream, context, payload.len()), (STREAM, CONTEXT_PAYLOAD, PACKET_BYTES));
            }
        }
    })
}

fn capsule_encode() -> Op {
    Op::simple("masque_framing/capsule_encode".into(), "packet", MESSAGES, || {
        let room = CAPSULE_PREFIX_BYTES_MAX;
        let mut buffer = vec![7; room + PACKET_BYTES];
        move || {
            for _ in 0..MESSAGES {
                let buffer = black_box(&mut buffer);
                assert!(write_datagram_capsule_before(buffer, room, PACKET_BYTES, CONTEXT_PAYLOAD) < room);
            }
        }
    })
}

/// Packets out of capsules, one in a chunk, their DATA frames taken off.
fn capsule_decode() -> Op {
    Op::simple("masque_framing/capsule_decode".into(), "packet", MESSAGES, || {
        let payload = Bytes::from(vec![7; PACKET_BYTES]);
        let mut capsule = BytesMut::new();
        masque::write_datagram_capsule_header(&mut capsule, CONTEXT_PAYLOAD, PACKET_BYTES);
        capsule.extend_from_slice(&payload);
        let capsule = capsule.freeze();
        let mut reader = Capsules::new(CapsuleSet::Udp, CapsuleLimits::default());
        move || {
            for _ in 0..MESSAGES {
                reader.push(black_box(capsule.clone()));
                let Ok(Some(Capsule::Datagram(datagram))) = reader.next() else { panic!("a datagram") };
                let (context, packet) = context_id(datagram).expect("well-formed");
                assert_eq!((context, packet.len()), (CONTEXT_PAYLOAD, payload.len()));
            }
        }
    })
}
