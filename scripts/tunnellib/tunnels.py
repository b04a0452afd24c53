"""The rows of the bench: what each is called, what it needs, and how it is put up. A new tunnel is a new line of ROWS."""

import dataclasses
import os
from typing import Callable

from demolib import job
from demolib import report as demo
from demolib.rig import DemoError

from . import forwards, peers

BEAM_NETWORK = "198.18.64.0/24"
FORWARD_PORTS = (8001, 8002)


@dataclasses.dataclass
class Up:
    """A tunnel that is up: where the client finds the LAN's iperf3 and echo through it, and what carries it."""

    host: str
    iperf_port: int
    echo_port: int
    daemons: list = dataclasses.field(default_factory=list)
    # The client's TUN device, whose counters prove that the stream went through it.
    device: str | None = None
    beam: job.Tunnel | None = None
    # What only the running tunnel tells, such as the cipher that it agreed on.
    notes: dict = dataclasses.field(default_factory=dict)

    def must_live(self):
        for daemon in self.daemons:
            if daemon.process.poll() is not None:
                raise DemoError(f"{daemon.name} died with {daemon.process.returncode}")

    def facts(self):
        """What beam says of both its ends; nothing of the others."""
        if not self.beam:
            return {}
        return {side: demo.side_summary([self.beam.status(side)]) for side in ("gateway", "client")}


@dataclasses.dataclass
class Row:
    name: str
    kind: str
    start: Callable
    # What scripts/bench has to build for it.
    needs: tuple = ()
    # How beam's workers must say that frames travel.
    xdp: str | None = None
    # Which of the report's versions is its program's.
    version: str | None = None


def none(place):
    return Up(place.origin, place.iperf_port, place.echo_port)


def routed(place, daemons, device, beam=None):
    return Up(place.lan_host, place.iperf_port, place.echo_port, daemons, device, beam)


def beam_ip(place, xdp, gateway_side):
    """CONNECT-IP; `gateway_side` is what the gateway puts inner packets into, as flags."""
    device = place.interface_name("client")
    serve = ["--ip-pool", BEAM_NETWORK, "--ip-route", place.lan_network, *gateway_side]
    tunnel = job.Tunnel(place, os.environ["BEAM_BIN"], xdp, serve, ["--tun", device, "--route", place.lan_network])
    return routed(place, [tunnel.gateway, tunnel.client], device, tunnel)


def beam_tun(place, xdp):
    return beam_ip(place, xdp, ["--tun", place.interface_name("gateway")])


def beam_lan(place):
    return beam_ip(place, "native", ["--lan", "g1"])


def beam_forward(place, xdp, serve=(), connect=(), **how):
    """`serve`, `connect` and `how` (see job.Tunnel) are what a variant of scripts/bench ablation has besides."""
    serve, connect = list(serve), list(connect)
    for local, remote in zip(FORWARD_PORTS, (place.iperf_port, place.echo_port)):
        serve += ["--allow", f"{place.lan_network}:{remote}"]
        connect += ["-L", f"127.0.0.1:{local}:{place.lan_host}:{remote}"]
    tunnel = job.Tunnel(place, how.pop("beam", None) or os.environ["BEAM_BIN"], xdp, serve, connect, **how)
    return Up("127.0.0.1", *FORWARD_PORTS, [tunnel.gateway, tunnel.client], None, tunnel)


def forwarded(start):
    def up(place):
        daemons, notes = start(place, FORWARD_PORTS)
        return Up("127.0.0.1", *FORWARD_PORTS, daemons, notes=notes)

    return up


ROWS = [
    Row("none", "none", none),
    Row("beam --tun", "l3", lambda place: beam_tun(place, "native"), ("beam",), "native"),
    Row("beam --tun --xdp off", "l3", lambda place: beam_tun(place, "off"), ("beam",), "off"),
    Row("beam --lan", "l3", beam_lan, ("beam",), "native"),
    Row("beam -L", "tcp", lambda place: beam_forward(place, "native"), ("beam",), "native"),
    Row("beam -L --xdp off", "tcp", lambda place: beam_forward(place, "off"), ("beam",), "off"),
    Row("quincy", "l3", lambda place: routed(place, *peers.quincy(place)), ("quincy-client", "quincy-server"), version="quincy-client"),
    Row("boringtun-cli", "l3", lambda place: routed(place, *peers.boringtun(place)), ("boringtun-cli",), version="boringtun-cli"),
    Row("wireguard-go", "l3", lambda place: routed(place, *peers.wireguard_go(place)), version="wireguard-go"),
    Row("rathole (noise)", "tcp", forwarded(forwards.rathole), ("rathole",), version="rathole"),
    Row("ssh -L", "tcp", forwarded(forwards.ssh), version="OpenSSH"),
    Row("quinn (tokio)", "tcp", forwarded(forwards.quinn), ("quinn-perf",), version="quinn"),
    Row("TCP + TLS", "tcp", forwarded(forwards.tls), ("tls-forward",), version="rustls"),
]


def chosen(only):
    """The rows whose name contains one of the texts, separated by commas; all without a text."""
    texts = [text.strip() for text in only.split(",") if text.strip()]
    return [row for row in ROWS if not texts or any(text in row.name for text in texts)]
