//! Host names and IP literals as clients write them: parsed once, here, into something that cannot be wrong.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// Longest host name in text form (RFC 1035 section 2.3.4, less the length octets and the root).
pub const NAME_LEN_MAX: usize = 253;
/// Longest label (RFC 1035 section 2.3.4).
const LABEL_LEN_MAX: usize = 63;

/// A destination's host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP literal; IPv6 with or without brackets, v4-mapped already turned into IPv4.
    Ip(IpAddr),
    /// A name.
    Name(Name),
}

/// A host name in lower case without the root's dot.
///
/// Invariant: 1 to 253 bytes; labels of 1 to 63 letters, digits, `-` and `_`, no `-` at either end; the last label
/// does not look like a number (the system resolver would take `127.1` or `0x7f000001` for an address).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

/// Why a text is neither a host name nor an IP literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// More than 253 bytes.
    #[error("the host name is longer than {NAME_LEN_MAX} bytes")]
    TooLong,
    /// An empty label, one of more than 63 bytes, or one that begins or ends with `-`.
    #[error(
        "a label of the host name is empty, longer than {LABEL_LEN_MAX} bytes, or begins or ends with a hyphen"
    )]
    Label,
    /// Something else than letters, digits, `-`, `_` and dots. International names come in their `xn--` form.
    #[error("the host name has a character that is not a letter, digit, hyphen, underscore or dot")]
    Character,
    /// `127.1`, `0x7f.1`, `2130706433`: neither a name nor an address in its usual form.
    #[error("the host ends in a number but is not an IPv4 address")]
    EndsInNumber,
    /// Brackets or colons, but no IPv6 address inside (zone identifiers mean nothing here).
    #[error("the host looks like an IPv6 address but is none")]
    Ipv6,
}

impl Host {
    /// Parses what a client or an operator wrote.
    ///
    /// # Errors
    /// [`InvalidHost`].
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        if let Some(inner) = text.strip_prefix('[') {
            let ip: Option<Ipv6Addr> = inner.strip_suffix(']').and_then(|inner| inner.parse().ok());
            return ip.map(|ip| Self::ip(ip.into())).ok_or(InvalidHost::Ipv6);
        }
        if text.contains(':') {
            return text.parse::<Ipv6Addr>().map(|ip| Self::ip(ip.into())).map_err(|_| InvalidHost::Ipv6);
        }
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::ip(ip)),
            Err(_) => Name::parse(text).map(Self::Name),
        }
    }

    fn ip(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

impl Name {
    /// Parses and normalises a host name.
    ///
    /// # Errors
    /// [`InvalidHost`].
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        if text.is_empty() {
            return Err(InvalidHost::Empty);
        }
        // Checked before the root's dot goes, so that nothing of unbounded length is looked at.
        if text.len() > NAME_LEN_MAX + 1 {
            return Err(InvalidHost::TooLong);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > NAME_LEN_MAX {
            return Err(InvalidHost::TooLong);
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(InvalidHost::Character);
        }
        if !name.split('.').all(label_is_valid) {
            return Err(InvalidHost::Label);
        }
        if name.rsplit('.').next().is_some_and(is_numeric) {
            return Err(InvalidHost::EndsInNumber);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `parent` itself and everything below it.
    #[must_use]
    pub fn is_within(&self, parent: &str) -> bool {
        self.0 == parent || self.is_below(parent)
    }

    /// True for everything below `parent`, not for `parent` itself.
    #[must_use]
    pub fn is_below(&self, parent: &str) -> bool {
        self.0.strip_suffix(parent).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn label_is_valid(label: &str) -> bool {
    (1..=LABEL_LEN_MAX).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
}

/// Decimal, octal or hexadecimal, as inet_aton(3) reads them.
fn is_numeric(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no text reaches the resolver that it would read as something else than the policy did.
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> Host {
        Host::Ip(text.parse().unwrap())
    }

    #[test]
    fn literals_are_recognised() {
        assert_eq!(Host::parse("192.0.2.1"), Ok(ip("192.0.2.1")));
        assert_eq!(Host::parse("2001:db8::1"), Ok(ip("2001:db8::1")));
        assert_eq!(Host::parse("[2001:DB8::1]"), Ok(ip("2001:db8::1")));
        assert_eq!(Host::parse("[::ffff:10.0.0.1]"), Ok(ip("10.0.0.1")), "one address, one form");
    }

    #[test]
    fn what_inet_aton_would_read_as_an_address_is_no_name() {
        for text in
            ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4.5", "a.0x1F", "10.0.0.1.", "0x"]
        {
            assert_eq!(Host::parse(text), Err(InvalidHost::EndsInNumber), "{text}");
        }
        assert!(Host::parse("1.2.3.4.in-addr.arpa").is_ok());
        assert!(Host::parse("3com.com").is_ok());
    }

    #[test]
    fn names_are_normalised() {
        let Ok(Host::Name(name)) = Host::parse("WWW.Example.COM.") else { panic!("a name") };
        assert_eq!(name.as_str(), "www.example.com");
        assert!(name.is_below("example.com") && !name.is_below("www.example.com"));
        assert!(!name.is_below("ample.com") && name.is_within("www.example.com"));
        assert!(!Name::parse("example.com").unwrap().is_below("example.com"));
    }

    #[test]
    fn malformed_hosts_are_told_apart() {
        let long_label = format!("{}.example", "a".repeat(64));
        let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert_eq!(longest.len(), NAME_LEN_MAX);
        assert!(Host::parse(&longest).is_ok() && Host::parse(&format!("{longest}.")).is_ok());
        for (text, wanted) in [
            ("", InvalidHost::Empty),
            (".", InvalidHost::Label),
            ("a..b", InvalidHost::Label),
            (".a", InvalidHost::Label),
            ("a..", InvalidHost::Label),
            ("-a.b", InvalidHost::Label),
            ("a-.b", InvalidHost::Label),
            (long_label.as_str(), InvalidHost::Label),
            (format!("{longest}e").as_str(), InvalidHost::TooLong),
            ("a\0.example", InvalidHost::Character),
            ("a b", InvalidHost::Character),
            ("bücher.example", InvalidHost::Character),
            ("*.example.com", InvalidHost::Character),
            ("[::1", InvalidHost::Ipv6),
            ("[192.0.2.1]", InvalidHost::Ipv6),
            ("fe80::1%eth0", InvalidHost::Ipv6),
            ("example.com:443", InvalidHost::Ipv6),
        ] {
            assert_eq!(Host::parse(text), Err(wanted), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic_and_names_are_fixed_points(text in "\\PC{0,80}|[a-zA-Z0-9._:\\[\\]-]{0,80}") {
            if let Ok(Host::Name(name)) = Host::parse(&text) {
                prop_assert!(name.as_str().len() <= NAME_LEN_MAX);
                prop_assert!(name.as_str().parse::<IpAddr>().is_err());
                prop_assert_eq!(Host::parse(name.as_str()), Ok(Host::Name(name.clone())));
            }
        }

        #[test]
        fn every_address_survives_its_text(bits in any::<u128>()) {
            let ip = IpAddr::from(Ipv6Addr::from_bits(bits));
            prop_assert_eq!(Host::parse(&format!("[{ip}]")), Ok(Host::Ip(ip.to_canonical())));
        }
    }
}
