//! The Huffman code of RFC 7541 appendix B.
//!
//! The code is canonical: codes of one length count upwards in symbol order, and a longer code starts where the
//! shorter ones end. So the 257 lengths are the whole table, and everything else is derived from them at compile time.
//!
//! Decoding looks the next 8 bits up (every code of up to 8 bits: the digits, the letters, most of ASCII) and walks
//! the longer lengths otherwise.

use bytes::{BufMut, BytesMut};

const SYMBOL_COUNT: usize = 257;
const CODE_BITS_MIN: usize = 5;
const CODE_BITS_MAX: usize = 30;
const LOOKUP_BITS: usize = 8;
/// Symbol 256, which never appears in a string; its first bits are the padding.
const EOS: u16 = 256;

#[rustfmt::skip]
const LENGTHS: [u8; SYMBOL_COUNT] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The codes of one length: `count` of them from `first_code` on, their symbols at `first_symbol` in `SORTED`.
#[derive(Clone, Copy)]
struct Level {
    first_code: u32,
    count: u32,
    first_symbol: usize,
}

struct Tables {
    codes: [u32; SYMBOL_COUNT],
    sorted: [u16; SYMBOL_COUNT],
    levels: [Level; CODE_BITS_MAX + 1],
    /// Symbol and length for each leading byte; length 0 when the code is longer.
    lookup: [(u8, u8); 1 << LOOKUP_BITS],
}

static TABLES: Tables = build();

const fn build() -> Tables {
    let mut tables = Tables {
        codes: [0; SYMBOL_COUNT],
        sorted: [0; SYMBOL_COUNT],
        levels: [Level { first_code: 0, count: 0, first_symbol: 0 }; CODE_BITS_MAX + 1],
        lookup: [(0, 0); 1 << LOOKUP_BITS],
    };
    let mut next_code = 0u32;
    let mut sorted_len = 0;
    let mut bits = CODE_BITS_MIN;
    while bits <= CODE_BITS_MAX {
        tables.levels[bits].first_code = next_code;
        tables.levels[bits].first_symbol = sorted_len;
        let mut symbol = 0;
        while symbol < SYMBOL_COUNT {
            if LENGTHS[symbol] as usize == bits {
                tables.codes[symbol] = next_code;
                tables.sorted[sorted_len] = symbol as u16;
                if bits <= LOOKUP_BITS {
                    let spare = LOOKUP_BITS - bits;
                    let mut low = 0;
                    while low < 1 << spare {
                        tables.lookup[((next_code as usize) << spare) + low] = (symbol as u8, bits as u8);
                        low += 1;
                    }
                }
                sorted_len += 1;
                next_code += 1;
            }
            symbol += 1;
        }
        tables.levels[bits].count = next_code - tables.levels[bits].first_code;
        next_code <<= 1;
        bits += 1;
    }
    // A complete prefix code: after the last length every bit pattern is used (Kraft's sum is 1).
    assert!(next_code == 1 << (CODE_BITS_MAX + 1) && sorted_len == SYMBOL_COUNT);
    tables
}

/// Why a string does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// "Padding strictly longer than 7 bits", padding that is not the EOS prefix, or EOS itself (RFC 7541 section 5.2).
    Invalid,
    /// The decoded string is longer than the caller takes.
    TooLong,
}

