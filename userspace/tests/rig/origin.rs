//! What stands behind the gateway in tests: an echo server and a small HTTP/1.1 server, on threads of the test itself.
//!
//! The listener is opened inside the namespace and served from ordinary threads: a socket stays where it was made.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::{Ns, Rig};

/// Byte `offset` of every body: position-dependent and free of short periods, so that a hole, a swap or a repeat shows.
pub(crate) fn pattern(offset: u64) -> u8 {
    // The multiplier is 2^64 / golden ratio; its top byte changes at every step.
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Counts of what the server has seen, readable while it runs.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
}

/// A listener with one thread per connection; stops accepting when dropped.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    counts: Arc<Counts>,
    /// A second handle, to wake `accept` out of its sleep.
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    fn start(
        rig: &Rig,
        ns: Ns,
        address: SocketAddr,
        serve: fn(TcpStream, &Counts) -> io::Result<()>,
    ) -> Self {
        let listener = rig
            .within(ns, || TcpListener::bind(address))
            .unwrap_or_else(|e| panic!("listen on {address}: {e}"));
        let address = listener.local_addr().expect("a bound listener has an address");
        let accepting = listener.try_clone().expect("clone a listener");
        let counts = Arc::new(Counts::default());
        let acceptor = std::thread::spawn({
            let counts = Arc::clone(&counts);
            move || accept_until_stopped(&accepting, &counts, serve)
        });
        Self { address, counts, listener, acceptor: Some(acceptor) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Release);
        // shutdown(2) on a listening socket makes accept return EINVAL on Linux.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept_until_stopped(
    listener: &TcpListener,
    counts: &Arc<Counts>,
    serve: fn(TcpStream, &Counts) -> io::Result<()>,
) {
    while let Ok((stream, _)) = listener.accept() {
        if counts.stop.load(Ordering::Acquire) {
            return;
        }
        counts.connections.fetch_add(1, Ordering::Relaxed);
        let counts = Arc::clone(counts);
        // A peer that resets is the business of the test's other end, which counts its bytes.
        std::thread::spawn(move || {
            let _ = serve(stream, &counts);
        });
    }
}

/// Sends back what it receives, and its end of stream after the peer's.
#[derive(Debug)]
pub(crate) struct EchoServer(Server);

impl EchoServer {
    /// Listens in the namespace; port 0 picks one.
    pub(crate) fn start(rig: &Rig, ns: Ns, address: impl Into<IpAddr>, port: u16) -> Self {
        Self(Server::start(rig, ns, SocketAddr::new(address.into(), port), echo))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Connections accepted since the start.
    pub(crate) fn connection_count(&self) -> u64 {
        self.0.counts.connections.load(Ordering::Relaxed)
    }

    /// Bytes sent back since the start.
    pub(crate) fn echoed_bytes(&self) -> u64 {
        self.0.counts.bytes.load(Ordering::Relaxed)
    }
}

fn echo(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read_bytes = stream.read(&mut buffer)?;
        if read_bytes == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&buffer[..read_bytes])?;
        counts.bytes.fetch_add(read_bytes as u64, Ordering::Relaxed);
    }
}

/// `GET /N` answers N bytes of [`pattern`]; anything else is 404. One request a connection.
#[derive(Debug)]
pub(crate) struct HttpServer(Server);

impl HttpServer {
    /// Listens in the namespace; port 0 picks one.
    pub(crate) fn start(rig: &Rig, ns: Ns, address: impl Into<IpAddr>, port: u16) -> Self {
        Self(Server::start(rig, ns, SocketAddr::new(address.into(), port), answer))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Connections accepted since the start.
    pub(crate) fn connection_count(&self) -> u64 {
        self.0.counts.connections.load(Ordering::Relaxed)
    }

    /// Body bytes sent since the start.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.0.counts.bytes.load(Ordering::Relaxed)
    }
}

fn answer(stream: TcpStream, counts: &Counts) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for header in lines {
        if header?.is_empty() {
            break;
        }
    }
    let length = request
        .strip_prefix("GET /")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|n| n.parse::<u64>().ok());
    let (status, body_bytes) = length.map_or(("404 Not Found", 0), |n| ("200 OK", n));
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {body_bytes}\r\nConnection: close\r\n\r\n")?;
    send_pattern(&mut stream, body_bytes, counts)?;
    stream.shutdown(Shutdown::Write)
}

fn send_pattern(stream: &mut TcpStream, body_bytes: u64, counts: &Counts) -> io::Result<()> {
    const CHUNK_BYTES: u64 = 64 * 1024;
    let mut sent_bytes = 0;
    while sent_bytes < body_bytes {
        let chunk_bytes = CHUNK_BYTES.min(body_bytes - sent_bytes);
        let chunk: Vec<u8> = (sent_bytes..sent_bytes + chunk_bytes).map(pattern).collect();
        stream.write_all(&chunk)?;
        counts.bytes.fetch_add(chunk_bytes, Ordering::Relaxed);
        sent_bytes += chunk_bytes;
    }
    Ok(())
}
