//! A comparator: the crate quinn on tokio, with its own defaults but for the cipher, which is beam's.
//!
//! Two application protocols. `perf` (draft-banks-quic-performance): a stream begins with eight bytes, how many bytes the
//! client wants back; what follows them is thrown away, and after the stream's end the answer is sent. `beam-forward`: each
//! stream is a TCP flow, whose target its header names.
//!
//! ```text
//!   flow ── TCP ─► client ══ a QUIC stream ══► server ── TCP ─► target
//! ```
//!
//! Driven as well as quinn can be: reads of 64 KB that become the stream's chunks without a copy, chunks written as they come.

use anyhow::{Context, Result, bail, ensure};
use beam_benches::peer::{
    ALPN_FORWARD, BLOCK_BYTES, ClientArguments, ServerArguments, target_addresses, target_header,
};
use bytes::{Bytes, BytesMut};
use clap::{Args, Parser, Subcommand};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig, VarInt};
use serde::Serialize;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// As in beam.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ALPN_PERF: &[u8] = b"perf";
/// What a stream is reset or stopped with when its other side broke.
const BROKEN: VarInt = VarInt::from_u32(1);

#[derive(Parser)]
#[command(about = "QUIC by quinn on tokio, to compare beam with")]
struct Arguments {
    /// Threads of tokio's runtime; 0: its default, one for each CPU.
    #[arg(long, value_name = "N", default_value_t = 0, global = true)]
    threads: usize,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Answers `perf` streams and connects forwarded flows to their targets. For a rig's own namespaces: it asks nobody
    /// who they are.
    Server(ServerArguments),
    /// Measures a transfer, or forwards TCP flows.
    Client(Client),
}

#[derive(Args)]
struct Client {
    #[command(flatten)]
    client: ClientArguments,
    #[command(flatten)]
    task: Task,
    /// Streams side by side, each with as many bytes as were asked for.
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1)]
    parallel: u64,
    /// The transfer's figures as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Task {
    /// Where to listen for TCP, and what the server connects to.
    #[arg(long, num_args = 2, value_names = ["LISTEN", "TARGET"])]
    forward: Option<Vec<String>>,
    /// Receives so many bytes on each stream.
    #[arg(long, value_name = "BYTES")]
    download: Option<u64>,
    /// Sends so many bytes on each stream.
    #[arg(long, value_name = "BYTES")]
    upload: Option<u64>,
}

/// What a transfer did, by the client's clock, from the first stream's opening to the last one's end.
#[derive(Serialize)]
struct Transfer {
    schema: &'static str,
    direction: &'static str,
    streams: u64,
    bytes: u64,
    seconds: f64,
    gbps: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if arguments.threads > 0 {
        runtime.worker_threads(arguments.threads);
    }
    runtime.enable_all().build()?.block_on(async {
        match arguments.role {
            Role::Server(server) => serve(server).await,
            Role::Client(client) => run(client).await,
        }
    })
}

/// What tells a rig that this end is up.
fn say_listening(address: SocketAddr) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {address}")?;
    Ok(out.flush()?)
}

fn complain(error: &anyhow::Error) {
    let line = format!("quinn-perf: {error:#}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

async fn serve(arguments: ServerArguments) -> Result<()> {
    let tls = QuicServerConfig::try_from(arguments.tls(&[ALPN_PERF, ALPN_FORWARD])?)?;
    let endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(tls)), arguments.listen)
        .with_context(|| format!("listening on {}", arguments.listen))?;
    say_listening(endpoint.local_addr()?)?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Err(error) = answer(incoming).await {
                complain(&error);
            }
        });
    }
    Ok(())
}

/// One connection, to its end.
async fn answer(incoming: Incoming) -> Result<()> {
    let connection = incoming.await?;
    let handshake = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = handshake.and_then(|data| data.protocol).unwrap_or_default();
    // Ends when the client closes, which is as it should be.
    while let Ok((send, receive)) = connection.accept_bi().await {
        let forward = protocol == ALPN_FORWARD;
        tokio::spawn(async move {
            let done = if forward { connect(send, receive).await } else { perform(send, receive).await };
            if let Err(error) = done {
                complain(&error);
            }
        });
    }
    Ok(())
}

/// One stream of `perf`.
async fn perform(mut send: SendStream, mut receive: RecvStream) -> Result<()> {
    let mut wanted = [0; 8];
    receive.read_exact(&mut wanted).await.context("eight bytes that say how many are wanted")?;
    swallow(&mut receive).await?;
    zeros(&mut send, u64::from_be_bytes(wanted)).await
}

/// So many bytes, then the end.
async fn zeros(send: &mut SendStream, mut count: u64) -> Result<()> {
    static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    while count > 0 {
        let bytes = count.min(BLOCK_BYTES as u64);
        send.write_chunk(Bytes::from_static(&ZEROS[..bytes as usize])).await?;
        count -= bytes;
    }
    Ok(send.finish()?)
}

/// Everything to the stream's end. Returns how many bytes it was.
async fn swallow(receive: &mut RecvStream) -> Result<u64> {
    let mut count = 0;
    while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
        count += chunk.bytes.len() as u64;
    }
    Ok(count)
}

