//! Goal: the rules of RFC 9114 sections 6.2 and 7.2 for unidirectional streams, and of RFC 9204 section 4 for QPACK's
//! two. Method: raw bytes on numbered streams; events and error codes are compared. Sentences in quotes are the RFCs'.

mod common;

use bytes::Bytes;
use common::{frame, varints};
use masque::{Code, Config, Connection, ConnectionError, Event, Settings, varint};

const CONTROL: u64 = 0;
const PUSH: u64 = 1;
const QPACK_ENCODER: u64 = 2;
const QPACK_DECODER: u64 = 3;
const SETTINGS: u64 = 4;
const GOAWAY: u64 = 7;
const MAX_PUSH_ID: u64 = 13;
const CANCEL_PUSH: u64 = 3;

fn server() -> Connection {
    Connection::server(Config::default())
}

fn client() -> Connection {
    Connection::client(Config::default())
}

fn feed(connection: &mut Connection, id: u64, bytes: &[u8]) -> Result<Vec<Event>, ConnectionError> {
    connection.uni_opened(id)?;
    connection.uni_data(id, Bytes::copy_from_slice(bytes), false)
}

fn control(frames: &[u8]) -> Vec<u8> {
    [varints(&[CONTROL]), frames.to_vec()].concat()
}

fn settings(pairs: &[u64]) -> Vec<u8> {
    frame(SETTINGS, &varints(pairs))
}

fn goaway(id: u64) -> Vec<u8> {
    frame(GOAWAY, &varints(&[id]))
}

#[track_caller]
fn assert_code<T: std::fmt::Debug>(result: Result<T, ConnectionError>, code: Code) {
    let error = result.expect_err("accepted");
    assert_eq!(error.code, code, "{error}");
}

/// What one side opens with, the other side takes; with each configuration.
#[test]
fn what_we_open_with_is_understood_by_our_peer() {
    for (datagram, grease) in [(false, 0), (true, u64::MAX), (true, 77)] {
        let config = Config {
            max_field_section_bytes: 9999,
            h3_datagram: datagram,
            grease,
            extra_settings: vec![(0xbea4, 7), (0x08, 0), (0x33, 0), (0x04, 1), (0xbea4, 8)],
            ..Config::default()
        };
        for (from, mut to, is_server) in [
            (Connection::server(config.clone()), client(), true),
            (Connection::client(config.clone()), server(), false),
        ] {
            assert_eq!(to.peer_settings(), None);
            let events = feed(&mut to, 3, &from.opening()).unwrap();
            assert!(matches!(events[..], [Event::Settings(_)]));
            let seen = to.peer_settings().unwrap();
            assert_eq!(seen.max_field_section_bytes(), Some(9999));
            assert_eq!((seen.qpack_max_table_capacity(), seen.qpack_blocked_streams()), (0, 0));
            assert_eq!((seen.get(0x01), seen.get(0x07)), (Some(0), Some(0)));
            assert_eq!(seen.enable_connect_protocol(), is_server);
            assert_eq!(seen.h3_datagram(), datagram);
            assert_eq!(seen.get(0xbea4), Some(7));
            // "Endpoints SHOULD include at least one such setting": 0x1f * N + 0x21.
            let reserved = 0x1f * (grease & 0xffff_ffff) + 0x21;
            assert_eq!(seen.get(reserved), Some(grease & 0xff));
        }
    }
}

/// "If the first frame of the control stream is any other frame type, this MUST be treated as a connection error of
/// type H3_MISSING_SETTINGS"; "an unknown frame type does not satisfy that requirement" (section 9).
#[test]
fn the_control_stream_begins_with_settings() {
    for first in [goaway(0), frame(0x21, b"grease"), frame(0, b""), frame(1, b""), frame(MAX_PUSH_ID, &[0])] {
        assert_code(feed(&mut server(), 2, &control(&first)), Code::H3_MISSING_SETTINGS);
    }
}

