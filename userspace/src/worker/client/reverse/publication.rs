//! What one `-R` asks for: from the flag to the target that the gateway understands.

use crate::cli::{Destination, Forward, Protocol};
use masque::listen::{Bind, ListenTarget, Transport};
use std::net::IpAddr;

/// One `-R`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(super) target: ListenTarget,
    pub(super) to: Destination,
}

impl Publication {
    /// The address is the gateway's: this side can't resolve its name.
    pub(crate) fn new(forward: &Forward) -> Result<Self, String> {
        let bind = match forward.listen.host.as_deref() {
            None | Some("localhost") => Bind::Loopback,
            Some(host) => match host.parse::<IpAddr>() {
                Ok(ip) if ip.is_unspecified() => Bind::Any,
                Ok(ip) => Bind::Address(ip),
                Err(_) => {
                    return Err(format!(
                        "`{host}` is to be an address of the gateway: give an IP address, `localhost` or `*`"
                    ));
                }
            },
        };
        let transport = match forward.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
        };
        let target = ListenTarget { transport, bind, port: forward.listen.port };
        Ok(Self { target, to: forward.to.clone() })
    }

    /// Such as `-R tcp localhost:8080`.
    pub(super) fn words(&self) -> String {
        let ListenTarget { transport, bind, port } = self.target;
        format!("-R {transport} {bind}:{port}")
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what `-R` says of the gateway's address.
    use super::*;

    #[test]
    fn addresses_of_the_gateway() {
        let of = |text: &str| Publication::new(&text.parse().unwrap()).map(|publication| publication.words());
        assert_eq!(of("8080:h:80").as_deref(), Ok("-R tcp localhost:8080"));
        assert_eq!(of("localhost:8080:h:80/udp").as_deref(), Ok("-R udp localhost:8080"));
        assert_eq!(of("*:0:h:80").as_deref(), Ok("-R tcp *:0"));
        assert_eq!(of("[2001:db8::1]:8080:h:80").as_deref(), Ok("-R tcp 2001:db8::1:8080"));
        assert!(of("gw.example:8080:h:80").is_err());
    }
}
