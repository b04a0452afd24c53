#!/usr/bin/env python3
"""Holds a beam gateway against aioquic, an HTTP/3 client that nobody here wrote.

Goal: CONNECT as RFC 9114 section 4.4 has it, the refusals of RFC 9110 and RFC 9209, and the protocol errors of RFC 9114
and RFC 9204, as a stranger sees them. Method: each case opens a connection of its own, does one thing, and prints one JSON
object {case, ok, expected, status, proxy_status, bytes_up, bytes_down, sha256_ok, error}; `error` is what ended the stream
or the connection, such as "connection 0x200" or "stream 0x10e". Exit 0 when every case was answered as expected.

Run it with the python of scripts/venv:
  aioquic_connect.py --host 198.18.0.1 --port 443 --ca ca.pem --token-file t --target 198.19.0.2:7 --case transfer --case no_token
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN, ErrorCode, FrameType, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamReset

TRANSFER_BYTES = 10_000_000
CHUNK_BYTES = 64 * 1024
# aioquic buffers without limit what it is given; this much may wait there, the echo paces the rest.
UNANSWERED_BYTES_MAX = 1 << 20
CASE_LIMIT_S = 30
SEED = 9114


class Http3(QuicConnectionProtocol):
    """An HTTP/3 client that notes what happens on its one request stream and on the connection."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Before the handshake, so that no frame of the gateway's can come too early for it.
        self.http = self.make_http()
        self.status = None
        self.headers = {}
        self.error = None
        self.body_bytes = 0
        self.body_digest = hashlib.sha256()
        self.finished = False
        self.closing = False
        self._changed = asyncio.Event()

    def make_http(self):
        return H3Connection(self._quic)

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated) and not self.closing:
            self.error = self.error or f"connection {event.error_code:#x}"
        elif isinstance(event, StreamReset):
            self.error = self.error or f"stream {event.error_code:#x}"
        elif isinstance(event, StopSendingReceived):
            # NO_ERROR only says that the request's rest is not wanted.
            if event.error_code != ErrorCode.H3_NO_ERROR:
                self.error = self.error or f"stream {event.error_code:#x}"
        for answer in self.http.handle_event(event):
            self._answer_received(answer)
        self._changed.set()

    def _answer_received(self, event):
        if isinstance(event, HeadersReceived) and self.status is None:
            self.headers = {name.decode(): value.decode(errors="replace") for name, value in event.headers}
            self.status = int(self.headers[":status"])
        elif isinstance(event, DataReceived):
            self.body_bytes += len(event.data)
            self.body_digest.update(event.data)
        self.finished |= getattr(event, "stream_ended", False)

    async def until(self, condition):
        """Waits until the condition holds or the stream or connection has failed."""
        while not condition() and self.error is None:
            self._changed.clear()
            await self._changed.wait()


class Seen:
    """What one case observed."""

    def __init__(self):
        self.status = self.proxy_status = self.sha256_ok = self.error = None
        self.bytes_up = self.bytes_down = 0


@contextlib.asynccontextmanager
async def gateway(options, certificate=None):
    """A connection with HTTP/3 on it. A gateway that refuses the handshake shows in the `error` of what is yielded."""
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, server_name=options.server_name or options.host)
    if options.insecure:
        configuration.verify_mode = ssl.CERT_NONE
    elif options.ca:
        configuration.load_verify_locations(options.ca)
    if certificate:
        configuration.load_cert_chain(*certificate)
    async with connect(
        options.host, options.port, configuration=configuration, create_protocol=Http3, wait_connected=False
    ) as client:
        client.transmit()
        with contextlib.suppress(ConnectionError):
            await client.wait_connected()
        yield client
        client.closing = True


def credentials(options, scheme="authorization"):
    return [(scheme.encode(), b"Bearer " + options.token.encode())]


def connect_head(target, extra=()):
    # RFC 9114 4.4: CONNECT carries neither :scheme nor :path.
    return [(b":method", b"CONNECT"), (b":authority", target.encode()), *extra]


async def request(options, head, certificate=None, end_stream=False):
    """Sends one request and waits for its status; the connection is closed then."""
    seen = Seen()
    async with gateway(options, certificate) as client:
        if client.error is None:
            stream = client._quic.get_next_available_stream_id()
            client.http.send_headers(stream, head, end_stream=end_stream)
            client.transmit()
            await client.until(lambda: client.status is not None)
        note(seen, client)
    return seen


def note(seen, client):
    seen.status, seen.error = client.status, client.error
    seen.proxy_status = client.headers.get("proxy-status")
    seen.bytes_down = client.body_bytes


