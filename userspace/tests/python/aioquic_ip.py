#!/usr/bin/env python3
"""An IP proxying client (RFC 9484) over aioquic, which means no good.

Goal: the gateway assigns an address and advertises routes as the RFC says, answers a ping from that address, and drops what
breaks the rules. Method: one connection, CONNECT-IP, then crafted packets in QUIC DATAGRAM frames; each thing that was seen is one
key of the JSON object that is printed at the end. Run it with the python of scripts/venv.
"""

import argparse
import asyncio
import ipaddress
import json
import struct

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamReset

LIMIT_S = 30
DATAGRAM, ADDRESS_ASSIGN, ADDRESS_REQUEST, ROUTE_ADVERTISEMENT = 0, 1, 2, 3


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(source, destination, sequence, ttl=64):
    """An ICMP echo request as a whole IPv4 packet."""
    message = struct.pack("!BBHHH", 8, 0, 0, 7, sequence) + b"beam"
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), sequence, 0, ttl, 1, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + message


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # The flag is what makes aioquic announce H3_DATAGRAM.
        self.http = H3Connection(self._quic, enable_webtransport=True)
        self.status, self.reset = None, None
        self.bytes, self.capsules, self.packets = b"", [], []
        self.changed = asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, StreamReset):
            self.reset = event.error_code
        for answer in self.http.handle_event(event):
            if isinstance(answer, HeadersReceived):
                self.status = int(dict(answer.headers)[b":status"])
            elif isinstance(answer, DataReceived):
                self.bytes += answer.data
                self.read_capsules()
            elif isinstance(answer, DatagramReceived):
                self.packets.append(answer.data[1:])
        self.changed.set()

    def read_capsules(self):
        while True:
            buffer = Buffer(data=self.bytes)
            try:
                kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
                payload = buffer.pull_bytes(length)
            except Exception:
                return
            self.capsules.append((kind, payload))
            self.bytes = self.bytes[buffer.tell() :]

    async def until(self, condition):
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), LIMIT_S)

    def packet(self, stream, packet, context=0):
        self.http.send_datagram(stream, encode_uint_var(context) + packet)
        self.transmit()

    def icmp(self, kind):
        """Packets of one ICMP type."""
        return [packet for packet in self.packets if packet[0] == 0x45 and packet[9] == 1 and packet[20] == kind]


async def run(options):
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, max_datagram_frame_size=65536)
    configuration.load_verify_locations(options.ca)
    with open(options.token_file) as file:
        token = file.read().strip()
    async with connect(options.host, options.port, configuration=configuration, create_protocol=Client) as client:
        stream = client._quic.get_next_available_stream_id()
        head = [
            (b":method", b"CONNECT"),
            (b":protocol", b"connect-ip"),
            (b":scheme", b"https"),
            (b":authority", f"{options.host}:{options.port}".encode()),
            (b":path", b"/.well-known/masque/ip/*/*/"),
            (b"capsule-protocol", b"?1"),
            (b"authorization", b"Bearer " + token.encode()),
        ]
        client.http.send_headers(stream, head)
        client.transmit()
        await client.until(lambda: client.status is not None)
        kinds = lambda: {kind for kind, _ in client.capsules}
        await client.until(lambda: {ADDRESS_ASSIGN, ROUTE_ADVERTISEMENT} <= kinds())
        assigned = next(payload for kind, payload in client.capsules if kind == ADDRESS_ASSIGN)
        routes = next(payload for kind, payload in client.capsules if kind == ROUTE_ADVERTISEMENT)
        address = str(ipaddress.ip_address(assigned[2:6]))
        seen = {"status": client.status, "address": address, "assigned": assigned.hex(), "routes": routes.hex()}

        client.packet(stream, ping(address, options.target, 1))
        await client.until(lambda: len(client.icmp(0)) == 1)
        # What follows gets no answer; the next good ping shows that it is over.
        client.packet(stream, ping(options.victim, options.target, 2))  # somebody else's address
        client.packet(stream, b"\x45 no packet")
        client.packet(stream, ping(address, options.target, 3)[:-3])  # shorter than it says
        client.packet(stream, ping(address, options.target, 4), context=2)  # a context that nobody registered
        client.http.send_data(stream, encode_uint_var(0x3FFF) + encode_uint_var(3) + b"???", False)  # an unknown capsule
        client.packet(stream, ping(address, options.denied, 5))
        await client.until(lambda: len(client.icmp(3)) == 1)
        seen["denied"] = client.icmp(3)[0][20:22].hex()
        client.packet(stream, ping(address, options.target, 6, ttl=1))
        await client.until(lambda: len(client.icmp(11)) == 1)
        seen["expired_from"] = str(ipaddress.ip_address(client.icmp(11)[0][12:16]))
        # A packet in a capsule goes the same way.
        capsule = b"\0" + ping(address, options.target, 7)
        client.http.send_data(stream, encode_uint_var(DATAGRAM) + encode_uint_var(len(capsule)) + capsule, False)
        client.transmit()
        await client.until(lambda: len(client.icmp(0)) == 2)
        seen["sequences"] = [struct.unpack("!H", packet[26:28])[0] for packet in client.icmp(0)]
        # A network that this client isn't permitted to bring ends the session.
        route = bytes([4, 10, 7, 0, 0, 10, 7, 255, 255, 0])
        client.http.send_data(stream, encode_uint_var(ROUTE_ADVERTISEMENT) + encode_uint_var(len(route)) + route, False)
        client.transmit()
        await client.until(lambda: client.reset is not None)
        seen["reset"] = client.reset
        print(json.dumps(seen))


parser = argparse.ArgumentParser()
for name in ["host", "ca", "token-file", "target", "victim", "denied"]:
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--port", type=int, required=True)
asyncio.run(asyncio.wait_for(run(parser.parse_args()), 4 * LIMIT_S))
