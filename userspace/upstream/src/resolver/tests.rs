//! Goal: every accepted request is answered once, the queue is bounded, and nothing hangs.
//! Method: the real resolver for `localhost`; a lookup of our own, held by a channel, for everything else.

use std::{net::Ipv4Addr, sync::mpsc, time::Instant};

use super::*;

type Answer = Result<Vec<SocketAddr>, ResolveError>;

fn addr(last: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(198, 18, (last >> 8) as u8, last as u8).into(), 0)
}

fn ask(resolver: &Resolver, host: &str) -> Answer {
    let (send, answer) = mpsc::channel();
    resolver.resolve(host, 443, Box::new(move |result| send.send(result).unwrap())).unwrap();
    answer.recv_timeout(Duration::from_secs(20)).expect("an answer")
}

#[test]
fn localhost_is_loopback() {
    let resolver = Resolver::new(Options::default()).unwrap();
    let found = ask(&resolver, "LocalHost").unwrap();
    assert!(!found.is_empty() && found.iter().all(|found| found.ip().is_loopback() && found.port() == 443));
}

#[test]
fn what_needs_no_lookup_is_answered_at_once() {
    let never = |_: &str, _: u16| -> io::Result<Vec<SocketAddr>> { panic!("looked up") };
    let resolver = Resolver::with_lookup(Options::default(), never).unwrap();
    let now = |host: &str| {
        let (send, answer) = mpsc::channel();
        resolver.resolve(host, 443, Box::new(move |result| send.send(result).unwrap())).unwrap();
        answer.try_recv().expect("answered before resolve returned")
    };
    let literal = |text: &str| Ok(vec![text.parse().unwrap()]);
    assert_eq!(now("192.0.2.1"), literal("192.0.2.1:443"));
    assert_eq!(now("2001:db8::1"), literal("[2001:db8::1]:443"));
    assert_eq!(now("[2001:db8::1]"), literal("[2001:db8::1]:443"));
    assert_eq!(now("[::ffff:192.0.2.1]"), literal("192.0.2.1:443"));
    for gone in ["invalid", "x.invalid", "x.invalid.", "x.Onion"] {
        assert_eq!(now(gone), Err(ResolveError::NotFound), "{gone}");
    }
    assert_eq!(now("a\0b"), Err(ResolveError::Invalid(InvalidHost::Character)));
    assert_eq!(now("127.1"), Err(ResolveError::Invalid(InvalidHost::EndsInNumber)));
    assert_eq!(now(""), Err(ResolveError::Invalid(InvalidHost::Empty)));
}

#[test]
fn answers_are_bounded_canonical_and_without_doubles() {
    let resolver = Resolver::with_lookup(Options::default(), |name, _| match name {
        "many.example" => Ok((0..100).flat_map(|i| [addr(i), addr(i)]).collect()),
        "mapped.example" => Ok(vec!["[::ffff:192.0.2.1]:0".parse().unwrap(), "192.0.2.1:0".parse().unwrap()]),
        _ => Ok(Vec::new()),
    })
    .unwrap();
    let many = ask(&resolver, "many.example").unwrap();
    let wanted: Vec<_> = (0..16).map(|i| SocketAddr::new(addr(i).ip(), 443)).collect();
    assert_eq!(many, wanted);
    assert_eq!(ask(&resolver, "mapped.example").unwrap(), ["192.0.2.1:443".parse().unwrap()]);
    assert_eq!(ask(&resolver, "none.example"), Err(ResolveError::NotFound));
}

#[test]
fn errors_are_sorted_by_what_getaddrinfo_said() {
    let say = |text: &'static str| classify(&io::Error::other(text));
    let prefix = "failed to lookup address information: ";
    assert_eq!(
        classify(&io::Error::other(format!("{prefix}Name or service not known"))),
        ResolveError::NotFound
    );
    assert_eq!(say("No address associated with hostname"), ResolveError::NotFound);
    assert_eq!(say("Name does not resolve"), ResolveError::NotFound);
    assert_eq!(say("Temporary failure in name resolution"), ResolveError::Temporary);
    assert_eq!(say("Try again"), ResolveError::Temporary);
    assert_eq!(say("System error"), ResolveError::Temporary);
}

/// A lookup that says when it has begun and ends when told to.
struct Held {
    resolver: Resolver,
    began: mpsc::Receiver<()>,
    release: Sender<()>,
}

fn held(options: Options) -> Held {
    let (begin, began) = mpsc::channel();
    let (release, wait) = bounded::<()>(1024);
    let resolver = Resolver::with_lookup(options, move |_, _| {
        // Errors mean that the test is over: end then as well.
        let _ = begin.send(());
        let _ = wait.recv();
        Ok(vec![addr(1)])
    });
    Held { resolver: resolver.unwrap(), began, release }
}

