//! Goal: no input makes a decoder panic or hold more than its bound. Method: valid streams, broken by a seeded generator
//! (flipped bits, lost, repeated, inserted and swapped bytes, interesting integers), through the entry that fuzzers use,
//! which checks the bounds. MASQUE_FUZZ_SEED and MASQUE_FUZZ_ITERATIONS, or MASQUE_FUZZ_SECONDS, choose another run; a
//! failure prints both the seed and the input.

mod common;

use common::{connect, frame, get, headers, varints};
use masque::{
    Address, AddressAssign, AddressRequest, Capsule, Config, Connection, IpPrefix, RequestHead,
    RouteAdvertisement, encode_request, encode_response, fuzz, listen,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{
    env, panic,
    time::{Duration, Instant},
};

const ITERATION_COUNT: u64 = 400_000;
const INPUT_BYTES_MAX: usize = 4096;

fn corpus() -> Vec<Vec<u8>> {
    let token = "t".repeat(200);
    let fields = [("proxy-authorization", token.as_str()), ("user-agent", "beam/0.1"), ("x-y", "z")];
    let udp =
        RequestHead::extended_connect("connect-udp", "a.example", "/.well-known/masque/udp/h/1/", &fields);
    let server = Connection::server(Config { h3_datagram: true, ..Config::default() });
    let control = server.opening().to_vec();
    vec![
        [connect(), frame(0, b"hello"), frame(0x21, b"grease"), frame(0, b"bye")].concat(),
        [get(), frame(0, &[7; 100]), headers(&[("x-sum", "1")])].concat(),
        encode_request(&RequestHead::connect("[2001:db8::1]:443", &fields)).to_vec(),
        [encode_request(&udp).to_vec(), frame(0, &[0, 2, 0, 1])].concat(),
        encode_request(&RequestHead::other("POST", "a.example", "/", &[("content-length", "3")])).to_vec(),
        [headers(&[(":status", "103")]), encode_response(200, &fields).to_vec(), frame(0, b"body")].concat(),
        encode_response(407, &[("proxy-authenticate", "Bearer"), ("content-length", "0")]).to_vec(),
        [control.clone(), frame(7, &varints(&[40])), frame(13, &[5]), frame(0x21, b"g"), frame(7, &[4])]
            .concat(),
        [vec![2], vec![0x20; 5]].concat(),
        vec![3, 0x48, 0x7f, 0x80, 0x01],
        capsules(),
        capsules(),
        [varints(&[4, 0]), b"a datagram".to_vec()].concat(),
        b"/.well-known/masque/udp/2001%3Adb8%3A%3A1/443/".to_vec(),
        b"/.well-known/masque/ip/10.1.0.0%2F16/*/".to_vec(),
        b"/.well-known/beam/listen/tcp/198.18.0.1/8080/".to_vec(),
        b"/.well-known/beam/accept/1/".to_vec(),
        b"a.example:443".to_vec(),
        b"[2001:db8::1]:443".to_vec(),
    ]
}

/// Each kind of capsule, among them one for every tunnel; see fuzz.rs for the bounds.
fn capsules() -> Vec<u8> {
    let prefix = |text: &str| -> IpPrefix { text.parse().expect("a prefix") };
    let addresses: Vec<_> = ["198.18.0.7/32", "2001:db8::/64"]
        .into_iter()
        .zip(1..)
        .map(|(text, request_id)| Address { request_id, prefix: prefix(text) })
        .collect();
    let routes = ["10.1.0.0/16", "10.3.0.0/16", "2001:db8::/32"].map(prefix);
    let peer = "[2001:db8::1]:4711".parse().expect("an address");
    let mut out = vec![0x17, 3, 1, 2, 3];
    for capsule in [
        AddressRequest::new(addresses.clone()).map(Capsule::AddressRequest),
        Ok(Capsule::Datagram(vec![0; 70].into())),
        AddressAssign::new(addresses).map(Capsule::AddressAssign),
        RouteAdvertisement::covering(routes).map(Capsule::RouteAdvertisement),
        Ok(Capsule::Accept(listen::Accept::new(1, peer).expect("an id"))),
        Ok(Capsule::Datagram(vec![1, 2, 3].into())),
        Ok(Capsule::Close(listen::Close::new(1).expect("an id"))),
    ] {
        capsule.expect("a valid capsule").encode(&mut out);
    }
    out
}

fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    const INTERESTING: [u8; 12] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xff, 0x20, 0x51, 0x27];
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = INTERESTING[rng.random_range(0..INTERESTING.len())],
        2 if at < bytes.len() => drop(bytes.remove(at)),
        3 => bytes.insert(at, rng.next_u32() as u8),
        4 => bytes.truncate(at),
        5 => {
            let end = rng.random_range(at..=bytes.len());
            let repeated = bytes[at..end].to_vec();
            bytes.splice(at..at, repeated);
        }
        _ => {
            let value = rng.next_u64() >> rng.random_range(2..64);
            bytes.splice(at..at, varints(&[value]));
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

fn from_environment(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

#[test]
fn no_mutation_panics_or_is_held() {
    let seed = from_environment("MASQUE_FUZZ_SEED", 0x6265_616d);
    let iteration_count = from_environment("MASQUE_FUZZ_ITERATIONS", ITERATION_COUNT);
    let duration = env::var("MASQUE_FUZZ_SECONDS")
        .ok()
        .map(|text| Duration::from_secs(text.parse().expect("MASQUE_FUZZ_SECONDS is a number")));
    println!("seed {seed}, {iteration_count} iterations or {duration:?}");
    let mut rng = StdRng::seed_from_u64(seed);
    let corpus = corpus();
    let start = Instant::now();
    for iteration in 0.. {
        let is_over = match duration {
            // The clock is asked now and then.
            Some(duration) => iteration % 1024 == 0 && start.elapsed() >= duration,
            None => iteration == iteration_count,
        };
        if is_over {
            println!("{iteration} iterations took {:?}", start.elapsed());
            break;
        }
        let mut input = corpus[rng.random_range(0..corpus.len())].clone();
        for _ in 0..rng.random_range(0..8) {
            mutate(&mut rng, &mut input);
        }
        let choice = [rng.next_u32() as u8, rng.next_u32() as u8];
        let input = [&choice[..], &input].concat();
        if let Err(panicked) = panic::catch_unwind(|| fuzz::one_input(&input)) {
            eprintln!("seed {seed}, iteration {iteration}, input {}", input.escape_ascii());
            panic::resume_unwind(panicked);
        }
    }
}
