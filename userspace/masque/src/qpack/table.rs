//! The static table of RFC 9204 appendix A.

/// How many entries there are.
pub(crate) const ENTRY_COUNT: usize = 99;

/// Name and value of the entry at `index`.
pub(crate) fn entry(index: u64) -> Option<(&'static str, &'static str)> {
    ENTRIES.get(usize::try_from(index).ok()?).copied()
}

/// What the table has for a field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Name and value.
    Line(usize),
    /// The name alone; the lowest such index, which has the shortest form.
    Name(usize),
    /// Neither.
    Nothing,
}

/// Looks a line up. Heads have few lines, so 99 comparisons that mostly end at the length beat a hash table.
pub(crate) fn find(name: &str, value: &[u8]) -> Found {
    let mut found = Found::Nothing;
    for (index, (entry_name, entry_value)) in ENTRIES.iter().enumerate() {
        if *entry_name != name {
            continue;
        }
        if entry_value.as_bytes() == value {
            return Found::Line(index);
        }
        if found == Found::Nothing {
            found = Found::Name(index);
        }
    }
    found
}

#[rustfmt::skip]
const ENTRIES: [(&str, &str); ENTRY_COUNT] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table by its FNV-1a hash, taken when it was equal to appendix A, and to the table of ls-qpack entry by
    /// entry (`tests/aioquic.rs` repeats the latter where Python is there).
    #[test]
    fn the_table_is_that_of_rfc9204_appendix_a() {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let text = ENTRIES.iter().flat_map(|(name, value)| [*name, "\0", *value, "\n"]);
        for byte in text.flat_map(str::bytes) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        assert_eq!(hash, 0xab61_362f_a119_c56f, "{hash:#x}");
        assert_eq!(entry(0), Some((":authority", "")));
        assert_eq!(entry(15), Some((":method", "CONNECT")));
        assert_eq!(entry(62), Some(("x-xss-protection", "1; mode=block")));
        assert_eq!(entry(63), Some((":status", "100")));
        assert_eq!(entry(84), Some(("authorization", "")));
        assert_eq!(entry(98), Some(("x-frame-options", "sameorigin")));
        assert_eq!(entry(99), None);
        assert_eq!(entry(u64::MAX), None);
    }

    #[test]
    fn every_entry_is_found_and_names_by_their_lowest_index() {
        for (index, (name, value)) in ENTRIES.iter().enumerate() {
            assert_eq!(find(name, value.as_bytes()), Found::Line(index));
            let lowest = ENTRIES.iter().position(|entry| entry.0 == *name).unwrap();
            assert_eq!(find(name, b"\xff"), Found::Name(lowest));
        }
        assert_eq!(find("x-beam", b""), Found::Nothing);
    }
}
