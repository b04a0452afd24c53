//! A comparator: TCP flows through TLS 1.3 over TCP, one connection a flow, by rustls and a thread each.
//!
//! ```text
//!   flow ── TCP ─► client ══ TLS 1.3 over TCP ══► server ── TCP ─► target
//! ```
//!
//! Made to be a strong opponent: no runtime, 64 KB at once, no copy that rustls doesn't ask for, records of 16 KB. Both
//! directions of a flow end one by one, as close_notify; an end that is torn off reaches the other side as a reset.

use anyhow::{Context, Result, bail, ensure};
use beam_benches::peer::{
    ALPN_FORWARD, BLOCK_BYTES, ClientArguments, ServerArguments, target_addresses, target_header,
};
use clap::{Parser, Subcommand};
use rustix::event::{PollFd, PollFlags, poll};
use rustls::{ClientConnection, Connection, ServerConnection};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// As in beam.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a peer may take to say what it wants.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(about = "TCP flows through TLS over TCP, to compare tunnels with")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Accepts connections and connects each to the target that it names. For a rig's own namespaces: it asks nobody who
    /// they are.
    Server(ServerArguments),
    /// Listens for TCP flows and gives each a connection to the server.
    Client {
        #[command(flatten)]
        client: ClientArguments,
        /// Where to listen, and what the server connects to.
        #[arg(long, num_args = 2, value_names = ["LISTEN", "TARGET"], required = true)]
        forward: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().role {
        Role::Server(server) => {
            let tls = Arc::new(server.tls(&[ALPN_FORWARD])?);
            listen(server.listen, move |wire| {
                let tls = ServerConnection::new(Arc::clone(&tls))?;
                serve(tls, wire)
            })
        }
        Role::Client { client, forward } => {
            let [from, target] = &*forward else { bail!("--forward wants LISTEN and TARGET") };
            let listen_on = from.parse().with_context(|| format!("`{from}` is no ADDRESS:PORT"))?;
            let tls = Arc::new(client.tls(ALPN_FORWARD)?);
            let name = client.name();
            let name = rustls::pki_types::ServerName::try_from(name.clone()).with_context(|| name)?;
            let header = target_header(target)?;
            listen(listen_on, move |plain| {
                let tls = ClientConnection::new(Arc::clone(&tls), name.clone())?;
                let asked = ask(tls.into(), client.connect, &header);
                if asked.is_err() {
                    reset(&plain);
                }
                let (tls, wire) = asked?;
                Flow::new(tls, wire, plain)?.run()
            })
        }
    }
}

/// A thread for each connection, until the process is ended.
fn listen<F>(address: SocketAddr, flow: F) -> Result<()>
where
    F: Fn(TcpStream) -> Result<()> + Send + Sync + 'static,
{
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    let flow = Arc::new(flow);
    loop {
        let (stream, peer) = listener.accept()?;
        let flow = Arc::clone(&flow);
        std::thread::spawn(move || {
            if let Err(error) = flow(stream) {
                let line = format!("flow of {peer}: {error:#}\n");
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
        });
    }
}

/// The client's part of a new flow.
fn ask(mut tls: Connection, server: SocketAddr, header: &[u8]) -> Result<(Connection, TcpStream)> {
    let mut wire = TcpStream::connect(server).with_context(|| server.to_string())?;
    wire.set_nodelay(true)?;
    wire.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    tls.writer().write_all(header)?;
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut wire).context("TLS handshake")?;
    }
    Ok((tls, wire))
}

/// The server's part of a new flow.
fn serve(mut tls: ServerConnection, mut wire: TcpStream) -> Result<()> {
    wire.set_nodelay(true)?;
    wire.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    let mut length = [0];
    rustls::Stream::new(&mut tls, &mut wire).read_exact(&mut length).context("TLS handshake and target")?;
    let mut target = vec![0; length[0].into()];
    rustls::Stream::new(&mut tls, &mut wire).read_exact(&mut target).context("target")?;
    let addresses = target_addresses(&target)?;
    let plain =
        TcpStream::connect(&*addresses).with_context(|| String::from_utf8_lossy(&target).into_owned())?;
    Flow::new(tls.into(), wire, plain)?.run()
}

/// One flow: bytes as the application has them on one side, records on the other.
struct Flow {
    tls: Connection,
    wire: TcpStream,
    plain: TcpStream,
    /// Bytes from the application, or from the wire, on their way into rustls.
    block: Vec<u8>,
    /// What the wire brought for the application, from `given` on not yet taken. Bounded: the wire is read when it is empty.
    opened: Vec<u8>,
    given: usize,
    /// The application's end was passed on.
    plain_ended: bool,
    /// The peer's end was read; and passed on.
    wire_ended: bool,
    shut: bool,
}

