//! Goal: a stack that nobody here wrote reads what we write and the other way round. Method: aioquic's HTTP/3 and its
//! QPACK (ls-qpack) run in a Python process over lists instead of QUIC; whole connections and random field sections go
//! back and forth. Needs Python with aioquic: `pip install aioquic`, and BEAM_TEST_PYTHON names the interpreter when it
//! is not `python3`. Without it the tests say SKIPPED; BEAM_TEST_REQUIRE_PEERS=1 makes that a failure, for CI.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use bytes::Bytes;
use common::{frame, headers, varints};
use masque::{
    Address, AddressAssign, Capsule, CapsuleLimits, CapsuleSet, Capsules, Config, Connection, Event,
    FieldSection, Item, Kind, MessageReader, RequestHead, ResponseTo, RouteAdvertisement, Via, context_id,
    data_header, datagram_prefix, encode_request, encode_response, encode_trailers, read_datagram, varint,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// `None`, said aloud, where there is no such Python.
    fn start() -> Option<Self> {
        let python = env::var("BEAM_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aioquic_peer.py");
        let spawned = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let peer = spawned.ok().and_then(|mut child| {
            let input = child.stdin.take()?;
            let output = BufReader::new(child.stdout.take()?);
            let mut peer = Self { child, input, output };
            // A Python without aioquic ends before it says anything.
            let mut line = String::new();
            peer.output.read_line(&mut line).ok()?;
            (line.trim() == "\"ready\"").then_some(peer)
        });
        if peer.is_none() {
            assert!(
                env::var_os("BEAM_TEST_REQUIRE_PEERS").is_none(),
                "{python} with aioquic is required and absent"
            );
            eprintln!("SKIPPED: needs {python} with aioquic (pip install aioquic; BEAM_TEST_PYTHON=...)");
        }
        peer
    }

    fn call(&mut self, command: Value) -> Value {
        writeln!(self.input, "{command}").expect("the peer takes commands");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the peer answers");
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{command} was answered with {line:?}: {error}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal text").as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit") as u8;
    text.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn to_json(fields: &[(&str, &str)]) -> Value {
    fields.iter().map(|(name, value)| json!([hex(name.as_bytes()), hex(value.as_bytes())])).collect()
}

fn from_json(value: &Value) -> Pairs {
    value.as_array().expect("pairs").iter().map(|pair| (unhex(&pair[0]), unhex(&pair[1]))).collect()
}

fn owned(fields: &[(&str, &str)]) -> Pairs {
    fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn section_of(fields: &FieldSection) -> Pairs {
    fields.iter().map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec())).collect()
}

/// Payload of the one HEADERS frame.
fn payload(frame: &[u8]) -> &[u8] {
    let (_, kind_bytes) = varint::read(frame).unwrap();
    let (_, length_bytes) = varint::read(&frame[kind_bytes..]).unwrap();
    &frame[kind_bytes + length_bytes..]
}

/// What aioquic wrote on its unidirectional streams goes into `connection`; the rest is returned.
fn take_sent(connection: &mut Connection, answer: &Value) -> (Vec<u8>, bool) {
    let (mut stream, mut fin) = (Vec::new(), false);
    for sent in answer["sent"].as_array().unwrap() {
        let id = sent[0].as_u64().unwrap();
        if id & 2 == 0 {
            stream.extend(unhex(&sent[1]));
            fin |= sent[2].as_bool().unwrap();
            continue;
        }
        connection.uni_opened(id).unwrap();
        let events = connection.uni_data(id, unhex(&sent[1]).into(), false).unwrap();
        assert!(!events.iter().any(|event| matches!(event, Event::StopSending { .. })));
    }
    (stream, fin)
}

fn open(peer: &mut Peer, connection: &Connection, first_id: u64) {
    let answer = peer.call(json!(["receive", first_id, hex(&connection.opening()), false]));
    assert_eq!((&answer["closed"], &answer["result"]), (&Value::Null, &json!([])));
    let settings = peer.call(json!(["settings"]))["result"].clone();
    assert_eq!(settings["6"], 16_384);
    assert_eq!((&settings["1"], &settings["7"]), (&json!(0), &json!(0)));
}

