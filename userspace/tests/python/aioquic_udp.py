#!/usr/bin/env python3
"""Holds a beam gateway's CONNECT-UDP (RFC 9298) and HTTP datagrams (RFC 9297) against aioquic.

Goal: UDP payloads in both framings, each answered in the framing that the client used; and of what breaks the rules,
drops that hurt nobody else, or the error that the RFC names. Method: each case opens a connection of its own and prints
one JSON object {case, ok, found, expected, sent, frames, capsules}: `found` is the status, or what ended the stream or the
connection; `sent` counts the payloads of context 0 that the gateway was to forward, `frames` and `capsules` the echoes by
how they came. Exit 0 when every case went as expected.

Run it with the python of scripts/venv:
  aioquic_udp.py --host 198.18.0.1 --port 443 --ca ca.pem --token-file t --target 198.19.0.2:7 --closed 198.19.0.2:9
"""

import argparse
import asyncio
import contextlib
import json
import sys

from aioquic.asyncio import connect
from aioquic.buffer import Buffer, BufferReadError, encode_uint_var
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived
from aioquic.quic.configuration import QuicConfiguration

from aioquic_connect import Http3, credentials, outcome

CASE_LIMIT_S = 30
# aioquic sends what it is given as fast as the congestion window lets it; the echo paces it.
WINDOW = 32
DATAGRAM_CAPSULE = 0x00
# A reserved type (0x29 * N + 0x17) and one that nobody has registered.
UNKNOWN_CAPSULES = (0x17, 0x3FFFF)


class Masque(Http3):
    """A client that keeps what its tunnels bring: payloads by request stream, in both framings."""

    offers_datagrams = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.frames, self.capsules, self.unparsed = [], [], {}

    def make_http(self):
        # WebTransport is how aioquic comes to announce H3_DATAGRAM.
        return H3Connection(self._quic, enable_webtransport=self.offers_datagrams)

    def _answer_received(self, event):
        super()._answer_received(event)
        if isinstance(event, DatagramReceived):
            self.frames.append(payload_of(event.data))
        elif isinstance(event, DataReceived):
            data = self.unparsed.get(event.stream_id, b"") + event.data
            capsules, self.unparsed[event.stream_id] = split_capsules(data)
            self.capsules += [payload_of(value) for kind, value in capsules if kind == DATAGRAM_CAPSULE]

    @property
    def echoes(self):
        return self.frames + self.capsules

    @property
    def settings(self):
        return self.http.received_settings or {}

    def open(self, options, target, token=True):
        """Sends the request; its stream."""
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream, head(options, target, token))
        return stream

    def send_frame(self, stream, payload, context=0):
        self.http.send_datagram(stream, encode_uint_var(context) + payload)

    def send_capsule(self, stream, payload, kind=DATAGRAM_CAPSULE, context=0, end_stream=False):
        value = (encode_uint_var(context) if kind == DATAGRAM_CAPSULE else b"") + payload
        self.http.send_data(stream, encode_uint_var(kind) + encode_uint_var(len(value)) + value, end_stream)


class MasqueWithDatagrams(Masque):
    offers_datagrams = True


def payload_of(datagram):
    assert datagram[:1] == b"\x00", f"a datagram of context {datagram[:1]!r}"
    return datagram[1:]


def split_capsules(data):
    """The whole capsules, and what is left."""
    buffer, capsules, done = Buffer(data=data), [], 0
    with contextlib.suppress(BufferReadError):
        while True:
            kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
            capsules.append((kind, buffer.pull_bytes(length)))
            done = buffer.tell()
    return capsules, data[done:]


def head(options, target, token):
    host, port = target.rsplit(":", 1) if isinstance(target, str) else target
    return [
        (b":method", b"CONNECT"),
        (b":protocol", b"connect-udp"),
        (b":scheme", b"https"),
        (b":authority", f"{options.host}:{options.port}".encode()),
        (b":path", f"/.well-known/masque/udp/{host}/{port}/".encode()),
        (b"capsule-protocol", b"?1"),
        *(credentials(options) if token else []),
    ]


@contextlib.asynccontextmanager
async def gateway(options, protocol, datagrams=True):
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, server_name=options.host)
    configuration.load_verify_locations(options.ca)
    configuration.max_datagram_frame_size = 65536 if datagrams else None
    async with connect(options.host, options.port, configuration=configuration, create_protocol=protocol) as client:
        await client.until(lambda: client.settings)
        yield client
        client.closing = True


class Seen:
    def __init__(self):
        self.found = None
        self.sent = self.frames = self.capsules = 0


