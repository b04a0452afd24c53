//! Goal: every way in which a header section can be malformed (RFC 9114 sections 4.1.2 to 4.4, RFC 9220), and what the
//! well-formed ones come to. Method: literal field sections, one rule broken in each.

mod common;

use common::{headers, read_chunks};
use masque::{
    Code, HostPort, Item, Kind, Limits, MessageReader, Request, RequestHead, Response, ResponseTo, Scheme,
    Scope, Via, encode_request, encode_response,
};

type Lines<'a> = &'a [(&'a str, &'a str)];

fn parse_with(extended_connect: bool, lines: Lines<'_>) -> Result<Request, masque::MessageError> {
    let limits = Limits { extended_connect, ..Limits::default() };
    let items = read_chunks(&mut MessageReader::request(limits), [headers(lines)])?;
    match items.into_iter().next() {
        Some(Item::Headers(request)) => Ok(request),
        other => panic!("{other:?}"),
    }
}

fn parse(lines: Lines<'_>) -> Result<Request, masque::MessageError> {
    parse_with(true, lines)
}

fn parse_response(lines: Lines<'_>) -> Result<Response, masque::MessageError> {
    let mut reader = MessageReader::response(Limits::default(), ResponseTo::Other);
    let items = read_chunks(&mut reader, [headers(lines)])?;
    match items.into_iter().next() {
        Some(Item::Headers(response)) => Ok(response),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_malformed<T: std::fmt::Debug>(result: Result<T, masque::MessageError>, lines: Lines<'_>) {
    let error = result.expect_err(&format!("accepted: {lines:?}"));
    assert_eq!(
        (error.code(), error.scope(), error.status()),
        (Code::H3_MESSAGE_ERROR, Scope::Stream, Some(400))
    );
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/x?y")];
const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "a.example:443")];
const EXTENDED: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "connect-udp"),
    (":scheme", "https"),
    (":authority", "proxy.example"),
    (":path", "/.well-known/masque/udp/192.0.2.1/443/"),
];

#[test]
fn the_three_kinds() {
    let request = parse(&CONNECT).unwrap();
    assert_eq!(request.kind, Kind::Connect { authority: HostPort::parse("a.example:443").unwrap() });

    let request = parse(&EXTENDED).unwrap();
    let Kind::ExtendedConnect { protocol, scheme, authority, path } = request.kind else { panic!() };
    assert_eq!((protocol.as_str(), scheme.as_str()), ("connect-udp", "https"));
    assert_eq!((authority.to_string().as_str(), authority.port), ("proxy.example", None));
    assert_eq!(path, "/.well-known/masque/udp/192.0.2.1/443/");

    let request = parse(&GET).unwrap();
    let Kind::Other { scheme, authority, path } = request.kind else { panic!() };
    assert_eq!((scheme.as_str(), path.as_str()), ("https", "/x?y"));
    assert_eq!(authority.unwrap().to_string(), "a.example");
    assert_eq!(request.method, "GET");
}

/// cli.md: "`:authority` may lack the port". Whether that is a 400 is the caller's decision.
#[test]
fn a_connect_without_a_port_parses() {
    let request = parse(&[(":method", "CONNECT"), (":authority", "a.example")]).unwrap();
    assert!(matches!(request.kind, Kind::Connect { authority } if authority.port.is_none()));
}

/// "All HTTP/3 requests MUST include exactly one value for the ":method", ":scheme", and ":path" pseudo-header fields".
#[test]
fn each_pseudo_header_exactly_once() {
    for whole in [&GET[..], &CONNECT, &EXTENDED] {
        for at in 0..whole.len() {
            if whole[at].0 == ":protocol" {
                continue; // Without it this is a CONNECT with a path; the test below has it.
            }
            let mut without = whole.to_vec();
            without.remove(at);
            assert_malformed(parse(&without), &without);
        }
        for at in 0..whole.len() {
            let mut twice = whole.to_vec();
            twice.push(whole[at]);
            assert_malformed(parse(&twice), &twice);
        }
    }
}

/// "Endpoints MUST treat a request or response that contains undefined or invalid pseudo-header fields as malformed";
/// "pseudo-header fields defined for responses MUST NOT appear in requests" and the other way round.
#[test]
fn undefined_and_misplaced_pseudo_headers() {
    for extra in [(":status", "200"), (":foo", "x"), (":", "x"), (":Method", "GET"), (":path ", "/")] {
        let lines = [&GET[..], &[extra]].concat();
        assert_malformed(parse(&lines), &lines);
    }
    for extra in
        [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "a"), (":protocol", "x")]
    {
        let lines = [(":status", "200"), extra];
        assert_malformed(parse_response(&lines), &lines);
    }
}

