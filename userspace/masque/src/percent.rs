//! Percent-encoding of one path segment (RFC 3986 section 2.1).

use std::fmt::Write;

/// Encodes all but unreserved characters, as the expansion of `{var}` does (RFC 6570 section 3.2.2).
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(out, "%{byte:02X}").ok();
        }
    }
    out
}

/// Decodes once; `None` for a `%` without two hexadecimal digits, or for what is not UTF-8 then.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (&[high, low], after) = rest.split_first_chunk::<2>()?;
        out.push(digit(high)? << 4 | digit(low)?);
        rest = after;
    }
    String::from_utf8(out).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_percent_encoding() {
        for text in ["%", "%4", "a%4", "%zz", "%+1", "%4z", "%ff", "%C3"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("%2541").as_deref(), Some("%41"), "once, not twice");
        assert_eq!(decode("2001%3adb8%3A%3A1").as_deref(), Some("2001:db8::1"));
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_is_one_segment(text in any::<String>()) {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
            prop_assert_eq!(decode(&encoded), Some(text));
        }
    }
}
