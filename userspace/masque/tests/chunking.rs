//! Goal: how a stream is cut into chunks never changes what it means, valid or not. Method: proptest builds streams of
//! frames, right and wrong ones, and cuts them at random; results are compared with those of the uncut stream. Failing
//! seeds are printed by proptest. Also exhaustively: each pair of cuts of one stream.

mod common;

use bytes::Bytes;
use common::{connect, frame, get, headers, outline, read_chunks};
use masque::{Config, Connection, Event, Limits, Message, MessageReader, ResponseTo};
use proptest::{prelude::*, sample::Index};

fn cut(bytes: &[u8], cuts: &[Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

/// Items or the error, as text. Where it ends in an error the items before it count too.
fn meaning<M: Message + std::fmt::Debug>(mut reader: MessageReader<M>, chunks: Vec<Vec<u8>>) -> String {
    let mut items = Vec::new();
    let mut error = None;
    for chunk in chunks {
        match read_some(&mut reader, chunk) {
            Ok(some) => items.extend(some),
            Err((some, failure)) => {
                items.extend(some);
                error = Some(failure);
                break;
            }
        }
    }
    if error.is_none() {
        match read_chunks(&mut reader, []) {
            Ok(rest) => items.extend(rest),
            Err(failure) => error = Some(failure),
        }
    }
    format!("{:?} {error:?}", outline(&items))
}

type Some<M> = Vec<masque::Item<M>>;

fn read_some<M: Message>(
    reader: &mut MessageReader<M>,
    chunk: Vec<u8>,
) -> Result<Some<M>, (Some<M>, masque::MessageError)> {
    let mut items = Vec::new();
    reader.push(Bytes::from(chunk));
    loop {
        match reader.next() {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return Ok(items),
            Err(error) => return Err((items, error)),
        }
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = || proptest::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        6 => payload().prop_map(|payload| frame(0, &payload)),
        2 => Just(get()),
        2 => Just(connect()),
        2 => Just(headers(&[(":status", "200"), ("x", "y")])),
        1 => Just(headers(&[(":status", "103")])),
        2 => Just(headers(&[("x-trailer", "y")])),
        2 => (0u64..1 << 40, payload()).prop_map(|(n, payload)| frame(0x1f * n + 0x21, &payload)),
        1 => payload().prop_map(|payload| frame(1, &payload)),
        1 => (0u64..16, payload()).prop_map(|(kind, payload)| frame(kind, &payload)),
        1 => payload(),
    ]
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let head =
        prop_oneof![Just(get()), Just(connect()), Just(headers(&[(":status", "200")])), Just(Vec::new())];
    (head, proptest::collection::vec(any_frame(), 0..8))
        .prop_map(|(head, frames)| [head, frames.concat()].concat())
}

fn limits() -> Limits {
    Limits { field_section_bytes_max: 400, extended_connect: true }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn requests(stream in any_stream(), cuts in proptest::collection::vec(any::<Index>(), 0..12)) {
        let whole = meaning(MessageReader::request(limits()), vec![stream.clone()]);
        let chunks = cut(&stream, &cuts);
        prop_assert_eq!(meaning(MessageReader::request(limits()), chunks), whole);
    }

    #[test]
    fn responses(stream in any_stream(), cuts in proptest::collection::vec(any::<Index>(), 0..12)) {
        for to in [ResponseTo::Connect, ResponseTo::Head, ResponseTo::Other] {
            let whole = meaning(MessageReader::response(limits(), to), vec![stream.clone()]);
            let chunks = cut(&stream, &cuts);
            prop_assert_eq!(meaning(MessageReader::response(limits(), to), chunks), whole);
        }
    }

    /// What is held between chunks stays below the limit and a frame header, and so does what is not yet a frame.
    #[test]
    fn held_bytes_are_bounded(stream in any_stream(), size in 1usize..50) {
        let mut reader = MessageReader::request(limits());
        for chunk in stream.chunks(size) {
            if read_some(&mut reader, chunk.to_vec()).is_err() {
                prop_assert_eq!(reader.buffered_bytes(), 0);
                break;
            }
            prop_assert!(reader.buffered_bytes() < 400);
        }
    }

    #[test]
    fn control_streams(
        frames in proptest::collection::vec(any_control_frame(), 0..8),
        kind in prop_oneof![8 => Just(0u8), 1 => 0u8..5],
        cuts in proptest::collection::vec(any::<Index>(), 0..12),
    ) {
        let stream = [vec![kind], common::frame(4, &[0x21, 1, 0x08, 1]), frames.concat()].concat();
        let whole = control_meaning(vec![stream.clone()]);
        prop_assert_eq!(control_meaning(cut(&stream, &cuts)), whole);
    }
}

fn any_control_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0u8..16).prop_map(|id| frame(7, &[63 - id * 4 % 64])),
        2 => any::<u8>().prop_map(|id| frame(13, &[0x40, id])),
        2 => (0u64..1 << 40).prop_map(|n| frame(0x1f * n + 0x21, b"grease")),
        1 => (0u64..16, proptest::collection::vec(any::<u8>(), 0..10)).prop_map(|(kind, payload)| frame(kind, &payload)),
    ]
}

/// The last GOAWAY, the settings and the error: events may be merged when they come in one chunk. What comes before an
/// error in one chunk is lost with the connection, so only the error counts then.
fn control_meaning(chunks: Vec<Vec<u8>>) -> String {
    let mut connection = Connection::server(Config::default());
    connection.uni_opened(2).expect("the first stream");
    let (mut goaway, mut stopped) = (None, false);
    for chunk in chunks {
        match connection.uni_data(2, chunk.into(), false) {
            Err(error) => return format!("{error}"),
            Ok(events) => {
                for event in events {
                    match event {
                        Event::GoAway { id } => goaway = Some(id),
                        Event::StopSending { .. } => stopped = true,
                        Event::Settings(_) => {}
                    }
                }
            }
        }
    }
    format!("{goaway:?} {stopped} {:?} {}", connection.peer_settings(), connection.buffered_bytes())
}

#[test]
fn each_pair_of_cuts_of_one_stream() {
    let stream = [
        frame(0x1f * 1_000_000_000_000 + 0x21, b"grease"),
        get(),
        frame(0, &[b'd'; 70]),
        frame(0, b""),
        headers(&[("x-trailer", "y")]),
        frame(0x21, b""),
    ]
    .concat();
    let whole = meaning(MessageReader::request(limits()), vec![stream.clone()]);
    assert!(whole.ends_with("\"End\"] None"), "{whole}");
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let chunks =
                vec![stream[..first].to_vec(), stream[first..second].to_vec(), stream[second..].to_vec()];
            assert_eq!(
                meaning(MessageReader::request(limits()), chunks),
                whole,
                "cuts at {first} and {second}"
            );
        }
    }
}
