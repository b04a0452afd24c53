//! Goal: a super-packet is split into what the kernel's own segmentation would make of it, and packets that are put
//! together can be taken apart to the same bytes, in the same order within each flow. Method: super-packets made here,
//! every segment read by etherparse; random flows, mixed, through coalescing and splitting again.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

use bytes::Bytes;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use ip::{Coalescer, Split, View, Vnet, checksum, coalesce, vnet::Gso};
use proptest::prelude::*;

const V6_FROM: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const V6_TO: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// One TCP packet: of which flow, where, with what.
#[derive(Clone, Debug)]
struct Tcp {
    v6: bool,
    flow: u16,
    sequence: u32,
    id: u16,
    psh: bool,
    fin: bool,
    payload: Vec<u8>,
}

fn tcp(packet: &Tcp) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = if packet.v6 {
        PacketBuilder::ipv6(V6_FROM, V6_TO, 64)
    } else {
        PacketBuilder::ipv4([198, 18, 64, 2], [10, 1, 0, 9], 64)
    };
    let mut builder = builder.tcp(packet.flow, 5201, packet.sequence, 500).ack(777);
    if packet.psh {
        builder = builder.psh();
    }
    if packet.fin {
        builder = builder.fin();
    }
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    builder.options_raw(&options).unwrap().write(&mut out, &packet.payload).unwrap();
    if !packet.v6 {
        out[4..6].copy_from_slice(&packet.id.to_be_bytes());
        out[10..12].copy_from_slice(&[0, 0]);
        let sum = wire::checksum::ipv4_header(out.first_chunk().unwrap());
        out[10..12].copy_from_slice(&sum);
    }
    out
}

fn udp(v6: bool, flow: u16, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if v6 {
        PacketBuilder::ipv6(V6_FROM, V6_TO, 64).udp(flow, 53).write(&mut out, payload).unwrap();
    } else {
        PacketBuilder::ipv4([198, 18, 64, 2], [10, 1, 0, 9], 64)
            .udp(flow, 53)
            .write(&mut out, payload)
            .unwrap();
        out[4..6].copy_from_slice(&id.to_be_bytes());
        out[10..12].copy_from_slice(&[0, 0]);
        let sum = wire::checksum::ipv4_header(out.first_chunk().unwrap());
        out[10..12].copy_from_slice(&sum);
    }
    out
}

/// Every segment of a packet with its vnet header.
fn split(vnet: Vnet, packet: &[u8]) -> Vec<Vec<u8>> {
    let split = Split::new(vnet, packet).unwrap();
    let mut out = vec![0xaa; split.segment_bytes_max()];
    let segments = (0..split.count()).map(|index| {
        let bytes = split.write(index, &mut out).unwrap();
        assert_eq!(bytes, split.segment_bytes(index));
        out[..bytes].to_vec()
    });
    let segments = segments.collect();
    assert_eq!(split.write(split.count(), &mut out), None);
    segments
}

fn coalesce(packets: &[Vec<u8>], takes_udp: bool) -> Vec<(Vnet, Vec<u8>)> {
    let mut coalescer = Coalescer::new(takes_udp);
    let mut out = Vec::new();
    let mut emit = |vnet: Vnet, first: &[u8], rest: &[Bytes]| {
        assert!(rest.len() <= coalesce::SEGMENTS_MAX);
        let mut bytes = first.to_vec();
        rest.iter().for_each(|part| bytes.extend_from_slice(part));
        out.push((vnet, bytes));
    };
    for packet in packets {
        coalescer.push(Bytes::copy_from_slice(packet), &mut emit);
    }
    coalescer.flush(&mut emit);
    out
}

/// A segment is a whole packet with good checksums.
fn prove(segment: &[u8]) {
    let view = View::read(segment).unwrap();
    assert_eq!(view.total_bytes, segment.len());
    let sliced = SlicedPacket::from_ip(segment).unwrap();
    let NetSlice::Ipv4(ip) = sliced.net.unwrap() else {
        assert_eq!(checksum::judge(segment, &view), checksum::Transport::Good);
        return;
    };
    match sliced.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            let wanted = tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).unwrap();
            assert_eq!(tcp.checksum(), wanted);
        }
        TransportSlice::Udp(udp) => {
            let wanted = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).unwrap();
            assert_eq!(udp.checksum(), wanted);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tcp_super_packet_falls_into_segments() {
    let payload: Vec<u8> = (0..60_000_u32).map(|n| (n % 251) as u8).collect();
    for v6 in [false, true] {
        let whole = tcp(&Tcp {
            v6,
            flow: 9,
            sequence: u32::MAX - 7,
            id: 65_530,
            psh: true,
            fin: true,
            payload: payload.clone(),
        });
        let start = if v6 { 40 } else { 20 };
        let vnet = Vnet {
            gso: if v6 { Gso::TcpV6 } else { Gso::TcpV4 },
            gso_bytes: 1348,
            needs_checksum: true,
            checksum_start: start,
            checksum_offset: 16,
            header_bytes: start + 32,
        };
        let segments = split(vnet, &whole);
        assert_eq!(segments.len(), 60_000_usize.div_ceil(1348));
        let mut stream = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            prove(segment);
            let TransportSlice::Tcp(tcp) = SlicedPacket::from_ip(segment).unwrap().transport.unwrap() else {
                panic!()
            };
            assert_eq!(tcp.sequence_number(), (u32::MAX - 7).wrapping_add(stream.len() as u32));
            let last = index + 1 == segments.len();
            assert_eq!((tcp.psh(), tcp.fin(), tcp.ack()), (last, last, true));
            assert_eq!(tcp.options().len(), 12);
            if !v6 {
                let id = u16::from_be_bytes([segment[4], segment[5]]);
                assert_eq!(id, 65_530_u16.wrapping_add(index as u16));
            }
            stream.extend_from_slice(tcp.payload());
        }
        assert_eq!(stream, payload);
    }
}

