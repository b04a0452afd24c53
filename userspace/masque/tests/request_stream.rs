//! Goal: every rule of RFC 9114 for the frames of a request stream, with its error and how far that error reaches.
//! Method: raw frames into a reader; the result's code and scope are compared. Sentences in quotes are the RFC's.

mod common;

use bytes::Bytes;
use common::{DATA, HEADERS, connect, frame, get, headers, outline, read_chunks, section, varints};
use masque::{
    Code, Item, Kind, Limits, MessageError, MessageReader, Request, Response, ResponseTo, Scope,
    Scope::Connection, Scope::Stream,
};

fn request(bytes: &[u8]) -> Result<Vec<Item<Request>>, MessageError> {
    read_chunks(&mut MessageReader::request(Limits::default()), [bytes.to_vec()])
}

fn response(to: ResponseTo, bytes: &[u8]) -> Result<Vec<Item<Response>>, MessageError> {
    read_chunks(&mut MessageReader::response(Limits::default(), to), [bytes.to_vec()])
}

fn ok() -> Vec<u8> {
    headers(&[(":status", "200")])
}

#[track_caller]
fn assert_fails<M: std::fmt::Debug>(result: Result<Vec<Item<M>>, MessageError>, scope: Scope, code: Code) {
    let error = result.expect_err("the stream was accepted");
    assert_eq!((error.scope(), error.code()), (scope, code), "{error}");
}

#[test]
fn a_request_with_content_and_trailers() {
    let bytes =
        [get(), frame(DATA, b"abc"), frame(DATA, b""), frame(DATA, b"de"), headers(&[("x-sum", "1")])]
            .concat();
    let items = request(&bytes).unwrap();
    let [Item::Headers(head), Item::Data(first), Item::Data(second), Item::Trailers(trailers), Item::End] =
        &items[..]
    else {
        panic!("{items:?}");
    };
    assert_eq!(head.method, "GET");
    assert_eq!((&first[..], &second[..]), (&b"abc"[..], &b"de"[..]));
    assert_eq!(trailers.get("x-sum"), Some("1"));
}

/// DATA items are slices of the chunk: the same memory, also when a frame spans chunks.
#[test]
fn data_is_not_copied() {
    let mut reader = MessageReader::request(Limits::default());
    reader.push(connect().into());
    assert!(matches!(reader.next(), Ok(Some(Item::Headers(_)))));
    let whole = Bytes::from(frame(DATA, &[7; 300]));
    let (first, second) = (whole.slice(..100), whole.slice(100..));
    for (chunk, skipped_bytes) in [(first, 3), (second, 0)] {
        let at = chunk.as_ptr();
        let expected_bytes = chunk.len() - skipped_bytes;
        reader.push(chunk);
        let Ok(Some(Item::Data(data))) = reader.next() else { panic!("no data") };
        assert_eq!((data.as_ptr(), data.len()), (at.wrapping_add(skipped_bytes), expected_bytes));
        assert!(matches!(reader.next(), Ok(None)));
        assert!(!reader.has_buffered());
    }
}

/// A driver under back-pressure: what it does not ask for stays, counted, and comes later.
#[test]
fn what_is_not_asked_for_is_kept_and_counted() {
    let mut reader = MessageReader::request(Limits::default());
    let bytes = [connect(), frame(DATA, b"abcdef")].concat();
    reader.push(bytes.clone().into());
    assert_eq!(reader.buffered_bytes(), bytes.len());
    assert!(matches!(reader.next(), Ok(Some(Item::Headers(_)))));
    assert_eq!(reader.buffered_bytes(), 2 + 6);
    assert!(reader.has_buffered() && reader.is_tunnel());
    reader.push(frame(DATA, b"gh").into());
    assert_eq!(reader.buffered_bytes(), 2 + 6 + 2 + 2);
    assert!(matches!(reader.next(), Ok(Some(Item::Data(data))) if data == "abcdef"));
    assert!(matches!(reader.next(), Ok(Some(Item::Data(data))) if data == "gh"));
    assert!(!reader.has_buffered());
    reader.finish();
    assert!(matches!(reader.next(), Ok(Some(Item::End))));
    assert!(matches!(reader.next(), Ok(None)));
}

