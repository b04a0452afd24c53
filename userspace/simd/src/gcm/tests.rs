//! Goal: every level gives ring's bytes and ring's verdicts. Method: ring is the oracle; the four-lane algorithm also
//! runs over pairs of pairs of one lane, so that it is proved on a CPU without AVX-512.

use super::{aesni::AesNi, entry::compiled, pair::Pair, quad};
use crate::{Cipher, HeaderKey, Level, MaskJob, OpenJob, PacketKey, SealJob, TAG_BYTES};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

const CIPHERS: [Cipher; 2] = [Cipher::Aes128Gcm, Cipher::Aes256Gcm];
const PAYLOAD_BYTES_MAX: usize = 9100;

compiled!(pairs, Pair(Pair(AesNi::token())), "aes,pclmulqdq,ssse3,sse4.1");

/// An implementation under test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Subject {
    Level(Level),
    Pairs,
}

impl Subject {
    /// All that this CPU can run; the levels that it can't are named on the output.
    fn all() -> Vec<Self> {
        let mut all: Vec<_> = Level::available()
            .iter()
            .filter(|&&level| level != Level::RING)
            .map(|&level| Self::Level(level))
            .collect();
        for name in ["aesni", "avx2", "avx512"] {
            match name.parse::<Level>() {
                Ok(_) => {}
                Err(error) => println!("not proved here: {error}"),
            }
        }
        if "aesni".parse::<Level>().is_ok() {
            all.push(Self::Pairs);
        }
        all
    }