/// "If an endpoint receives a second SETTINGS frame on the control stream, the endpoint MUST respond with a connection
/// error of type H3_FRAME_UNEXPECTED"; so MUST it for DATA, HEADERS, PUSH_PROMISE and the frame types of HTTP/2.
#[test]
fn frames_that_the_control_stream_does_not_carry() {
    for kind in [SETTINGS, 0x00, 0x01, 0x05, 0x02, 0x06, 0x08, 0x09] {
        let bytes = control(&[settings(&[]), frame(kind, b"")].concat());
        assert_code(feed(&mut server(), 2, &bytes), Code::H3_FRAME_UNEXPECTED);
        assert_code(feed(&mut client(), 3, &bytes), Code::H3_FRAME_UNEXPECTED);
    }
    // "A client MUST treat the receipt of a MAX_PUSH_ID frame as a connection error of type H3_FRAME_UNEXPECTED."
    let bytes = control(&[settings(&[]), frame(MAX_PUSH_ID, &[0])].concat());
    assert_code(feed(&mut client(), 3, &bytes), Code::H3_FRAME_UNEXPECTED);
    assert_eq!(feed(&mut server(), 2, &bytes).unwrap().len(), 1);
}

#[test]
fn unknown_frames_are_skipped_without_being_held() {
    let mut connection = server();
    let bytes = control(&[settings(&[]), frame(0x21, &[9; 500]), varints(&[0xf0700, 1 << 40])].concat());
    assert_eq!(feed(&mut connection, 2, &bytes).unwrap(), [Event::Settings(Settings::default())]);
    for _ in 0..100 {
        assert_eq!(connection.uni_data(2, Bytes::from(vec![7; 1000]), false), Ok(Vec::new()));
        assert_eq!(connection.buffered_bytes(), 0);
    }
}

/// "A receiver MAY treat the presence of duplicate setting identifiers as a connection error of type
/// H3_SETTINGS_ERROR"; for settings that HTTP/2 had and HTTP/3 has not, "their receipt MUST be treated as" such. RFC
/// 8441 and RFC 9297: values other than 0 and 1.
#[test]
fn wrong_settings() {
    for pairs in [
        &[0x06, 1, 0x06, 1][..],
        &[0x21, 1, 0x06, 2, 0x21, 3],
        &[0x00, 0],
        &[0x02, 0],
        &[0x03, 100],
        &[0x04, 65_535],
        &[0x05, 16_384],
        &[0x08, 2],
        &[0x33, 2],
    ] {
        assert_code(feed(&mut client(), 3, &control(&settings(pairs))), Code::H3_SETTINGS_ERROR);
    }
    // "An implementation MUST ignore any parameter with an identifier it does not understand."
    let fine = settings(&[0x21, 5, 0x4242, varint::VARINT_MAX, 0x08, 1, 0x33, 0, 0x01, 4096, 0x07, 100]);
    let events = feed(&mut client(), 3, &control(&fine)).unwrap();
    let [Event::Settings(settings)] = &events[..] else { panic!("{events:?}") };
    assert!(settings.enable_connect_protocol() && !settings.h3_datagram());
    assert_eq!((settings.qpack_max_table_capacity(), settings.qpack_blocked_streams()), (4096, 100));
    assert_eq!(settings.max_field_section_bytes(), None);
}

/// "A frame payload that contains additional bytes after the identified fields or a frame payload that terminates before
/// the end of the identified fields MUST be treated as a connection error of type H3_FRAME_ERROR".
#[test]
fn payloads_that_do_not_fit_their_frame() {
    for bad in [
        frame(SETTINGS, &[0x06]),
        frame(SETTINGS, &[0x06, 0x40]),
        frame(SETTINGS, &[0x40]),
        [settings(&[]), frame(GOAWAY, &[])].concat(),
        [settings(&[]), frame(GOAWAY, &[0, 0])].concat(),
        [settings(&[]), frame(GOAWAY, &[0x40])].concat(),
        [settings(&[]), frame(GOAWAY, &[0; 9])].concat(),
        [settings(&[]), frame(MAX_PUSH_ID, &[0xc0, 0])].concat(),
        [settings(&[]), varints(&[GOAWAY, varint::VARINT_MAX])].concat(),
    ] {
        assert_code(feed(&mut server(), 2, &control(&bad)), Code::H3_FRAME_ERROR);
    }
}

#[test]
fn settings_without_end_are_excessive_load() {
    let long = varints(&[CONTROL, SETTINGS, 1025]);
    assert_code(feed(&mut server(), 2, &long), Code::H3_EXCESSIVE_LOAD);
    let pairs = |count: u64| -> Vec<u64> { (0..count).flat_map(|n| [0x1000 + n, n]).collect() };
    assert!(feed(&mut server(), 2, &control(&settings(&pairs(64)))).is_ok());
    assert_code(feed(&mut server(), 2, &control(&settings(&pairs(65)))), Code::H3_EXCESSIVE_LOAD);
}

