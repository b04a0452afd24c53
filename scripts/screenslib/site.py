"""A gateway with three clients that have something to do: alice fetches as fast as she can over AF_XDP, bob a piece now
and then over kernel UDP, carol smaller ones. A stranger sends what isn't QUIC."""

import hashlib
import os
import secrets
import subprocess
import sys

from demolib.job import Origin, own_cpu, write_private
from demolib.rig import DemoError, Namespaces

LARGE_BYTES = 64 << 20
# What bob and carol fetch at once, and how long they then rest.
BOB, CAROL = (256 << 10, 0.1), (16 << 10, 0.2)
CLIENTS = ("alice", "bob", "carol")
COMMAND_LIMIT_S = 60

# Fetches again and again until it is stopped.
FETCH_ALWAYS = 'rest=$1; shift; while :; do curl -sS -o /dev/null "$@" || exit; sleep "$rest"; done'
# Not QUIC: no fixed bit, no version.
STRANGER = "import socket, sys, time\n" \
           "s = socket.socket(type=socket.SOCK_DGRAM)\n" \
           "s.connect((sys.argv[1], int(sys.argv[2])))\n" \
           "while True: s.send(bytes(40)); time.sleep(0.02)\n"  # fmt: skip


class Site(Namespaces):
    """The place of the demo, with these clients in it."""

    prefix = "beam-screens"

    def __init__(self, beam):
        super().__init__("off")
        self.beam = beam
        self.control = self.path("gateway.sock")

    def start(self):
        self.build()
        Origin(self, LARGE_BYTES)
        tokens = {name: secrets.token_hex(16) for name in CLIENTS}
        digests = {name: hashlib.sha256(token.encode()).hexdigest() for name, token in tokens.items()}
        users = "".join(f"{name} sha256:{digest}\n" for name, digest in digests.items())
        write_private(self.path("users"), users, 0o640)
        for name, token in tokens.items():
            write_private(self.path(f"{name}.token"), token + "\n", 0o600)
        gateway = self.spawn("gateway", "beam serve", *self._serve(), stdout=subprocess.DEVNULL)
        self.pin = gateway.wait_for("fingerprint sha256:").split("fingerprint ", 1)[1].split()[0]
        gateway.wait_for("ready")
        ports = {name: 8080 + index for index, name in enumerate(CLIENTS)}
        for name in CLIENTS:
            client = self.spawn("client", f"client {name}", *self._connect(name, ports[name]), stdout=subprocess.DEVNULL)
            client.wait_for("ready")
        self._fetch_always(ports["alice"], 0)
        for name, (size_bytes, rest_s) in (("bob", BOB), ("carol", CAROL)):
            self._fetch_always(ports[name], rest_s, "--range", f"0-{size_bytes - 1}")
        self.spawn("client", "stranger", sys.executable, "-c", STRANGER, self.gateway, str(self.listen_port))

    def _fetch_always(self, port, rest_s, *flags):
        argv = ["sh", "-c", FETCH_ALWAYS, "sh", str(rest_s), *flags, f"http://127.0.0.1:{port}/large"]
        self.spawn("client", "fetches", *argv, stdout=subprocess.DEVNULL)

    def _serve(self):
        return [
            self.beam, "serve", "-l", f"{self.gateway}:{self.listen_port}", "-i", "g0", "--self-signed",
            "--state-dir", self.directory, "--users", self.path("users"), "--control", self.control,
            "--allow", f"{self.origin_network}:{self.origin_port}", "--drain-timeout", "1s",
        ]  # fmt: skip

    def _connect(self, name, port):
        path = ["-i", "c0", "--cpus", own_cpu(1), "--pool", "2"] if name == "alice" else ["--xdp", "off"]
        return [
            self.beam, "connect", f"https://{self.gateway}:{self.listen_port}", *path, "--pin", self.pin,
            "--token-file", self.path(f"{name}.token"), "--state-dir", self.path(f"{name}.state"),
            "-L", f"127.0.0.1:{port}:{self.origin}:{self.origin_port}",
        ]  # fmt: skip

    def beam_says(self, where, argv, environment=()):
        """What `beam ARGV` prints in there, whatever its exit code: a doctor that finds something says 4."""
        command = self.inside(where, self.beam, *argv)
        variables = {**os.environ, "BEAM_CONTROL": self.control, "NO_COLOR": "1", **dict(environment)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False)
        if not done.stdout:
            raise DemoError(f"beam {' '.join(argv)}: exit {done.returncode}: {done.stderr.strip() or 'it says nothing'}")
        return done.stdout