async def transfer(options, extra, certificate=None, size_bytes=TRANSFER_BYTES):
    """CONNECT to the echo server, `size_bytes` up and the same down, then the end of the stream both ways."""
    seen = Seen()
    payload = random.Random(SEED).randbytes(size_bytes)
    async with gateway(options, certificate) as client:
        if client.error is None:
            stream = client._quic.get_next_available_stream_id()
            client.http.send_headers(stream, connect_head(options.target, extra))
            client.transmit()
            await client.until(lambda: client.status is not None)
            if client.status == 200:
                await pour(client, stream, payload, seen)
                await client.until(lambda: client.finished)
        note(seen, client)
        seen.sha256_ok = client.body_digest.digest() == hashlib.sha256(payload).digest()
    return seen


async def pour(client, stream, payload, seen):
    for start in range(0, len(payload), CHUNK_BYTES):
        chunk = payload[start : start + CHUNK_BYTES]
        client.http.send_data(stream, chunk, end_stream=start + CHUNK_BYTES >= len(payload))
        client.transmit()
        seen.bytes_up += len(chunk)
        await client.until(lambda: seen.bytes_up - client.body_bytes < UNANSWERED_BYTES_MAX)


async def raw_headers(options, block):
    """One HEADERS frame with a block of our own making, past aioquic's encoder, which would refuse to make it."""
    seen = Seen()
    async with gateway(options) as client:
        if client.error is None:
            stream = client._quic.get_next_available_stream_id()
            frame = encode_uint_var(FrameType.HEADERS) + encode_uint_var(len(block)) + block
            client._quic.send_stream_data(stream, frame, end_stream=False)
            client.transmit()
            await client.until(lambda: client.status is not None)
        note(seen, client)
    return seen


def integer(first_byte, prefix_bits, value):
    """RFC 7541 section 5.1: an integer behind a prefix of `prefix_bits` in a byte whose upper bits are given."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first_byte | value])
    out, value = [first_byte | limit], value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def qpack(fields):
    """RFC 9204 section 4.5.6: every field a literal with a literal name, nothing from any table, no Huffman."""
    lines = [
        integer(0x20, 3, len(name)) + name + integer(0x00, 7, len(value)) + value for name, value in fields
    ]
    return b"\x00\x00" + b"".join(lines)


# --- the cases: what to do, and what a gateway must answer ---

CASES = {}


def case(expected, needs=()):
    """Registers a case under its function's name. `expected` lists the outcomes that the standards allow."""

    def register(function):
        CASES[function.__name__] = (function, expected, needs)
        return function

    return register


def refused_message(error):
    """RFC 9114 4.1.2: malformed is a stream error H3_MESSAGE_ERROR; an answer of 400 before it is allowed."""
    return ["400", f"stream {error:#x}", f"connection {error:#x}"]


@case(["200 whole"], needs=["target", "token"])
async def transfer_with_token(options):
    """10 MB each way under `authorization: Bearer`."""
    return await transfer(options, credentials(options))


@case(["200 whole"], needs=["target", "token"])
async def transfer_with_proxy_token(options):
    """The same credentials in proxy-authorization, where most proxy clients put them."""
    return await transfer(options, credentials(options, "proxy-authorization"), size_bytes=100_000)


@case(["200 whole"], needs=["target", "cert", "key"])
async def transfer_with_certificate(options):
    """A client certificate instead of a token."""
    return await transfer(options, [], certificate=(options.cert, options.key))


@case(["connection 0x130", "connection 0x12a", "connection 0x12e"], needs=["stranger_cert", "stranger_key"])
async def stranger_certificate(options):
    """A certificate of an unknown authority ends the handshake: unknown_ca, bad_certificate or certificate_unknown."""
    head = connect_head(options.target or "198.19.0.2:7")
    return await request(options, head, certificate=(options.stranger_cert, options.stranger_key))


@case(["401"], needs=["target"])
async def no_token(options):
    return await request(options, connect_head(options.target))


@case(["401"], needs=["target"])
async def wrong_token(options):
    return await request(options, connect_head(options.target, [(b"authorization", b"Bearer not-the-token")]))


@case(["407"], needs=["target"])
async def wrong_proxy_token(options):
    """407 goes only to a client that used proxy-authorization."""
    return await request(options, connect_head(options.target, [(b"proxy-authorization", b"Bearer not-the-token")]))


@case(["403"], needs=["denied", "token"])
async def denied(options):
    return await request(options, connect_head(options.denied, credentials(options)))


@case(["502 connection_refused"], needs=["refused", "token"])
async def refused(options):
    return await request(options, connect_head(options.refused, credentials(options)))


@case(["502 dns_error"], needs=["token"])
async def unresolvable(options):
    return await request(options, connect_head(options.unresolvable, credentials(options)))


