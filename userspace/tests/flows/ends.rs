//! How a flow ends at one side is how it ends at the other: half-close and reset.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;

use crate::pair::{LIMIT, Place, settled};
use crate::rig::{self};
use crate::script::{assert_flow_counters, scripted};
use crate::tools::{
    Tunnel, accept, counter, origin_listener, random_bytes, read_all, read_some, reset, seed,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

// RFC 9114 4.4: "when the client ... has no more data ... FIN bit"; a TCP half-close is the end of a stream and no more.
#[test]
fn half_close_from_the_client_leaves_the_answer_flowing() {
    const TEST: &str = "half_close_from_the_client_leaves_the_answer_flowing";
    let seed = seed(TEST);
    let (request, response) = (random_bytes(seed, 1 << 20), random_bytes(seed + 1, 3 << 20));
    let (sent, answer) = (request.clone(), response.clone());
    let ends = scripted(
        TEST,
        move |mut stream| {
            let request = read_all(&mut stream);
            stream.write_all(&answer).unwrap();
            request
        },
        |tunnel| {
            let mut stream = tunnel.dial();
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(&mut stream)
        },
    );
    let Some((at_origin, at_client, tunnel)) = ends else { return };
    assert!(at_origin == request, "the origin got {} bytes of {}", at_origin.len(), request.len());
    assert!(at_client == response, "the client got {} bytes of {}", at_client.len(), response.len());
    assert_flow_counters(
        &tunnel.gateway,
        &[
            ("requests", 1),
            ("flows_finished", 1),
            ("bytes_to_sockets", 1 << 20),
            ("bytes_from_sockets", 3 << 20),
        ],
    );
    assert_flow_counters(
        &tunnel.client,
        &[
            ("requests", 1),
            ("flows_finished", 1),
            ("bytes_to_sockets", 3 << 20),
            ("bytes_from_sockets", 1 << 20),
        ],
    );
}

#[test]
fn half_close_from_the_origin_leaves_the_request_flowing() {
    const TEST: &str = "half_close_from_the_origin_leaves_the_request_flowing";
    let seed = seed(TEST);
    let (banner, upload) = (random_bytes(seed, 1 << 20), random_bytes(seed + 1, 3 << 20));
    let (said, sent) = (banner.clone(), upload.clone());
    let ends = scripted(
        TEST,
        move |mut stream| {
            stream.write_all(&said).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(&mut stream)
        },
        |tunnel| {
            let mut stream = tunnel.dial();
            let banner = read_all(&mut stream);
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            banner
        },
    );
    let Some((at_origin, at_client, tunnel)) = ends else { return };
    assert!(at_client == banner, "the client got {} bytes of {}", at_client.len(), banner.len());
    assert!(at_origin == upload, "the origin got {} bytes of {}", at_origin.len(), upload.len());
    assert_flow_counters(
        &tunnel.gateway,
        &[
            ("requests", 1),
            ("flows_finished", 1),
            ("bytes_to_sockets", 3 << 20),
            ("bytes_from_sockets", 1 << 20),
        ],
    );
}

// RFC 9114 4.4: "a proxy treats any error in the TCP connection, which includes receiving a TCP segment with the RST bit
// set, as a stream error of type H3_CONNECT_ERROR". At the local client that is ECONNRESET and never a clean end.
#[test]
fn a_reset_from_the_origin_is_an_error_at_the_client() {
    let (heard_tx, heard_rx) = mpsc::channel();
    let ends = scripted(
        "a_reset_from_the_origin_is_an_error_at_the_client",
        move |mut stream| {
            stream.write_all(b"half an ans").unwrap();
            heard_rx.recv_timeout(LIMIT).unwrap();
            reset(stream);
            ErrorKind::Other
        },
        |tunnel| {
            let mut stream = tunnel.dial();
            assert_eq!(&read_some::<11>(&mut stream), b"half an ans");
            heard_tx.send(()).unwrap();
            stream.read(&mut [0; 16]).expect_err("a reset is no end of stream").kind()
        },
    );
    let Some((_, at_client, tunnel)) = ends else { return };
    assert_eq!(at_client, ErrorKind::ConnectionReset);
    let flow = [("requests", 1), ("flows_reset_by_socket", 1), ("bytes_from_sockets", 11)];
    assert_flow_counters(&tunnel.gateway, &flow);
    let flow = [("requests", 1), ("flows_reset_by_stream", 1), ("bytes_to_sockets", 11)];
    assert_flow_counters(&tunnel.client, &flow);
}

#[test]
fn a_reset_from_the_client_is_a_reset_at_the_origin() {
    let (heard_tx, heard_rx) = mpsc::channel();
    let ends = scripted(
        "a_reset_from_the_client_is_a_reset_at_the_origin",
        move |mut stream| {
            assert_eq!(&read_some::<9>(&mut stream), b"half a re");
            heard_tx.send(()).unwrap();
            stream.read(&mut [0; 16]).expect_err("a reset is no end of stream").kind()
        },
        |tunnel| {
            let mut stream = tunnel.dial();
            stream.write_all(b"half a re").unwrap();
            heard_rx.recv_timeout(LIMIT).unwrap();
            reset(stream);
            ErrorKind::Other
        },
    );
    let Some((at_origin, _, tunnel)) = ends else { return };
    assert_eq!(at_origin, ErrorKind::ConnectionReset);
    let flow = [("requests", 1), ("flows_reset_by_stream", 1), ("bytes_to_sockets", 9)];
    assert_flow_counters(&tunnel.gateway, &flow);
    let flow = [("requests", 1), ("flows_reset_by_socket", 1), ("bytes_from_sockets", 9)];
    assert_flow_counters(&tunnel.client, &flow);
}

/// Sleeps until the connection has failed, without reading a byte from it.
fn wait_for_failure(stream: &TcpStream) -> bool {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let mut watched = [PollFd::new(stream, PollFlags::empty())];
    loop {
        match poll(&mut watched, Some(&limit)) {
            Ok(_) => return watched[0].revents().contains(PollFlags::ERR),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

// A reset overtakes the data before it: it must reach an end that reads nothing, else a stalled flow whose other end is
// gone lives for ever. Method: fill the whole way until the writer is stalled, reset the writer's end, and watch the
// other without reading.
#[test]
fn a_reset_overtakes_what_a_stalled_reader_has_not_read() {
    const TEST: &str = "a_reset_overtakes_what_a_stalled_reader_has_not_read";
    if !rig::root_or_skip(TEST) {
        return;
    }
    let place = Place::new();
    let listener = origin_listener(&place);
    let tunnel = Tunnel::native(place, listener.local_addr().unwrap());
    for upload in [true, false] {
        let local = tunnel.dial();
        let origin = accept(&listener);
        let (writer, reader) = if upload { (local, origin) } else { (origin, local) };
        fill(&tunnel, writer);
        assert!(wait_for_failure(&reader), "no failure reached the reader (upload: {upload})");
    }
    let status = settled(&tunnel.gateway);
    assert_eq!(counter(&status, "flows_reset_by_stream"), 1, "{status:#}");
    assert_eq!(counter(&status, "flows_reset_by_socket"), 1, "{status:#}");
}

/// Writes until nothing is taken any more and both daemons have fallen silent; then resets.
fn fill(tunnel: &Tunnel, mut writer: TcpStream) {
    writer.set_nonblocking(true).unwrap();
    let chunk = [0x5a; 1 << 16];
    loop {
        let before = tunnel.gateway.status();
        let mut written = 0;
        loop {
            match writer.write(&chunk) {
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let after = tunnel.gateway.status();
        if written == 0 && before["conservation"]["frames_in"] == after["conservation"]["frames_in"] {
            break;
        }
    }
    reset(writer);
}
