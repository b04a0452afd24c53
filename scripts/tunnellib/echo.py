"""Both ends of the latency probe, run as programs inside the namespaces, so with no import of ours.

    echo.py serve ADDRESS PORT                 sends back what it gets; says "listening" on standard error
    echo.py greet ADDRESS PORT                 says a byte to whoever connects, unasked; "listening" as above
    echo.py ask ADDRESS PORT COUNT LIMIT_S [CONNECTIONS [SECONDS]]
                                               one connection, or several that share COUNT; on each one message at a
                                               time, for at most so many seconds; prints the round trips in ms as JSON

`ask` tries again until the far end answers, for at most LIMIT_S seconds: that is how the bench waits for a tunnel."""

import concurrent.futures
import json
import socket
import socketserver
import sys
import time

MESSAGE = bytes(range(64))
# The first messages warm caches and congestion windows; they are not counted.
WARM_COUNT = 50
ATTEMPT_LIMIT_S = 2.0
ANSWER_LIMIT_S = 10.0


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := self.request.recv(4096):
            self.request.sendall(data)


class Greeting(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"!")
        self.request.recv(1)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def serve(address, port, handler):
    with Server((address, port), handler) as server:
        print("listening", file=sys.stderr, flush=True)
        server.serve_forever()


def round_trip_ns(stream):
    started_ns = time.perf_counter_ns()
    stream.sendall(MESSAGE)
    answer = b""
    while len(answer) < len(MESSAGE):
        more = stream.recv(len(MESSAGE) - len(answer))
        if not more:
            raise ConnectionError(f"the echo ended after {len(answer)} of {len(MESSAGE)} bytes")
        answer += more
    if answer != MESSAGE:
        raise ConnectionError("the echo sent other bytes back")
    return time.perf_counter_ns() - started_ns


def connected(address, port, limit_s):
    """A connection whose far end has answered once; tried again until `limit_s` is over."""
    deadline = time.monotonic() + limit_s
    while True:
        stream = None
        try:
            stream = socket.create_connection((address, port), timeout=ATTEMPT_LIMIT_S)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            round_trip_ns(stream)
            stream.settimeout(ANSWER_LIMIT_S)
            return stream
        except OSError as error:
            if stream:
                stream.close()
            if time.monotonic() > deadline:
                raise SystemExit(f"no answer from {address}:{port} within {limit_s:.0f} s: {error}") from None
        # An address that isn't routed yet refuses at once.
        time.sleep(0.05)


def ask(address, port, count, limit_s, connections=1, seconds=0):
    each = max(count // connections, 1)

    def one(_):
        with connected(address, port, limit_s) as stream:
            for _ in range(min(WARM_COUNT, each)):
                round_trip_ns(stream)
            deadline = time.monotonic() + (seconds or float("inf"))
            return [round_trip_ns(stream) for _ in range(each) if time.monotonic() < deadline]

    if connections == 1:
        times_ns = one(0)
    else:
        with concurrent.futures.ThreadPoolExecutor(connections) as pool:
            times_ns = [time_ns for times in pool.map(one, range(connections)) for time_ns in times]
    print(json.dumps([round(one / 1e6, 4) for one in times_ns]))


if __name__ == "__main__":
    if sys.argv[1] in ("serve", "greet"):
        serve(sys.argv[2], int(sys.argv[3]), Echo if sys.argv[1] == "serve" else Greeting)
    else:
        ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), *map(int, sys.argv[6:]))
