//! What a client is told when its destination could not be reached: one status, one Proxy-Status (RFC 9209).

use std::io;

use rustix::io::Errno;

use crate::{
    policy::{Denied, Reason},
    resolver::ResolveError,
};

/// Why a flow could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The policy forbids the destination.
    Denied(Denied),
    /// The name does not exist, or has no address.
    DnsNotFound,
    /// The name could not be looked up now.
    DnsTemporary,
    /// The destination refused the connection.
    Refused,
    /// No route to the destination.
    Unreachable,
    /// The destination did not answer in time.
    TimedOut,
    /// A limit of this gateway: flows, descriptors, ports, memory.
    LimitReached,
    /// Anything else.
    Other(io::ErrorKind),
}

impl ConnectFailure {
    /// The one place where an errno of connect(2) or socket(2) gets its meaning.
    #[must_use]
    pub fn classify(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::CONNREFUSED) => Self::Refused,
            Some(
                Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::HOSTDOWN
                | Errno::AFNOSUPPORT,
            ) => Self::Unreachable,
            Some(Errno::TIMEDOUT) => Self::TimedOut,
            // ADDRNOTAVAIL: no ephemeral port left towards this destination. AGAIN: no room in the routing cache.
            Some(
                Errno::MFILE
                | Errno::NFILE
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::ADDRNOTAVAIL
                | Errno::AGAIN,
            ) => Self::LimitReached,
            Some(_) => Self::Other(error.kind()),
            None => Self::from_kind(error.kind()),
        }
    }

    /// For errors that our own code made and that carry no errno.
    fn from_kind(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => Self::LimitReached,
            other => Self::Other(other),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Denied(Denied { reason: Reason::InvalidHost | Reason::PortZero }) => 400,
            Self::Denied(_) => 403,
            Self::DnsNotFound | Self::Refused | Self::Unreachable => 502,
            Self::DnsTemporary | Self::TimedOut => 504,
            Self::LimitReached => 503,
            Self::Other(_) if self.error() == "proxy_internal_error" => 500,
            Self::Other(_) => 502,
        }
    }

    /// The `error` parameter: a type of RFC 9209 section 2.3.
    #[must_use]
    pub fn error(&self) -> &'static str {
        match self {
            Self::Denied(denied) => match denied.reason {
                Reason::DenyName | Reason::NotAllowed | Reason::NotForClient => "http_request_denied",
                Reason::InvalidHost | Reason::PortZero => "http_request_error",
                Reason::DenyAddress | Reason::SpecialPurpose(_) => "destination_ip_prohibited",
            },
            Self::DnsNotFound => "dns_error",
            Self::DnsTemporary => "dns_timeout",
            Self::Refused => "connection_refused",
            Self::Unreachable => "destination_ip_unroutable",
            Self::TimedOut => "connection_timeout",
            Self::LimitReached => "connection_limit_reached",
            Self::Other(kind) => match kind {
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => "connection_terminated",
                // A firewall on the gateway's own host says EPERM or EACCES.
                io::ErrorKind::PermissionDenied => "destination_ip_prohibited",
                _ => "proxy_internal_error",
            },
        }
    }

    /// The value of the Proxy-Status field, such as `beam; error=connection_refused`.
    #[must_use]
    pub fn proxy_status(&self) -> String {
        match self {
            Self::Denied(denied) => format!("beam; error={}; details=\"{denied}\"", self.error()),
            _ => format!("beam; error={}", self.error()),
        }
    }
}

impl From<Denied> for ConnectFailure {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<ResolveError> for ConnectFailure {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NotFound => Self::DnsNotFound,
            ResolveError::Temporary => Self::DnsTemporary,
            ResolveError::Invalid(_) => Self::Denied(Denied { reason: Reason::InvalidHost }),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each failure has the status and the error type that RFC 9209 section 2.3 recommends.
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn of(errno: Errno) -> (u16, String) {
        let failure = ConnectFailure::classify(&errno.into());
        (failure.status(), failure.proxy_status())
    }

    #[test]
    fn errnos_of_connect() {
        for (errno, status, error) in [
            (Errno::CONNREFUSED, 502, "connection_refused"),
            (Errno::NETUNREACH, 502, "destination_ip_unroutable"),
            (Errno::HOSTUNREACH, 502, "destination_ip_unroutable"),
            (Errno::TIMEDOUT, 504, "connection_timeout"),
            (Errno::MFILE, 503, "connection_limit_reached"),
            (Errno::ADDRNOTAVAIL, 503, "connection_limit_reached"),
            (Errno::CONNRESET, 502, "connection_terminated"),
            (Errno::PERM, 502, "destination_ip_prohibited"),
            (Errno::BADF, 500, "proxy_internal_error"),
        ] {
            assert_eq!(of(errno), (status, format!("beam; error={error}")), "{errno}");
        }
        let timed_out = ConnectFailure::classify(&io::ErrorKind::TimedOut.into());
        assert_eq!(timed_out, ConnectFailure::TimedOut);
    }

    #[test]
    fn a_refused_connection_is_refused() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = TcpStream::connect(closed).unwrap_err();
        assert_eq!(ConnectFailure::classify(&error), ConnectFailure::Refused);
    }

    #[test]
    fn policy_and_names() {
        use crate::{host::InvalidHost, policy::Special};
        let denied = ConnectFailure::from(Denied { reason: Reason::SpecialPurpose(Special::Loopback) });
        assert_eq!(denied.status(), 403);
        assert_eq!(
            denied.proxy_status(),
            "beam; error=destination_ip_prohibited; details=\"the address is in a special-purpose range: loopback\""
        );
        for (error, status, kind) in [
            (ResolveError::NotFound, 502, "dns_error"),
            (ResolveError::Temporary, 504, "dns_timeout"),
            (ResolveError::Invalid(InvalidHost::Empty), 400, "http_request_error"),
        ] {
            let failure = ConnectFailure::from(error);
            assert_eq!((failure.status(), failure.error()), (status, kind));
        }
    }
}
