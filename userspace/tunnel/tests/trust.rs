//! TLS between two engines: pins, client certificates, and what each end learns of the other.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::tls::{
    Authorities, ClientAuth, Fingerprint, Verify, client_tls, provider, quic_client, server_tls,
};
use beam_tunnel::transport::{TransportOptions, client_config};
use beam_tunnel::{CloseReason, Event};
use common::*;
use rustls::RootCertStore;
use rustls::pki_types::UnixTime;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::sync::Arc;
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

/// A known key is let in whoever signed its certificate, and nobody else is by it.
#[test]
fn a_known_key_is_let_in_by_its_signature_alone() {
    let gateway = chain(0);
    let (alice, bob, stranger) = (chain(0), chain(0), chain(0));
    let key = |chain: &Chain| Fingerprint::of_key(&chain.0[0]).unwrap();
    let mut ca = RootCertStore::empty();
    ca.add(bob.0[0].clone()).unwrap();
    let known = |authorities: Option<&RootCertStore>| ClientAuth::Known {
        keys: [key(&alice)].into(),
        authorities: authorities.cloned(),
    };
    let cases = [
        ("nobody", known(None), None, true),
        ("the key", known(None), Some(&alice), true),
        ("another key", known(None), Some(&stranger), false),
        ("one of the authority that isn't asked", known(None), Some(&bob), false),
        ("one of the authority", known(Some(&ca)), Some(&bob), true),
        ("the key, beside an authority", known(Some(&ca)), Some(&alice), true),
        ("another key, beside an authority", known(Some(&ca)), Some(&stranger), false),
    ];
    for (name, auth, identity, fine) in cases {
        let tls = server_tls(gateway.0.clone(), gateway.1.clone_key(), auth).unwrap();
        let mut pair = Pair::new(server_engine_with(0, tls, |_| {}));
        let identity = identity.map(|chain| (chain.0.clone(), chain.1.clone_key()));
        let shown = identity.as_ref().map(|chain| chain.0.clone()).unwrap_or_default();
        attempt(&mut pair, Verify::Insecure, identity, "gateway.test");
        match connected(&pair.server_events) {
            Some(id) => {
                assert!(fine, "{name}");
                assert_eq!(pair.server.connection(id).unwrap().peer_identity(), shown, "{name}");
            }
            None => assert!(!fine, "{name}: {:?}", pair.server_events),
        }
    }
}

/// A certificate is no secret: who shows a known key's, and signs with another, doesn't hold the key.
#[test]
fn a_key_that_is_shown_but_not_held_opens_nothing() {
    let (gateway, alice, stranger) = (chain(0), chain(0), chain(0));
    let keys = [Fingerprint::of_key(&alice.0[0]).unwrap()].into();
    let auth = ClientAuth::Known { keys, authorities: None };
    let signer = |chain: &Chain| provider().key_provider.load_private_key(chain.1.clone_key()).unwrap();
    for (key, fine) in [(signer(&alice), true), (signer(&stranger), false)] {
        let tls = server_tls(gateway.0.clone(), gateway.1.clone_key(), auth.clone()).unwrap();
        let mut pair = Pair::new(server_engine_with(0, tls, |_| {}));
        let mut tls = client_tls(Verify::Insecure, None).unwrap();
        let shown = CertifiedKey::new(alice.0.clone(), key);
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
        let transport = Arc::new(TransportOptions::client().build());
        let config = client_config(quic_client(tls).unwrap(), transport);
        pair.client.connect(pair.now, config, SERVER, client_address(0), "gateway.test").unwrap();
        pair.run(Duration::from_secs(3));
        assert_eq!(connected(&pair.server_events).is_some(), fine, "{:?}", pair.server_events);
    }
}

#[test]
fn authorities_judge_a_chain_without_a_handshake() {
    let (bob, stranger) = (chain(0), chain(0));
    let mut ca = RootCertStore::empty();
    ca.add(bob.0[0].clone()).unwrap();
    let authorities = Authorities::new(ca).unwrap();
    let now = UnixTime::now();
    assert!(authorities.signed(&bob.0, now));
    assert!(!authorities.signed(&stranger.0, now));
    assert!(!authorities.signed(&[], now));
    let year_9999 = UnixTime::since_unix_epoch(Duration::from_secs(253_370_764_800));
    assert!(!authorities.signed(&bob.0, year_9999), "it has expired by then");
    assert_ne!(Fingerprint::of_key(&bob.0[0]), Fingerprint::of_key(&stranger.0[0]));
    assert_eq!(Fingerprint::of_key(&b"nonsense".to_vec().into()), None);
}