/// "Receiving a GOAWAY containing a larger identifier than previously received MUST be treated as a connection error of
/// type H3_ID_ERROR"; "A client MUST treat receipt of a GOAWAY frame containing a Stream ID of any other type as a
/// connection error of type H3_ID_ERROR."
#[test]
fn goaway_from_the_peer() {
    let mut connection = client();
    let bytes = control(&[settings(&[]), goaway(varint::VARINT_MAX - 3), goaway(16), goaway(16)].concat());
    let events = feed(&mut connection, 3, &bytes).unwrap();
    assert_eq!(events, [Event::Settings(Settings::default()), Event::GoAway { id: 16 }]);
    let mut next = |id| connection.uni_data(3, Bytes::from(goaway(id)), false);
    assert_eq!(next(16), Ok(Vec::new()));
    assert_eq!(next(4), Ok(vec![Event::GoAway { id: 4 }]));
    assert_code(next(8), Code::H3_ID_ERROR);
    for id in [1, 2, 3, 6, 9] {
        let bytes = control(&[settings(&[]), goaway(id)].concat());
        assert_code(feed(&mut client(), 3, &bytes), Code::H3_ID_ERROR);
        // From a client it is a push id, and those are all valid.
        assert!(feed(&mut server(), 2, &bytes).is_ok());
    }
}

/// "The identifier in each frame MUST NOT be greater than the identifier in any previous frame."
#[test]
fn our_goaway_never_grows_and_names_a_request_stream() {
    let id_of = |bytes: Bytes| {
        let (kind, at) = varint::read(&bytes).unwrap();
        let (length, size) = varint::read(&bytes[at..]).unwrap();
        let (id, id_bytes) = varint::read(&bytes[at + size..]).unwrap();
        assert_eq!((kind, length as usize, at + size + id_bytes), (GOAWAY, id_bytes, bytes.len()));
        id
    };
    let mut connection = server();
    let sent: Vec<_> = [u64::MAX, 40, 41, 400, 37, 0, 4].map(|id| id_of(connection.goaway(id))).into();
    assert_eq!(sent, [varint::VARINT_MAX - 3, 40, 40, 40, 40, 0, 0]);
    let mut connection = client();
    assert_eq!([7, 9, 0].map(|id| id_of(connection.goaway(id))), [7, 7, 0]);
}

/// "A MAX_PUSH_ID frame cannot reduce the maximum Push ID"; CANCEL_PUSH for a push that cannot exist: H3_ID_ERROR.
#[test]
fn push_ids() {
    let max = |id| frame(MAX_PUSH_ID, &varints(&[id]));
    let bytes = control(&[settings(&[]), max(5), max(5), max(900)].concat());
    let mut connection = server();
    assert!(feed(&mut connection, 2, &bytes).is_ok());
    assert_code(connection.uni_data(2, max(899).into(), false), Code::H3_ID_ERROR);
    let cancel = control(&[settings(&[]), frame(CANCEL_PUSH, &[0])].concat());
    assert_code(feed(&mut server(), 2, &cancel), Code::H3_ID_ERROR);
    assert_code(feed(&mut client(), 3, &cancel), Code::H3_ID_ERROR);
}

/// "If a server receives a client-initiated push stream, this MUST be treated as a connection error of type
/// H3_STREAM_CREATION_ERROR"; "A client MUST treat receipt of a push stream as a connection error of type H3_ID_ERROR
/// when no MAX_PUSH_ID frame has been sent".
#[test]
fn push_streams_are_refused() {
    assert_code(feed(&mut server(), 2, &varints(&[PUSH, 0])), Code::H3_STREAM_CREATION_ERROR);
    assert_code(feed(&mut client(), 3, &varints(&[PUSH, 0])), Code::H3_ID_ERROR);
}

/// "Receipt of a second stream claiming to be a control stream MUST be treated as a connection error of type
/// H3_STREAM_CREATION_ERROR"; RFC 9204 section 4.2 says the same of both QPACK streams.
#[test]
fn a_second_critical_stream() {
    for kind in [CONTROL, QPACK_ENCODER, QPACK_DECODER] {
        let mut connection = server();
        assert!(feed(&mut connection, 2, &varints(&[kind])).is_ok());
        assert_code(feed(&mut connection, 6, &varints(&[kind])), Code::H3_STREAM_CREATION_ERROR);
    }
}

