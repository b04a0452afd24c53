"""The floods, and the rig that they run on: a gateway on AF_XDP, and a client on the kernel's sockets, so that c0 is free."""

import json
import os
import signal
import time

from demolib.job import Tunnel
from demolib.rig import DemoError, Namespaces, run

SCRIPTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "pktgen")
OTHER_PORT = 9999
# Name, script and its own letters; the last one isn't for the gateway.
FLOODS = (
    ("single flow", "single-flow", []),
    ("many flows", "many-flows", []),
    ("IMIX", "imix", []),
    ("VLAN", "vlan", ["-V", "7"]),
    ("unknown version", "version-flood", []),
    ("QUIC Initials", "quic-flood", ["-k", "initial"]),
    ("QUIC short headers", "quic-flood", ["-k", "short"]),
    ("QUIC mixed", "quic-flood", ["-k", "mixed"]),
    ("malformed", "quic-flood", ["-k", "malformed"]),
    ("another port", "single-flow", ["-p", str(OTHER_PORT)]),
)
SETTLE_LIMIT_S = 30


class Place(Namespaces):
    prefix = "beam-flood"


class FloodTunnel(Tunnel):
    """A queue has one AF_XDP socket, and the generator's is on c0: the client's packets take the kernel's sockets."""

    def __init__(self, place, beam):
        forward = f"127.0.0.1:{place.forward_port}:{place.origin}:{place.origin_port}"
        serve = ["--allow", f"{place.origin_network}:{place.origin_port}"]
        connect = ["-L", forward, "-D", f"127.0.0.1:{place.socks_port}"]
        super().__init__(place, beam, "native", serve, connect)
        # The generator asks the neighbour table for the gateway's MAC address.
        run(*place.inside("client", "ping", "-q", "-c", "1", place.gateway))

    def _connect(self, xdp, fingerprint):
        return super()._connect("off", fingerprint)


def command(place, flood, more):
    """The words that send it."""
    _, script, letters = flood
    return [os.path.join(SCRIPTS, script), "-i", "c0", "-d", place.gateway, *letters, *more, "-j"]


class Sending:
    """A flood that goes on until `stop`."""

    def __init__(self, place, flood, delay_ns):
        self.place, self.flood = place, flood
        self.path = place.path("flood.json")
        with open(self.path, "wb") as file:
            argv = command(place, flood, ["-n", "0", "-w", str(delay_ns)])
            self.child = place.spawn("client", flood[1], *argv, stdout=file)
        self.child.wait_for("drives AF_XDP" if "'beam pktgen'" in self.child.wait_for("drives ") else "drives ")

    def stop(self):
        """What it sent; an error where it ended by itself."""
        ended = self.child.process.poll()
        if ended is None:
            self.child.process.send_signal(signal.SIGINT)
            ended = self.child.process.wait(SETTLE_LIMIT_S)
        self.place.stop(self.child)
        if ended:
            raise DemoError(f"{self.flood[1]}: exit {ended}; its log ends:\n{self.child.tail()}")
        with open(self.path, encoding="ascii") as file:
            return json.load(file)


def settled(tunnel):
    """The gateway's status once no packet comes or goes."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while True:
        status = tunnel.status("gateway")
        rates = status["rates"]
        if not rates["rx_packets_per_s"] and not rates["tx_packets_per_s"] and not status["conservation"]["in_flight"]:
            return status
        if time.monotonic() > deadline:
            raise DemoError(f"the gateway doesn't fall silent within {SETTLE_LIMIT_S} s: {rates}")


def grown(before, after):
    """By how much each counter of two objects grew; those that did."""
    more = {name: after[name] - before.get(name, 0) for name in after}
    return {name: count for name, count in more.items() if count}
