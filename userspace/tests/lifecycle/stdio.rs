//! `-W`: standard input and output as the two ends of a flow.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::process::Stdio;
use std::thread::JoinHandle;

use crate::pair::{LIMIT, Place};
use crate::rig::{self, EchoServer, GATEWAY_V4, Ns, ORIGIN_V4, Proc, pattern};
use crate::{NATIVE_GATEWAY, small_socket_buffers};

/// Starts `beam connect -W to`; its standard input and output are pipes.
fn stdio(place: &Place, to: SocketAddr) -> Proc {
    let args = place.connect_args(GATEWAY_V4, &["--xdp", "native", "-i", "c0", "-W", &to.to_string()]);
    let mut command = place.rig.command(Ns::Client, env!("CARGO_BIN_EXE_beam"));
    Proc::spawn("stdio", command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()))
}

fn feed(process: &mut Proc, length: u64) -> JoinHandle<io::Result<()>> {
    let mut input = process.stdin();
    std::thread::spawn(move || input.write_all(&(0..length).map(pattern).collect::<Vec<_>>()))
}

fn is_whole(bytes: &[u8], length: u64) -> bool {
    bytes.len() as u64 == length && bytes.iter().zip(0..).all(|(&byte, i)| byte == pattern(i))
}

#[test]
fn stdio_carries_both_ways() {
    if !rig::root_or_skip("stdio_carries_both_ways") {
        return;
    }
    const STDIO_BYTES: u64 = 10_000_000;
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let _gateway = place.gateway(GATEWAY_V4, &NATIVE_GATEWAY);
    let mut process = stdio(&place, echo.address());
    let feeder = feed(&mut process, STDIO_BYTES);
    let mut heard = Vec::new();
    process.stdout().read_to_end(&mut heard).unwrap();
    feeder.join().unwrap().unwrap();
    assert!(is_whole(&heard, STDIO_BYTES), "{} of {STDIO_BYTES} bytes came back", heard.len());
    assert_eq!(process.wait(LIMIT).code(), Some(0), "{}", process.stderr());
}

/// The far side has nothing to say, says so at once, and reads slowly. For the client both directions are over as soon
/// as its last byte is in QUIC's send buffer; for QUIC, once that byte waits in the gateway. All must arrive all the same.
#[test]
fn stdio_delivers_its_last_byte_before_it_ends() {
    if !rig::root_or_skip("stdio_delivers_its_last_byte_before_it_ends") {
        return;
    }
    // Fits into the 4 MiB that the gateway grants a stream, where it waits for a reader that has not begun.
    const STDIO_BYTES: u64 = 4_000_000;
    let place = Place::new();
    small_socket_buffers(&place, Ns::Gateway);
    small_socket_buffers(&place, Ns::Origin);
    let _gateway = place.gateway(GATEWAY_V4, &NATIVE_GATEWAY);
    let listener = place.rig.within(Ns::Origin, || TcpListener::bind((ORIGIN_V4, 0))).unwrap();
    let mut process = stdio(&place, listener.local_addr().unwrap());
    let feeder = feed(&mut process, STDIO_BYTES);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Standard output ends with the far side's words; standard input is not affected.
    let mut output = process.stdout();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(output.read(&mut [0; 1])));
    assert_eq!(told.recv_timeout(LIMIT).expect("standard output ends").unwrap(), 0);
    feeder.join().unwrap().unwrap();
    // The client has nothing left to do, and ends; only then does the far side read.
    assert_eq!(process.wait(LIMIT).code(), Some(0), "{}", process.stderr());
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert!(is_whole(&heard, STDIO_BYTES), "{} of {STDIO_BYTES} bytes arrived", heard.len());
}

/// A cut is told apart from an end, which a pipe alone can't do.
#[test]
fn stdio_that_is_cut_off_fails() {
    if !rig::root_or_skip("stdio_that_is_cut_off_fails") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "off", "--drain-timeout", "0s"]);
    let mut process = stdio(&place, echo.address());
    let (mut input, mut output) = (process.stdin(), process.stdout());
    input.write_all(b"hello").unwrap();
    output.read_exact(&mut [0; 5]).unwrap();
    gateway.process.terminate(LIMIT);
    assert_eq!(process.wait(LIMIT).code(), Some(1));
    let said = process.stderr();
    assert!(said.contains("beam: the connection of -W was cut off: closed by the peer"), "{said}");
}