/// "In particular, a DATA frame before any HEADERS frame, or a HEADERS or DATA frame after the trailing HEADERS frame,
/// is considered invalid." Connection error H3_FRAME_UNEXPECTED (section 4.1).
#[test]
fn invalid_sequences_of_frames_are_h3_frame_unexpected() {
    let trailers = headers(&[("x", "y")]);
    for bytes in [
        frame(DATA, b"x"),
        frame(DATA, b""),
        [get(), trailers.clone(), frame(DATA, b"x")].concat(),
        [get(), trailers.clone(), trailers.clone()].concat(),
    ] {
        assert_fails(request(&bytes), Connection, Code::H3_FRAME_UNEXPECTED);
    }
    assert_fails(response(ResponseTo::Other, &frame(DATA, b"x")), Connection, Code::H3_FRAME_UNEXPECTED);
}

/// Sections 7.2.3 to 7.2.7: CANCEL_PUSH, SETTINGS, GOAWAY and MAX_PUSH_ID on a request stream; section 7.2.8: the frame
/// types of HTTP/2. All are connection errors of type H3_FRAME_UNEXPECTED, before and after the headers.
#[test]
fn frames_of_other_streams_are_h3_frame_unexpected() {
    for kind in [0x03, 0x04, 0x07, 0x0d, 0x02, 0x06, 0x08, 0x09] {
        let bad = frame(kind, &[0]);
        for bytes in [bad.clone(), [get(), bad.clone()].concat(), [connect(), bad.clone()].concat()] {
            assert_fails(request(&bytes), Connection, Code::H3_FRAME_UNEXPECTED);
        }
        assert_fails(
            response(ResponseTo::Other, &[ok(), bad].concat()),
            Connection,
            Code::H3_FRAME_UNEXPECTED,
        );
    }
}

/// Section 7.2.5: "A server MUST treat the receipt of a PUSH_PROMISE frame as a connection error of type
/// H3_FRAME_UNEXPECTED"; "A client MUST treat receipt of a PUSH_PROMISE frame that contains a larger Push ID than the
/// client has advertised as a connection error of H3_ID_ERROR": this client advertises none.
#[test]
fn push_promise_is_refused() {
    let promise = frame(0x05, &[0, 0, 0]);
    assert_fails(request(&promise), Connection, Code::H3_FRAME_UNEXPECTED);
    assert_fails(response(ResponseTo::Other, &promise), Connection, Code::H3_ID_ERROR);
    let in_tunnel = [ok(), promise].concat();
    assert_fails(response(ResponseTo::Connect, &in_tunnel), Connection, Code::H3_FRAME_UNEXPECTED);
}

/// Section 9: unknown frame types are ignored, wherever frames may be; also a long one that is never held.
#[test]
fn unknown_and_reserved_frames_are_skipped() {
    let grease = frame(0x21, b"whatever");
    let empty = frame(0x1f * 1_000_000_007 + 0x21, b"");
    let bytes = [grease.clone(), empty, get(), grease.clone(), frame(DATA, b"x"), grease.clone()].concat();
    assert_eq!(request(&bytes).unwrap().len(), 3);
    let tunnel = [connect(), grease.clone(), frame(DATA, b"x"), grease].concat();
    assert_eq!(request(&tunnel).unwrap().len(), 3);

    let mut reader = MessageReader::request(Limits::default());
    reader.push(varints(&[0x21, 1 << 40]).into());
    for _ in 0..1000 {
        reader.push(vec![0; 1000].into());
        assert!(matches!(reader.next(), Ok(None)));
        assert!(!reader.has_buffered());
    }
}