/// The server's part of a forwarded flow.
async fn connect(send: SendStream, mut receive: RecvStream) -> Result<()> {
    let mut length = [0];
    receive.read_exact(&mut length).await.context("the target's length")?;
    let mut target = vec![0; length[0].into()];
    receive.read_exact(&mut target).await.context("the target")?;
    let addresses = target_addresses(&target)?;
    let tcp =
        TcpStream::connect(&*addresses).await.with_context(|| String::from_utf8_lossy(&target).into_owned());
    match tcp {
        Ok(tcp) => relay(tcp, send, receive).await,
        Err(error) => {
            broken(send, receive);
            Err(error)
        }
    }
}

async fn run(arguments: Client) -> Result<()> {
    let Client { client, task, parallel, json } = arguments;
    let protocol = if task.forward.is_some() { ALPN_FORWARD } else { ALPN_PERF };
    let tls = QuicClientConfig::try_from(client.tls(protocol)?)?;
    let any: SocketAddr = if client.connect.is_ipv6() { "[::]:0".parse()? } else { "0.0.0.0:0".parse()? };
    let endpoint = Endpoint::client(any)?;
    let config = ClientConfig::new(Arc::new(tls));
    let connection = endpoint
        .connect_with(config, client.connect, &client.name())?
        .await
        .with_context(|| format!("connecting to {}", client.connect))?;
    match task {
        Task { forward: Some(forward), .. } => listen(connection, &forward).await,
        Task { download: Some(bytes), .. } => {
            measure(endpoint, connection, bytes, true, parallel, json).await
        }
        Task { upload, .. } => {
            measure(endpoint, connection, upload.unwrap_or_default(), false, parallel, json).await
        }
    }
}

/// One transfer, its figures printed.
async fn measure(
    endpoint: Endpoint,
    connection: Connection,
    bytes: u64,
    down: bool,
    streams: u64,
    json: bool,
) -> Result<()> {
    let begin = Instant::now();
    let mut transfers = JoinSet::new();
    for _ in 0..streams {
        let connection = connection.clone();
        transfers.spawn(async move {
            let (mut send, mut receive) = connection.open_bi().await?;
            let (wanted, sent) = if down { (bytes, 0) } else { (0, bytes) };
            send.write_all(&wanted.to_be_bytes()).await?;
            zeros(&mut send, sent).await?;
            let received = swallow(&mut receive).await?;
            ensure!(received == wanted, "the server sent {received} bytes of {wanted}");
            anyhow::Ok(())
        });
    }
    while let Some(transfer) = transfers.join_next().await {
        transfer??;
    }
    let seconds = begin.elapsed().as_secs_f64();
    connection.close(VarInt::from_u32(0), b"done");
    endpoint.wait_idle().await;

    let total = bytes * streams;
    let direction = if down { "down" } else { "up" };
    let gbps = total as f64 * 8e-9 / seconds;
    let mut out = std::io::stdout().lock();
    if json {
        let schema = "beam.bench.quinn-perf.v1";
        serde_json::to_writer(
            &mut out,
            &Transfer { schema, direction, streams, bytes: total, seconds, gbps },
        )?;
        writeln!(out)?;
    } else {
        writeln!(out, "{total} bytes {direction} on {streams} streams in {seconds:.3} s: {gbps:.3} Gbit/s")?;
    }
    Ok(())
}

/// Forwards TCP flows for as long as the connection lives.
async fn listen(connection: Connection, forward: &[String]) -> Result<()> {
    let [from, target] = forward else { bail!("--forward wants LISTEN and TARGET") };
    let address: SocketAddr = from.parse().with_context(|| format!("`{from}` is no ADDRESS:PORT"))?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let header = Bytes::from(target_header(target)?);
    say_listening(listener.local_addr()?)?;
    loop {
        let tcp = tokio::select! {
            reason = connection.closed() => bail!("the connection is gone: {reason}"),
            accepted = listener.accept() => accepted?.0,
        };
        let (connection, header) = (connection.clone(), header.clone());
        tokio::spawn(async move {
            let flow = async {
                let (mut send, receive) = connection.open_bi().await?;
                send.write_chunk(header).await?;
                relay(tcp, send, receive).await
            };
            if let Err(error) = flow.await {
                complain(&error);
            }
        });
    }
}

/// Both directions of a flow until both have ended. One that breaks takes the other with it, as resets.
async fn relay(mut tcp: TcpStream, mut send: SendStream, mut receive: RecvStream) -> Result<()> {
    tcp.set_nodelay(true)?;
    let (read, write) = tcp.split();
    let moved = tokio::try_join!(to_stream(read, &mut send), to_tcp(&mut receive, write));
    if moved.is_err() {
        broken(send, receive);
        tcp.set_zero_linger()?;
    }
    moved.map(|_| ())
}

async fn to_stream(mut tcp: ReadHalf<'_>, send: &mut SendStream) -> Result<()> {
    let mut block = BytesMut::new();
    loop {
        block.reserve(BLOCK_BYTES);
        if tcp.read_buf(&mut block).await.context("TCP")? == 0 {
            return Ok(send.finish()?);
        }
        send.write_chunk(block.split().freeze()).await?;
    }
}

async fn to_tcp(receive: &mut RecvStream, mut tcp: WriteHalf<'_>) -> Result<()> {
    while let Some(chunk) = receive.read_chunk(BLOCK_BYTES, true).await? {
        tcp.write_all(&chunk.bytes).await.context("TCP")?;
    }
    tcp.shutdown().await.context("TCP")
}

/// Tells the peer that the flow did not end, but broke: a stream that is dropped says that it ended.
fn broken(mut send: SendStream, mut receive: RecvStream) {
    // Either may have ended before.
    let _ = send.reset(BROKEN);
    let _ = receive.stop(BROKEN);
}