/// aioquic is the client: CONNECT with a token, data both ways, an end; then a CONNECT-UDP and a GET.
#[test]
fn aioquic_as_client() {
    let Some(mut peer) = Peer::start() else { return };
    let mut server = Connection::server(Config { h3_datagram: true, grease: 12_345, ..Config::default() });
    let answer = peer.call(json!(["start", true]));
    take_sent(&mut server, &answer);
    let settings = server.peer_settings().expect("aioquic's settings");
    assert!(settings.qpack_max_table_capacity() > 0, "aioquic offers a dynamic table: {settings:?}");
    open(&mut peer, &server, 3);
    let settings = peer.call(json!(["settings"]))["result"].clone();
    assert_eq!((&settings["8"], &settings["51"]), (&json!(1), &json!(1)));

    let fields = [
        (":method", "CONNECT"),
        (":authority", "example.com:443"),
        ("proxy-authorization", "Bearer t0ken"),
        ("user-agent", "aioquic"),
    ];
    let answer = peer.call(json!(["headers", 0, to_json(&fields), false]));
    let (bytes, fin) = take_sent(&mut server, &answer);
    assert!(!fin);
    let mut reader = MessageReader::request(server.limits());
    reader.push(bytes.into());
    let Ok(Some(Item::Headers(request))) = reader.next() else { panic!() };
    assert!(
        matches!(&request.kind, Kind::Connect { authority } if authority.to_string() == "example.com:443")
    );
    assert_eq!(section_of(&request.fields), owned(&fields[3..]));
    let credentials = request.authorization.unwrap();
    assert_eq!((credentials.via, credentials.token.expose()), (Via::ProxyAuthorization, &b"t0ken"[..]));

    let response = encode_response(200, &[("proxy-status", "beam")]);
    let body = [data_header(5).as_ref(), b"hello"].concat();
    let answer = peer.call(json!(["receive", 0, hex(&[&response[..], &body].concat()), false]));
    assert_eq!(
        answer["result"],
        json!([
            ["headers", to_json(&[(":status", "200"), ("proxy-status", "beam")])],
            ["data", hex(b"hello")]
        ])
    );
    let answer = peer.call(json!(["data", 0, hex(&[9; 5000]), true]));
    let (bytes, fin) = take_sent(&mut server, &answer);
    assert!(fin);
    reader.push(bytes.into());
    assert!(matches!(reader.next(), Ok(Some(Item::Data(data))) if data[..] == [9; 5000]));
    reader.finish();
    assert!(matches!(reader.next(), Ok(Some(Item::End))));

    for (id, fields) in [
        (
            4,
            &[
                (":method", "CONNECT"),
                (":protocol", "connect-udp"),
                (":scheme", "https"),
                (":authority", "gw.example"),
                (":path", "/.well-known/masque/udp/192.0.2.6/443/"),
                ("capsule-protocol", "?1"),
            ][..],
        ),
        (8, &[(":method", "GET"), (":scheme", "https"), (":authority", "gw.example"), (":path", "/")]),
    ] {
        let answer = peer.call(json!(["headers", id, to_json(fields), true]));
        let (bytes, _) = take_sent(&mut server, &answer);
        let mut reader = MessageReader::request(server.limits());
        reader.push(bytes.into());
        let Ok(Some(Item::Headers(request))) = reader.next() else { panic!() };
        match request.kind {
            Kind::ExtendedConnect { protocol, .. } => assert_eq!((id, protocol.as_str()), (4, "connect-udp")),
            Kind::Other { path, .. } => assert_eq!((id, path.as_str()), (8, "/")),
            Kind::Connect { .. } => panic!("not a CONNECT"),
        }
    }
    let goaway = server.goaway(12);
    let answer = peer.call(json!(["receive", 3, hex(&goaway), false]));
    assert_eq!(answer["closed"], Value::Null);
}