/// "All pseudo-header fields MUST appear in the header section before regular header fields."
#[test]
fn pseudo_header_after_a_regular_field() {
    let lines = [("x", "y"), GET[0], GET[1], GET[2], GET[3]];
    assert_malformed(parse(&lines), &lines);
    let lines = [GET[0], GET[1], GET[2], ("x", "y"), GET[3]];
    assert_malformed(parse(&lines), &lines);
    let lines = [("x", "y"), (":status", "200")];
    assert_malformed(parse_response(&lines), &lines);
}

/// Section 4.4: ":scheme" and ":path" are omitted. RFC 9220 and 8441: ":protocol" comes with them, only in a CONNECT,
/// and only where it was announced.
#[test]
fn connect_and_its_extended_form() {
    for extra in [(":scheme", "https"), (":path", "/")] {
        let lines = [&CONNECT[..], &[extra]].concat();
        assert_malformed(parse(&lines), &lines);
    }
    let lines = [&GET[..], &[(":protocol", "connect-udp")]].concat();
    assert_malformed(parse(&lines), &lines);
    let lines = [&CONNECT[..], &[(":protocol", "connect-udp")]].concat();
    assert_malformed(parse(&lines), &lines);
    assert_malformed(parse_with(false, &EXTENDED), &EXTENDED);
    let without = [EXTENDED[0], EXTENDED[2], EXTENDED[3], EXTENDED[4]];
    assert_malformed(parse(&without), &without);
}

/// "Characters in field names MUST be converted to lowercase": "a request or response containing uppercase characters
/// in field names MUST be treated as malformed"; section 10.3: so are characters that are not permitted.
#[test]
fn names_and_values() {
    for name in ["Foo", "x-A", "", "a b", "a:b", "a\u{e9}", "a\0", "a\n", "(a)", "a@b", "te\u{7f}"] {
        let lines = [&GET[..], &[(name, "v")]].concat();
        assert_malformed(parse(&lines), &lines);
        let lines = [(":status", "200"), (name, "v")];
        assert_malformed(parse_response(&lines), &lines);
    }
    for value in ["a\0", "a\r\nb: c", "\n", "\u{1}", "\u{7f}"] {
        let lines = [&GET[..], &[("x", value)]].concat();
        assert_malformed(parse(&lines), &lines);
    }
    for (name, value) in [("x", ""), ("x", "a\tb c"), ("x", "\u{e9}"), ("!#$%&'*+-.^_`|~09az", "v")] {
        let request = parse(&[&GET[..], &[(name, value)]].concat()).unwrap();
        assert_eq!(request.fields.get(name), Some(value));
    }
}

/// "Any message containing connection-specific fields MUST be treated as malformed"; te "MUST NOT contain any value
/// other than "trailers"".
#[test]
fn connection_specific_fields() {
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
    ] {
        let lines = [&GET[..], &[(name, value)]].concat();
        assert_malformed(parse(&lines), &lines);
        let lines = [(":status", "200"), (name, value)];
        assert_malformed(parse_response(&lines), &lines);
    }
    assert!(parse(&[&GET[..], &[("te", "trailers")]].concat()).is_ok());
}

/// Sections 4.1.2 and 4.3.1: "invalid values for pseudo-header fields".
#[test]
fn invalid_values_of_pseudo_headers() {
    for (at, value) in [
        (0, ""),
        (0, "G ET"),
        (0, "GET\r"),
        (1, ""),
        (1, "1http"),
        (1, "ht tp"),
        (1, "http://"),
        (2, ""),
        (2, "user@a.example"),
        (2, "a.example:0"),
        (2, "a.example:x"),
        (2, "a example"),
        (2, "\u{e9}.example"),
        (3, ""),
        (3, "x"),
        (3, "*"),
        (3, "/a b"),
        (3, "/a#b"),
        (3, "/\u{e9}"),
        (3, "/\n"),
    ] {
        let mut lines = GET;
        lines[at].1 = value;
        assert_malformed(parse(&lines), &lines);
    }
    let mut options = GET;
    options[0].1 = "OPTIONS";
    options[3].1 = "*";
    assert!(parse(&options).is_ok());
    for authority in ["", "user:secret@a.example:443", "a.example:65536", "[::1", ":443", "127.1:80"] {
        let lines = [(":method", "CONNECT"), (":authority", authority)];
        assert_malformed(parse(&lines), &lines);
    }
    for status in ["", "20", "2000", "abc", "0200", "+20", "099", " 200", "101"] {
        assert_malformed(parse_response(&[(":status", status)]), &[(":status", status)]);
    }
    assert_malformed(parse_response(&[("x", "y")]), &[]);
    assert_malformed(parse_response(&[(":status", "200"), (":status", "200")]), &[]);
}