def numbered(count, longest, first=0):
    """Payloads of all lengths up to the longest, each with its number in front."""
    for n in range(first, first + count):
        length = (n - first) * longest // max(count - 1, 1)
        yield n.to_bytes(4, "big") + bytes(n + i & 0xFF for i in range(length - 4)) if length >= 4 else b"%03d" % (n % 1000)


async def echo(client, send, payloads, seen):
    """Sends each and waits for its echo, some of them at once."""
    payloads, before = list(payloads), len(client.echoes)
    for n, payload in enumerate(payloads):
        send(payload)
        client.transmit()
        await client.until(lambda: n + 1 - (len(client.echoes) - before) < WINDOW)
    await client.until(lambda: len(client.echoes) - before == len(payloads))
    seen.sent += len(payloads)
    if client.error is None and sorted(client.echoes[before:]) != sorted(payloads):
        client.error = "the echoes differ from what was sent"


async def end(client, stream):
    """Ends the stream, and waits for its end from the other side: all before it has been read then."""
    client.http.send_data(stream, b"", end_stream=True)
    client.transmit()
    await client.until(lambda: client.finished)


async def finish(client, seen):
    note(client, seen)
    return seen


def note(client, seen):
    seen.found = client.error or str(client.status) if client.status == 200 else outcome_of(client)
    seen.frames, seen.capsules = len(client.frames), len(client.capsules)


def outcome_of(client):
    status = type("S", (), {"status": client.status, "error": client.error, "sha256_ok": None})
    status.proxy_status = client.headers.get("proxy-status")
    return outcome(status)


CASES = {}


def case(*expected):
    """Registers a case under its function's name, with the outcomes that the standards allow."""

    def register(function):
        CASES[function.__name__] = (function, expected)
        return function

    return register


async def opened(client, options, target=None):
    stream = client.open(options, target or options.target)
    client.transmit()
    await client.until(lambda: client.status is not None)
    return stream


@case("200")
async def frames(options):
    """QUIC DATAGRAM frames are answered in such."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams) as client:
        stream = await opened(client, options)
        await echo(client, lambda payload: client.send_frame(stream, payload), numbered(300, 1100), seen)
        return await finish(client, seen)


@case("200")
async def capsules(options):
    """A client without QUIC datagrams: capsules both ways."""
    seen = Seen()
    async with gateway(options, Masque, datagrams=False) as client:
        stream = await opened(client, options)
        await echo(client, lambda payload: client.send_capsule(stream, payload), numbered(300, 1400), seen)
        return await finish(client, seen)


@case("200")
async def capsules_by_choice(options):
    """A client that offers H3_DATAGRAM and sends capsules, as libcurl does, is answered in capsules."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams) as client:
        stream = await opened(client, options)
        await echo(client, lambda payload: client.send_capsule(stream, payload), numbered(50, 1100), seen)
        return await finish(client, seen)


@case("200")
async def two_flows(options):
    """Flows of one connection are told apart, and each keeps its framing."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams) as client:
        one, other = await opened(client, options), await opened(client, options)
        await echo(client, lambda payload: client.send_frame(one, payload), numbered(50, 900), seen)
        await echo(client, lambda payload: client.send_capsule(other, payload), numbered(50, 900, 50), seen)
        return await finish(client, seen)


@case("200")
async def early(options):
    """Datagrams that overtake their request are kept for it."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams) as client:
        stream = client._quic.get_next_available_stream_id()
        payloads = list(numbered(20, 500))
        for payload in payloads:
            client.send_frame(stream, payload)
        client.transmit()
        assert stream == client.open(options, options.target)
        client.transmit()
        await client.until(lambda: len(client.echoes) == len(payloads))
        seen.sent = len(payloads)
        return await finish(client, seen)


@case("200")
async def unknown_flow(options):
    """Datagrams for streams that carry none or that nobody opened go nowhere; the flow beside them runs on."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams) as client:
        stream = await opened(client, options)
        for n in range(options.unknown_count):
            client.send_frame(4 * (100_000 + n), b"nobody's")
        await echo(client, lambda payload: client.send_frame(stream, payload), numbered(20, 100), seen)
        return await finish(client, seen)


@case("200")
async def unknown_contexts_and_capsules(options):
    """What this version does not know is skipped: contexts, capsule types, a flood of them, and one of 1 MiB."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams) as client:
        stream = await opened(client, options)
        for n in range(options.unknown_count):
            client.send_frame(stream, b"another context", context=2 + n)
            client.send_capsule(stream, b"x" * n, kind=UNKNOWN_CAPSULES[n % 2])
        client.send_capsule(stream, bytes(1 << 20), kind=UNKNOWN_CAPSULES[0])
        client.send_capsule(stream, bytes(70_000), context=2)
        await echo(client, lambda payload: client.send_frame(stream, payload), numbered(20, 100), seen)
        await end(client, stream)
        return await finish(client, seen)


