//! The server behind `--metrics`: one thread, one answer a connection, bounds on everything.
//!
//! ```text
//!  accepted ─► Reading (a head of 8 KiB) ─► Writing ─► Closing (what else comes is thrown away) ─► gone
//! ```
//! A connection has [`PATIENCE`] for all of it. There are [`CONNECTIONS_MAX`] at most: one more takes the place of the
//! oldest, so that nobody who holds connections open keeps a scraper out. Written here because the small servers there are
//! (tiny_http) start threads without bound and wait for slow clients for ever.

use super::request::{self, Page, Parsed};
use crate::{cli::Endpoint, failure::Failure};
use anyhow::anyhow;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

const CONNECTIONS_MAX: usize = 32;
/// From the accept to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes thrown away after the answer; else the kernel would reset what the client hasn't read yet.
const LEFTOVER_BYTES_MAX: usize = 64 << 10;

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    /// 200, or 503 and why.
    pub(super) fn of(fine: Result<(), String>) -> Self {
        match fine {
            Ok(()) => Self::plain(200, "ok\n".to_owned()),
            Err(why) => Self::plain(503, format!("{why}\n")),
        }
    }

    fn plain(status: u16, body: String) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body }
    }

    fn refusal(status: u16) -> Self {
        let pages = "there are /metrics, /healthz and /readyz, for GET and HEAD";
        Self::plain(status, format!("{status} {}: {pages}\n", reason(status)))
    }

    fn bytes(&self, head_only: bool) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Cache-Control: \
             no-store\r\nConnection: close\r\n\r\n",
            reason(*status),
            body.len()
        );
        if head_only { head.into_bytes() } else { [head.as_bytes(), body.as_bytes()].concat() }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "HTTP Version Not Supported",
    }
}

/// A listener that nobody is answered on yet.
#[derive(Debug)]
pub(crate) struct Bound(TcpListener);

