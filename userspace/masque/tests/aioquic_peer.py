"""The other end of tests/aioquic.rs: aioquic's HTTP/3 over a QUIC that is only a list, and pylsqpack.

One JSON command a line on stdin, one JSON answer a line on stdout. Bytes are hexadecimal.
"""

import json
import sys

import pylsqpack
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import DatagramFrameReceived, StreamDataReceived


class ListedQuic:
    """What H3Connection asks of a QUIC connection; what it sends is kept in `sent`."""

    def __init__(self, is_client):
        self.configuration = QuicConfiguration(is_client=is_client)
        self._quic_logger = None
        self._remote_max_datagram_frame_size = 65536
        self._next = {False: 0 if is_client else 1, True: 2 if is_client else 3}
        self.sent = []
        self.closed = None

    def get_next_available_stream_id(self, is_unidirectional=False):
        stream_id = self._next[is_unidirectional]
        return stream_id

    def send_stream_data(self, stream_id, data, end_stream=False):
        if stream_id == self._next[bool(stream_id & 2)]:
            self._next[bool(stream_id & 2)] += 4
        self.sent.append([stream_id, data.hex(), end_stream])

    def send_datagram_frame(self, data):
        self.datagram = data.hex()

    def reset_stream(self, stream_id, error_code):
        self.closed = [error_code, "reset"]

    def close(self, error_code=0, frame_type=None, reason_phrase=""):
        self.closed = [error_code, reason_phrase]


def pairs(headers):
    return [[name.hex(), value.hex()] for name, value in headers]


def unpairs(headers):
    return [(bytes.fromhex(name), bytes.fromhex(value)) for name, value in headers]


class Peer:
    def start(self, is_client):
        self.quic = ListedQuic(is_client)
        self.h3 = H3Connection(self.quic)

    def receive(self, stream_id, data, end):
        events = self.h3.handle_event(
            StreamDataReceived(data=bytes.fromhex(data), end_stream=end, stream_id=stream_id)
        )
        out = []
        for event in events:
            if isinstance(event, HeadersReceived):
                out.append(["headers", pairs(event.headers)])
            elif isinstance(event, DataReceived):
                out.append(["data", event.data.hex()])
        return out

    def headers(self, stream_id, fields, end):
        if self.quic.configuration.is_client:
            assert stream_id == self.quic.get_next_available_stream_id()
        self.h3.send_headers(stream_id, unpairs(fields), end)

    def data(self, stream_id, data, end):
        self.h3.send_data(stream_id, bytes.fromhex(data), end)

    def send_datagram(self, stream_id, data):
        self.h3.send_datagram(stream_id, bytes.fromhex(data))
        return self.quic.datagram

    def receive_datagram(self, data):
        events = self.h3.handle_event(DatagramFrameReceived(data=bytes.fromhex(data)))
        return [[e.stream_id, e.data.hex()] for e in events if isinstance(e, DatagramReceived)]

    def encode_capsules(self, capsules):
        """aioquic leaves capsules to its users; its integers are all that they are made of."""
        payloads = [(kind, bytes.fromhex(payload)) for kind, payload in capsules]
        return b"".join(
            encode_uint_var(kind) + encode_uint_var(len(payload)) + payload for kind, payload in payloads
        ).hex()

    def decode_capsules(self, data):
        buffer = Buffer(data=bytes.fromhex(data))
        capsules = []
        while not buffer.eof():
            kind = buffer.pull_uint_var()
            capsules.append([kind, buffer.pull_bytes(buffer.pull_uint_var()).hex()])
        return capsules

    def settings(self):
        return {str(int(name)): value for name, value in (self.h3.received_settings or {}).items()}

    def qpack_decode(self, section):
        return pairs(pylsqpack.Decoder(0, 0).feed_header(0, bytes.fromhex(section))[1])

    def qpack_encode(self, fields):
        return pylsqpack.Encoder().encode(0, unpairs(fields))[1].hex()


def main():
    peer = Peer()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        result = getattr(peer, verb)(*arguments)
        quic = getattr(peer, "quic", None)
        sent, closed = (quic.sent, quic.closed) if quic else ([], None)
        print(json.dumps({"result": result, "sent": sent, "closed": closed}), flush=True)
        if quic:
            quic.sent = []


main()
