"""A wide-area path of our own, for kernels without netem: a program in the middle namespace, between two veths.

    middle.py A B DELAY_MS LOSS_PERCENT RATE_MBIT QUEUE_MS SEED

Each frame that A receives leaves by B after the delay, and the other way round, one by one and in their order; frames of IP are
lost by dice, and where the rate's queue is full. It says "ready", and when it is ended what it did, as one JSON object."""

import collections
import json
import random
import select
import signal
import socket
import sys
import time

ETH_P_ALL = 3
IP_TYPES = (b"\x08\x00", b"\x86\xdd")
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 32 << 20
SOL_PACKET, PACKET_STATISTICS = 263, 6
FRAME_BYTES_MAX = 65536
# Frames taken from one side before what is due is looked at again.
BURST = 64


class Direction:
    """From one interface to the other."""

    def __init__(self, inward, outward, path, seed):
        self.inward, self.outward, self.path = inward, outward, path
        self.dice = random.Random(seed)
        self.flights = collections.deque()
        self.line_free_at = 0.0
        self.counts = {"forwarded": 0, "lost": 0, "overflowed": 0, "refused": 0}

    def take(self, now):
        for _ in range(BURST):
            try:
                frame, (_, _, kind, *_) = self.inward.recvfrom(FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            if kind != socket.PACKET_OUTGOING:
                self.offer(now, frame)

    def offer(self, now, frame):
        """Judges one frame, and lines it up unless it is lost."""
        if frame[12:14] in IP_TYPES and self.dice.random() * 100 < self.path["loss_percent"]:
            self.counts["lost"] += 1
            return
        begins = max(now, self.line_free_at)
        if begins - now > self.path["queue_s"]:
            self.counts["overflowed"] += 1
            return
        self.line_free_at = begins + len(frame) * 8 / self.path["bits_per_s"]
        self.flights.append((self.line_free_at + self.path["delay_s"], frame))

    def deliver(self, now):
        while self.flights and self.flights[0][0] <= now:
            frame = self.flights.popleft()[1]
            try:
                self.outward.send(frame)
                self.counts["forwarded"] += 1
            except OSError:
                self.counts["refused"] += 1

    def next_at(self):
        return self.flights[0][0] if self.flights else None


def packet_socket(interface):
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    one.bind((interface, ETH_P_ALL))
    one.setblocking(False)
    return one


def unseen(one):
    """Frames that the socket had no room for."""
    return int.from_bytes(one.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)[4:], sys.byteorder)


def main(a, b, delay_ms, loss_percent, rate_mbit, queue_ms, seed):
    path = {
        "delay_s": float(delay_ms) / 1e3, "loss_percent": float(loss_percent), "bits_per_s": float(rate_mbit) * 1e6,
        "queue_s": float(queue_ms) / 1e3,
    }  # fmt: skip
    sockets = [packet_socket(a), packet_socket(b)]
    directions = [Direction(*pair, path, f"{seed}/{number}") for number, pair in enumerate((sockets, sockets[::-1]))]
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    print("ready", file=sys.stderr, flush=True)
    while not stopped:
        due = [at for direction in directions if (at := direction.next_at()) is not None]
        wait_s = max(min(due) - time.monotonic(), 0) if due else 0.5
        readable, _, _ = select.select(sockets, [], [], wait_s)
        for direction in directions:
            if direction.inward in readable:
                direction.take(time.monotonic())
            direction.deliver(time.monotonic())
    names = (f"{a} to {b}", f"{b} to {a}")
    said = {name: {**one.counts, "unseen": unseen(one.inward)} for name, one in zip(names, directions)}
    print(json.dumps(said), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
