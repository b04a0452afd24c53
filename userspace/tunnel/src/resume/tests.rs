//! The parts that need no handshake; `tests/early.rs` has the whole.

use super::session::Messages;
use super::*;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = (body.len() as u32).to_be_bytes().to_vec();
    message[0] = kind;
    message.extend(body);
    message
}

// Goal: tickets are found in a stream of messages, however it is cut, and nothing else is.
// Method: 200 seeds; random messages, some of them tickets, some of those too long; random cuts.
#[test]
fn tickets_are_found_however_the_stream_is_cut() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..rng.random_range(1..12) {
            let kind = rng.random_range(2..6);
            let mut body = vec![0; if rng.random_bool(0.1) { 70_000 } else { rng.random_range(0..300) }];
            rng.fill_bytes(&mut body);
            let message = message(kind, &body);
            if kind == message::NEW_SESSION_TICKET && message.len() <= MESSAGE_BYTES_MAX {
                expected.push(message.clone());
            }
            stream.extend(message);
        }
        let (mut messages, mut found, mut rest) = (Messages::default(), Vec::new(), &stream[..]);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rng.random_range(1..=rest.len().min(2_000)));
            found.extend(messages.push(now));
            rest = later;
        }
        assert_eq!(found, expected, "seed {seed}");
    }
}

// Goal: what is written is read; what is cut short or longer is not.
#[test]
fn tickets_are_read_as_they_are_written() {
    let ticket = Ticket {
        message: message(4, &[0, 0, 1, 0, 9, 9, 9, 9, 2, 5, 6, 0, 1, 7, 0, 0]),
        psk: Zeroizing::new(vec![1; 32]),
        suite: 0x1301,
        issued_unix_s: 1_800_000_000,
        quic_params: vec![2; 60],
        alpn: b"h3".to_vec(),
        chain: vec![vec![3; 500], vec![4; 400]],
    };
    assert_eq!(ticket.lifetime_s(), 256);
    assert_eq!(message::nonce(&ticket.message), Some(&[5, 6][..]));
    let bytes = ticket.to_bytes();
    assert_eq!(Ticket::from_bytes(&bytes), Some(ticket.clone()));
    assert!((0..bytes.len()).all(|end| Ticket::from_bytes(&bytes[..end]).is_none()));
    assert!(!format!("{ticket:?}").contains("1, 1, 1"), "a secret is not printed");
}
