//! What these tests share: scripts for the two ends, exact counters, a SOCKS reply.

use std::net::TcpStream;

use crate::pair::{Place, settled};
use crate::rig::{self, Beam};
use crate::tools::{Tunnel, accept, counter, origin_listener};
use serde_json::Value;

/// The origin runs a script on the first connection that it accepts; the test runs the local end.
pub(crate) fn scripted<T: Send + 'static>(
    test: &str,
    origin: impl FnOnce(TcpStream) -> T + Send + 'static,
    local: impl FnOnce(&Tunnel) -> T,
) -> Option<(T, T, Tunnel)> {
    if !rig::root_or_skip(test) {
        return None;
    }
    let place = Place::new();
    let listener = origin_listener(&place);
    let tunnel = Tunnel::native(place, listener.local_addr().unwrap());
    let origin = std::thread::spawn(move || origin(accept(&listener)));
    let local = local(&tunnel);
    Some((origin.join().unwrap(), local, tunnel))
}

/// Exactly these counters of flows are above zero, at a daemon that has fallen silent.
pub(crate) fn assert_flow_counters(beam: &Beam, expected: &[(&str, u64)]) -> Value {
    const OF_FLOWS: [&str; 15] = [
        "flows_finished",
        "flows_reset_by_stream",
        "flows_reset_by_socket",
        "flows_protocol_error",
        "bytes_to_sockets",
        "bytes_from_sockets",
        "requests",
        "refused_unauthenticated",
        "refused_denied",
        "refused_bad_request",
        "refused_not_found",
        "refused_upstream",
        "refused_draining",
        "refused_limit",
        "socks_refused",
    ];
    let status = settled(beam);
    for name in OF_FLOWS {
        let want = expected.iter().find(|(of, _)| *of == name).map_or(0, |&(_, n)| n);
        assert_eq!(counter(&status, name), want, "{name}; expected are {expected:?} of {status:#}");
    }
    assert_eq!(status["conservation"]["holds"], true, "{status:#}");
    status
}

/// RFC 1928 section 6: the whole reply with this code.
pub(crate) fn reply(code: u8) -> [u8; 10] {
    [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}