/// Section 4.4: "Once the CONNECT method has completed, only DATA frames are permitted to be sent on the stream. [...]
/// Receipt of any other known frame type MUST be treated as a connection error of type H3_FRAME_UNEXPECTED".
#[test]
fn in_a_tunnel_only_data_is_permitted() {
    let again = headers(&[("x", "y")]);
    assert_fails(request(&[connect(), again.clone()].concat()), Connection, Code::H3_FRAME_UNEXPECTED);
    let bytes = [ok(), frame(DATA, b"x"), again].concat();
    assert_fails(response(ResponseTo::Connect, &bytes), Connection, Code::H3_FRAME_UNEXPECTED);
    assert_eq!(response(ResponseTo::Other, &bytes).unwrap().len(), 4);
}

/// Section 7.1: "When a stream terminates cleanly, if the last frame on the stream was truncated, this MUST be treated
/// as a connection error of type H3_FRAME_ERROR". Every cut of a stream that is inside a frame.
#[test]
fn a_truncated_last_frame_is_h3_frame_error() {
    let (head, data, grease) = (connect(), frame(DATA, b"abc"), frame(0x21, b"xyz"));
    let bytes = [head.clone(), data.clone(), grease.clone()].concat();
    let clean = [0, head.len(), head.len() + data.len(), bytes.len()];
    for cut in 0..bytes.len() {
        let result = request(&bytes[..cut]);
        match cut {
            0 => assert_fails(result, Stream, Code::H3_REQUEST_INCOMPLETE),
            _ if clean.contains(&cut) => assert!(matches!(result.unwrap().last(), Some(Item::End))),
            _ => assert_fails(result, Connection, Code::H3_FRAME_ERROR),
        }
    }
}

/// Section 4.1: "If a client-initiated stream terminates without enough of the HTTP message to provide a complete
/// response, the server SHOULD abort its response stream with the error code H3_REQUEST_INCOMPLETE".
#[test]
fn fin_before_the_headers_is_h3_request_incomplete() {
    assert_fails(request(&[]), Stream, Code::H3_REQUEST_INCOMPLETE);
    assert_fails(request(&frame(0x21, b"only grease")), Stream, Code::H3_REQUEST_INCOMPLETE);
    assert_fails(response(ResponseTo::Other, &[]), Stream, Code::H3_MESSAGE_ERROR);
    let interim_only = headers(&[(":status", "103")]);
    assert_fails(response(ResponseTo::Other, &interim_only), Stream, Code::H3_MESSAGE_ERROR);
}

/// RFC 9204 section 2.2: a section that does not decode is a connection error of type QPACK_DECOMPRESSION_FAILED.
#[test]
fn a_wrong_field_section_is_qpack_decompression_failed() {
    for payload in [&b""[..], b"\x00", b"\x01\x00", b"\x00\x00\x80", b"\x00\x00\xff\x24"] {
        assert_fails(request(&frame(HEADERS, payload)), Connection, Code::QPACK_DECOMPRESSION_FAILED);
        let trailers = [get(), frame(HEADERS, payload)].concat();
        assert_fails(request(&trailers), Connection, Code::QPACK_DECOMPRESSION_FAILED);
    }
}

