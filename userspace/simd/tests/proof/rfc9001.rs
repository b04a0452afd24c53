//! Goal: the packets of RFC 9001 appendix A come out of a batch bit by bit, and go back in. Method: A.2, A.3 and A.5,
//! each in each lane of a batch of five among the other two; seal, mask and header protection, then the way back.

use crate::levels;
use crate::oracle::{Key, Mask};
use crate::packet::{Packet, open, seals_like_ring};
use beam_simd::{Cipher, Level, MaskJob, SAMPLE_BYTES, mask_batch};

/// A sample of appendix A, as the RFC prints it.
struct Sample {
    name: &'static str,
    key: Key,
    mask_key: Mask,
    number: u64,
    /// Unprotected; the packet number lies at its end.
    header: Vec<u8>,
    payload: Vec<u8>,
    packet: Vec<u8>,
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    assert_eq!(digits.len() % 2, 0);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

/// The keys of a sample: cipher, packet key, IV, header-protection key.
fn keys(cipher: Cipher, key: &str, iv: &str, hp: &str) -> (Key, Mask) {
    (Key::new(cipher, &hex(key), hex(iv).try_into().expect("12 bytes")), Mask::new(cipher, &hex(hp)))
}

/// A.2: the client's Initial packet.
fn client_initial() -> Sample {
    let (key, mask_key) = keys(
        Cipher::Aes128Gcm,
        "1f369613dd76d5467730efcbe3b1a22d",
        "fa044b2f42a3fd3b46fb255c",
        "9f50449e04a0e810283a1e9933adedd2",
    );
    let mut payload = hex(CLIENT_CRYPTO_FRAME);
    payload.resize(1162, 0);
    let header = hex("c300000001088394c8f03e5157080000449e00000002");
    let packet = hex(CLIENT_PACKET);
    Sample { name: "A.2", key, mask_key, number: 2, header, payload, packet }
}

/// A.3: the server's Initial packet.
fn server_initial() -> Sample {
    let (key, mask_key) = keys(
        Cipher::Aes128Gcm,
        "cf3a5331653c364c88f0f379b6067e37",
        "0ac1493ca1905853b0bba03e",
        "c206b8d9b9f0f37644430b490eeaa314",
    );
    let header = hex("c1000000010008f067a5502a4262b50040750001");
    let (payload, packet) = (hex(SERVER_PAYLOAD), hex(SERVER_PACKET));
    Sample { name: "A.3", key, mask_key, number: 1, header, payload, packet }
}

/// A.5: a ChaCha20-Poly1305 packet with a short header.
fn short_header() -> Sample {
    let (key, mask_key) = keys(
        Cipher::ChaCha20Poly1305,
        "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8",
        "e0459b3474bdd0e44a41c144",
        "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4",
    );
    let packet = hex("4cfe4189655e5cd55c41f69080575d7999c25a5bfb");
    let (header, payload) = (hex("4200bff4"), hex("01"));
    Sample { name: "A.5", key, mask_key, number: 654_360_564, header, payload, packet }
}

impl Sample {
    fn number_bytes(&self) -> usize {
        usize::from(self.header[0] & 3) + 1
    }

    /// "It assumes that the Packet Number field is four bytes" (RFC 9001 section 5.4.2).
    fn sample(&self, protected: &[u8]) -> [u8; SAMPLE_BYTES] {
        let start = self.header.len() - self.number_bytes() + 4;
        protected[start..start + SAMPLE_BYTES].try_into().expect("a sample")
    }

