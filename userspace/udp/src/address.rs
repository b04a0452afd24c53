//! Addresses as the socket sees them and as a [`wire::Path`] holds them.
//!
//! A dual-stack socket speaks of IPv4 as `::ffff:a.b.c.d`; a `Path` never does, so that one flow has one name whether
//! it arrived here or through AF_XDP.

use std::net::{IpAddr, SocketAddr};

use wire::Path;

/// The address as a `Path` holds it: v4-mapped becomes IPv4, and the flow label (no part of an identity) goes.
pub(crate) fn from_socket(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(mut v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => {
                v6.set_flowinfo(0);
                v6.into()
            }
        },
        v4 => v4,
    }
}

/// The IP in the family of the socket.
fn for_socket(ip: IpAddr, socket_is_v6: bool) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if socket_is_v6 => v4.to_ipv6_mapped().into(),
        other => other,
    }
}

/// Where a message goes to and comes from, in the family of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: SocketAddr,
    pub(crate) source: Option<IpAddr>,
}

impl Route {
    /// `None` where the kernel would answer EINVAL. It must not get that far: one EINVAL makes quinn-udp leave out the
    /// ECN bits of every later IPv4 message, and a spoofed datagram with source port 0 is enough to provoke it.
    pub(crate) fn new(path: &Path, socket_is_v6: bool) -> Option<Self> {
        let (local, remote) = (from_socket(path.local), from_socket(path.remote));
        let unspecified = local.ip().is_unspecified();
        let families_agree = unspecified || local.is_ipv4() == remote.is_ipv4();
        let in_reach = socket_is_v6 || remote.is_ipv4();
        let scoped = match remote {
            SocketAddr::V6(v6) => !v6.ip().is_unicast_link_local() || v6.scope_id() != 0,
            SocketAddr::V4(_) => true,
        };
        if remote.port() == 0 || remote.ip().is_unspecified() || !families_agree || !in_reach || !scoped {
            return None;
        }
        let destination = match remote {
            SocketAddr::V4(v4) => SocketAddr::new(for_socket((*v4.ip()).into(), socket_is_v6), v4.port()),
            v6 => v6,
        };
        Some(Self { destination, source: (!unspecified).then(|| for_socket(local.ip(), socket_is_v6)) })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: one flow has one name, and no message leaves that the kernel would call invalid.
    use super::*;

    fn path(local: &str, remote: &str) -> Path {
        Path { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        assert_eq!(
            from_socket("[::ffff:192.0.2.1]:5".parse().unwrap()),
            "192.0.2.1:5".parse::<SocketAddr>().unwrap()
        );
        assert_eq!(
            from_socket("[2001:db8::1]:5".parse().unwrap()),
            "[2001:db8::1]:5".parse::<SocketAddr>().unwrap()
        );
    }

    #[test]
    fn ipv4_is_mapped_for_a_dual_stack_socket_only() {
        let wanted = path("192.0.2.1:443", "192.0.2.9:5");
        let dual = Route::new(&wanted, true).unwrap();
        assert_eq!(dual.destination, "[::ffff:192.0.2.9]:5".parse().unwrap());
        assert_eq!(dual.source, Some("::ffff:192.0.2.1".parse().unwrap()));
        let plain = Route::new(&wanted, false).unwrap();
        assert_eq!(plain.destination, wanted.remote);
        assert_eq!(plain.source, Some(wanted.local.ip()));
    }

    #[test]
    fn an_unspecified_source_is_left_to_the_kernel() {
        assert_eq!(Route::new(&path("0.0.0.0:443", "192.0.2.9:5"), false).unwrap().source, None);
        assert_eq!(Route::new(&path("[::]:443", "192.0.2.9:5"), true).unwrap().source, None);
    }

    #[test]
    fn what_the_kernel_would_call_invalid_is_refused() {
        for (local, remote, v6) in [
            ("192.0.2.1:443", "192.0.2.9:0", false),
            ("192.0.2.1:443", "0.0.0.0:5", false),
            ("192.0.2.1:443", "[2001:db8::1]:5", true),
            ("[2001:db8::2]:443", "192.0.2.9:5", true),
            ("192.0.2.1:443", "[2001:db8::1]:5", false),
            ("[2001:db8::2]:443", "[2001:db8::1]:5", false),
            ("[::]:443", "[fe80::1]:5", true),
        ] {
            assert_eq!(Route::new(&path(local, remote), v6), None, "{local} -> {remote}");
        }
        assert!(Route::new(&path("[::]:443", "[fe80::1%3]:5"), true).is_some());
    }
}
