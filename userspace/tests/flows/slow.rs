//! Backpressure: who reads slowly stalls who writes to it, and nobody else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crate::pair::Place;
use crate::rig::{self, EchoServer, Ns, ORIGIN_V4};
use crate::script::reply;
use crate::tools::{
    Progress, Tunnel, accept, memory_kib, origin_listener, random_bytes, read_some, socks_request,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What the kernel may buffer for a socket of the daemons, in each direction, once [`narrow`] has set it.
const SOCKET_BYTES_MAX: u64 = MIB;
/// What the kernel buffers for a socket of the test: twice what is asked for.
const TEST_SOCKET_BYTES: u64 = 2 * 128 * KIB;
/// `TO_SOCKET_BYTES_MAX` and `READ_BYTES_MAX` of `flow.rs`: what a splice holds of each direction. The first is passed by
/// at most one read, which is as large again.
const SPLICE_BYTES: u64 = 2 * 128 * KIB + 64 * KIB;
/// Stream windows of the worksheet in `tunnel::transport`.
const CLIENT_STREAM_WINDOW: u64 = 8 * MIB;
const GATEWAY_STREAM_WINDOW: u64 = 4 * MIB;
/// The send window bounds what is written and not acknowledged yet.
const SEND_WINDOW: u64 = 8 * MIB;

/// Bounds the kernel's buffers of both daemons' TCP sockets, so that the sums below mean something.
fn narrow(place: &Place) {
    let script = format!(
        "for f in tcp_rmem tcp_wmem; do echo 4096 131072 {SOCKET_BYTES_MAX} > /proc/sys/net/ipv4/$f; done"
    );
    for ns in [Ns::Client, Ns::Gateway] {
        assert!(place.rig.command(ns, "sh").args(["-c", &script]).status().unwrap().success());
    }
}

fn narrow_socket(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_send_buffer_size(TEST_SOCKET_BYTES as usize / 2).unwrap();
    socket.set_recv_buffer_size(TEST_SOCKET_BYTES as usize / 2).unwrap();
}

/// Everything between a writer and a reader that doesn't read, on the way through both daemons.
fn held_on_the_way(stream_window: u64) -> u64 {
    // The writer's socket; the near daemon's socket, splice; the far daemon's stream, splice, socket; the reader's.
    TEST_SOCKET_BYTES
        + SOCKET_BYTES_MAX
        + SPLICE_BYTES
        + stream_window
        + SPLICE_BYTES
        + SOCKET_BYTES_MAX
        + TEST_SOCKET_BYTES
}

/// Sends `total` bytes of the pattern from `writer` while `reader` stands still until `beside`, an echoing flow of the
/// same tunnel, has shown that the writer is stalled and that it isn't itself; then every byte is read and compared.
fn stall_and_go_on(tunnel: &Tunnel, echo: SocketAddr, writer: TcpStream, mut reader: TcpStream, window: u64) {
    let bound = held_on_the_way(window);
    let total = 64 * MIB;
    let mut beside = tunnel.socks();
    beside.write_all(&socks_request(echo)).unwrap();
    assert_eq!(read_some::<10>(&mut beside), reply(0));
    let warm_up = random_bytes(1, MIB as usize);
    for _ in 0..8 {
        bounce(&mut beside, &warm_up);
    }
    let before = [&tunnel.gateway, &tunnel.client].map(|beam| memory_kib(beam, "VmHWM"));

    let written = Arc::new(Progress::default());
    let of_writer = written.clone();
    let writing = std::thread::spawn(move || write_pattern(writer, total, &of_writer));
    // Stalled: the other flow moves a MiB there and back, several times over, and the writer not one byte.
    let mut unchanged = 0;
    let mut last = u64::MAX;
    for _ in 0..2_000 {
        bounce(&mut beside, &warm_up);
        let now = written.get();
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
        if unchanged == 8 {
            break;
        }
    }
    assert_eq!(unchanged, 8, "the writer never stalled; it has written {last} bytes");
    assert!(last < total && last <= bound, "{last} bytes are under way, {bound} can be held");
    assert!(last >= window, "the windows are used: {last} bytes of {window}");

    for offset in (0..total).step_by(64 << 10) {
        let mut chunk = vec![0; (total - offset).min(64 << 10) as usize];
        reader.read_exact(&mut chunk).unwrap();
        let expected: Vec<u8> = (offset..offset + chunk.len() as u64).map(rig::pattern).collect();
        assert!(chunk == expected, "a difference within the 64 KiB from byte {offset}");
    }
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "the end follows the last byte");
    writing.join().unwrap();

    // Memory: what the receiver's stream window lets in, which quinn may keep in buffers half again as large, or what the
    // send window lets out; and the splice. Twice that, and 4 MiB for what the allocator keeps.
    let after = [&tunnel.gateway, &tunnel.client].map(|beam| memory_kib(beam, "VmHWM"));
    let allowed = (2 * (window.max(SEND_WINDOW) + SPLICE_BYTES) + 4 * MIB) / KIB;
    for ((name, before), after) in ["gateway", "client"].into_iter().zip(before).zip(after) {
        eprintln!("{name}: VmHWM {before} KiB, then {after} KiB, {allowed} KiB allowed; {total} bytes moved");
        assert!(after <= before + allowed, "{name}: VmHWM rose from {before} to {after} KiB");
    }
}