/// "If either control stream is closed at any point, this MUST be treated as a connection error of type
/// H3_CLOSED_CRITICAL_STREAM"; RFC 9204 section 4.2 says the same of both QPACK streams.
#[test]
fn a_closed_critical_stream() {
    for kind in [CONTROL, QPACK_ENCODER, QPACK_DECODER] {
        let mut connection = server();
        feed(&mut connection, 2, &varints(&[kind])).unwrap();
        assert_code(connection.uni_data(2, Bytes::new(), true), Code::H3_CLOSED_CRITICAL_STREAM);
        let mut connection = server();
        feed(&mut connection, 2, &varints(&[kind])).unwrap();
        assert_code(connection.uni_reset(2), Code::H3_CLOSED_CRITICAL_STREAM);
        let mut connection = server();
        connection.uni_opened(2).unwrap();
        assert_code(connection.uni_data(2, varints(&[kind]).into(), true), Code::H3_CLOSED_CRITICAL_STREAM);
    }
    assert_eq!(Connection::own_stopped().code, Code::H3_CLOSED_CRITICAL_STREAM);
}

/// "A receiver MUST tolerate unidirectional streams being closed or reset prior to the reception of the unidirectional
/// stream header."
#[test]
fn streams_closed_before_their_type() {
    let mut connection = server();
    for (id, start) in [(2, &[][..]), (6, &[0x40]), (10, &[0xc0, 0, 0])] {
        connection.uni_opened(id).unwrap();
        assert_eq!(connection.uni_data(id, Bytes::copy_from_slice(start), true), Ok(Vec::new()));
        connection.uni_opened(id + 100).unwrap();
        assert_eq!(connection.uni_data(id + 100, Bytes::copy_from_slice(start), false), Ok(Vec::new()));
        assert_eq!(connection.uni_reset(id + 100), Ok(()));
    }
    assert_eq!(connection.buffered_bytes(), 0);
}

/// "The recipient MUST NOT consider unknown stream types to be a connection error of any kind." The type may come in
/// pieces; whatever follows it is ignored.
#[test]
fn unknown_stream_types_are_stopped() {
    let mut connection = server();
    let stop = |stream_id| vec![Event::StopSending { stream_id, code: Code::H3_STREAM_CREATION_ERROR }];
    assert_eq!(feed(&mut connection, 2, &varints(&[0x21])), Ok(stop(2)));
    assert_eq!(connection.uni_data(2, Bytes::from_static(b"\0\0\0\0"), false), Ok(Vec::new()));
    assert_eq!(connection.uni_data(2, Bytes::new(), true), Ok(Vec::new()));
    assert_eq!(connection.uni_reset(2), Ok(()));
    let kind = varints(&[0x1f * 123_456_789 + 0x21]);
    connection.uni_opened(6).unwrap();
    for (at, byte) in kind.iter().enumerate() {
        let expected = if at + 1 == kind.len() { stop(6) } else { Vec::new() };
        assert_eq!(connection.uni_data(6, Bytes::copy_from_slice(&[*byte]), false), Ok(expected));
    }
    // One that ended by itself needs no STOP_SENDING.
    connection.uni_opened(10).unwrap();
    assert_eq!(connection.uni_data(10, varints(&[0x21]).into(), true), Ok(Vec::new()));
}

#[test]
fn streams_that_never_say_what_they_are_are_bounded() {
    let mut connection = server();
    for at in 0..64 {
        connection.uni_opened(at * 4 + 2).unwrap();
    }
    assert_code(connection.uni_opened(64 * 4 + 2), Code::H3_EXCESSIVE_LOAD);
    connection.uni_reset(2).unwrap();
    assert_eq!(connection.uni_opened(64 * 4 + 2), Ok(()));
    // Unknown ones make room as soon as their type is there, so any number of them may come and go.
    let mut connection = server();
    for at in 0..1000 {
        feed(&mut connection, at * 4 + 2, &varints(&[0x21])).unwrap();
    }
}