/// Section 4.2.2: "A server that receives a larger header section than it is willing to handle can send an HTTP 431".
/// A frame that says it is too long is refused before any of its payload is there; one that decodes to too much, after.
#[test]
fn headers_above_the_limit_are_a_431_and_not_held() {
    let limits = Limits { field_section_bytes_max: 200, extended_connect: true };
    let too_large = |seen_bytes| MessageError::HeadersTooLarge { seen_bytes, limit_bytes: 200 };

    let mut reader = MessageReader::request(limits);
    reader.push(varints(&[HEADERS, 201]).into());
    let error = reader.next().unwrap_err();
    assert_eq!(error, too_large(201));
    assert_eq!((error.status(), error.scope()), (Some(431), Stream));
    reader.push(vec![0; 201].into());
    assert_eq!((reader.next().unwrap_err(), reader.buffered_bytes()), (error, 0));

    // 200 bytes decoded, then one more; a frame of 200 bytes is waited for.
    let pad =
        |count: usize| headers(&[(":method", "CONNECT"), (":authority", "a:1"), ("x", &"y".repeat(count))]);
    let decoded = 7 + 7 + 10 + 3 + 1 + 3 * 32;
    let fits = pad(200 - decoded);
    assert!(read_chunks(&mut MessageReader::request(limits), [fits]).is_ok());
    let result = read_chunks(&mut MessageReader::request(limits), [pad(201 - decoded)]);
    assert_eq!(result.unwrap_err(), too_large(201));
    let mut reader = MessageReader::request(limits);
    reader.push(varints(&[HEADERS, 200]).into());
    assert!(matches!(reader.next(), Ok(None)));

    // 1 byte a line on the wire, 42 bytes decoded.
    let dense = frame(HEADERS, &[&[0, 0][..], &[0xd1; 5]].concat());
    assert_eq!(read_chunks(&mut MessageReader::request(limits), [dense]).unwrap_err(), too_large(201));

    let mut reader = MessageReader::request(limits);
    let head = [connect(), varints(&[0x21, 0])].concat();
    assert_eq!(read_chunks(&mut reader, head.chunks(1).map(<[u8]>::to_vec)).unwrap().len(), 2);
}

/// Section 4.1.2: a message "is malformed if the value of a Content-Length header field does not equal the sum of the
/// DATA frame lengths received".
#[test]
fn content_length_must_equal_the_sum_of_data() {
    let post = |length: &str| {
        headers(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "a.example"),
            (":path", "/"),
            ("content-length", length),
        ])
    };
    let five = [frame(DATA, b"abc"), frame(DATA, b"de")].concat();
    assert_eq!(request(&[post("5"), five.clone()].concat()).unwrap().len(), 4);
    assert_eq!(request(&[post("0")].concat()).unwrap().len(), 2);
    let trailers = headers(&[("x", "y")]);
    for bytes in [
        [post("4"), five.clone()].concat(),
        [post("6"), five.clone()].concat(),
        [post("6"), five.clone(), trailers].concat(),
        [post("0"), five.clone()].concat(),
        [post("5")].concat(),
    ] {
        assert_fails(request(&bytes), Stream, Code::H3_MESSAGE_ERROR);
    }
    let length = |status: &str, length: &str| headers(&[(":status", status), ("content-length", length)]);
    let x = frame(DATA, b"x");
    assert!(response(ResponseTo::Other, &[length("200", "1"), x.clone()].concat()).is_ok());
    assert_fails(
        response(ResponseTo::Other, &[length("200", "2"), x.clone()].concat()),
        Stream,
        Code::H3_MESSAGE_ERROR,
    );
    // "A response that is defined as never having content [...] can have a non-zero Content-Length field".
    for (to, status) in [(ResponseTo::Head, "200"), (ResponseTo::Other, "304"), (ResponseTo::Other, "204")] {
        assert!(response(to, &length(status, "9")).is_ok());
        assert_fails(
            response(to, &[length(status, "9"), x.clone()].concat()),
            Stream,
            Code::H3_MESSAGE_ERROR,
        );
    }
    // RFC 9110 section 9.3.6: ignored in a CONNECT and in its 2xx.
    assert!(response(ResponseTo::Connect, &[length("200", "9"), x.clone()].concat()).is_ok());
    let connect = headers(&[(":method", "CONNECT"), (":authority", "a.example:1"), ("content-length", "9")]);
    assert!(request(&[connect, x].concat()).is_ok());
}