@case(f"stream {ErrorCode.H3_MESSAGE_ERROR:#x}")
async def oversize_payload(options):
    """RFC 9298 5: context 0 with more than 65,527 bytes aborts its stream."""
    seen = Seen()
    async with gateway(options, Masque, datagrams=False) as client:
        stream = await opened(client, options)
        client.send_capsule(stream, bytes(70_000))
        client.transmit()
        await client.until(lambda: client.finished)
        return await finish(client, seen)


@case(f"stream {ErrorCode.H3_MESSAGE_ERROR:#x}")
async def truncated_capsule(options):
    """RFC 9297 3.3: the stream ends in the middle of a capsule."""
    seen = Seen()
    async with gateway(options, Masque, datagrams=False) as client:
        stream = await opened(client, options)
        client.http.send_data(stream, b"\x00\x10half", end_stream=True)
        client.transmit()
        await client.until(lambda: client.finished)
        return await finish(client, seen)


@case(f"connection {ErrorCode.H3_DATAGRAM_ERROR:#x}")
async def no_quarter_stream_id(options):
    """RFC 9297 2.1: a QUIC DATAGRAM frame too short for one."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams) as client:
        client._quic.send_datagram_frame(b"\x40")
        client.transmit()
        await client.until(lambda: client.finished)
        return await finish(client, seen)


@case(f"connection {ErrorCode.H3_SETTINGS_ERROR:#x}")
async def setting_without_transport_parameter(options):
    """RFC 9297 2.1.1: H3_DATAGRAM needs max_datagram_frame_size."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams, datagrams=False) as client:
        await client.until(lambda: client.finished)
        return await finish(client, seen)


@case(f"stream {ErrorCode.H3_CONNECT_ERROR:#x}")
async def closed_port(options):
    """RFC 9298 3.1: after "port unreachable" the stream is closed."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams) as client:
        stream = await opened(client, options, options.closed)
        client.send_frame(stream, b"anybody there?")
        client.transmit()
        seen.sent += 1
        await client.until(lambda: client.finished)
        return await finish(client, seen)


@case("200")
async def end_of_stream(options):
    """The client's end of the stream is answered by the gateway's."""
    seen = Seen()
    async with gateway(options, MasqueWithDatagrams) as client:
        stream = await opened(client, options)
        await echo(client, lambda payload: client.send_frame(stream, payload), numbered(10, 100), seen)
        await end(client, stream)
        return await finish(client, seen)


def refusal(name, target, *expected, token=True):
    async def ask(options):
        seen = Seen()
        async with gateway(options, Masque, datagrams=False) as client:
            client.open(options, target, token)
            client.transmit()
            await client.until(lambda: client.status is not None)
            return await finish(client, seen)

    CASES[name] = (ask, expected)


refusal("no_token", "198.19.0.2:7", "401", token=False)
refusal("loopback", "127.0.0.1:7", "403 destination_ip_prohibited", "403 http_request_denied")
refusal("name_of_loopback", "hostile.beam.example:7", "403 destination_ip_prohibited")
refusal("no_such_name", "nowhere.invalid:7", "502 dns_error")
refusal("port_zero", "198.19.0.2:0", "400")
refusal("no_host", ("", 7), "400")
refusal("too_many_segments", ("198.19.0.2/7", 7), "404")


async def run_case(name, options):
    function, expected = CASES[name]
    try:
        seen = await asyncio.wait_for(function(options), CASE_LIMIT_S)
    except TimeoutError:
        seen = Seen()
        seen.found = f"no end within {CASE_LIMIT_S} s"
    ok = seen.found in expected
    print(json.dumps({"case": name, "ok": ok, "expected": expected, **vars(seen)}), flush=True)
    return ok


def parse(argv):
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--host", required=True)
    flags.add_argument("--port", type=int, default=443)
    flags.add_argument("--ca", required=True, help="PEM file of the authority to trust")
    flags.add_argument("--token-file", required=True)
    flags.add_argument("--target", required=True, help="host:port of a UDP echo server that the gateway allows")
    flags.add_argument("--closed", required=True, help="host:port, allowed, where nobody listens")
    flags.add_argument("--unknown-count", type=int, default=100, help="how much of each thing that is unknown")
    flags.add_argument("--case", action="append", choices=CASES, help="only these")
    options = flags.parse_args(argv)
    with open(options.token_file, encoding="utf-8") as file:
        options.token = file.read().strip()
    return options


async def main(argv):
    options = parse(argv)
    results = [await run_case(name, options) for name in options.case or CASES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
