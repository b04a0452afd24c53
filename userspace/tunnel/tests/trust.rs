//! TLS between two engines: pins, client certificates, and what each end learns of the other.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::tls::{ClientAuth, Fingerprint, Verify, server_tls};
use beam_tunnel::{CloseReason, Event};
use common::*;
use rustls::RootCertStore;
use std::time::Duration;

fn attempt(pair: &mut Pair, verify: Verify, identity: Option<Chain>, name: &str) {
    let config = quic_client_config(verify, identity);
    pair.client.connect(pair.now, config, SERVER, client_address(0), name).unwrap();
    pair.run(Duration::from_secs(3));
}

fn connected(events: &[(beam_tunnel::ConnId, Event)]) -> Option<beam_tunnel::ConnId> {
    events.iter().find(|(_, event)| matches!(event, Event::Connected { .. })).map(|(id, _)| *id)
}

#[test]
fn a_pin_is_kept_and_a_mismatch_names_both_fingerprints() {
    let gateway = chain(0);
    let right = Fingerprint::of(&gateway.0[0]);
    let mut pair = Pair::new(server_engine(0, &gateway, |_| {}));
    attempt(&mut pair, Verify::Pin(right), None, "any.name");
    let id = connected(&pair.client_events).expect("connected");
    let conn = pair.client.connection(id).unwrap();
    assert_eq!(conn.alpn(), Some(b"h3".to_vec()));
    assert_eq!(conn.peer_identity(), gateway.0);
    let id = connected(&pair.server_events).expect("connected");
    let conn = pair.server.connection(id).unwrap();
    assert_eq!(conn.server_name().as_deref(), Some("any.name"));
    assert_eq!(conn.peer_identity(), []);

    let wrong = Fingerprint([0xab; 32]);
    let mut pair = Pair::new(server_engine(0, &gateway, |_| {}));
    attempt(&mut pair, Verify::Pin(wrong), None, "any.name");
    let [(_, Event::HandshakeFailed { reason: reason @ CloseReason::Transport { .. } })] =
        &pair.client_events[..]
    else {
        panic!("{:?}", pair.client_events);
    };
    println!("{reason}");
    assert!(reason.to_string().contains(&right.to_string()), "{reason}");
    assert!(reason.to_string().contains(&wrong.to_string()), "{reason}");
}

#[test]
fn roots_check_the_chain_and_the_name() {
    let gateway = chain(0);
    let mut roots = RootCertStore::empty();
    roots.add(gateway.0[0].clone()).unwrap();
    for (name, fine) in [("gateway.test", true), ("other.test", false)] {
        let mut pair = Pair::new(server_engine(0, &gateway, |_| {}));
        attempt(&mut pair, Verify::Roots(roots.clone()), None, name);
        assert_eq!(connected(&pair.client_events).is_some(), fine, "{:?}", pair.client_events);
    }
}

#[test]
fn a_client_certificate_is_asked_for_and_seen() {
    let gateway = chain(0);
    let alice = chain(0);
    let stranger = chain(0);
    let mut ca = RootCertStore::empty();
    ca.add(alice.0[0].clone()).unwrap();
    let required = || ClientAuth::Required(ca.clone());
    let optional = || ClientAuth::Optional(ca.clone());
    let cases = [
        (required(), None, false),
        (required(), Some(&stranger), false),
        (required(), Some(&alice), true),
        (optional(), None, true),
        (optional(), Some(&stranger), false),
        (optional(), Some(&alice), true),
    ];
    for (auth, identity, fine) in cases {
        let shown = identity.map(|chain| chain.0.clone()).unwrap_or_default();
        let tls = server_tls(gateway.0.clone(), gateway.1.clone_key(), auth).unwrap();
        let mut pair = Pair::new(server_engine_with(0, tls, |_| {}));
        let identity = identity.map(|chain| (chain.0.clone(), chain.1.clone_key()));
        attempt(&mut pair, Verify::Insecure, identity, "gateway.test");
        match connected(&pair.server_events) {
            Some(id) => {
                assert!(fine);
                assert_eq!(pair.server.connection(id).unwrap().peer_identity(), shown);
            }
            None => {
                assert!(!fine, "{:?}", pair.server_events);
                let [(_, Event::HandshakeFailed { .. })] = &pair.server_events[..] else {
                    panic!("{:?}", pair.server_events);
                };
            }
        }
    }
}