/// Section 4.1: "zero or more interim HTTP responses [...] followed by a single final HTTP response"; interim ones have
/// no content. Section 4.5: no 101.
#[test]
fn interim_responses_come_before_the_final_one() {
    let interim = headers(&[(":status", "103")]);
    let bytes = [interim.clone(), interim.clone(), ok(), frame(DATA, b"x")].concat();
    let items = response(ResponseTo::Connect, &bytes).unwrap();
    let statuses: Vec<_> = items
        .iter()
        .filter_map(|item| if let Item::Headers(head) = item { Some(head.status) } else { None })
        .collect();
    assert_eq!(statuses, [103, 103, 200]);
    let content = [interim.clone(), frame(DATA, b"x")].concat();
    assert_fails(response(ResponseTo::Other, &content), Connection, Code::H3_FRAME_UNEXPECTED);
    let switching = headers(&[(":status", "101")]);
    assert_fails(response(ResponseTo::Other, &switching), Stream, Code::H3_MESSAGE_ERROR);
    assert!(response(ResponseTo::Other, &[interim.repeat(16), ok()].concat()).is_ok());
    assert_fails(response(ResponseTo::Other, &interim.repeat(17)), Connection, Code::H3_EXCESSIVE_LOAD);
    // "An additional HTTP response following a final HTTP response MUST be treated as malformed".
    assert_fails(response(ResponseTo::Other, &[ok(), ok()].concat()), Stream, Code::H3_MESSAGE_ERROR);
}

/// A CONNECT that was refused has ordinary content.
#[test]
fn a_refused_connect_is_no_tunnel() {
    let refused = headers(&[(":status", "403"), ("content-length", "2")]);
    let mut reader = MessageReader::response(Limits::default(), ResponseTo::Connect);
    let items =
        read_chunks(&mut reader, [[refused, frame(DATA, b"no"), headers(&[("x", "y")])].concat()]).unwrap();
    assert!(!reader.is_tunnel());
    assert_eq!(items.len(), 4);
}

/// Two requests on one stream: the second header section is a trailer section with pseudo-header fields.
#[test]
fn a_second_request_on_a_stream_is_malformed() {
    assert_fails(request(&[get(), get()].concat()), Stream, Code::H3_MESSAGE_ERROR);
}

#[test]
fn an_error_stays_and_frees_what_was_held() {
    let mut reader = MessageReader::request(Limits::default());
    reader.push([frame(DATA, b"x"), vec![0; 1000]].concat().into());
    let first = reader.next().unwrap_err();
    assert_eq!(reader.buffered_bytes(), 0);
    reader.push(get().into());
    reader.finish();
    assert_eq!(reader.next().unwrap_err(), first);

    let mut reader = MessageReader::request(Limits::default());
    let head = get();
    reader.push(head[..head.len() - 1].to_vec().into());
    assert!(matches!(reader.next(), Ok(None)));
    assert_eq!(reader.buffered_bytes(), head.len() - 1 - 2);
    reader.finish();
    assert_eq!(reader.next().unwrap_err().code(), Code::H3_FRAME_ERROR);
    assert_eq!(reader.buffered_bytes(), 0);
}

/// The same stream in one chunk and byte by byte.
#[test]
fn byte_by_byte_gives_the_same() {
    let bytes = [frame(0x21, b"g"), get(), frame(DATA, b"abc"), headers(&[("x", "y")])].concat();
    let whole = request(&bytes).unwrap();
    let mut reader = MessageReader::request(Limits::default());
    let single = read_chunks(&mut reader, bytes.chunks(1).map(<[u8]>::to_vec)).unwrap();
    assert_eq!(outline(&whole), outline(&single));
}

#[test]
fn the_section_survives_any_form_of_frame_length() {
    // A length in 8 bytes where 1 would do: varints need not be shortest in HTTP/3.
    let payload = section(&[(":method", "CONNECT"), (":authority", "example.com:443")]);
    let mut bytes = vec![0x40, 0x01, 0xc0, 0, 0, 0, 0, 0, 0, payload.len() as u8];
    bytes.extend_from_slice(&payload);
    let items = request(&bytes).unwrap();
    assert!(matches!(&items[..], [Item::Headers(Request { kind: Kind::Connect { .. }, .. }), Item::End]));
}