    /// RFC 9001 section 5.4.1.
    fn apply(&self, mask: [u8; 5], header: &mut [u8]) {
        header[0] ^= mask[0] & if self.header[0] & 0x80 != 0 { 0x0f } else { 0x1f };
        let at = header.len() - self.number_bytes();
        for (byte, mask) in header[at..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
    }
}

fn check_batch(level: Level, samples: &[&Sample]) {
    let packets: Vec<Packet<'_>> = samples
        .iter()
        .map(|sample| {
            let mut packet = Packet::new(&sample.key, sample.number, &sample.header, &sample.payload);
            // What the RFC prints takes the place of what ring made: the batch has to match it.
            packet.sealed = sample.packet[sample.header.len()..].to_vec();
            packet
        })
        .collect();
    seals_like_ring(level, &packets);
    let opened = open(level, &packets);
    let mut masks: Vec<MaskJob<'_>> = samples
        .iter()
        .map(|sample| MaskJob {
            key: &sample.mask_key.header,
            sample: sample.sample(&sample.packet),
            mask: [0; 5],
        })
        .collect();
    mask_batch(level, &mut masks);
    for ((sample, mask), opened) in samples.iter().zip(&masks).zip(opened) {
        let (name, len) = (sample.name, sample.header.len());
        assert_eq!(opened.as_ref(), Some(&sample.payload), "{name} at {level}");
        let mut header = sample.header.clone();
        sample.apply(mask.mask, &mut header);
        assert_eq!(header, sample.packet[..len], "{name} at {level}: protected");
        sample.apply(mask.mask, &mut header);
        assert_eq!(header, sample.header, "{name} at {level}: and back");
    }
}

#[test]
fn appendix_a_in_every_lane() {
    let samples = [client_initial(), server_initial(), short_header()];
    for level in levels() {
        for (index, sample) in samples.iter().enumerate() {
            for lane in 0..5 {
                let mut batch: Vec<&Sample> = (0..5).map(|at| &samples[(index + 1 + at % 2) % 3]).collect();
                batch[lane] = sample;
                check_batch(level, &batch);
            }
        }
    }
}

const CLIENT_CRYPTO_FRAME: &str = "
    060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868
    04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578
    616d706c652e636f6dff01000100000a00080006001d00170018001000070005
    04616c706e000500050100000000003300260024001d00209370b2c9caa47fba
    baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400
    0d0010000e0403050306030203080408050806002d00020101001c0002400100
    3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000
    75300901100f088394c8f03e51570806048000ffff";

const CLIENT_PACKET: &str = "
    c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11
    d242b123dc9bd8bab936b47d92ec356c0bab7df5976d27cd449f63300099f399
    1c260ec4c60d17b31f8429157bb35a1282a643a8d2262cad67500cadb8e7378c
    8eb7539ec4d4905fed1bee1fc8aafba17c750e2c7ace01e6005f80fcb7df6212
    30c83711b39343fa028cea7f7fb5ff89eac2308249a02252155e2347b63d58c5
    457afd84d05dfffdb20392844ae812154682e9cf012f9021a6f0be17ddd0c208
    4dce25ff9b06cde535d0f920a2db1bf362c23e596d11a4f5a6cf3948838a3aec
    4e15daf8500a6ef69ec4e3feb6b1d98e610ac8b7ec3faf6ad760b7bad1db4ba3
    485e8a94dc250ae3fdb41ed15fb6a8e5eba0fc3dd60bc8e30c5c4287e53805db
    059ae0648db2f64264ed5e39be2e20d82df566da8dd5998ccabdae053060ae6c
    7b4378e846d29f37ed7b4ea9ec5d82e7961b7f25a9323851f681d582363aa5f8
    9937f5a67258bf63ad6f1a0b1d96dbd4faddfcefc5266ba6611722395c906556
    be52afe3f565636ad1b17d508b73d8743eeb524be22b3dcbc2c7468d54119c74
    68449a13d8e3b95811a198f3491de3e7fe942b330407abf82a4ed7c1b311663a
    c69890f4157015853d91e923037c227a33cdd5ec281ca3f79c44546b9d90ca00
    f064c99e3dd97911d39fe9c5d0b23a229a234cb36186c4819e8b9c5927726632
    291d6a418211cc2962e20fe47feb3edf330f2c603a9d48c0fcb5699dbfe58964
    25c5bac4aee82e57a85aaf4e2513e4f05796b07ba2ee47d80506f8d2c25e50fd
    14de71e6c418559302f939b0e1abd576f279c4b2e0feb85c1f28ff18f58891ff
    ef132eef2fa09346aee33c28eb130ff28f5b766953334113211996d20011a198
    e3fc433f9f2541010ae17c1bf202580f6047472fb36857fe843b19f5984009dd
    c324044e847a4f4a0ab34f719595de37252d6235365e9b84392b061085349d73
    203a4a13e96f5432ec0fd4a1ee65accdd5e3904df54c1da510b0ff20dcc0c77f
    cb2c0e0eb605cb0504db87632cf3d8b4dae6e705769d1de354270123cb11450e
    fc60ac47683d7b8d0f811365565fd98c4c8eb936bcab8d069fc33bd801b03ade
    a2e1fbc5aa463d08ca19896d2bf59a071b851e6c239052172f296bfb5e724047
    90a2181014f3b94a4e97d117b438130368cc39dbb2d198065ae3986547926cd2
    162f40a29f0c3c8745c0f50fba3852e566d44575c29d39a03f0cda721984b6f4
    40591f355e12d439ff150aab7613499dbd49adabc8676eef023b15b65bfc5ca0
    6948109f23f350db82123535eb8a7433bdabcb909271a6ecbcb58b936a88cd4e
    8f2e6ff5800175f113253d8fa9ca8885c2f552e657dc603f252e1a8e308f76f0
    be79e2fb8f5d5fbbe2e30ecadd220723c8c0aea8078cdfcb3868263ff8f09400
    54da48781893a7e49ad5aff4af300cd804a6b6279ab3ff3afb64491c85194aab
    760d58a606654f9f4400e8b38591356fbf6425aca26dc85244259ff2b19c41b9
    f96f3ca9ec1dde434da7d2d392b905ddf3d1f9af93d1af5950bd493f5aa731b4
    056df31bd267b6b90a079831aaf579be0a39013137aac6d404f518cfd4684064
    7e78bfe706ca4cf5e9c5453e9f7cfd2b8b4c8d169a44e55c88d4a9a7f9474241
    e221af44860018ab0856972e194cd934";

const SERVER_PAYLOAD: &str = "
    02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf739
    88cfc79825df566dc5430b9a045a1200130100002e00330024001d00209d3c94
    0d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00
    020304";

const SERVER_PACKET: &str = "
    cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a
    5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c3ec2493a1839b3
    dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84
    022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc4
    2158407dd074ee";