@case(["404"])
async def unknown_path(options):
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", options.host.encode()),
              (b":path", options.path.encode())]  # fmt: skip
    return await request(options, fields, end_stream=True)


@case([f"connection {ErrorCode.QPACK_DECOMPRESSION_FAILED:#x}"])
async def garbage_header_block(options):
    """RFC 9204 2.2.3: an index past the static table is a connection error QPACK_DECOMPRESSION_FAILED."""
    return await raw_headers(options, b"\x00\x00" + b"\xff" * 64)


@case(refused_message(ErrorCode.H3_MESSAGE_ERROR), needs=["target"])
async def uppercase_name(options):
    """RFC 9114 4.2: a field name with an uppercase letter makes the message malformed."""
    return await raw_headers(options, qpack(connect_head(options.target, [(b"X-Upper", b"1")])))


@case(refused_message(ErrorCode.H3_MESSAGE_ERROR))
async def no_authority(options):
    """RFC 9114 4.4: a CONNECT request without :authority is malformed."""
    return await raw_headers(options, qpack([(b":method", b"CONNECT")]))


@case(refused_message(ErrorCode.H3_MESSAGE_ERROR), needs=["target"])
async def pseudo_after_regular(options):
    """RFC 9114 4.3: pseudo-header fields come before regular ones."""
    fields = [(b":method", b"CONNECT"), (b"x-first", b"1"), (b":authority", options.target.encode())]
    return await raw_headers(options, qpack(fields))


@case([f"connection {ErrorCode.H3_EXCESSIVE_LOAD:#x}", f"stream {ErrorCode.H3_EXCESSIVE_LOAD:#x}", "431"], needs=["target"])
async def oversized_header_block(options):
    """1 MiB of one field: refused by its length, whatever credentials it would carry."""
    return await raw_headers(options, qpack(connect_head(options.target, [(b"x-large", b"a" * (1 << 20))])))


def outcome(seen):
    """The case in one word or two, as the expectations name them."""
    if seen.status is None:
        return seen.error
    if seen.status == 200 and seen.sha256_ok and seen.bytes_up == seen.bytes_down and seen.error is None:
        return "200 whole"
    error = next((part.strip()[6:] for part in (seen.proxy_status or "").split(";") if part.strip().startswith("error=")), None)
    return f"{seen.status} {error}" if error else str(seen.status)


def is_expected(seen, expected):
    # A Proxy-Status beside a status that was expected without one is welcome.
    found = outcome(seen) or ""
    return found in expected or found.split(" ")[0] in expected


async def run_case(name, options):
    function, expected, needs = CASES[name]
    lacking = [need for need in needs if not getattr(options, need)]
    if lacking:
        raise SystemExit(f"case {name} needs --{' --'.join(lacking).replace('_', '-')}")
    try:
        seen = await asyncio.wait_for(function(options), CASE_LIMIT_S)
    except TimeoutError:
        seen = Seen()
        seen.error = f"no answer within {CASE_LIMIT_S} s"
    ok = is_expected(seen, expected)
    print(json.dumps({"case": name, "ok": ok, "expected": expected, **vars(seen)}), flush=True)
    return ok


def parse(argv):
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--host", required=True)
    flags.add_argument("--port", type=int, default=443)
    flags.add_argument("--server-name", help="name to expect in the certificate (default: the host)")
    flags.add_argument("--ca", help="PEM file of the authority to trust")
    flags.add_argument("--insecure", action="store_true")
    flags.add_argument("--token", default="")
    flags.add_argument("--token-file")
    flags.add_argument("--cert"), flags.add_argument("--key")
    flags.add_argument("--stranger-cert"), flags.add_argument("--stranger-key")
    flags.add_argument("--target", help="host:port of an echo server that the gateway allows")
    flags.add_argument("--denied", help="host:port that the gateway forbids")
    flags.add_argument("--refused", help="host:port, allowed, where nobody listens")
    flags.add_argument("--unresolvable", default="nowhere.invalid:80", help="a name that does not exist, allowed")
    flags.add_argument("--path", default="/foo", help="path that the gateway does not serve")
    flags.add_argument("--case", action="append", choices=[*CASES, "all"], metavar="NAME", help=f"all, or of: {', '.join(CASES)}")
    options = flags.parse_args(argv)
    if options.token_file:
        with open(options.token_file, encoding="utf-8") as file:
            options.token = file.read().strip()
    return options


async def main(argv):
    options = parse(argv)
    names = options.case or ["all"]
    if "all" in names:
        names = [name for name, (_, _, needs) in CASES.items() if all(getattr(options, need) for need in needs)]
    return 0 if all([await run_case(name, options) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
