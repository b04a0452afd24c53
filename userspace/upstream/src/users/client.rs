//! What one client may do: the options behind a name in the users file.
//!
//! | option | may be repeated | means |
//! |---|---|---|
//! | `max-flows=N` | | flows at once, over all of the client's connections |
//! | `max-rate=RATE` | | bits a second of payload, each direction by itself, over all of the client's flows |
//! | `max-connections=N` | | QUIC connections at once; the newest are refused |
//! | `allow=RULE` | yes | narrows the gateway's `--allow`: both must match; and its `--ip-route`, by rules without names and ports |
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

    /// Where IP packets of this client may go; `None`: `allow=` doesn't narrow it. Rules with names or ports open nothing
    /// here, since a packet has no name, and not every packet a port.
    #[must_use]
    pub fn networks(&self) -> Option<Vec<Net>> {
        let networks = || self.allow.iter().filter_map(Rule::net_on_any_port).copied().collect();
        (!self.allow.is_empty()).then(networks)
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
mod tests;
