//! What one client may do: the options behind a name in the users file.
//!
//! | option | may be repeated | means |
//! |---|---|---|
//! | `max-flows=N` | | flows at once, over all of the client's connections |
//! | `max-rate=RATE` | | bits a second of payload, each direction by itself, over all of the client's flows |
//! | `max-connections=N` | | QUIC connections at once; the newest are refused |
//! | `allow=RULE` | yes | narrows the gateway's `--allow`: both must match |
//! | `listen=[ADDR:]PORTS` | yes | ports that it may have opened on the gateway (`-R`): of loopback, of `ADDR`, or of `*` |
//! | `routes=CIDR` | yes | prefixes that it may announce by CONNECT-IP |
//! | `disabled` | | it may do nothing |

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use super::{Rate, RateError};
use crate::{
    host::{Host, Name},
    policy::{Denied, Net, Policy, Ports, Reason, Rule, RuleError, parse_net},
};

/// `allow`, `listen` and `routes` of one client, each.
pub const RULES_PER_CLIENT_MAX: usize = 64;

/// The limits and permissions of one client. The default limits nothing, narrows nothing, and permits neither listeners
/// nor routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientPolicy {
    /// Flows at once.
    pub flows_max: Option<NonZeroU32>,
    /// Payload of all flows, each direction by itself.
    pub rate_max: Option<Rate>,
    /// QUIC connections at once.
    pub connections_max: Option<NonZeroU32>,
    /// Refused altogether: how a client with a good certificate is kept out.
    pub disabled: bool,
    allow: Vec<Rule>,
    listen: Vec<Listening>,
    routes: Vec<Net>,
}

