//! What the gateway may connect to.
//!
//! Denied unless an `--allow` rule speaks of it; `--deny` beats `--allow`; and the special-purpose ranges (the host
//! itself, private networks, cloud metadata ...) stay shut unless an allow rule names a range *inside* one:
//! `--allow 10.1.0.0/16` opens that network, `--allow 0.0.0.0/0` or `--allow '*'` opens none of them.
//!
//! An IPv6 address that carries an IPv4 address (v4-mapped, NAT64, 6to4, v4-compatible) is judged as that IPv4 address;
//! a deny rule may name either.
//!
//! A name is checked twice: before resolution, so that a refused client cannot use the gateway to ask the DNS, and
//! with each address it resolved to, so that a name cannot point inside.

mod net;
mod rule;
mod special;

use std::net::{IpAddr, SocketAddr};

pub use net::Net;
pub(crate) use rule::{Ports, parse_net};
pub use rule::{Rule, RuleError};
pub use special::Special;

use crate::host::{Host, Name};

/// Rules in one policy, allow and deny together. A check looks at each once or twice.
pub const RULES_MAX: usize = 4096;

/// The rules. Read-only once parsed; the default allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

/// Why the flags make no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A value that is no rule.
    #[error(
        "{flag} {value:?}: {reason}.\n  accepted: CIDR[:PORTS] such as 198.51.100.0/24:443 or [2001:db8::/32]:80,443, \
         or NAME[:PORTS] such as example.com:443, *.example.com:8000-8999 or * (any name)"
    )]
    Rule {
        /// `--allow` or `--deny`.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: RuleError,
    },
    /// More rules than [`RULES_MAX`].
    #[error("{seen} --allow and --deny rules are too many: at most {RULES_MAX}; join neighbouring networks")]
    TooMany {
        /// How many there were.
        seen: usize,
    },
}

/// Why a destination is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A `--deny` rule names the host.
    DenyName,
    /// A `--deny` rule names the address.
    DenyAddress,
    /// No `--allow` rule speaks of it.
    NotAllowed,
    /// The gateway allows it, but the client's own `allow=` doesn't.
    NotForClient,
    /// An allow rule speaks of it, but it lies in a special-purpose range that none names.
    SpecialPurpose(Special),
    /// The host is neither a name nor an address.
    InvalidHost,
    /// Port 0 is no destination.
    PortZero,
}

/// A refusal. Its text is fit for the `details` of Proxy-Status: printable ASCII, no quotes, no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", text(.reason))]
pub struct Denied {
    /// Why.
    pub reason: Reason,
}

fn text(reason: &Reason) -> String {
    match reason {
        Reason::DenyName => "the host name is denied by policy".into(),
        Reason::DenyAddress => "the address is denied by policy".into(),
        Reason::NotAllowed => "the destination is not allowed by policy".into(),
        Reason::NotForClient => "the destination is not allowed for this client".into(),
        Reason::SpecialPurpose(special) => format!("the address is in a special-purpose range: {special}"),
        Reason::InvalidHost => "the host is neither a valid name nor an IP address".into(),
        Reason::PortZero => "port 0 is not a destination".into(),
    }
}

fn refuse(reason: Reason) -> Result<(), Denied> {
    Err(Denied { reason })
}

impl Policy {
    /// Builds a policy from the values of `--allow` and `--deny`.
    ///
    /// # Errors
    /// [`PolicyError`]: which flag, the value seen, the forms accepted.
    pub fn parse(allow: &[String], deny: &[String]) -> Result<Self, PolicyError> {
        let seen = allow.len().saturating_add(deny.len());
        if seen > RULES_MAX {
            return Err(PolicyError::TooMany { seen });
        }
        Ok(Self { allow: parse_rules("--allow", allow)?, deny: parse_rules("--deny", deny)? })
    }

    /// The allow rules and the deny rules, for `beam show config`.
    #[must_use]
    pub fn rules(&self) -> (&[Rule], &[Rule]) {
        (&self.allow, &self.deny)
    }

    /// True if no destination can ever be allowed.
    #[must_use]
    pub fn allows_nothing(&self) -> bool {
        self.allow.is_empty()
    }

    /// May the gateway connect to `addr`, which is what `host` resolved to? `host` is the text the client asked for;
    /// `None`, or an IP literal, where it asked for the address itself.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(&self, host: Option<&str>, addr: SocketAddr) -> Result<(), Denied> {
        if addr.port() == 0 {
            return refuse(Reason::PortZero);
        }
        let name = match host.map(Host::parse) {
            None | Some(Ok(Host::Ip(_))) => None,
            Some(Ok(Host::Name(name))) => Some(name),
            Some(Err(_)) => return refuse(Reason::InvalidHost),
        };
        self.check_parsed(name.as_ref(), addr.ip().to_canonical(), addr.port())
    }

    fn check_parsed(&self, name: Option<&Name>, asked: IpAddr, port: u16) -> Result<(), Denied> {
        if name.is_some_and(|name| self.deny.iter().any(|rule| rule.matches_name(name, port))) {
            return refuse(Reason::DenyName);
        }
        let ip = judged_as(asked);
        if self.deny.iter().any(|rule| rule.matches_ip(asked, port) || rule.matches_ip(ip, port)) {
            return refuse(Reason::DenyAddress);
        }
        let by_name = || name.is_some_and(|name| self.allow.iter().any(|rule| rule.matches_name(name, port)));
        let by_address = || self.allow.iter().any(|rule| rule.matches_ip(ip, port));
        if !by_address() && !by_name() {
            return refuse(Reason::NotAllowed);
        }
        match special::range_of(ip) {
            Some((range, special)) if !self.opens(&range, ip, port) => {
                refuse(Reason::SpecialPurpose(special))
            }
            _ => Ok(()),
        }
    }

    /// Does an allow rule for `ip` lie inside `range`?
    fn opens(&self, range: &Net, ip: IpAddr, port: u16) -> bool {
        let inside = |rule: &Rule| rule.net().is_some_and(|net| net.is_inside(range));
        self.allow.iter().any(|rule| inside(rule) && rule.matches_ip(ip, port))
    }

    /// Could `host` be allowed, whatever it resolves to? Asked before resolving, so that a refusal costs no lookup and
    /// tells nothing about the DNS. An IP literal gets its final verdict here.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check_name_possible(&self, host: &str, port: u16) -> Result<(), Denied> {
        if port == 0 {
            return refuse(Reason::PortZero);
        }
        let name = match Host::parse(host) {
            Ok(Host::Ip(ip)) => return self.check_parsed(None, ip, port),
            Ok(Host::Name(name)) => name,
            Err(_) => return refuse(Reason::InvalidHost),
        };
        if self.deny.iter().any(|rule| rule.matches_name(&name, port)) {
            return refuse(Reason::DenyName);
        }
        let could = |rule: &Rule| rule.matches_name(&name, port) || rule.is_net_with_port(port);
        if self.allow.iter().any(could) { Ok(()) } else { refuse(Reason::NotAllowed) }
    }
}

/// The address that a destination is judged as: see the module.
pub(crate) fn judged_as(asked: IpAddr) -> IpAddr {
    let asked = asked.to_canonical();
    net::embedded_v4(asked).map_or(asked, IpAddr::V4)
}

fn parse_rules(flag: &'static str, values: &[String]) -> Result<Vec<Rule>, PolicyError> {
    let parse = |value: &String| {
        value.parse().map_err(|reason| PolicyError::Rule { flag, value: value.clone(), reason })
    };
    values.iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
