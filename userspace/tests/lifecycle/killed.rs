//! kill -9, and a TCP connection beside beam that must not notice anything.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::pair::{FORWARD_PORT, LIMIT, Place, pattern_sha256, until};
use crate::rig::{self, EchoServer, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, pattern};
use crate::{NATIVE_CLIENT, NATIVE_GATEWAY, dial, local};

/// What stands for ssh: one TCP connection between the namespaces that says something and hears it back, for ever.
struct Bystander {
    heard_count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
    _echo: EchoServer,
}

impl Bystander {
    fn start(place: &Place) -> Self {
        let echo = EchoServer::start(&place.rig, Ns::Gateway, GATEWAY_V4, 0);
        let stream = dial(place, echo.address());
        let (heard_count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (heard_of_thread, stop_of_thread) = (heard_count.clone(), stop.clone());
        let thread = std::thread::spawn(move || keep_talking(stream, &heard_of_thread, &stop_of_thread));
        Self { heard_count, stop, thread: Some(thread), _echo: echo }
    }

    fn heard_count(&self) -> u64 {
        self.heard_count.load(Ordering::Relaxed)
    }

    /// Panics unless the conversation goes on from here.
    fn keeps_flowing(&self, when: &str) {
        let before = self.heard_count();
        let wanted = before + 50;
        let done = |&now: &u64| now >= wanted;
        let asking = || {
            std::thread::yield_now();
            self.heard_count()
        };
        let now = until(&format!("the TCP connection beside beam flows {when}"), asking, done);
        println!("{when}: {before} answers before, {now} now");
    }

    fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("finished once");
        thread.join().expect("the bystander's thread").expect("the connection beside beam never broke");
    }
}

fn keep_talking(mut stream: TcpStream, heard_count: &AtomicU64, stop: &AtomicBool) -> io::Result<()> {
    let mut answer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let number = heard_count.load(Ordering::Relaxed);
        let said: [u8; 64] = std::array::from_fn(|i| pattern(number * 64 + i as u64));
        stream.write_all(&said)?;
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, said, "answer {number}");
        heard_count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn a_killed_gateway_leaves_no_program_and_disturbs_nobody() {
    if !rig::root_or_skip("a_killed_gateway_leaves_no_program_and_disturbs_nobody") {
        return;
    }
    const BODY_BYTES: u64 = 32 << 20;
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let bystander = Bystander::start(&place);
    bystander.keeps_flowing("before beam");

    let mut gateway = place.gateway(GATEWAY_V4, &NATIVE_GATEWAY);
    let client = place.client(GATEWAY_V4, &http.address().to_string(), &NATIVE_CLIENT);
    assert_eq!(place.rig.xdp_hook(Ns::Gateway, "g0"), Some("native"));
    bystander.keeps_flowing("with both programs attached");

    let before = bystander.heard_count();
    let url = format!("http://127.0.0.1:{FORWARD_PORT}/{BODY_BYTES}");
    assert_eq!(place.curl(&[&url]), (BODY_BYTES, pattern_sha256(BODY_BYTES)));
    assert!(bystander.heard_count() > before, "not one answer while the tunnel was busy");
    bystander.keeps_flowing("after the tunnel's load");

    // Killed in the middle of a flow, as the out-of-memory killer would.
    let mut flow = dial(&place, local(FORWARD_PORT));
    write!(flow, "GET /{BODY_BYTES} HTTP/1.1\r\n\r\n").unwrap();
    flow.read_exact(&mut [0; 1 << 16]).unwrap();
    gateway.process.kill();
    let gone = || place.rig.has_xdp(Ns::Gateway, "g0");
    until("the kernel takes the program off", gone, |&attached| !attached);
    bystander.keeps_flowing("after kill -9");
    assert_eq!(place.rig.xdp_hook(Ns::Client, "c0"), Some("native"), "the client's program is its own");
    drop(client);
    until("the client's program goes", || place.rig.has_xdp(Ns::Client, "c0"), |&attached| !attached);
    bystander.keeps_flowing("after the client's end, too");

    // What a killed daemon leaves, its control socket, doesn't keep the next one from starting on the same interface.
    assert!(gateway.control.exists(), "kill -9 leaves the socket's file");
    let mut again = place.gateway(GATEWAY_V4, &NATIVE_GATEWAY);
    assert_eq!(again.process.terminate(LIMIT).code(), Some(0));
    bystander.keeps_flowing("after an orderly end");
    bystander.finish();
}