/// aioquic is the server: it reads our CONNECT and our data, we read its response, data and trailers.
#[test]
fn aioquic_as_server() {
    let Some(mut peer) = Peer::start() else { return };
    let mut client = Connection::client(Config::default());
    let answer = peer.call(json!(["start", false]));
    take_sent(&mut client, &answer);
    assert!(client.peer_settings().is_some());
    open(&mut peer, &client, 2);

    let fields = [("proxy-authorization", "Bearer t0ken"), ("x-beam", "1")];
    let request = encode_request(&RequestHead::connect("[2001:db8::1]:22", &fields));
    let bytes = [&request[..], data_header(3).as_ref(), b"ssh", &frame(0x21, b"grease")].concat();
    let answer = peer.call(json!(["receive", 0, hex(&bytes), false]));
    let expected = [&[(":method", "CONNECT"), (":authority", "[2001:db8::1]:22")][..], &fields].concat();
    assert_eq!(answer["result"], json!([["headers", to_json(&expected)], ["data", hex(b"ssh")]]));

    let mut reader = MessageReader::response(client.limits(), ResponseTo::Connect);
    for command in [
        json!(["headers", 0, to_json(&[(":status", "200"), ("server", "aioquic")]), false]),
        json!(["data", 0, hex(b"banner"), true]),
    ] {
        let answer = peer.call(command);
        reader.push(take_sent(&mut client, &answer).0.into());
    }
    reader.finish();
    let Ok(Some(Item::Headers(response))) = reader.next() else { panic!() };
    assert_eq!((response.status, section_of(&response.fields)), (200, owned(&[("server", "aioquic")])));
    assert!(matches!(reader.next(), Ok(Some(Item::Data(data))) if data == "banner"));
    assert!(matches!(reader.next(), Ok(Some(Item::End))));

    // Content and trailers, on a request that is no CONNECT.
    let request = encode_request(&RequestHead::other("GET", "gw.example", "/metrics", &[]));
    let answer = peer.call(json!([
        "receive",
        4,
        hex(&[&request[..], &encode_trailers(&[("x-t", "1")])].concat()),
        true
    ]));
    assert_eq!(answer["result"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(answer["closed"], Value::Null);
}

/// HTTP datagrams go both ways in what would be QUIC DATAGRAM frames, one that is too short ends aioquic's connection with
/// the code that ours gives, and capsules are read as they were written.
#[test]
fn datagrams_and_capsules_both_ways() {
    let Some(mut peer) = Peer::start() else { return };
    peer.call(json!(["start", true]));
    for stream_id in [0, 4, 252, 256, 65_536, 1 << 40, (1 << 62) - 4] {
        for context in [0, 64, 1 << 30] {
            let payload = [5; 1200];
            let ours = [&datagram_prefix(stream_id, context)[..], &payload].concat();
            let answer = peer.call(json!(["receive_datagram", hex(&ours)]));
            let datagram = [varints(&[context]), payload.to_vec()].concat();
            assert_eq!(answer["result"], json!([[stream_id, hex(&datagram)]]));
            let answer = peer.call(json!(["send_datagram", stream_id, hex(&datagram)]));
            let (seen, rest) = read_datagram(unhex(&answer["result"]).into()).unwrap();
            assert_eq!((seen, context_id(rest)), (stream_id, Ok((context, Bytes::from_static(&[5; 1200])))));
        }
    }

    let assigned = Address { request_id: 300, prefix: "2001:db8::/64".parse().unwrap() };
    let capsules = [
        Capsule::Datagram(Bytes::from(vec![0; 1201])),
        Capsule::AddressAssign(AddressAssign::new(vec![assigned]).unwrap()),
        Capsule::RouteAdvertisement(RouteAdvertisement::covering([assigned.prefix]).unwrap()),
        Capsule::Datagram(Bytes::from_static(b"\0last")),
    ];
    let mut ours = Vec::new();
    capsules.iter().for_each(|capsule| capsule.encode(&mut ours));
    let read = peer.call(json!(["decode_capsules", hex(&ours)]))["result"].clone();
    let kinds: Vec<_> = read.as_array().unwrap().iter().map(|capsule| capsule[0].as_u64().unwrap()).collect();
    assert_eq!(kinds, [0, 1, 3, 0]);
    let theirs = unhex(&peer.call(json!(["encode_capsules", read]))["result"]);
    assert_eq!(theirs, ours);
    let mut reader = Capsules::new(CapsuleSet::Ip, CapsuleLimits::default());
    reader.push(theirs.into());
    for capsule in capsules {
        assert_eq!(reader.next(), Ok(Some(capsule)));
    }

    let short = Bytes::from_static(&[0x40]);
    let answer = peer.call(json!(["receive_datagram", hex(&short)]));
    assert_eq!(answer["closed"][0], read_datagram(short).unwrap_err().code.0);
}

/// ls-qpack decodes what we encode, we decode what it encodes, and both static tables are equal entry by entry.
#[test]
fn ls_qpack_both_ways() {
    let Some(mut peer) = Peer::start() else { return };
    for index in 0..99u8 {
        let line = if index < 63 { vec![0xc0 | index] } else { vec![0xff, index - 63] };
        let section = [&[0, 0][..], &line].concat();
        let theirs = from_json(&peer.call(json!(["qpack_decode", hex(&section)]))["result"]);
        let (name, value) = &theirs[0];
        // Our encoder knows the same entry under the same index, and so does our decoder.
        let (name, value) = (str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap());
        let ours = encode_trailers(&[(name, value)]);
        assert_eq!(payload(&ours), section, "entry {index}, {name}: {value}");
        if !name.starts_with(':') {
            let mut reader = MessageReader::response(Default::default(), ResponseTo::Other);
            reader.push(headers(&[(":status", "200")]).into());
            reader.push(frame(1, &section).into());
            assert!(matches!(reader.next(), Ok(Some(Item::Headers(_)))));
            let Ok(Some(Item::Trailers(trailers))) = reader.next() else { panic!("entry {index}") };
            assert_eq!(section_of(&trailers), theirs);
        }
    }
    let seed = 0x9204;
    println!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..300 {
        let fields = random_fields(&mut rng);
        let borrowed: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let ours = encode_trailers(&borrowed);
        let theirs = peer.call(json!(["qpack_decode", hex(payload(&ours))]));
        assert_eq!(from_json(&theirs["result"]), owned(&borrowed), "round {round}");

        let theirs = unhex(&peer.call(json!(["qpack_encode", to_json(&borrowed)]))["result"]);
        assert!(
            payload(&ours).len() <= theirs.len(),
            "ours {}, theirs {}",
            payload(&ours).len(),
            theirs.len()
        );
        let mut reader = MessageReader::response(Default::default(), ResponseTo::Other);
        reader.push(Bytes::from([headers(&[(":status", "200")]), frame(1, &theirs)].concat()));
        assert!(matches!(reader.next(), Ok(Some(Item::Headers(_)))));
        let Ok(Some(Item::Trailers(trailers))) = reader.next() else { panic!("round {round}") };
        assert_eq!(section_of(&trailers), owned(&borrowed), "round {round}");
    }
}

fn random_fields(rng: &mut StdRng) -> Vec<(String, String)> {
    const NAMES: [&str; 8] = [
        "x-a",
        "user-agent",
        "authorization",
        "vary",
        "content-type",
        "a-rather-long-name-of-a-field",
        "age",
        "cookie",
    ];
    (0..rng.random_range(1..12))
        .map(|_| {
            let name = NAMES[rng.random_range(0..NAMES.len())].to_owned();
            let length = rng.random_range(0..120);
            let dense = rng.random_bool(0.5);
            let value = (0..length)
                .map(|_| {
                    if dense {
                        char::from(rng.random_range(b'a'..=b'z'))
                    } else {
                        char::from(rng.random_range(b' '..=b'~'))
                    }
                })
                .collect();
            (name, value)
        })
        .collect()
}