/// Listens, on loopback unless an address is said.
pub(crate) fn bind(endpoint: &Endpoint) -> Result<Bound, Failure> {
    let address = endpoint.resolve(IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(Failure::Config)?;
    let listening = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listening.map(Bound).map_err(|error| Failure::Preflight(anyhow!("{}", unbindable(address, &error))))
}

fn unbindable(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    let mend = match error.kind() {
        ErrorKind::AddrInUse => format!("see who has it: ss -ltnp 'sport = :{port}'; or give another port"),
        ErrorKind::AddrNotAvailable => "this host doesn't have that address; see: ip address".to_owned(),
        ErrorKind::PermissionDenied => "ports below 1024 need root; give a higher one".to_owned(),
        _ => "give another address".to_owned(),
    };
    format!("--metrics: can't listen on {address}: {error}; {mend}")
}

impl Bound {
    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers on a thread of its own, until the process ends.
    pub(super) fn serve(self, answer: impl FnMut(Page) -> Answer + Send + 'static) -> io::Result<()> {
        let mut server = Server { listener: self.0, connections: Vec::new(), answer };
        std::thread::Builder::new().name("beam-metrics".into()).spawn(move || {
            loop {
                if let Err(error) = server.step() {
                    // Out of memory or descriptors, most likely: don't spin.
                    tracing::debug!("metrics: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        })?;
        Ok(())
    }
}

struct Server<F> {
    listener: TcpListener,
    /// The oldest first.
    connections: Vec<Connection>,
    answer: F,
}

struct Connection {
    socket: TcpStream,
    state: State,
    until: Instant,
}

enum State {
    Reading(Vec<u8>),
    Writing { bytes: Vec<u8>, at: usize },
    Closing { left_bytes: usize },
}

impl<F: FnMut(Page) -> Answer> Server<F> {
    /// Waits until something can be done, and does it.
    fn step(&mut self) -> io::Result<()> {
        let until = self.connections.iter().map(|connection| connection.until).min();
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout =
            wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() });
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(
            self.connections.iter().map(|connection| PollFd::new(&connection.socket, connection.waits_for())),
        );
        poll(&mut fds, timeout.as_ref())?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (now, answer) = (Instant::now(), &mut self.answer);
        let mut ready = ready.into_iter();
        let newcomer = ready.next().unwrap_or(false);
        self.connections.retain_mut(|connection| {
            let ready = ready.next().unwrap_or(false);
            now < connection.until && (!ready || connection.advance(answer))
        });
        if newcomer { self.accept(now) } else { Ok(()) }
    }

    fn accept(&mut self, now: Instant) -> io::Result<()> {
        let socket = match self.listener.accept() {
            Ok((socket, _)) => socket,
            // Gone before it was accepted.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        socket.set_nonblocking(true)?;
        if self.connections.len() >= CONNECTIONS_MAX {
            self.connections.remove(0);
        }
        let state = State::Reading(Vec::new());
        self.connections.push(Connection { socket, state, until: now + PATIENCE });
        Ok(())
    }
}

impl Connection {
    fn waits_for(&self) -> PollFlags {
        match self.state {
            State::Writing { .. } => PollFlags::OUT,
            State::Reading(_) | State::Closing { .. } => PollFlags::IN,
        }
    }

    /// One step of it. False: it is over.
    fn advance(&mut self, answer: &mut impl FnMut(Page) -> Answer) -> bool {
        match self.step(answer) {
            Ok(goes_on) => goes_on,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn step(&mut self, answer: &mut impl FnMut(Page) -> Answer) -> io::Result<bool> {
        if let State::Reading(head) = &mut self.state {
            let mut more = [0; request::HEAD_BYTES_MAX];
            let room = more.len() - head.len();
            let count = self.socket.read(&mut more[..room])?;
            if count == 0 {
                return Ok(false);
            }
            head.extend_from_slice(&more[..count]);
            let bytes = match request::parse(head) {
                Parsed::More => return Ok(true),
                Parsed::Request { page, head_only } => answer(page).bytes(head_only),
                Parsed::Refused(status) => Answer::refusal(status).bytes(false),
            };
            self.state = State::Writing { bytes, at: 0 };
        }
        if let State::Writing { bytes, at } = &mut self.state {
            while *at < bytes.len() {
                *at += self.socket.write(&bytes[*at..])?;
            }
            self.socket.shutdown(Shutdown::Write)?;
            self.state = State::Closing { left_bytes: LEFTOVER_BYTES_MAX };
        }
        let State::Closing { left_bytes } = &mut self.state else { return Ok(true) };
        let count = self.socket.read(&mut [0; 4096])?;
        *left_bytes = left_bytes.saturating_sub(count);
        Ok(count > 0 && *left_bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: slow, silent and hostile clients cost a place for a while and nothing else; every answer is whole and says its
    //! length. Method: a real server on loopback and real sockets, the answers compared byte by byte.
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    fn server(body: &str) -> (SocketAddr, Arc<AtomicUsize>) {
        let bound = bind(&"0".parse().unwrap()).unwrap();
        let address = bound.address().unwrap();
        assert!(address.ip().is_loopback(), "unless told otherwise");
        let (asked, body) = (Arc::new(AtomicUsize::new(0)), body.to_owned());
        let counter = asked.clone();
        bound
            .serve(move |page| {
                counter.fetch_add(1, Ordering::SeqCst);
                match page {
                    Page::Metrics => Answer { status: 200, content_type: "text/x", body: body.clone() },
                    Page::Healthy => Answer::of(Ok(())),
                    Page::Ready => Answer::of(Err("not yet".to_owned())),
                }
            })
            .unwrap();
        (address, asked)
    }

    fn dial(to: SocketAddr) -> TcpStream {
        let socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    }

    fn ask(to: SocketAddr, request: &str) -> (String, String) {
        let mut socket = dial(to);
        socket.write_all(request.as_bytes()).unwrap();
        let mut all = String::new();
        socket.read_to_string(&mut all).unwrap();
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn get(to: SocketAddr, path: &str) -> (String, String) {
        ask(to, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    #[test]
    fn pages_are_whole() {
        let large = "0123456789abcdef".repeat(1 << 18);
        let (to, asked) = server(&large);
        let (head, body) = get(to, "/metrics");
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 4194304\r\nCache-Control: no-store\r\n\
             Connection: close"
        );
        assert!(body == large);
        let (head, body) = ask(to, "HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 4194304") && body.is_empty(), "{head}");
        assert_eq!(get(to, "/healthz").1, "ok\n");
        let (head, body) = get(to, "/readyz");
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable") && body == "not yet\n", "{head} {body}");
        let before = asked.load(Ordering::SeqCst);
        let (head, body) = get(to, "/");
        assert!(head.starts_with("HTTP/1.1 404 Not Found") && body.contains("/metrics"), "{head} {body}");
        let (head, _) = ask(to, &format!("POST /metrics HTTP/1.1\r\n\r\n{}", "x".repeat(30_000)));
        assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("Allow: GET, HEAD"), "{head}");
        let (head, _) = ask(to, &format!("GET /metrics HTTP/1.1\r\nCookie: {}", "x".repeat(40_000)));
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        assert_eq!(asked.load(Ordering::SeqCst), before, "what is refused costs no page");
    }

    #[test]
    fn who_holds_connections_keeps_nobody_out() {
        let (to, _) = server(&"x".repeat(8 << 20));
        let mut silent: Vec<_> = (0..2 * CONNECTIONS_MAX).map(|_| dial(to)).collect();
        silent.iter_mut().step_by(2).for_each(|socket| socket.write_all(b"GET /metr").unwrap());
        // They ask for much, and read nothing of it.
        for socket in silent.iter_mut().skip(CONNECTIONS_MAX).step_by(2) {
            let _ = socket.write_all(b"ics HTTP/1.1\r\n\r\n");
        }
        for _ in 0..3 * CONNECTIONS_MAX {
            assert_eq!(get(to, "/healthz").1, "ok\n");
        }
        // The oldest had to go: its end shows, by a close or a reset.
        assert!(matches!(silent[0].read(&mut [0; 1]), Ok(0) | Err(_)));
    }

    #[test]
    fn a_port_that_is_taken_is_said_so() {
        let taken = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = taken.address().unwrap();
        let failure = bind(&address.to_string().parse().unwrap()).unwrap_err();
        assert!(matches!(failure, Failure::Preflight(_)));
        let said = failure.to_string();
        let wanted = format!("--metrics: can't listen on {address}: Address already in use");
        assert!(said.starts_with(&wanted) && said.contains("ss -ltnp"), "{said}");
    }
}