/// RFC 9204 section 4.3.1: "The decoder MUST treat a new dynamic table capacity value that exceeds this limit as a
/// connection error of type QPACK_ENCODER_STREAM_ERROR"; 3.2.2: so for an entry larger than the table. Appendix B.2, B.4
/// and B.5's instructions are among them.
#[test]
fn the_peers_encoder_stream() {
    let mut connection = server();
    assert!(feed(&mut connection, 2, &[2, 0x20, 0x20]).is_ok());
    for bad in
        [&[0x21][..], &[0x3f, 0xbd, 0x01], &[0xc0, 0x00], &[0x80, 0x00], &[0x4a], &[0x02], &[0x81, 0x0d]]
    {
        let mut connection = server();
        feed(&mut connection, 2, &[2]).unwrap();
        assert_code(
            connection.uni_data(2, Bytes::copy_from_slice(bad), false),
            Code::QPACK_ENCODER_STREAM_ERROR,
        );
    }
}

/// RFC 9204 section 4.4: Section Acknowledgments and Insert Count Increments that nothing asked for MUST be treated as
/// QPACK_DECODER_STREAM_ERROR; Stream Cancellation is fine. Appendix B.2: 84, B.3: 01, B.4: 48.
#[test]
fn the_peers_decoder_stream() {
    for bad in [&[0x84][..], &[0x01], &[0x00], &[0x3f, 0x00], &[0x48, 0x00], &[0x7f, 0xff, 0x01, 0x80]] {
        let mut connection = server();
        feed(&mut connection, 2, &[3]).unwrap();
        assert_code(
            connection.uni_data(2, Bytes::copy_from_slice(bad), false),
            Code::QPACK_DECODER_STREAM_ERROR,
        );
    }
    let good = [&[3, 0x48, 0x7f, 0x80, 0x01, 0x7e, 0x7f][..], &[0xff; 8], &[0x3f, 0x40]].concat();
    for size in 1..=good.len() {
        let mut connection = server();
        connection.uni_opened(2).unwrap();
        for chunk in good.chunks(size) {
            assert_eq!(connection.uni_data(2, Bytes::copy_from_slice(chunk), false), Ok(Vec::new()));
        }
    }
    // "MUST be able to decode integers up to and including 62 bits long": a tenth continuation byte is too long.
    let mut connection = server();
    let long = [&[3, 0x7f][..], &[0xff; 9]].concat();
    assert_code(feed(&mut connection, 2, &long), Code::QPACK_DECODER_STREAM_ERROR);
}

/// RFC 9114 section 8.1, RFC 9204 section 6, RFC 9297 section 5.2.
#[test]
fn codes_have_their_registered_numbers_and_names() {
    let names: Vec<_> = Code::ALL.iter().map(|code| (code.0, code.to_string())).collect();
    let expected = [
        (0x33, "H3_DATAGRAM_ERROR"),
        (0x100, "H3_NO_ERROR"),
        (0x101, "H3_GENERAL_PROTOCOL_ERROR"),
        (0x102, "H3_INTERNAL_ERROR"),
        (0x103, "H3_STREAM_CREATION_ERROR"),
        (0x104, "H3_CLOSED_CRITICAL_STREAM"),
        (0x105, "H3_FRAME_UNEXPECTED"),
        (0x106, "H3_FRAME_ERROR"),
        (0x107, "H3_EXCESSIVE_LOAD"),
        (0x108, "H3_ID_ERROR"),
        (0x109, "H3_SETTINGS_ERROR"),
        (0x10a, "H3_MISSING_SETTINGS"),
        (0x10b, "H3_REQUEST_REJECTED"),
        (0x10c, "H3_REQUEST_CANCELLED"),
        (0x10d, "H3_REQUEST_INCOMPLETE"),
        (0x10e, "H3_MESSAGE_ERROR"),
        (0x10f, "H3_CONNECT_ERROR"),
        (0x110, "H3_VERSION_FALLBACK"),
        (0x200, "QPACK_DECOMPRESSION_FAILED"),
        (0x201, "QPACK_ENCODER_STREAM_ERROR"),
        (0x202, "QPACK_DECODER_STREAM_ERROR"),
    ];
    assert_eq!(names, expected.map(|(value, name)| (value, name.to_owned())));
    assert_eq!((Code(0x40).name(), Code(0x40).to_string().as_str()), (None, "0x40"));
}