    fn seal(self, jobs: &mut [SealJob<'_>]) {
        for jobs in jobs.chunk_by_mut(|a, b| a.key.cipher() == b.key.cipher()) {
            let cipher = jobs[0].key.cipher();
            match self {
                Self::Level(level) => assert!(super::seal(level, jobs)),
                // SAFETY: `all` lists it only where the CPU has the level of the same instructions.
                Self::Pairs => unsafe { pairs::seal(cipher, jobs) },
            }
        }
    }

    fn open(self, jobs: &mut [OpenJob<'_>]) {
        for jobs in jobs.chunk_by_mut(|a, b| a.key.cipher() == b.key.cipher()) {
            let cipher = jobs[0].key.cipher();
            match self {
                Self::Level(level) => assert!(super::open(level, jobs)),
                // SAFETY: `all` lists it only where the CPU has the level of the same instructions.
                Self::Pairs => unsafe { pairs::open(cipher, jobs) },
            }
        }
    }

    fn mask(self, jobs: &mut [MaskJob<'_>]) {
        for jobs in jobs.chunk_by_mut(|a, b| a.key.cipher() == b.key.cipher()) {
            let cipher = jobs[0].key.cipher();
            match self {
                Self::Level(level) => assert!(super::mask(level, jobs)),
                // SAFETY: `all` lists it only where the CPU has the level of the same instructions.
                Self::Pairs => unsafe { pairs::mask(cipher, jobs) },
            }
        }
    }
}

/// A packet and what ring makes of it.
struct Case<'a> {
    key: &'a PacketKey,
    packet_number: u64,
    header: Vec<u8>,
    payload: Vec<u8>,
    sealed: Vec<u8>,
    /// Bytes before the header, the source and the destination: the alignment.
    shift: [usize; 3],
}

impl<'a> Case<'a> {
    fn new(rng: &mut StdRng, key: &'a PacketKey, header: usize, payload: usize) -> Self {
        let header: Vec<u8> = random(rng, header);
        let payload: Vec<u8> = random(rng, payload);
        let packet_number = rng.random();
        let mut sealed = payload.clone();
        let tag = key.seal_in_place(packet_number, &header, &mut sealed).expect("shorter than 64 GiB");
        sealed.extend(tag);
        Self { key, packet_number, header, payload, sealed, shift: [0; 3] }
    }
}

fn random(rng: &mut StdRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}

fn key(rng: &mut StdRng, cipher: Cipher) -> PacketKey {
    PacketKey::new(cipher, &random(rng, cipher.key_bytes()), rng.random())
}

/// A run of the generator that the output names.
fn seeded(seed: u64) -> StdRng {
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// Memory aligned to 64 bytes and then shifted, with guards at both ends.
struct Shifted {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Shifted {
    const GUARD: u8 = 0xa5;

    fn new(len: usize, shift: usize) -> Self {
        let memory = vec![Self::GUARD; len + 256];
        let start = memory.as_ptr().align_offset(64) + 64 + shift;
        Self { memory, start, len }
    }

    fn of(bytes: &[u8], shift: usize) -> Self {
        let mut shifted = Self::new(bytes.len(), shift);
        shifted.bytes().copy_from_slice(bytes);
        shifted
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    /// The bytes, after a look at the guards.
    fn checked(&self) -> &[u8] {
        assert!(self.memory[..self.start].iter().all(|&byte| byte == Self::GUARD), "written before");
        assert!(
            self.memory[self.start + self.len..].iter().all(|&byte| byte == Self::GUARD),
            "written behind"
        );
        &self.memory[self.start..self.start + self.len]
    }
}

/// Seals and opens the cases in one batch each and compares with ring.
fn prove(subject: Subject, cases: &[Case<'_>]) {
    let mut headers: Vec<_> = cases.iter().map(|case| Shifted::of(&case.header, case.shift[0])).collect();
    let mut sources: Vec<_> = cases.iter().map(|case| Shifted::of(&case.payload, case.shift[1])).collect();
    let mut sealed: Vec<_> =
        cases.iter().map(|case| Shifted::new(case.sealed.len(), case.shift[2])).collect();
    let mut jobs = Vec::new();
    for (((case, header), source), dst) in cases.iter().zip(&mut headers).zip(&mut sources).zip(&mut sealed) {
        let (key, packet_number) = (case.key, case.packet_number);
        jobs.push(SealJob {
            key,
            packet_number,
            header: header.bytes(),
            plaintext: source.bytes(),
            dst: dst.bytes(),
        });
    }
    subject.seal(&mut jobs);
    for (case, sealed) in cases.iter().zip(&sealed) {
        let (header, payload) = (case.header.len(), case.payload.len());
        assert!(
            sealed.checked() == case.sealed,
            "seal, {subject:?}, {:?}, header {header}, payload {payload}",
            case.key
        );
    }
    let mut opened: Vec<_> =
        cases.iter().map(|case| Shifted::new(case.payload.len(), case.shift[1])).collect();
    let mut jobs = Vec::new();
    for (((case, header), source), dst) in cases.iter().zip(&mut headers).zip(&mut sealed).zip(&mut opened) {
        let (key, packet_number) = (case.key, case.packet_number);
        let (header, ciphertext, dst) = (header.bytes(), source.bytes(), dst.bytes());
        jobs.push(OpenJob { key, packet_number, header, ciphertext, dst, authentic: false });
    }
    subject.open(&mut jobs);
    let verdicts: Vec<_> = jobs.iter().map(|job| job.authentic).collect();
    for ((case, opened), authentic) in cases.iter().zip(&opened).zip(verdicts) {
        let (header, payload) = (case.header.len(), case.payload.len());
        let same = opened.checked() == case.payload;
        assert!(
            authentic && same,
            "open, {subject:?}, {:?}, header {header}, payload {payload}: authentic {authentic}, same {same}",
            case.key
        );
    }
}

#[test]
fn every_length_is_as_with_ring() {
    let mut rng = seeded(1);
    let lengths: Vec<_> = (0..=600)
        .chain((601..=PAYLOAD_BYTES_MAX).step_by(61))
        .chain([1199, 1200, 1201, 9000, 9100])
        .collect();
    for cipher in CIPHERS {
        let key = key(&mut rng, cipher);
        let cases: Vec<_> = lengths.iter().map(|&len| Case::new(&mut rng, &key, 25, len)).collect();
        for subject in Subject::all() {
            prove(subject, &cases);
        }
    }
}

#[test]
fn every_header_length_is_as_with_ring() {
    let mut rng = seeded(2);
    for cipher in CIPHERS {
        let key = key(&mut rng, cipher);
        for payload in [0, 5, 64, 511, 512, 513, 1200] {
            let lengths = (0..=64).chain([100, 1000]);
            let cases: Vec<_> = lengths.map(|header| Case::new(&mut rng, &key, header, payload)).collect();
            for subject in Subject::all() {
                prove(subject, &cases);
            }
        }
    }
}

#[test]
fn every_alignment_is_as_with_ring() {
    let mut rng = seeded(3);
    for cipher in CIPHERS {
        let key = key(&mut rng, cipher);
        let mut cases = Vec::new();
        for shift in 0..16 {
            for payload in [3, 15, 17, 47, 100, 255, 300, 1203] {
                for shift in [[shift, 0, 0], [0, shift, 0], [0, 0, shift], [shift, 7 * shift, 5 * shift]] {
                    cases.push(Case { shift, ..Case::new(&mut rng, &key, 25, payload) });
                }
            }
        }
        for subject in Subject::all() {
            prove(subject, &cases);
        }
    }
}

#[test]
fn mixed_batches_of_every_size_are_as_with_ring() {
    let mut rng = seeded(4);
    let keys: Vec<_> = (0..9).map(|i| key(&mut rng, CIPHERS[i % 2])).collect();
    for count in 1..=64 {
        let cases: Vec<_> = (0..count)
            .map(|_| {
                let key = keys.choose(&mut rng).unwrap();
                let (header, payload) = (rng.random_range(0..40), rng.random_range(0..1500));
                Case::new(&mut rng, key, header, payload)
            })
            .collect();
        for subject in Subject::all() {
            prove(subject, &cases);
        }
    }
}

#[test]
fn a_forged_bit_is_refused_in_its_own_lane_only() {
    let mut rng = seeded(5);
    let keys = [key(&mut rng, Cipher::Aes128Gcm), key(&mut rng, Cipher::Aes128Gcm)];
    for payload in [0, 33, 700] {
        let cases: Vec<_> = (0..7).map(|i| Case::new(&mut rng, &keys[i / 5], 21, payload)).collect();
        for (forged, part) in (0..7).flat_map(|lane| (0..3).map(move |part| (lane, part))) {
            let mut headers: Vec<_> = cases.iter().map(|case| case.header.clone()).collect();
            let mut sealed: Vec<_> = cases.iter().map(|case| case.sealed.clone()).collect();
            let target = match part {
                0 => &mut headers[forged][..],
                1 if payload > 0 => &mut sealed[forged][..payload],
                _ => &mut sealed[forged][payload..],
            };
            let bit = rng.random_range(0..8 * target.len());
            target[bit / 8] ^= 1 << (bit % 8);
            for subject in Subject::all() {
                let mut opened = vec![vec![0; payload]; 7];
                let mut jobs = Vec::new();
                for (((case, header), ciphertext), dst) in
                    cases.iter().zip(&headers).zip(&sealed).zip(&mut opened)
                {
                    let (key, packet_number) = (case.key, case.packet_number);
                    // The verdict before is the wrong one, so that it must be written.
                    let authentic = jobs.len() == forged;
                    jobs.push(OpenJob { key, packet_number, header, ciphertext, dst, authentic });
                }
                subject.open(&mut jobs);
                for (lane, job) in jobs.iter().enumerate() {
                    assert_eq!(job.authentic, lane != forged, "{subject:?}, payload {payload}, part {part}");
                }
            }
        }
    }
}

#[test]
fn every_bit_of_a_tag_counts() {
    let mut rng = seeded(6);
    let key = key(&mut rng, Cipher::Aes256Gcm);
    let case = Case::new(&mut rng, &key, 21, 40);
    for subject in Subject::all() {
        for bit in 0..8 * TAG_BYTES {
            let mut sealed = case.sealed.clone();
            sealed[40 + bit / 8] ^= 1 << (bit % 8);
            let (packet_number, mut opened) = (case.packet_number, [0; 40]);
            let (header, ciphertext, dst) = (&case.header, &sealed, &mut opened);
            let mut jobs = [OpenJob { key: &key, packet_number, header, ciphertext, dst, authentic: true }];
            subject.open(&mut jobs);
            assert!(!jobs[0].authentic, "{subject:?}, bit {bit}");
        }
    }
}

#[test]
fn masks_are_as_with_ring() {
    let mut rng = seeded(7);
    for cipher in CIPHERS {
        let keys: Vec<_> =
            (0..5).map(|_| HeaderKey::new(cipher, &random(&mut rng, cipher.key_bytes()))).collect();
        for keys in [&keys[..1], &keys[..]] {
            for count in 1..=40 {
                for subject in Subject::all() {
                    let mut jobs: Vec<_> = (0..count)
                        .map(|_| MaskJob {
                            key: keys.choose(&mut rng).unwrap(),
                            sample: rng.random(),
                            mask: [0; 5],
                        })
                        .collect();
                    subject.mask(&mut jobs);
                    for job in &jobs {
                        assert_eq!(job.mask, job.key.mask(&job.sample), "{subject:?}, {cipher:?}, {count}");
                    }
                }
            }
        }
    }
}
