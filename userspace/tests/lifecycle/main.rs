//! Goal: beam comes and goes without harm: what runs beside it on the interface never notices, a drain loses no byte of a
//! running flow, a killed daemon leaves nothing behind, a client finds its gateway again.
//! Method: real processes and signals. Every wait is for an event (a log line, the end of a process, a byte) or asks the
//! kernel or the daemon again until a deadline; bytes are compared with the pattern they were made of.
//!
//! This file has what the tests share; they are in [`killed`], [`drain`], [`restart`] and [`stdio`].

mod drain;
mod killed;
#[path = "../pair/mod.rs"]
mod pair;
mod restart;
#[path = "../rig/mod.rs"]
mod rig;
mod stdio;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use pair::{LIMIT, Place};
use rig::{Ns, pattern};

const NATIVE_GATEWAY: [&str; 4] = ["--xdp", "native", "-i", "g0"];
const NATIVE_CLIENT: [&str; 4] = ["--xdp", "native", "-i", "c0"];

/// A TCP connection from the client's namespace, with a limit on silence.
fn dial(place: &Place, to: SocketAddr) -> TcpStream {
    let stream = place
        .rig
        .within(Ns::Client, || TcpStream::connect_timeout(&to, LIMIT))
        .unwrap_or_else(|e| panic!("connect to {to}: {e}"));
    stream.set_read_timeout(Some(LIMIT)).expect("set a read timeout");
    stream.set_write_timeout(Some(LIMIT)).expect("set a write timeout");
    stream
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// TCP sockets of the namespace hold 64 KiB at most in each direction, so that a test knows where bytes wait.
fn small_socket_buffers(place: &Place, ns: Ns) {
    let script = "for side in r w; do echo 4096 16384 65536 > /proc/sys/net/ipv4/tcp_${side}mem; done";
    let done = place.rig.command(ns, "sh").args(["-ec", script]).status().expect("run sh");
    assert!(done.success(), "setting tcp_rmem and tcp_wmem failed");
}

/// Sends the pattern's next bytes and hears them back.
fn echo_some(stream: &mut TcpStream, at: &mut u64, length: u64) {
    let said: Vec<u8> = (*at..*at + length).map(pattern).collect();
    stream.write_all(&said).expect("write into the flow");
    let mut heard = vec![0; said.len()];
    stream.read_exact(&mut heard).expect("read from the flow");
    assert!(heard == said, "{length} bytes from {at} on came back changed");
    *at += length;
}