#[test]
fn a_full_queue_says_busy_and_every_accepted_request_is_answered() {
    let held = held(Options { thread_count: 2, queue_len: 3 });
    let (send, answers) = mpsc::channel();
    let request = |i: usize| {
        let send = send.clone();
        let name = format!("x{i}.example");
        held.resolver.resolve(&name, 1, Box::new(move |result| send.send((i, result)).unwrap()))
    };
    for i in 0..2 {
        request(i).unwrap();
        held.began.recv().unwrap();
    }
    for i in 2..5 {
        request(i).unwrap();
    }
    assert_eq!(held.resolver.waiting(), 3);
    assert_eq!(request(5), Err(Busy));
    for _ in 0..5 {
        held.release.send(()).unwrap();
    }
    let mut seen: Vec<usize> = (0..5)
        .map(|_| {
            let (i, result) = answers.recv().unwrap();
            assert_eq!(result, Ok(vec![SocketAddr::new(addr(1).ip(), 1)]));
            i
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    request(6).unwrap();
}

// Goal: one question at a time for each name, whoever asks and for whatever port, and each gets its answer.
#[test]
fn who_asks_for_the_same_name_waits_for_the_same_answer() {
    let held = held(Options { thread_count: 2, queue_len: 8 });
    let (send, answers) = mpsc::channel();
    for port in 1..=5 {
        let send = send.clone();
        held.resolver.resolve("x.example", port, Box::new(move |result| send.send(result).unwrap())).unwrap();
    }
    held.began.recv().unwrap();
    held.release.send(()).unwrap();
    let mut ports: Vec<u16> = (0..5).map(|_| answers.recv().unwrap().unwrap()[0].port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [1, 2, 3, 4, 5]);
    assert!(held.began.try_recv().is_err(), "one lookup for all");
    // And now it is known.
    assert_eq!(ask(&held.resolver, "X.example.").unwrap(), [SocketAddr::new(addr(1).ip(), 443)]);
    assert!(held.began.try_recv().is_err());
    let shared = held.resolver.report().shared.unwrap();
    assert_eq!((shared.hits, shared.inserts), (1, 1));
    // Who has no use for what is known asks anew.
    let (send, answer) = mpsc::channel();
    held.resolver.resolve_afresh("x.example", 1, Box::new(move |result| send.send(result).unwrap())).unwrap();
    held.began.recv().unwrap();
    held.release.send(()).unwrap();
    assert!(answer.recv().unwrap().is_ok());
}

// Goal: addresses hold 30 s, that there is no such name 5 s, and a failure that may pass no time; a worker's table says
// the same as the shared one. Method: a clock and a lookup of the test's own; lookups are counted.
#[test]
fn answers_hold_for_their_time() {
    let (clock, lookups) = (Arc::new(AtomicU64::new(1_000_000)), Arc::new(AtomicU64::new(0)));
    let (ticks, counted) = (clock.clone(), lookups.clone());
    let lookup = move |name: &str, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        match name {
            "found.example" => Ok(vec![addr(1)]),
            "missing.example" => Err(io::Error::other("Name or service not known")),
            _ => Err(io::Error::other("Temporary failure in name resolution")),
        }
    };
    let now = move || Stamp(ticks.load(Ordering::SeqCst));
    let resolver = Resolver::with_clock(Options { thread_count: 1, queue_len: 8 }, lookup, now).unwrap();
    let mut local = resolver.local();
    let mut step = |name: &str, at_ms: u64| {
        clock.store(1_000_000 + at_ms, Ordering::SeqCst);
        let before = lookups.load(Ordering::SeqCst);
        let (send, answer) = mpsc::channel();
        let done: Done = Box::new(move |result| send.send(result).unwrap());
        resolver.resolve_with(&mut local, name, 443, done).unwrap();
        (answer.recv().unwrap().is_ok(), lookups.load(Ordering::SeqCst) - before)
    };
    assert_eq!([step("found.example", 0), step("found.example", 29_999)], [(true, 1), (true, 0)]);
    assert_eq!([step("found.example", 29_999), step("found.example", 30_000)], [(true, 0), (true, 1)]);
    assert_eq!([step("missing.example", 30_000), step("missing.example", 34_999)], [(false, 1), (false, 0)]);
    assert_eq!([step("missing.example", 34_999), step("missing.example", 35_000)], [(false, 0), (false, 1)]);
    assert_eq!([step("later.example", 35_000), step("later.example", 35_000)], [(false, 1), (false, 1)]);
    let here = local.report().unwrap();
    // The first lookup goes past an empty table, the second promotes, the third is a hit; and so for what isn't there.
    assert_eq!((here.hits, here.negative, here.inserts, here.expired), (1, 1, 2, 2));
}

#[test]
fn dropping_it_does_not_wait_for_a_stuck_lookup_and_answers_all() {
    let Held { resolver, began, release } = held(Options { thread_count: 2, queue_len: 8 });
    let (send, answers) = mpsc::channel();
    for host in ["a.example", "b.example", "c.example", "d.example"] {
        let send = send.clone();
        resolver.resolve(host, 1, Box::new(move |result| send.send((host, result)).unwrap())).unwrap();
    }
    began.recv().unwrap();
    began.recv().unwrap();
    let start = Instant::now();
    drop(resolver);
    assert!(start.elapsed() < Duration::from_secs(5), "drop hung for {:?}", start.elapsed());
    assert!(answers.try_recv().is_err(), "both threads are stuck");
    release.send(()).unwrap();
    release.send(()).unwrap();
    let answers: Vec<_> = (0..4).map(|_| answers.recv().unwrap()).collect();
    let temporary = answers.iter().filter(|(_, result)| *result == Err(ResolveError::Temporary)).count();
    assert_eq!(temporary, 2, "those that waited are told to try again: {answers:?}");
    assert!(began.recv().is_err(), "no lookup began after the drop");
}

#[test]
fn an_idle_pool_ends_at_once() {
    let resolver = Resolver::new(Options { thread_count: 8, queue_len: 1 }).unwrap();
    let start = Instant::now();
    drop(resolver);
    assert!(start.elapsed() < JOIN_WAIT, "idle threads end when the queue does");
}

#[test]
fn a_callback_that_panics_is_counted_and_stops_nothing() {
    let resolver =
        Resolver::with_lookup(Options { thread_count: 1, queue_len: 8 }, |_, _| Ok(vec![addr(1)])).unwrap();
    resolver
        .resolve("x.example", 1, Box::new(|_| panic!("a bug in a callback (expected in this test)")))
        .unwrap();
    assert!(ask(&resolver, "y.example").is_ok());
    assert_eq!(resolver.callback_panics(), 1);
}
