//! Goal: a forgery is refused in whatever lane it lies, and costs no other packet anything. Method: batches of 1 to 17
//! authentic packets; each lane in turn is forged in every way below, and all verdicts and payloads are compared.
//! A verdict that ignored one bit of a tag, or that took a neighbour's, fails here.

use crate::oracle::{Key, bytes};
use crate::packet::{Packet, open};
use crate::{is_short, levels};
use beam_simd::{Cipher, Level, TAG_BYTES};
use rand::{SeedableRng, rngs::StdRng};

const SEED: u64 = 0x6265_616d;
const BATCH_LEN_MAX: usize = 17;
/// Payloads of the lanes: within a block, at its borders, across vectors.
const LENGTHS: [usize; 6] = [1, 64, 17, 130, 16, 300];
const HEADER_BYTES: [usize; 3] = [12, 25, 16];

/// What is done to one packet. Bits count from the lowest bit of the first byte.
#[derive(Clone, Copy, Debug)]
enum Forgery {
    SealedBit(usize),
    HeaderBit(usize),
    Number(i64),
    WrongKey,
    TruncatedPayload,
    TruncatedTag,
    LongerHeader,
    TagOfNext,
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

/// Every bit of the tag, of the header and of the first, middle and last byte of ciphertext; one of each of the rest.
/// For an emulated CPU one bit of each of these bytes.
fn forgeries(packet: &Packet<'_>, batch_len: usize) -> Vec<Forgery> {
    let len = packet.plaintext.len();
    let bits = |byte: usize| {
        let chosen = move |bit: &usize| !is_short() || *bit == byte % 8;
        (0..8).filter(chosen).map(move |bit| 8 * byte + bit)
    };
    let mut ciphertext = vec![0, len / 2, len - 1];
    ciphertext.dedup();
    let sealed = ciphertext.into_iter().chain(len..len + TAG_BYTES).flat_map(bits).map(Forgery::SealedBit);
    let header = (0..packet.header.len()).flat_map(bits).map(Forgery::HeaderBit);
    let rest = [
        Forgery::Number(1),
        Forgery::Number(-1),
        Forgery::WrongKey,
        Forgery::TruncatedPayload,
        Forgery::TruncatedTag,
        Forgery::LongerHeader,
    ];
    let swap = (batch_len > 1).then_some(Forgery::TagOfNext);
    sealed.chain(header).chain(rest).chain(swap).collect()
}

/// Forges `lane`; which lanes are forgeries now?
fn forge<'k>(packets: &mut [Packet<'k>], lane: usize, forgery: Forgery, stranger: &'k Key) -> Vec<usize> {
    let next = (lane + 1) % packets.len();
    let packet = &mut packets[lane];
    let len = packet.plaintext.len();
    match forgery {
        Forgery::SealedBit(bit) => flip(&mut packet.sealed, bit),
        Forgery::HeaderBit(bit) => flip(&mut packet.header, bit),
        Forgery::Number(step) => packet.number = packet.number.wrapping_add_signed(step),
        Forgery::WrongKey => packet.key = stranger,
        Forgery::TruncatedPayload => drop(packet.sealed.remove(len - 1)),
        Forgery::TruncatedTag => packet.sealed.truncate(len + TAG_BYTES - 1),
        Forgery::LongerHeader => packet.header.push(0),
        Forgery::TagOfNext => {
            let next_tag = packets[next].sealed[packets[next].plaintext.len()..].to_vec();
            let tag = packets[lane].sealed.splice(len.., next_tag).collect::<Vec<u8>>();
            let next_len = packets[next].plaintext.len();
            packets[next].sealed.splice(next_len.., tag);
            return vec![lane, next];
        }
    }
    vec![lane]
}

fn check_batch<'k>(level: Level, packets: &mut [Packet<'k>], stranger: &'k Key) -> usize {
    let mut count = 0;
    for lane in 0..packets.len() {
        let next = (lane + 1) % packets.len();
        let before = [lane, next].map(|at| packets[at].clone());
        for forgery in forgeries(&before[0], packets.len()) {
            let forged = forge(packets, lane, forgery, stranger);
            let verdicts = open(level, packets);
            for (at, (packet, opened)) in packets.iter().zip(&verdicts).enumerate() {
                let cipher = packet.key.packet.cipher().name();
                let told =
                    || format!("{cipher} at {level}, {forgery:?} in {lane} of {}, lane {at}", packets.len());
                match forged.contains(&at) {
                    true => assert!(opened.is_none(), "{}: a forgery was taken", told()),
                    false => assert!(opened.as_deref() == Some(&packet.plaintext[..]), "{}: hurt", told()),
                }
            }
            for (at, packet) in [lane, next].into_iter().zip(&before) {
                packets[at].clone_from(packet);
            }
            count += 1;
        }
    }
    count
}

/// "An endpoint MUST discard packets that fail authentication" (RFC 9001 section 5.5 for the keys, RFC 9000 section
/// 12.2 for the rest of the datagram: the others "MUST be processed").
#[test]
fn only_the_forged_lane_is_refused() {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut count = 0;
    for cipher in Cipher::ALL {
        let keys: Vec<Key> = (0..3).map(|_| Key::random(cipher, &mut rng)).collect();
        let stranger = Key::random(cipher, &mut rng);
        for size in 1..=BATCH_LEN_MAX {
            let mut packets: Vec<Packet<'_>> = (0..size)
                .map(|lane| {
                    let plaintext = bytes(&mut rng, LENGTHS[(lane + size) % LENGTHS.len()]);
                    let header = bytes(&mut rng, HEADER_BYTES[lane % HEADER_BYTES.len()]);
                    // Pairs of lanes share a key, as packets of one connection do.
                    Packet::new(&keys[lane / 2 % keys.len()], 1000 + lane as u64, &header, &plaintext)
                })
                .collect();
            for level in levels() {
                count += check_batch(level, &mut packets, &stranger);
            }
        }
    }
    println!("seed {SEED}, {count} forgeries");
    assert!(count > 1000, "only {count} forgeries were tried");
}

/// Every lane forged, and every second lane: verdicts are the lanes' own.
#[test]
fn many_forged_lanes_at_once() {
    let mut rng = StdRng::seed_from_u64(SEED);
    let keys: Vec<Key> = (0..9).map(|index| Key::random(Cipher::ALL[index / 3], &mut rng)).collect();
    for size in 1..=BATCH_LEN_MAX {
        for pattern in [0b1, 0b01, 0b10, 0b0110, 0b1110_1111_u32] {
            let period = 32 - pattern.leading_zeros().min(31);
            let is_forged = |lane: usize| pattern >> (lane as u32 % period) & 1 == 1;
            let packets: Vec<Packet<'_>> = (0..size)
                .map(|lane| {
                    let plaintext = bytes(&mut rng, LENGTHS[lane % LENGTHS.len()]);
                    let mut packet = Packet::new(&keys[lane * 9 / size], lane as u64, &[1; 13], &plaintext);
                    if is_forged(lane) {
                        flip(&mut packet.sealed[plaintext.len()..], (lane * 37 + size) % 128);
                    }
                    packet
                })
                .collect();
            for level in levels() {
                for (lane, (packet, opened)) in packets.iter().zip(open(level, &packets)).enumerate() {
                    let expected = (!is_forged(lane)).then(|| packet.plaintext.clone());
                    assert!(opened == expected, "at {level}, lane {lane} of {size}, pattern {pattern:b}");
                }
            }
        }
    }
}