/// There and back, compared.
fn bounce(stream: &mut TcpStream, bytes: &[u8]) {
    let mut sending = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || sending.write_all(bytes).unwrap());
        let mut echoed = vec![0; bytes.len()];
        stream.read_exact(&mut echoed).unwrap();
        assert!(echoed == bytes, "the flow beside the stalled one got other bytes");
    });
}

fn write_pattern(mut writer: TcpStream, total: u64, written: &Progress) {
    // A stalled writer waits as long as the test wants.
    writer.set_write_timeout(None).unwrap();
    let mut offset = 0;
    while offset < total {
        let chunk: Vec<u8> = (offset..total.min(offset + (64 << 10))).map(rig::pattern).collect();
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let n = writer.write(rest).unwrap();
            written.add(n);
            rest = &rest[n..];
        }
        offset += chunk.len() as u64;
    }
}

#[test]
fn a_slow_client_stalls_the_origin_and_nobody_else() {
    if !rig::root_or_skip("a_slow_client_stalls_the_origin_and_nobody_else") {
        return;
    }
    let (tunnel, echo, local, origin) = narrow_flow();
    stall_and_go_on(&tunnel, echo.address(), origin, local, CLIENT_STREAM_WINDOW);
}

#[test]
fn a_slow_origin_stalls_the_client_and_nobody_else() {
    if !rig::root_or_skip("a_slow_origin_stalls_the_client_and_nobody_else") {
        return;
    }
    let (tunnel, echo, local, origin) = narrow_flow();
    stall_and_go_on(&tunnel, echo.address(), local, origin, GATEWAY_STREAM_WINDOW);
}

/// A tunnel with a flow through it, and both of the flow's ends.
fn narrow_flow() -> (Tunnel, EchoServer, TcpStream, TcpStream) {
    let (tunnel, listener, echo) = narrow_tunnel();
    let local = tunnel.dial();
    let origin = accept(&listener);
    narrow_socket(&local);
    narrow_socket(&origin);
    (tunnel, echo, local, origin)
}

fn narrow_tunnel() -> (Tunnel, TcpListener, EchoServer) {
    let place = Place::new();
    narrow(&place);
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let listener = origin_listener(&place);
    // Accepted sockets inherit it, and with it the window they announce.
    socket2::SockRef::from(&listener).set_recv_buffer_size(TEST_SOCKET_BYTES as usize / 2).unwrap();
    let tunnel = Tunnel::native(place, listener.local_addr().unwrap());
    (tunnel, listener, echo)
}

// Many flows whose readers stand still must not use up what all flows of the tunnel share, in either direction.
#[test]
fn ten_stalled_flows_leave_room_for_another() {
    const STALLED: usize = 10;
    if !rig::root_or_skip("ten_stalled_flows_leave_room_for_another") {
        return;
    }
    for upload in [false, true] {
        let (tunnel, listener, echo) = narrow_tunnel();
        let mut beside = tunnel.socks();
        beside.write_all(&socks_request(echo.address())).unwrap();
        assert_eq!(read_some::<10>(&mut beside), reply(0));
        let written = Arc::new(Progress::default());
        let mut stalled = Vec::new();
        for _ in 0..STALLED {
            let local = tunnel.dial();
            let origin = accept(&listener);
            let (writer, reader) = if upload { (local, origin) } else { (origin, local) };
            let of_writer = written.clone();
            // It ends with an error when the test lets go of the reader.
            std::thread::spawn(move || write_until_broken(writer, &of_writer));
            stalled.push(reader);
        }
        let megabyte = random_bytes(7, MIB as usize);
        let (mut last, mut unchanged) = (u64::MAX, 0);
        for _ in 0..2_000 {
            bounce(&mut beside, &megabyte);
            let now = written.get();
            unchanged = if now == last { unchanged + 1 } else { 0 };
            last = now;
            if unchanged == 8 {
                break;
            }
        }
        assert_eq!(
            unchanged, 8,
            "the writers never stalled (upload: {upload}); they have written {last} bytes"
        );
    }
}

fn write_until_broken(mut writer: TcpStream, written: &Progress) {
    writer.set_write_timeout(None).unwrap();
    let chunk = [0x5a; 1 << 16];
    while let Ok(n) = writer.write(&chunk) {
        written.add(n);
    }
}
