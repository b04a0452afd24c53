//! Field sections: the examples of RFC 9204 appendix B as far as they need no dynamic table, every way in which a
//! section can be wrong, and round trips.

use super::{
    DecodeError, Encoder, RawSection, decode,
    integer::{Cursor, write_integer},
};
use bytes::BytesMut;
use proptest::prelude::*;

/// Hexadecimal digits with any blanks between them.
pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter_map(|digit| char::from(digit).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

type Pair = (Vec<u8>, Vec<u8>);

fn pairs(section: &RawSection) -> Vec<Pair> {
    let part = |range: &std::ops::Range<usize>| section.text[range.clone()].to_vec();
    section.lines.iter().map(|line| (part(&line.name), part(&line.value))).collect()
}

fn decode_all(encoded: &[u8]) -> Result<Vec<Pair>, DecodeError> {
    decode(encoded, 1 << 20).map(|section| pairs(&section))
}

fn encode_all(lines: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut encoder = Encoder::new(&mut out);
    for (name, value, sensitive) in lines {
        encoder.line(name, value, *sensitive);
    }
    out.to_vec()
}

fn line(name: &str, value: &str) -> Pair {
    (name.into(), value.into())
}

#[test]
fn rfc9204_b1_literal_field_line_with_name_reference() {
    let encoded = unhex("0000 510b 2f69 6e64 6578 2e68 746d 6c");
    assert_eq!(decode_all(&encoded).unwrap(), [line(":path", "/index.html")]);
}

/// The sections of B.2 and B.4 refer to a dynamic table that we never allow.
#[test]
fn rfc9204_b2_and_b4_need_a_dynamic_table_and_are_refused() {
    for section in ["0381 10 11", "0500 80 c1 81"] {
        assert!(matches!(decode_all(&unhex(section)), Err(DecodeError::Invalid(_))), "{section}");
    }
    // The one line of B.4 that needs none.
    assert_eq!(decode_all(&unhex("0000 c1")).unwrap(), [line(":path", "/")]);
}

/// RFC 9204 section 4.5.1.1: "a value of EncodedInsertCount that could not have been produced by a conformant encoder"
/// and section 2.2: references that are wrong; each MUST be QPACK_DECOMPRESSION_FAILED.
#[test]
fn each_wrong_section_is_a_decompression_failure() {
    for (section, why) in [
        ("", "no prefix"),
        ("00", "half a prefix"),
        ("01 00", "Required Insert Count 1"),
        ("ff 00 00", "Required Insert Count 255"),
        ("00 80", "a Base of -1"),
        ("00 ff 00", "a negative Base"),
        ("0000 80", "indexed, dynamic"),
        ("0000 10", "indexed, post-base"),
        ("0000 00 00", "literal, post-base name"),
        ("0000 40 00", "literal, dynamic name"),
        ("0000 ff 24", "static index 99"),
        ("0000 5f 54 00", "static name index 99"),
        ("0000 ff", "an index cut short"),
        ("0000 51", "no value"),
        ("0000 51 0b 2f", "a value cut short"),
        ("0000 27 ff", "a name length cut short"),
        ("0000 21 61", "a name without a value"),
        ("0000 51 81 ff", "a Huffman value that is only padding"),
        ("0000 29 ff 00", "a Huffman name that is only padding"),
        ("0000 51 7f ff ff ff ff ff ff ff ff 7f", "a length above 62 bits"),
        ("0000 51 7f 80 80 80 80 80 80 80 80 80 00", "a length of ten continuation bytes"),
        ("00 7f ff ff ff ff ff ff ff ff 7f", "a Delta Base above 62 bits"),
    ] {
        assert!(matches!(decode_all(&unhex(section)), Err(DecodeError::Invalid(_))), "{why}: {section}");
    }
}

/// Section 4.5.1.2: a section without dynamic references "can use any value for the Base".
#[test]
fn any_base_that_is_not_negative_is_fine() {
    for prefix in ["00 05", "00 7f 00", "00 7f ff 01"] {
        assert_eq!(decode_all(&unhex(&format!("{prefix} c1"))).unwrap(), [line(":path", "/")]);
    }
    assert_eq!(decode_all(&unhex("0000")).unwrap(), []);
}

/// RFC 7541 C.1, and 62 bits as RFC 9204 section 4.1.1 asks for.
#[test]
fn integers_of_rfc7541_c1_and_of_62_bits() {
    for (value, prefix_bits, bytes) in [
        (10, 5, "0a"),
        (1337, 5, "1f9a0a"),
        (42, 8, "2a"),
        (30, 5, "1e"),
        (31, 5, "1f00"),
        ((1 << 62) - 1, 3, "07 f8ffffffffffffff3f"),
    ] {
        let mut out = BytesMut::new();
        write_integer(&mut out, 0, prefix_bits, value);
        assert_eq!(out.to_vec(), unhex(bytes), "{value}");
        assert_eq!(Cursor::new(&out).integer(prefix_bits), Ok(value));
    }
}

#[test]
fn the_encoder_takes_the_shortest_form() {
    assert_eq!(encode_all(&[(":method", b"CONNECT", false)]), unhex("0000 cf"));
    assert_eq!(encode_all(&[(":status", b"200", false)]), unhex("0000 d9"));
    // A name at index 63 or above needs two bytes of index.
    assert_eq!(encode_all(&[(":status", b"425", false)]), unhex("0000 ff07"));
    // Huffman for the value, as it is shorter; B.1's plain form is 13 bytes.
    assert_eq!(encode_all(&[(":path", b"/index.html", false)]).len(), 2 + 1 + 1 + 8);
    // Plain, as Huffman would be longer.
    assert_eq!(encode_all(&[(":path", b"\x01\x02", false)]), unhex("0000 51 02 0102"));
    // A name that nobody knows, short enough for its length to stand in the first byte: x-a is 18 bits, so no gain.
    assert_eq!(encode_all(&[("x-a", b"", false)]), unhex("0000 23 782d61 00"));
}

/// RFC 9204 section 7.1.3: the never-indexed bit, on a name reference and on a literal name.
#[test]
fn sensitive_lines_have_the_n_bit() {
    assert_eq!(encode_all(&[("authorization", b"\x01", true)]), unhex("0000 7f 45 01 01"));
    assert_eq!(encode_all(&[("proxy-authorization", b"\x01", true)])[2] & 0xf8, 0x38);
    assert_eq!(decode_all(&unhex("0000 7f 45 01 01")).unwrap(), [line("authorization", "\x01")]);
}

/// RFC 9114 section 4.2.2: "the length of the name and value in bytes plus an overhead of 32 bytes for each field".
#[test]
fn the_size_limit_holds_to_the_byte() {
    let name_value_bytes = ":path".len() + "/index.html".len();
    let encoded = encode_all(&[(":path", b"/index.html", false), (":path", b"/", false)]);
    let exact = name_value_bytes + 32 + ":path/".len() + 32;
    assert!(decode(&encoded, exact).is_ok());
    for limit in 0..exact {
        assert_eq!(decode(&encoded, limit), Err(DecodeError::TooLarge), "{limit}");
    }
    // 31 bytes that decode to 28 lines of 42 bytes each: the overhead is what stops such a section.
    let dense = [vec![0, 0], vec![0xd1; 28]].concat();
    assert_eq!(decode(&dense, 28 * 42 - 1), Err(DecodeError::TooLarge));
    assert_eq!(decode(&dense, 28 * 42).unwrap().lines.len(), 28);
}

proptest! {
    #[test]
    fn any_lines_come_back(
        lines in proptest::collection::vec(("[a-z:-]{0,20}", proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..20)
    ) {
        let borrowed: Vec<_> = lines.iter().map(|(n, v, s)| (n.as_str(), v.as_slice(), *s)).collect();
        let expected: Vec<_> = lines.iter().map(|(n, v, _)| (n.clone().into_bytes(), v.clone())).collect();
        prop_assert_eq!(decode_all(&encode_all(&borrowed)).unwrap(), expected);
    }

    #[test]
    fn integers_come_back(raw in any::<u64>(), shift in 2u32..64, prefix_bits in 3u32..=8) {
        let value = raw >> shift;
        let mut out = BytesMut::new();
        write_integer(&mut out, 0, prefix_bits, value);
        prop_assert_eq!(Cursor::new(&out).integer(prefix_bits), Ok(value));
    }

    /// Whatever decodes stays within the limit that was set.
    #[test]
    fn no_section_exceeds_its_limit(bytes in proptest::collection::vec(any::<u8>(), 0..200), limit in 0usize..2000) {
        let encoded = [vec![0, 0], bytes].concat();
        if let Ok(section) = decode(&encoded, limit) {
            prop_assert!(section.text.len() + section.lines.len() * 32 <= limit);
        }
    }
}