#[test]
fn plain_packets_get_their_checksum() {
    let good = udp(false, 7, 3, b"an odd one");
    let view = View::read(&good).unwrap();
    let mut partial = good.clone();
    let pseudo = checksum::pseudo_header(view.source, view.destination, 17, good.len() - 20).folded();
    partial[26..28].copy_from_slice(&pseudo);
    let vnet = Vnet { needs_checksum: true, checksum_start: 20, checksum_offset: 6, ..Vnet::NONE };
    assert_eq!(split(vnet, &partial), std::slice::from_ref(&good));
    assert_eq!(split(Vnet::NONE, &good), std::slice::from_ref(&good));
    let outside = Vnet { checksum_start: 35, ..vnet };
    assert!(Split::new(outside, &good).is_err());
    assert!(Split::new(Vnet { gso: Gso::TcpV4, gso_bytes: 100, ..vnet }, &good).is_err(), "UDP isn't TCP");
    assert!(Split::new(Vnet { gso: Gso::Udp, gso_bytes: 0, ..vnet }, &good).is_err());
}

/// What a bulk transfer looks like: 45 full segments and a PSH become one write.
#[test]
fn a_bulk_transfer_becomes_one_super_packet() {
    let packets: Vec<_> = (0..45_u32)
        .map(|n| {
            tcp(&Tcp {
                v6: false,
                flow: 1,
                sequence: n * 1348,
                id: n as u16,
                psh: n == 44,
                fin: false,
                payload: vec![n as u8; 1348],
            })
        })
        .collect();
    let out = coalesce(&packets, false);
    assert_eq!(out.len(), 1);
    let (vnet, bytes) = &out[0];
    assert_eq!(
        (vnet.gso, vnet.gso_bytes, vnet.checksum_start, vnet.header_bytes),
        (Gso::TcpV4, 1348, 20, 52)
    );
    assert_eq!(split(*vnet, bytes), packets);
}

#[test]
fn a_damaged_packet_stays_alone_and_damaged() {
    let mut packets: Vec<_> = (0..3_u32)
        .map(|n| {
            tcp(&Tcp {
                v6: true,
                flow: 1,
                sequence: n * 100,
                id: 0,
                psh: false,
                fin: false,
                payload: vec![1; 100],
            })
        })
        .collect();
    let last = packets[1].len() - 1;
    packets[1][last] ^= 1;
    let out: Vec<_> = coalesce(&packets, false).into_iter().map(|(vnet, bytes)| (vnet.gso, bytes)).collect();
    assert_eq!(out, packets.into_iter().map(|packet| (Gso::None, packet)).collect::<Vec<_>>());
}

/// Bursts of several flows, with gaps, repeats, odd lengths, PSH and FIN in them.
fn bursts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let step = (0_u16..11, 0_u8..20, 1_usize..3, any::<u8>());
    prop::collection::vec(step, 1..120).prop_map(|steps| {
        let mut state = [(0_u32, 0_u16); 11];
        let mut packets = Vec::new();
        for (flow, kind, units, fill) in steps {
            let (sequence, id) = &mut state[usize::from(flow)];
            let payload = match kind {
                0 => vec![],
                1 => vec![fill; 33],
                _ => vec![fill; 100 * units.min(1 + usize::from(kind == 2))],
            };
            if kind == 3 {
                *sequence = sequence.wrapping_add(5); // a gap
            }
            let bytes = payload.len() as u32;
            packets.push(if flow >= 8 {
                udp(flow == 9, 50 + flow, *id, &payload)
            } else {
                tcp(&Tcp {
                    v6: flow % 2 == 1,
                    flow,
                    sequence: *sequence,
                    id: *id,
                    psh: kind == 4,
                    fin: kind == 5,
                    payload,
                })
            });
            *sequence = sequence.wrapping_add(bytes);
            *id = id.wrapping_add(if kind == 6 { 2 } else { 1 });
        }
        packets
    })
}

fn flow_of(packet: &[u8]) -> (u8, Vec<u8>) {
    let view = View::read(packet).unwrap();
    (view.protocol, [&packet[..1], &packet[view.transport_offset..view.transport_offset + 4]].concat())
}

proptest! {
    #[test]
    fn apart_again_is_the_same(packets in bursts(), takes_udp: bool) {
        let out = coalesce(&packets, takes_udp);
        let again: Vec<_> = out.iter().flat_map(|(vnet, bytes)| split(*vnet, bytes)).collect();
        prop_assert_eq!(again.len(), packets.len());
        if !takes_udp {
            prop_assert!(out.iter().all(|(vnet, _)| vnet.gso != Gso::Udp));
        }
        // The order of each flow is kept.
        for packet in &packets {
            let flow = flow_of(packet);
            let wanted: Vec<_> = packets.iter().filter(|other| flow_of(other) == flow).collect();
            let got: Vec<_> = again.iter().filter(|other| flow_of(other) == flow).collect();
            prop_assert_eq!(wanted, got);
        }
        for (_, bytes) in &out {
            prop_assert_eq!(View::read(bytes).unwrap().total_bytes, bytes.len());
        }
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), header in any::<[u8; 10]>(), gso in 0_u8..6, first in prop::sample::select(vec![0x45_u8, 0x60])) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() { *byte = first; }
        let mut header = header;
        header[1] = gso;
        if let Some(vnet) = Vnet::read(&header)
            && let Ok(split) = Split::new(vnet, &bytes)
        {
            let mut out = vec![0; split.segment_bytes_max()];
            for index in 0..split.count().min(300) {
                split.write(index, &mut out);
            }
        }
        coalesce(&[bytes], true);
    }
}
