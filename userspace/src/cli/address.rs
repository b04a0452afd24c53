//! Addresses, forwards and URLs, as a user writes them.

use std::{net::SocketAddr, str::FromStr};

/// `host:port`, `[v6]:port`, `:port`, `*:port` or a bare port; no host means "not said".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
}

impl Endpoint {
    /// Resolves the host; `unsaid` stands in for a missing one.
    pub(crate) fn resolve(&self, unsaid: std::net::IpAddr) -> anyhow::Result<SocketAddr> {
        use std::net::ToSocketAddrs;
        let Some(host) = &self.host else { return Ok(SocketAddr::new(unsaid, self.port)) };
        (host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|e| {
                anyhow::anyhow!("address `{host}:{}` does not resolve: {e}; a name that does is needed, or give an IP address; see: \
                     getent hosts {host}", self.port)
            })?
            .next()
            .ok_or_else(|| anyhow::anyhow!("address `{host}` resolves to nothing; give an IP address"))
    }
}

impl FromStr for Endpoint {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (unbracket(host), port),
            None => ("", text),
        };
        let port = parse_port(port)?;
        let host = (!host.is_empty() && host != "*").then(|| host.to_owned());
        Ok(Self { host, port })
    }
}

/// `host:port` of a destination beyond the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Destination {
    /// As `:authority` wants it: IPv6 addresses in brackets.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Destination {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("`{text}` is not HOST:PORT"))?;
        let host = unbracket(host);
        if host.is_empty() {
            return Err(format!("`{text}` names no host; the form is HOST:PORT"));
        }
        Ok(Self { host: host.to_owned(), port: parse_port(port)? })
    }
}

/// What a forwarded port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// `-L [bind:]port:host:hostport[/udp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) protocol: Protocol,
    pub(crate) listen: Endpoint,
    pub(crate) to: Destination,
}

impl FromStr for Forward {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "the form is [BIND:]PORT:HOST:HOSTPORT[/udp], IPv6 addresses in brackets";
        let (body, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((body, "tcp")) => (body, Protocol::Tcp),
            Some((body, "udp")) => (body, Protocol::Udp),
            Some((_, other)) => return Err(format!("protocol `{other}` of `{text}`: use tcp or udp")),
        };
        let parts = split_outside_brackets(body);
        let (bind, port, host, hostport) = match parts.as_slice() {
            [port, host, hostport] => (None, port, host, hostport),
            [bind, port, host, hostport] => (Some(*bind), port, host, hostport),
            _ => return Err(format!("`{text}`: {FORM}")),
        };
        let bind = bind.map(unbracket).filter(|bind| !bind.is_empty()).map(|bind| match bind {
            "*" => "0.0.0.0".to_owned(),
            other => other.to_owned(),
        });
        let host = unbracket(host);
        if host.is_empty() {
            return Err(format!("`{text}` names no host; {FORM}"));
        }
        Ok(Self {
            protocol,
            listen: Endpoint { host: bind, port: parse_port(port)? },
            to: Destination { host: host.to_owned(), port: parse_port(hostport)? },
        })
    }
}

/// `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for GatewayUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "the form is https://HOST[:PORT]";
        let rest = text.strip_prefix("https://").ok_or_else(|| format!("`{text}`: {FORM}"))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if !rest[authority.len()..].trim_start_matches('/').is_empty() {
            return Err(format!("`{text}` has a path; {FORM}"));
        }
        let has_port = authority.rfind(':').is_some_and(|colon| !authority[colon..].contains(']'));
        let destination = if has_port { authority.to_owned() } else { format!("{authority}:443") };
        let Destination { host, port } = destination.parse().map_err(|e| format!("{e}; {FORM}"))?;
        Ok(Self { host, port })
    }
}

/// A host that a way is looked for to: an address, a name, either with a port, or a gateway's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Peer {
    /// Its first address.
    pub(crate) fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let endpoint = Endpoint { host: Some(self.host.clone()), port: self.port };
        endpoint.resolve(std::net::Ipv4Addr::UNSPECIFIED.into())
    }
}

impl FromStr for Peer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const PORT: u16 = 443;
        if text.contains("://") {
            let GatewayUrl { host, port } = text.parse()?;
            return Ok(Self { host, port });
        }
        let bare = unbracket(text);
        let is_v6 = bare.parse::<std::net::Ipv6Addr>().is_ok();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !is_v6 => (unbracket(host), parse_port(port)?),
            _ => (bare, PORT),
        };
        if host.is_empty() {
            return Err(format!("`{text}` names no host; the form is ADDRESS, ADDRESS:PORT or https://HOST"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse::<u16>().map_err(|_| format!("`{text}` is not a port (0 to 65535)"))
}

fn unbracket(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ':' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    //! Goal: the forms that the contract names parse to what they say, and others are refused with a reason.
    use super::*;

    #[test]
    fn endpoints() {
        let e = |s: &str| s.parse::<Endpoint>().map(|e| (e.host, e.port));
        assert_eq!(e(":443"), Ok((None, 443)));
        assert_eq!(e("*:443"), Ok((None, 443)));
        assert_eq!(e("1080"), Ok((None, 1080)));
        assert_eq!(e("[::1]:443"), Ok((Some("::1".into()), 443)));
        assert_eq!(e("198.18.0.1:8443"), Ok((Some("198.18.0.1".into()), 8443)));
        assert!(e("host:99999").is_err());
    }

    #[test]
    fn forwards() {
        let f = |s: &str| s.parse::<Forward>();
        let plain = f("8080:web.example:80").unwrap();
        assert_eq!((plain.listen.host, plain.listen.port), (None, 8080));
        assert_eq!(plain.to.authority(), "web.example:80");
        let six = f("[::1]:8080:[2001:db8::5]:443").unwrap();
        assert_eq!(six.listen.host.as_deref(), Some("::1"));
        assert_eq!(six.to.authority(), "[2001:db8::5]:443");
        assert_eq!(f("*:1:h:2").unwrap().listen.host.as_deref(), Some("0.0.0.0"));
        assert_eq!(f("5353:[2001:db8::5]:53/udp").map(|f| (f.protocol, f.to.port)), Ok((Protocol::Udp, 53)));
        assert_eq!(f("1:h:2/tcp").map(|f| f.protocol), Ok(plain.protocol));
        assert!(f("1:h:2/sctp").is_err());
        assert!(f("8080:web.example").is_err());
        assert!(f("8080::80").is_err());
    }

    #[test]
    fn urls() {
        let u = |s: &str| s.parse::<GatewayUrl>().map(|u| (u.host, u.port));
        assert_eq!(u("https://gw.example"), Ok(("gw.example".into(), 443)));
        assert_eq!(u("https://gw.example:8443/"), Ok(("gw.example".into(), 8443)));
        assert_eq!(u("https://[2001:db8::1]"), Ok(("2001:db8::1".into(), 443)));
        assert!(u("http://gw.example").is_err());
        assert!(u("https://gw.example/path").is_err());
        assert!(u("https://").is_err());
    }
}
