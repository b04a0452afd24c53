//! The head of an HTTP/1 request, as far as it matters here: the method, the path, where it ends. Bodies are none of ours.

/// Bytes of a head at most; a scraper's has some 300.
pub(super) const HEAD_BYTES_MAX: usize = 8192;

/// What there is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Metrics,
    Healthy,
    Ready,
}

/// What the bytes so far come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The head isn't whole.
    More,
    /// Whole; `head_only` asks for the answer without its body.
    Request { page: Page, head_only: bool },
    /// To be answered with this status.
    Refused(u16),
}

/// Reads what has come of a request.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some(line_end) = bytes.iter().take(HEAD_BYTES_MAX).position(|&byte| byte == b'\n') else {
        return if bytes.len() >= HEAD_BYTES_MAX { Parsed::Refused(414) } else { Parsed::More };
    };
    if !is_whole(bytes) {
        return if bytes.len() >= HEAD_BYTES_MAX { Parsed::Refused(431) } else { Parsed::More };
    }
    let line = bytes[..line_end].strip_suffix(b"\r").unwrap_or(&bytes[..line_end]);
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Parsed::Refused(400);
    };
    if method.is_empty() || !method.iter().all(u8::is_ascii_alphabetic) || !version.starts_with(b"HTTP/") {
        return Parsed::Refused(400);
    }
    if !matches!(version, b"HTTP/1.0" | b"HTTP/1.1") {
        return Parsed::Refused(505);
    }
    let head_only = match method {
        b"GET" => false,
        b"HEAD" => true,
        _ => return Parsed::Refused(405),
    };
    match page(target) {
        Some(page) => Parsed::Request { page, head_only },
        None => Parsed::Refused(404),
    }
}

/// The empty line has come. Bare line feeds do, too (RFC 9112 section 2.2).
fn is_whole(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// Of a path, or of a whole URL, whoever it names (RFC 9112 section 3.2); a query changes nothing.
fn page(target: &[u8]) -> Option<Page> {
    let path = match target.strip_prefix(b"http://") {
        Some(rest) => rest.iter().position(|&byte| byte == b'/').map_or(&b"/"[..], |slash| &rest[slash..]),
        None => target,
    };
    match path.split(|&byte| byte == b'?').next()? {
        b"/metrics" => Some(Page::Metrics),
        b"/healthz" => Some(Page::Healthy),
        b"/readyz" => Some(Page::Ready),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each request comes to what it should, byte by byte as it comes; nothing that a stranger sends panics or is
    //! taken for more than it is. Method: a table; then every prefix, and seeded damage of good requests (printed).
    use super::*;
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    const GET: Parsed = Parsed::Request { page: Page::Metrics, head_only: false };

    #[test]
    fn requests_come_to_what_they_should() {
        let cases: [(&[u8], Parsed); 18] = [
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", GET),
            (b"GET /metrics?name[]=x HTTP/1.1\r\n\r\n", GET),
            (b"GET /metrics HTTP/1.0\n\n", GET),
            (b"GET http://gw:9090/metrics HTTP/1.1\r\n\r\n", GET),
            (b"GET /healthz HTTP/1.1\r\n\r\nbody", Parsed::Request { page: Page::Healthy, head_only: false }),
            (b"HEAD /readyz HTTP/1.1\r\n\r\n", Parsed::Request { page: Page::Ready, head_only: true }),
            (b"GET / HTTP/1.1\r\n\r\n", Parsed::Refused(404)),
            (b"GET http://gw:9090 HTTP/1.1\r\n\r\n", Parsed::Refused(404)),
            (b"GET /metrics/ HTTP/1.1\r\n\r\n", Parsed::Refused(404)),
            (b"GET /metrics/../metrics HTTP/1.1\r\n\r\n", Parsed::Refused(404)),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", Parsed::Refused(405)),
            (b"get /metrics HTTP/1.1\r\n\r\n", Parsed::Refused(405)),
            (b"GET /metrics HTTP/2.0\r\n\r\n", Parsed::Refused(505)),
            (b"GET /metrics\r\n\r\n", Parsed::Refused(400)),
            (b"GET  /metrics HTTP/1.1\r\n\r\n", Parsed::Refused(400)),
            (b"\r\n\r\n", Parsed::Refused(400)),
            (b"\x16\x03\x01\x02\0\x01\0\n\n", Parsed::Refused(400)),
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n", Parsed::More),
        ];
        for (bytes, wanted) in cases {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(parse(bytes), wanted, "{text:?}");
        }
        assert_eq!(parse(&[b'a'; HEAD_BYTES_MAX]), Parsed::Refused(414));
        assert_eq!(parse(&[b'a'; HEAD_BYTES_MAX - 1]), Parsed::More);
        let endless = [&b"GET /metrics HTTP/1.1\r\n"[..], &[b'a'; HEAD_BYTES_MAX]].concat();
        assert_eq!(parse(&endless), Parsed::Refused(431));
    }

    #[test]
    fn no_prefix_and_no_damage_is_taken_for_a_request() {
        const SEED: u64 = 0x6e1;
        println!("seed {SEED}");
        let good = b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nAccept: */*\r\n\r\n";
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), Parsed::More, "{length} bytes");
        }
        let mut rng = StdRng::seed_from_u64(SEED);
        for _ in 0..100_000 {
            let mut bytes = good.to_vec();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes[at] = rng.random(),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, rng.random()),
                }
            }
            if parse(&bytes) == GET {
                assert!(bytes.starts_with(b"GET ") && bytes.windows(8).any(|eight| eight == b"/metrics"));
            }
        }
    }
}