/// `[ADDR:]PORTS` of `listen=`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listening {
    on: On,
    ports: Ports,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Loopback,
    Any,
    Address(IpAddr),
}

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such option. What may be a token is not repeated.
    #[error(
        "unknown option {}; there are max-flows=, max-rate=, max-connections=, allow=, listen=, routes= and disabled",
        known_word(.0)
    )]
    Unknown(String),
    /// Twice, and may be there once.
    #[error("{0} is there twice")]
    Twice(&'static str),
    /// Too many of one kind.
    #[error("more than {RULES_PER_CLIENT_MAX} of {0}=")]
    TooMany(&'static str),
    /// Not a number of things.
    #[error("{option}={value}: wanted a number from 1 to 4294967295")]
    Count {
        /// Which option.
        option: &'static str,
        /// What was given.
        value: String,
    },
    /// Not a rate.
    #[error("max-rate: {0}")]
    Rate(RateError),
    /// A destination, listener or network that is none.
    #[error("{option}={value}: {reason}")]
    Rule {
        /// Which option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: RuleError,
    },
}

fn known_word(word: &str) -> String {
    let key = word.split('=').next().unwrap_or_default();
    let harmless = key.len() <= 20 && !key.starts_with("beam_");
    if harmless { format!("{key:?}") } else { "(not repeated: it may be a token)".into() }
}

impl ClientPolicy {
    /// Reads the options of one line, such as `max-flows=100`.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, OptionError> {
        let mut policy = Self::default();
        words.into_iter().try_for_each(|word| policy.take(word))?;
        Ok(policy)
    }

    fn take(&mut self, word: &str) -> Result<(), OptionError> {
        match word.split_once('=') {
            Some(("max-flows", value)) => count("max-flows", value, &mut self.flows_max),
            Some(("max-connections", value)) => count("max-connections", value, &mut self.connections_max),
            Some(("max-rate", value)) => {
                let rate = value.parse().map_err(OptionError::Rate)?;
                once("max-rate", self.rate_max.replace(rate).is_none())
            }
            Some(("allow", value)) => rule("allow", value, &mut self.allow, str::parse),
            Some(("listen", value)) => rule("listen", value, &mut self.listen, parse_listening),
            Some(("routes", value)) => rule("routes", value, &mut self.routes, parse_net),
            None if word == "disabled" => once("disabled", !std::mem::replace(&mut self.disabled, true)),
            _ => Err(OptionError::Unknown(word.into())),
        }
    }

    /// May the gateway connect to `addr` for this client? Both the gateway's policy and this one must say yes; see
    /// [`Policy::check`]. The special-purpose ranges are the gateway's to open.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(&self, gateway: &Policy, host: Option<&str>, addr: SocketAddr) -> Result<(), Denied> {
        gateway.check(host, addr)?;
        let name = match host.map(Host::parse) {
            Some(Ok(Host::Name(name))) => Some(name),
            _ => None,
        };
        self.narrow(name.as_ref(), addr.ip(), addr.port())
    }

    /// Could `host` be allowed, whatever it resolves to? See [`Policy::check_name_possible`].
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check_name_possible(&self, gateway: &Policy, host: &str, port: u16) -> Result<(), Denied> {
        gateway.check_name_possible(host, port)?;
        match Host::parse(host) {
            Ok(Host::Ip(ip)) => self.narrow(None, ip, port),
            Ok(Host::Name(name)) => {
                let could = |rule: &Rule| rule.matches_name(&name, port) || rule.is_net_with_port(port);
                self.verdict(self.allow.iter().any(could))
            }
            Err(_) => Err(Denied { reason: Reason::InvalidHost }),
        }
    }

    fn narrow(&self, name: Option<&Name>, asked: IpAddr, port: u16) -> Result<(), Denied> {
        let ip = crate::policy::judged_as(asked);
        let matches =
            |rule: &Rule| rule.matches_ip(ip, port) || name.is_some_and(|name| rule.matches_name(name, port));
        self.verdict(self.allow.iter().any(matches))
    }

    fn verdict(&self, matched: bool) -> Result<(), Denied> {
        if self.allow.is_empty() || matched { Ok(()) } else { Err(Denied { reason: Reason::NotForClient }) }
    }

    /// May this client have a listener on `addr` of the gateway? An unspecified address (`0.0.0.0`, `::`) takes `*` or
    /// itself; port 0, which is any free one, takes a permission for all ports.
    #[must_use]
    pub fn may_listen(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        self.listen.iter().any(|rule| {
            let on = match rule.on {
                On::Loopback => ip.is_loopback(),
                On::Any => true,
                On::Address(address) => address == ip,
            };
            on && if addr.port() == 0 { rule.ports.contain_all() } else { rule.ports.contain(addr.port()) }
        })
    }

    /// May this client announce that prefix as its own?
    #[must_use]
    pub fn may_announce(&self, prefix: &Net) -> bool {
        self.routes.iter().any(|route| prefix.is_inside(route))
    }

    /// The prefixes that this client may announce.
    #[must_use]
    pub fn routes(&self) -> &[Net] {
        &self.routes
    }
}

fn once(option: &'static str, first: bool) -> Result<(), OptionError> {
    if first { Ok(()) } else { Err(OptionError::Twice(option)) }
}

fn count(option: &'static str, value: &str, slot: &mut Option<NonZeroU32>) -> Result<(), OptionError> {
    // `+8` would parse as a number.
    let number = value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse().ok()).flatten();
    let number = number.ok_or_else(|| OptionError::Count { option, value: value.into() })?;
    once(option, slot.replace(number).is_none())
}

fn rule<T>(
    option: &'static str,
    value: &str,
    list: &mut Vec<T>,
    parse: fn(&str) -> Result<T, RuleError>,
) -> Result<(), OptionError> {
    if list.len() == RULES_PER_CLIENT_MAX {
        return Err(OptionError::TooMany(option));
    }
    list.push(parse(value).map_err(|reason| OptionError::Rule { option, value: value.into(), reason })?);
    Ok(())
}

fn parse_listening(text: &str) -> Result<Listening, RuleError> {
    let (on, ports) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, ports) = rest.split_once("]:").ok_or(RuleError::Bracket)?;
            (Some(address), ports)
        }
        None => text.rsplit_once(':').map_or((None, text), |(address, ports)| (Some(address), ports)),
    };
    let on = match on {
        None => On::Loopback,
        Some("*") => On::Any,
        Some(address) => {
            let parsed: Result<IpAddr, _> = address.parse();
            On::Address(parsed.map_err(|_| RuleError::Address(address.into()))?.to_canonical())
        }
    };
    Ok(Listening { on, ports: Ports::parse(ports)? })
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.on {
            On::Loopback => {}
            On::Any => f.write_str("*:")?,
            On::Address(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            On::Address(address) => write!(f, "{address}:")?,
        }
        write!(f, "{}", self.ports)
    }
}