/// How many bytes `plain` takes when encoded.
pub(crate) fn encoded_bytes(plain: &[u8]) -> usize {
    let bits: usize = plain.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends the encoded form of `plain`.
pub(crate) fn encode(plain: &[u8], out: &mut BytesMut) {
    let (mut pending, mut pending_bits) = (0u64, 0u32);
    for &byte in plain {
        let bits = u32::from(LENGTHS[usize::from(byte)]);
        // At most 7 + 30 bits are ever pending.
        pending = pending << bits | u64::from(TABLES.codes[usize::from(byte)]);
        pending_bits += bits;
        while pending_bits >= 8 {
            pending_bits -= 8;
            out.put_u8((pending >> pending_bits) as u8);
        }
    }
    if pending_bits > 0 {
        let spare = 8 - pending_bits;
        out.put_u8((pending << spare) as u8 | ((1u16 << spare) - 1) as u8);
    }
}

/// Appends the plain form of `coded`, at most `plain_bytes_max` bytes of it.
pub(crate) fn decode(coded: &[u8], plain_bytes_max: usize, out: &mut BytesMut) -> Result<(), Error> {
    let limit = out.len().saturating_add(plain_bytes_max);
    let mut input = coded.iter();
    // The next bits of the input, at the top end.
    let (mut window, mut window_bits) = (0u64, 0usize);
    loop {
        while window_bits <= 56 {
            let Some(&byte) = input.next() else { break };
            window |= u64::from(byte) << (56 - window_bits);
            window_bits += 8;
        }
        let Some((symbol, bits)) = first_symbol(window, window_bits) else { break };
        if symbol == EOS {
            return Err(Error::Invalid);
        }
        if out.len() >= limit {
            return Err(Error::TooLong);
        }
        out.put_u8(symbol as u8);
        window <<= bits;
        window_bits -= bits;
    }
    let padding_is_ones = window_bits == 0 || window >> (64 - window_bits) == (1 << window_bits) - 1;
    if window_bits < 8 && padding_is_ones { Ok(()) } else { Err(Error::Invalid) }
}

/// The symbol whose code starts the window, if all its bits are there.
fn first_symbol(window: u64, window_bits: usize) -> Option<(u16, usize)> {
    let (symbol, bits) = TABLES.lookup[(window >> (64 - LOOKUP_BITS)) as usize];
    if bits != 0 {
        return (usize::from(bits) <= window_bits).then_some((u16::from(symbol), usize::from(bits)));
    }
    for bits in LOOKUP_BITS + 1..=CODE_BITS_MAX.min(window_bits) {
        let level = &TABLES.levels[bits];
        let offset = ((window >> (64 - bits)) as u32).wrapping_sub(level.first_code);
        if offset < level.count {
            return Some((TABLES.sorted[level.first_symbol + offset as usize], bits));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qpack::tests::unhex;
    use proptest::prelude::*;

    fn encoded(plain: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode(plain, &mut out);
        assert_eq!(out.len(), encoded_bytes(plain));
        out.to_vec()
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = BytesMut::new();
        decode(coded, usize::MAX, &mut out).map(|()| out.to_vec())
    }

    /// Every Huffman-coded string of RFC 7541 appendices C.4 and C.6.
    #[test]
    fn rfc7541_c4_and_c6_strings() {
        for (plain, coded) in [
            ("www.example.com", "f1e3 c2e5 f23a 6ba0 ab90 f4ff"),
            ("no-cache", "a8eb 1064 9cbf"),
            ("custom-key", "25a8 49e9 5ba9 7d7f"),
            ("custom-value", "25a8 49e9 5bb8 e8b4 bf"),
            ("302", "6402"),
            ("307", "640e ff"),
            ("private", "aec3 771a 4b"),
            ("gzip", "9bd9 ab"),
            ("https://www.example.com", "9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff"),
            ("Mon, 21 Oct 2013 20:13:22 GMT", "d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff"),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 \
                 b106 3d50 07",
            ),
        ] {
            assert_eq!(encoded(plain.as_bytes()), unhex(coded), "{plain}");
            assert_eq!(decoded(&unhex(coded)).unwrap(), plain.as_bytes());
        }
    }

    /// Codes that appendix B lists, at the ends of the table: symbol, code, bits.
    #[test]
    fn rfc7541_appendix_b_corners() {
        for (symbol, code, bits) in [
            (b'0', 0x0, 5),
            (b't', 0x9, 5),
            (b' ', 0x14, 6),
            (0x00, 0x1ff8, 13),
            (0x09, 0x00ff_ffea, 24),
            (0x0a, 0x3fff_fffc, 30),
            (0x0d, 0x3fff_fffd, 30),
            (0x16, 0x3fff_fffe, 30),
            (0x01, 0x007f_ffd8, 23),
            (0x02, 0x0fff_ffe2, 28),
        ] {
            assert_eq!((TABLES.codes[symbol as usize], LENGTHS[symbol as usize]), (code, bits));
        }
        assert_eq!(TABLES.codes[usize::from(EOS)], 0x3fff_ffff);
    }

    /// RFC 7541 section 5.2: "A padding strictly longer than 7 bits MUST be treated as a decoding error."
    #[test]
    fn padding_longer_than_7_bits_is_an_error() {
        assert_eq!(decoded(&[0xff]), Err(Error::Invalid));
        assert_eq!(decoded(&[0x64, 0x02, 0xff]), Err(Error::Invalid));
        assert_eq!(decoded(&[0xff, 0xff, 0xff]), Err(Error::Invalid));
        assert_eq!(decoded(&[]), Ok(Vec::new()));
    }

    /// "A padding not corresponding to the most significant bits of the code for the EOS symbol MUST be treated as a
    /// decoding error": '0' is 00000, so 000 is wrong padding and 111 is right.
    #[test]
    fn padding_other_than_ones_is_an_error() {
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        for padding in 0..7 {
            assert_eq!(decoded(&[padding]), Err(Error::Invalid), "{padding:03b}");
        }
    }

    /// "A Huffman-encoded string literal containing the EOS symbol MUST be treated as a decoding error."
    #[test]
    fn the_eos_symbol_is_an_error() {
        assert_eq!(decoded(&[0xff; 4]), Err(Error::Invalid));
        // After two characters of 8 bits, so that it is not at the front.
        assert_eq!(decoded(&[0xf8, 0xf8, 0xff, 0xff, 0xff, 0xff]), Err(Error::Invalid));
    }

    #[test]
    fn the_plain_limit_holds_to_the_byte() {
        let coded = encoded(b"www.example.com");
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(decode(&coded, 14, &mut out), Err(Error::TooLong));
        assert_eq!(out.len(), 6 + 14);
        assert_eq!(decode(&coded, 15, &mut BytesMut::new()), Ok(()));
    }

    proptest! {
        #[test]
        fn any_string_comes_back(plain in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decoded(&encoded(&plain)).unwrap(), plain);
        }

        /// The code is a bijection up to padding: what decodes at all encodes to the same bytes.
        #[test]
        fn what_decodes_encodes_to_the_same(coded in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(plain) = decoded(&coded) {
                prop_assert_eq!(encoded(&plain), coded);
            }
        }
    }
}