/// "The request MUST contain either an ":authority" pseudo-header field or a "Host" header field. If these fields are
/// present, they MUST NOT be empty. If both fields are present, they MUST contain the same value."
#[test]
fn authority_and_host() {
    let host_only = [GET[0], GET[1], GET[3], ("host", "a.example:8443")];
    let request = parse(&host_only).unwrap();
    assert!(matches!(request.kind, Kind::Other { authority: Some(at), .. } if at.port == Some(8443)));
    assert!(parse(&[&GET[..], &[("host", "A.example")]].concat()).is_ok());
    for lines in [
        [&GET[..], &[("host", "b.example")]].concat(),
        [&GET[..], &[("host", "")]].concat(),
        [&GET[..], &[("host", "a.example"), ("host", "a.example")]].concat(),
        vec![GET[0], GET[1], GET[3]],
        vec![GET[0], GET[1], GET[3], ("host", "")],
        [&EXTENDED[..], &[("host", "b.example")]].concat(),
    ] {
        assert_malformed(parse(&lines), &lines);
    }
    // A scheme without a mandatory authority.
    let request = parse(&[(":method", "GET"), (":scheme", "urn"), (":path", "x")]).unwrap();
    assert!(matches!(request.kind, Kind::Other { authority: None, .. }));
}

#[test]
fn content_length_is_one_number() {
    for values in [&["x"][..], &["-1"], &["+1"], &[""], &["1", "2"], &["1, 1"], &["18446744073709551616"]] {
        let mut lines = GET.to_vec();
        lines.extend(values.iter().map(|value| ("content-length", *value)));
        assert_malformed(parse(&lines), &lines);
    }
    assert_eq!(parse(&[&GET[..], &[("content-length", "0")]].concat()).unwrap().content_length, Some(0));
}

/// cli.md: Firefox sends `authorization`, others `proxy-authorization`. The token is taken out of the fields and no
/// Debug shows it.
#[test]
fn credentials_from_both_fields_and_never_printed() {
    let with = |extra: Lines<'_>| parse(&[&CONNECT[..], extra].concat());
    let both = [("authorization", "Bearer origin-secret"), ("proxy-authorization", "Basic cHJveHk6c2VjcmV0")];
    for (extra, via, scheme, token) in [
        (&both[..1], Via::Authorization, Scheme::Bearer, "origin-secret"),
        (&both[1..], Via::ProxyAuthorization, Scheme::Basic, "cHJveHk6c2VjcmV0"),
        (&both[..], Via::ProxyAuthorization, Scheme::Basic, "cHJveHk6c2VjcmV0"),
    ] {
        let request = with(extra).unwrap();
        let shown = format!("{request:?}");
        assert!(!shown.contains("secret") && !shown.contains("cHJveHk6"), "{shown}");
        assert!(request.fields.is_empty());
        let credentials = request.authorization.unwrap();
        assert_eq!((credentials.via, credentials.scheme), (via, scheme));
        assert_eq!(credentials.token.expose(), token.as_bytes());
    }
    assert!(with(&[]).unwrap().authorization.is_none());
    let twice = [both[0], both[0]];
    assert_malformed(with(&twice), &twice);
    // Cookies stay in the fields, and stay hidden.
    let shown = format!("{:?}", with(&[("cookie", "sesame")]).unwrap());
    assert!(shown.contains("cookie") && !shown.contains("sesame"), "{shown}");
}

#[test]
fn encoded_requests_parse_to_what_they_say() {
    let fields = [("Proxy-Authorization", "Bearer t"), ("user-agent", "beam")];
    let read = |head: &RequestHead<'_>| {
        let frame = encode_request(head).to_vec();
        let items = read_chunks(&mut MessageReader::request(Limits::default()), [frame]).unwrap();
        let [Item::Headers(request), Item::End] = <[_; 2]>::try_from(items).unwrap() else { panic!() };
        request
    };
    let request = read(&RequestHead::connect("[2001:db8::1]:22", &fields));
    assert!(
        matches!(request.kind, Kind::Connect { authority } if authority.to_string() == "[2001:db8::1]:22")
    );
    assert_eq!(request.fields.get("user-agent"), Some("beam"));
    assert_eq!(request.authorization.unwrap().token.expose(), b"t");

    let request = read(&RequestHead::extended_connect("connect-ip", "gw.example", "/p/", &[]));
    assert!(matches!(request.kind, Kind::ExtendedConnect { protocol, .. } if protocol == "connect-ip"));

    let request = read(&RequestHead::other("GET", "gw.example:443", "/", &[]));
    assert!(matches!(request.kind, Kind::Other { path, .. } if path == "/"));
}

/// A value with a line break, say an upstream's error text, must not make the peer refuse the response.
#[test]
fn encoded_responses_are_always_well_formed() {
    for status in [100, 200, 407, 425, 502, 599] {
        let frame =
            encode_response(status, &[("Proxy-Status", "beam; error=x; details=\"a\r\nb\0\""), ("x", "")]);
        let mut reader = MessageReader::response(Limits::default(), ResponseTo::Other);
        reader.push(frame);
        let Ok(Some(Item::Headers(response))) = reader.next() else { panic!("{status}") };
        assert_eq!(response.status, status);
        assert_eq!(response.fields.get("proxy-status"), Some("beam; error=x; details=\"a  b \""));
        assert_eq!(response.fields.len(), 2);
    }
}
