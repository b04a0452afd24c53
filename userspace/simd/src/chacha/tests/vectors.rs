//! Goal: what the RFCs print comes out, whichever lane it is in.

use super::*;
use crate::HeaderKey;

/// RFC 8439 section 2.3.2 and appendix A.1: key, counter and nonce as the last row, keystream block.
const BLOCKS: [(&str, &str, &str); 6] = [
    (
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "01000000 000000090000004a00000000",
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e
         d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "00000000 000000000000000000000000",
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7
         da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "01000000 000000000000000000000000",
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed
         29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000001",
        "01000000 000000000000000000000000",
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a
         8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    (
        "00ff000000000000000000000000000000000000000000000000000000000000",
        "02000000 000000000000000000000000",
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca
         13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "00000000 000000000000000000000002",
        "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7
         8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d",
    ),
];

/// RFC 8439 section 2.3.2, appendix A.1: every vector in every lane, beside other vectors.
#[test]
fn blocks_in_every_lane() {
    for machine in machines() {
        for shift in 0..machine.lanes() {
            let vector = |lane: usize| BLOCKS[(lane + shift) % BLOCKS.len()];
            let keys: Vec<_> = (0..machine.lanes()).map(|lane| bytes(vector(lane).0)).collect();
            let rows: Vec<_> = (0..machine.lanes()).map(|lane| bytes(vector(lane).1)).collect();
            let want: Vec<_> = (0..machine.lanes()).map(|lane| bytes(vector(lane).2)).collect();
            assert_eq!(machine.blocks(&keys, &rows), want, "{machine}, shift {shift}");
        }
    }
}

/// The two ways to set up the lanes agree on consecutive blocks, whose first is the RFC's.
#[test]
fn consecutive_blocks_are_the_same_either_way() {
    for machine in machines() {
        for (key, row, want) in BLOCKS {
            let (key, row): ([u8; KEY_BYTES], [u8; ROW_BYTES]) = (bytes(key), bytes(row));
            let rows: Vec<_> = (0..machine.lanes() as u128)
                .map(|lane| (u128::from_le_bytes(row) + lane).to_le_bytes())
                .collect();
            let blocks = machine.consecutive_blocks(&key, &row);
            assert_eq!(blocks[0], bytes(want), "{machine}");
            assert_eq!(blocks, machine.blocks(&vec![key; machine.lanes()], &rows), "{machine}");
        }
    }
}

struct Packet {
    key: &'static str,
    nonce: &'static str,
    header: &'static str,
    plaintext: Vec<u8>,
    /// And the tag, where the RFC prints one.
    ciphertext: &'static str,
}

const SUNSCREEN: &[u8] =
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
    future, sunscreen would be it.";
const SUBMISSION: &[u8] = b"Any submission to the IETF intended by the Contributor for publication as all or part of \
    an IETF Internet-Draft or RFC and any statement made within the context of an IETF activity is considered an \
    \"IETF Contribution\". Such statements include oral statements in IETF sessions, as well as written and \
    electronic communications made at any time or place, which are addressed to";
const DRAFTS: &str = "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, \
    replaced, or obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as reference \
    material or to cite them other than as /\u{201c}work in progress./\u{201d}";

fn packets() -> Vec<Packet> {
    vec![
        // RFC 8439 section 2.4.2.
        Packet {
            key: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            nonce: "000000000000004a00000000",
            header: "",
            plaintext: SUNSCREEN.to_vec(),
            ciphertext: "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b
                f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8
                07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736
                5af90bbf74a35be6b40b8eedf2785e42874d",
        },
        // RFC 8439 section 2.8.2.
        Packet {
            key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            nonce: "070000004041424344454647",
            header: "50515253c0c1c2c3c4c5c6c7",
            plaintext: SUNSCREEN.to_vec(),
            ciphertext: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
                3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
                92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
                3ff4def08e4b7a9de576d26586cec64b6116 1ae10b594f09e26a7e902ecbd0600691",
        },
        // RFC 8439 appendix A.2, vector 2.
        Packet {
            key: "0000000000000000000000000000000000000000000000000000000000000001",
            nonce: "000000000000000000000002",
            header: "",
            plaintext: SUBMISSION.to_vec(),
            ciphertext: "a3fbf07df3fa2fde4f376ca23e82737041605d9f4f4f57bd8cff2c1d4b7955ec
                2a97948bd3722915c8f3d337f7d370050e9e96d647b7c39f56e031ca5eb6250d
                4042e02785ececfa4b4bb5e8ead0440e20b6e8db09d881a7c6132f420e527950
                42bdfa7773d8a9051447b3291ce1411c680465552aa6c405b7764d5e87bea85a
                d00f8449ed8f72d0d662ab052691ca66424bc86d2df80ea41f43abf937d3259d
                c4b2d0dfb48a6c9139ddd7f76966e928e635553ba76c5c879d7b35d49eb2e62b
                0871cdac638939e25e8a1e0ef9d5280fa8ca328b351c3c765989cbcf3daa8b6c
                cc3aaf9f3979c92b3720fc88dc95ed84a1be059c6499b9fda236e7e818b04b0b
                c39c1e876b193bfe5569753f88128cc08aaa9b63d1a16f80ef2554d7189c411f
                5869ca52c5b83fa36ff216b9c1d30062bebcfd2dc5bce0911934fda79a86f6e6
                98ced759c3ff9b6477338f3da4f9cd8514ea9982ccafb341b2384dd902f3d1ab
                7ac61dd29c6f21ba5b862f3730e37cfdc4fd806c22f221",
        },
        // RFC 8439 appendix A.5.
        Packet {
            key: "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
            nonce: "000000000102030405060708",
            header: "f33388860000000000004e91",
            plaintext: DRAFTS.as_bytes().to_vec(),
            ciphertext: "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2
                4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf
                332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855
                9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4
                b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e
                af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a
                0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10
                49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29
                a6ad5cb4022b02709b eead9d67890cbb22392336fea1851f38",
        },
        // RFC 9001 appendix A.5: the nonce is the IV with packet number 654360564 in it.
        Packet {
            key: "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8",
            nonce: "e0459b3474bdd0e46d417eb0",
            header: "4200bff4",
            plaintext: vec![1],
            ciphertext: "65 5e5cd55c41f69080575d7999c25a5bfb",
        },
    ]
}

/// RFC 8439 sections 2.4.2 and 2.8.2, appendices A.2 and A.5, RFC 9001 appendix A.5: all in one batch, each seen in
/// several lanes, sealed and opened.
#[test]
fn packets_seal_and_open() {
    for machine in machines() {
        for repeats in (1..=7).step_by(if cfg!(miri) { 3 } else { 1 }) {
            let packets: Vec<_> = (0..repeats).flat_map(|_| packets()).collect();
            let keys: Vec<_> = packets.iter().map(|p| packet_key(&hex(p.key), bytes(p.nonce))).collect();
            let headers: Vec<_> = packets.iter().map(|p| hex(p.header)).collect();
            let mut sealed: Vec<_> = packets.iter().map(|p| vec![0; p.plaintext.len() + 16]).collect();
            let mut jobs: Vec<_> = sealed
                .iter_mut()
                .enumerate()
                .map(|(i, dst)| SealJob {
                    key: &keys[i],
                    packet_number: 0,
                    header: &headers[i],
                    plaintext: &packets[i].plaintext,
                    dst,
                })
                .collect();
            machine.seal(&mut jobs);
            for (packet, sealed) in packets.iter().zip(&sealed) {
                let want = hex(packet.ciphertext);
                assert_eq!(sealed[..want.len()], want, "{machine}");
            }
            let mut opened: Vec<_> = packets.iter().map(|p| vec![0; p.plaintext.len()]).collect();
            let mut jobs: Vec<_> = opened
                .iter_mut()
                .enumerate()
                .map(|(i, dst)| OpenJob {
                    key: &keys[i],
                    packet_number: 0,
                    header: &headers[i],
                    ciphertext: &sealed[i],
                    dst,
                    authentic: false,
                })
                .collect();
            machine.open(&mut jobs);
            assert!(jobs.iter().all(|job| job.authentic), "{machine}");
            assert!(
                packets.iter().zip(&opened).all(|(packet, opened)| packet.plaintext == *opened),
                "{machine}"
            );
        }
    }
}

/// RFC 9001 appendix A.5, header protection: in every lane.
#[test]
fn mask_of_rfc_9001() {
    let key = hex("25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4");
    let key = HeaderKey::new(Cipher::ChaCha20Poly1305, &key);
    let other = HeaderKey::new(Cipher::ChaCha20Poly1305, &[9; 32]);
    let sample = bytes("5e5cd55c41f69080575d7999c25a5bfb");
    for machine in machines() {
        // Miri is slow, and there to see what AVX-512 does.
        for count in (1..=33).step_by(if cfg!(miri) { 16 } else { 1 }) {
            for ours in 0..count {
                let mut jobs: Vec<_> =
                    (0..count).map(|_| MaskJob { key: &other, sample: [1; 16], mask: [0; 5] }).collect();
                jobs[ours] = MaskJob { key: &key, sample, mask: [0; 5] };
                machine.mask(&mut jobs);
                let right = |job: &&MaskJob<'_>| job.mask == [0xae, 0xfe, 0xfe, 0x7d, 0x03];
                assert_eq!(jobs.iter().filter(right).count(), 1, "{machine}");
                assert!(right(&&jobs[ours]), "{machine}, {ours} of {count}");
            }
        }
    }
}