/// The options as they stand in the users file; nothing for the default.
impl fmt::Display for ClientPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.flows_max.map(|n| format!("max-flows={n}")));
        words.extend(self.rate_max.map(|rate| format!("max-rate={rate}")));
        words.extend(self.connections_max.map(|n| format!("max-connections={n}")));
        words.extend(self.allow.iter().map(|rule| format!("allow={rule}")));
        words.extend(self.listen.iter().map(|rule| format!("listen={rule}")));
        words.extend(self.routes.iter().map(|net| format!("routes={net}")));
        words.extend(self.disabled.then(|| "disabled".to_owned()));
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every option means what the table says, everything else is refused by name, and what is printed reads back.
    use super::*;

    fn policy(text: &str) -> ClientPolicy {
        ClientPolicy::parse(text.split_whitespace()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn error(text: &str) -> String {
        ClientPolicy::parse(text.split_whitespace()).unwrap_err().to_string()
    }

    #[test]
    fn options_read_and_print() {
        for text in [
            "",
            "max-flows=1 max-rate=250M max-connections=4294967295",
            "allow=10.1.0.0/16:80,443 allow=[2001:db8::/32] allow=*.example.com:443",
            "listen=8080 listen=*:8000-8999,22 listen=198.18.0.1:1 listen=[2001:db8::1]:1-65535",
            "routes=10.2.0.0/16 routes=2001:db8:7::/48",
            "max-flows=3 disabled",
        ] {
            assert_eq!(policy(text).to_string(), text);
        }
        assert_eq!(policy("max-rate=1000k"), policy("max-rate=1M"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, wanted) in [
            ("max-flow=1", "unknown option \"max-flow\""),
            ("admin", "unknown option \"admin\""),
            ("beam_secret", "may be a token"),
            ("disabled=yes", "unknown option \"disabled\""),
            ("max-flows=0", "max-flows=0: wanted a number from 1"),
            ("max-flows=+1", "max-flows=+1"),
            ("max-flows=1 max-flows=2", "max-flows is there twice"),
            ("max-connections=4294967296", "max-connections=4294967296"),
            ("max-rate=fast", "max-rate: \"fast\" is no rate"),
            ("max-rate=1M max-rate=1M", "max-rate is there twice"),
            ("allow=10.0.0.1/8", "allow=10.0.0.1/8: it has bits set"),
            ("listen=", "listen=: \"\" is not a port"),
            ("listen=localhost:80", "\"localhost\" is not an IP address"),
            ("listen=[::1]80", "listen=[::1]80: after [ADDRESS"),
            ("routes=10.0.0.0/33", "prefix length \"33\""),
            ("routes=example.com", "\"example.com\" is not an IP address"),
            ("disabled disabled", "disabled is there twice"),
        ] {
            let said = error(text);
            assert!(said.contains(wanted), "{text}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
        let many = "routes=10.0.0.0/8 ".repeat(RULES_PER_CLIENT_MAX + 1);
        assert!(error(&many).contains("more than 64 of routes="));
    }

    fn check(gateway: &[&str], client: &str, host: Option<&str>, addr: &str) -> Result<(), Reason> {
        let allow: Vec<String> = gateway.iter().map(|&rule| rule.to_owned()).collect();
        let gateway = Policy::parse(&allow, &[]).unwrap();
        let addr: SocketAddr = addr.parse().unwrap();
        let client = policy(client);
        let verdict = client.check(&gateway, host, addr).map_err(|denied| denied.reason);
        // What the address may do, the name before it could.
        let literal = addr.ip().to_string();
        let asked = client.check_name_possible(&gateway, host.unwrap_or(&literal), addr.port());
        assert!(verdict.is_err() || asked.is_ok(), "{host:?} {addr}: {asked:?}");
        verdict
    }

    #[test]
    fn both_policies_must_match() {
        let open = ["0.0.0.0/0", "10.0.0.0/8"];
        assert_eq!(check(&open, "", None, "9.9.9.1:80"), Ok(()));
        assert_eq!(check(&open, "allow=9.9.9.0/24:80", None, "9.9.9.1:80"), Ok(()));
        assert_eq!(check(&open, "allow=9.9.9.0/24:80", None, "9.9.9.1:81"), Err(Reason::NotForClient));
        assert_eq!(check(&open, "allow=9.9.9.0/24", None, "10.1.1.1:80"), Err(Reason::NotForClient));
        // The gateway opened 10.0.0.0/8; a wide rule of the client's narrows nothing.
        assert_eq!(check(&open, "allow=0.0.0.0/0", None, "10.1.1.1:80"), Ok(()));
        // And a client's rule opens nothing.
        assert_eq!(check(&["9.9.9.0/24"], "allow=10.0.0.0/8", None, "10.1.1.1:80"), Err(Reason::NotAllowed));
        let by_name = "allow=*.example.com:443";
        assert_eq!(check(&open, by_name, Some("db.example.com"), "9.9.9.1:443"), Ok(()));
        assert_eq!(check(&open, by_name, Some("db.example.org"), "9.9.9.1:443"), Err(Reason::NotForClient));
        assert_eq!(check(&open, by_name, None, "9.9.9.1:443"), Err(Reason::NotForClient));
        // NAT64: judged as the IPv4 address inside.
        let nat64 = "[64:ff9b::909:901]:80";
        assert_eq!(check(&open, "allow=9.9.9.0/24", None, nat64), Ok(()));
        assert_eq!(check(&open, "allow=9.9.8.0/24", None, nat64), Err(Reason::NotForClient));
    }

    #[test]
    fn a_name_that_cannot_be_allowed_is_not_looked_up() {
        let gateway = Policy::parse(&["*".into(), "0.0.0.0/0".into()], &[]).unwrap();
        let asked =
            |client: &str, host: &str| policy(client).check_name_possible(&gateway, host, 443).is_ok();
        assert!(asked("", "example.org"));
        assert!(asked("allow=example.org", "example.org"));
        assert!(!asked("allow=example.com", "example.org"));
        assert!(!asked("allow=example.org:80", "example.org"));
        assert!(asked("allow=198.51.100.0/24", "example.org"), "it may resolve into the network");
        assert!(!asked("allow=198.51.100.0/24", "198.51.101.1"));
    }

    #[test]
    fn listeners() {
        let may = |rules: &str, addr: &str| policy(rules).may_listen(addr.parse().unwrap());
        for (rules, addr, wanted) in [
            ("", "127.0.0.1:8080", false),
            ("listen=8080", "127.0.0.1:8080", true),
            ("listen=8080", "[::1]:8080", true),
            ("listen=8080", "127.0.0.1:8081", false),
            ("listen=8080", "198.18.0.1:8080", false),
            ("listen=8080", "0.0.0.0:8080", false),
            ("listen=*:8080", "0.0.0.0:8080", true),
            ("listen=*:8080", "198.18.0.1:8080", true),
            ("listen=198.18.0.1:8080", "198.18.0.1:8080", true),
            ("listen=198.18.0.1:8080", "[::ffff:198.18.0.1]:8080", true),
            ("listen=198.18.0.1:8080", "0.0.0.0:8080", false),
            ("listen=[::]:8080", "[::]:8080", true),
            ("listen=8080", "127.0.0.1:0", false),
            ("listen=1-65535", "127.0.0.1:0", true),
            ("listen=22 listen=8000-8999", "127.0.0.1:8500", true),
        ] {
            assert_eq!(may(rules, addr), wanted, "{rules:?} {addr}");
        }
    }

    #[test]
    fn announced_prefixes() {
        let may = |rules: &str, prefix: &str| policy(rules).may_announce(&parse_net(prefix).unwrap());
        assert!(!may("", "10.1.0.0/16"));
        assert!(may("routes=10.0.0.0/8", "10.1.0.0/16"));
        assert!(may("routes=10.1.0.0/16", "10.1.0.0/16"));
        assert!(!may("routes=10.1.0.0/16", "10.0.0.0/8"));
        assert!(may("routes=10.1.0.0/16 routes=2001:db8::/32", "2001:db8:7::/48"));
    }
}