impl Flow {
    fn new(mut tls: Connection, wire: TcpStream, plain: TcpStream) -> Result<Self> {
        plain.set_nodelay(true)?;
        wire.set_read_timeout(None)?;
        wire.set_nonblocking(true)?;
        plain.set_nonblocking(true)?;
        // The application is read when nothing waits to be written: a block is the bound.
        tls.set_buffer_limit(None);
        let mut flow = Self {
            tls,
            wire,
            plain,
            block: vec![0; BLOCK_BYTES],
            opened: Vec::with_capacity(BLOCK_BYTES),
            given: 0,
            plain_ended: false,
            wire_ended: false,
            shut: false,
        };
        // Records that came together with the header.
        flow.take_opened()?;
        Ok(flow)
    }

    fn run(mut self) -> Result<()> {
        let moved = self.pump();
        if moved.is_err() {
            reset(&self.plain);
            reset(&self.wire);
        }
        moved
    }

    fn pump(&mut self) -> Result<()> {
        loop {
            self.give_opened()?;
            self.send_records()?;
            let (to_plain, to_wire) = (self.given < self.opened.len(), self.tls.wants_write());
            let flags = |read: bool, write: bool| {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, read);
                flags.set(PollFlags::OUT, write);
                flags
            };
            let plain = flags(!self.plain_ended && !to_wire, to_plain);
            let wire = flags(!self.wire_ended && !to_plain, to_wire);
            if plain.is_empty() && wire.is_empty() {
                return Ok(());
            }
            let mut waiting = [PollFd::new(&self.plain, plain), PollFd::new(&self.wire, wire)];
            poll(&mut waiting, None)?;
            let [plain_now, wire_now] = waiting.map(|it| it.revents());
            // Errors and hang-ups come unasked, and show themselves to whoever reads or writes.
            if plain.contains(PollFlags::IN) && !(plain_now - PollFlags::OUT).is_empty() {
                self.seal_plain()?;
            } else if plain_now.contains(PollFlags::ERR) {
                self.plain.take_error()?.map_or(Ok(()), Err).context("the plain side")?;
                bail!("the plain side is gone");
            }
            if wire.contains(PollFlags::IN) && !(wire_now - PollFlags::OUT).is_empty() {
                self.open_wire()?;
            }
        }
    }

    /// A block of the application into records.
    fn seal_plain(&mut self) -> Result<()> {
        match ready(self.plain.read(&mut self.block)).context("the plain side")? {
            None => {}
            Some(0) => {
                self.tls.send_close_notify();
                self.plain_ended = true;
            }
            Some(count) => self.tls.writer().write_all(&self.block[..count])?,
        }
        Ok(())
    }

    fn send_records(&mut self) -> Result<()> {
        while self.tls.wants_write() {
            if ready(self.tls.write_tls(&mut self.wire)).context("the wire")?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// A block of records into bytes.
    fn open_wire(&mut self) -> Result<()> {
        let Some(count) = ready(self.wire.read(&mut self.block)).context("the wire")? else { return Ok(()) };
        ensure!(count > 0, "the wire ended without a close_notify");
        // rustls reads 4 KB at once: from memory, that costs no system call each.
        let block = std::mem::take(&mut self.block);
        let mut rest = &block[..count];
        while !rest.is_empty() && !self.wire_ended {
            self.tls.read_tls(&mut rest)?;
            self.take_opened()?;
        }
        self.block = block;
        Ok(())
    }

    fn take_opened(&mut self) -> Result<()> {
        let state = self.tls.process_new_packets()?;
        let begin = self.opened.len();
        self.opened.resize(begin + state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut self.opened[begin..])?;
        self.wire_ended |= state.peer_has_closed();
        Ok(())
    }

    /// Bytes to the application, and then the end.
    fn give_opened(&mut self) -> Result<()> {
        while self.given < self.opened.len() {
            match ready(self.plain.write(&self.opened[self.given..])).context("the plain side")? {
                None => return Ok(()),
                Some(count) => self.given += count,
            }
        }
        self.opened.clear();
        self.given = 0;
        if self.wire_ended && !self.shut {
            self.shut = true;
            // An application that is gone already needs no end.
            let _ = self.plain.shutdown(Shutdown::Write);
        }
        Ok(())
    }
}

/// `None`: not now.
fn ready<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        other => other.map(Some),
    }
}

/// What is closed next sends a reset in place of an end.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
