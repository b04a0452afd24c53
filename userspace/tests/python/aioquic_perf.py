#!/usr/bin/env python3
"""aioquic as either end of draft-banks-quic-performance (ALPN perf), for `beam bench`.

Goal: whoever else speaks the protocol gets exactly the bytes that it asks of `beam bench serve`, a client without manners
costs little, and `beam bench run` measures a server that nobody here wrote. Method: the client runs one case after the
other and prints one JSON object {case, asked, got, sent, ok, error} for each; the server prints {"ready": port} and serves
until standard input ends.
"""

import argparse
import asyncio
import json
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, StreamDataReceived

CASE_LIMIT_S = 30


class Perf(QuicConnectionProtocol):
    """Counts what comes, by stream."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.got = {}
        self.ended = set()
        self.datagrams = []
        self.error = None
        self.changed = asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.got[event.stream_id] = self.got.get(event.stream_id, 0) + len(event.data)
            if event.end_stream:
                self.ended.add(event.stream_id)
        elif isinstance(event, DatagramFrameReceived):
            self.datagrams.append(event.data)
        elif isinstance(event, ConnectionTerminated):
            self.error = f"{event.error_code:#x} {event.reason_phrase}"
        self.changed.set()

    async def until(self, done):
        while not done() and self.error is None:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), CASE_LIMIT_S)

    def ask(self, wanted, upload=b"", uni=False, fin=True):
        stream = self._quic.get_next_available_stream_id(is_unidirectional=uni)
        self._quic.send_stream_data(stream, wanted.to_bytes(8, "big") + upload, end_stream=fin)
        self.transmit()
        return stream


async def transfer(perf, wanted, upload):
    stream = perf.ask(wanted, bytes(upload))
    await perf.until(lambda: stream in perf.ended)
    return {"asked": wanted, "got": perf.got.get(stream, 0), "sent": upload}


async def down(perf):
    return await transfer(perf, 3_000_000, 0)


async def up(perf):
    return await transfer(perf, 0, 2_000_000)


async def both(perf):
    return await transfer(perf, 654_321, 123_456)


async def uni_down(perf):
    """The answer to a unidirectional stream comes on one that the server opens: its first is number 3."""
    perf.ask(70_001, uni=True)
    await perf.until(lambda: 3 in perf.ended)
    return {"asked": 70_001, "got": perf.got.get(3, 0), "sent": 0}


async def many(perf):
    """More streams than are permitted at first."""
    streams = [perf.ask(100) for _ in range(300)]
    await perf.until(lambda: all(stream in perf.ended for stream in streams))
    return {"asked": 30_000, "got": sum(perf.got.values()), "sent": 0}


async def datagrams(perf):
    sent = [bytes([n]) * 500 for n in range(50)]
    for data in sent:
        perf._quic.send_datagram_frame(data)
    perf.transmit()
    await perf.until(lambda: len(perf.datagrams) >= len(sent))
    equal = sorted(perf.datagrams) == sent
    return {"asked": 50 * 500, "got": sum(map(len, perf.datagrams)) if equal else -1, "sent": 0}


async def endless(perf):
    """An answer without end, until the client has enough."""
    stream = perf.ask(2**64 - 1)
    await perf.until(lambda: perf.got.get(stream, 0) >= 1_000_000)
    perf._quic.stop_stream(stream, 0)
    perf.transmit()
    return {"asked": 0, "got": 0, "sent": 0}


CASES = {f.__name__: f for f in [down, up, both, uni_down, many, datagrams, endless]}


def configuration(args, is_client):
    made = QuicConfiguration(is_client=is_client, alpn_protocols=[args.alpn], max_datagram_frame_size=65536)
    made.max_data = made.max_stream_data = args.window
    if is_client:
        made.verify_mode = ssl.CERT_NONE
    return made


async def client(args):
    for name in args.case or list(CASES):
        case = {"case": name, "ok": False, "error": None}
        try:
            async with connect(
                args.host, args.port, configuration=configuration(args, True), create_protocol=Perf
            ) as perf:
                case.update(await CASES[name](perf))
                case["error"] = perf.error
                case["ok"] = perf.error is None and case["asked"] == case["got"]
        except (ConnectionError, asyncio.TimeoutError) as error:
            case["error"] = f"{type(error).__name__} {error}"
        print(json.dumps(case), flush=True)


async def hostile(args):
    """Asks for 2^62 bytes on one stream and never gives credit; opens as many streams as it may and ends none."""
    QuicConnection._write_connection_limits = lambda *_args, **_kwargs: None
    QuicConnection._write_stream_limits = lambda *_args, **_kwargs: None
    async with connect(
        args.host, args.port, configuration=configuration(args, True), create_protocol=Perf
    ) as perf:
        stream = perf.ask(2**62)
        await perf.until(lambda: perf.got.get(stream, 0) >= args.window)
        for _ in range(6000):
            idle = perf._quic.get_next_available_stream_id()
            perf._quic.send_stream_data(idle, b"\0\0\0")
        perf.transmit()
        # What it may open is open once a ping is answered behind it, and the limits that this brings are used up.
        for _ in range(30):
            await perf.ping()
        print(json.dumps({"ready": True, "got": perf.got.get(stream, 0)}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


class PerfServer(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.heads = {}

    def quic_event_received(self, event):
        if isinstance(event, DatagramFrameReceived):
            self._quic.send_datagram_frame(event.data)
        if not isinstance(event, StreamDataReceived):
            return
        head = self.heads.setdefault(event.stream_id, bytearray())
        head += event.data[: 8 - len(head)]
        if event.end_stream and len(head) == 8 and event.stream_id % 4 == 0:
            wanted = int.from_bytes(head, "big")
            self._quic.send_stream_data(event.stream_id, bytes(wanted), end_stream=True)
            self.transmit()


async def server(args):
    made = configuration(args, False)
    made.load_cert_chain(args.cert, args.key)
    tickets = {}
    await serve(
        args.host,
        args.port,
        configuration=made,
        create_protocol=PerfServer,
        session_ticket_handler=lambda ticket: tickets.__setitem__(ticket.ticket, ticket),
        session_ticket_fetcher=lambda label: tickets.pop(label, None),
    )
    print(json.dumps({"ready": args.port}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["client", "server", "hostile"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--alpn", default="perf")
    parser.add_argument("--window", type=int, default=1 << 20)
    parser.add_argument("--case", action="append", choices=CASES)
    args = parser.parse_args()
    asyncio.run({"client": client, "server": server, "hostile": hostile}[args.role](args))


if __name__ == "__main__":
    main()
