"""Forwarders of TCP ports that others wrote, or that stand for others: rathole, ssh -L, quinn on tokio, and TLS over TCP.

Each leads the two ports of `tunnels.FORWARD_PORTS` at the client to iperf3 and the echo in the LAN, with its own defaults
for all that isn't an address, a name, a key or, where there is a choice, AES-GCM as the cipher, which beam negotiates too.
"""

import os
import re
import time

from demolib.job import write_private
from demolib.rig import START_LIMIT_S, DemoError, run

from .load import logged
from .peers import certificate, peer

TLS_PORT, QUINN_PORT, SSH_PORT, RATHOLE_PORT = 4433, 4434, 2222, 2333
SSH_CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com"

SSHD = """ListenAddress {gateway}:{port}
HostKey {directory}/ssh-host
AuthorizedKeysFile {directory}/ssh-user.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
"""

# rathole's server is where visitors come in, and its client where the service is: so its server stands at our client.
RATHOLE_SERVER = """[server]
bind_addr = "{client}:{port}"
[server.transport]
type = "noise"
[server.transport.noise]
local_private_key = "{private}"
"""
RATHOLE_CLIENT = """[client]
remote_addr = "{client}:{port}"
[client.transport]
type = "noise"
[client.transport.noise]
remote_public_key = "{public}"
"""


def pairs(place, ports):
    """Where a flow comes in at the client, and where it leads to."""
    return [(f"127.0.0.1:{local}", f"{place.lan_host}:{remote}") for local, remote in zip(ports, (place.iperf_port, place.echo_port))]


def rathole(place, ports):
    """rathole with its Noise transport (NK, 25519, ChaCha20-Poly1305, BLAKE2s: it has no AES). Returns daemons and notes."""
    keys = run(peer("rathole"), "--genkey").split()
    private, public = keys[keys.index("Private") + 2], keys[keys.index("Public") + 2]
    server = RATHOLE_SERVER.format(client=place.client, port=RATHOLE_PORT, private=private)
    client = RATHOLE_CLIENT.format(client=place.client, port=RATHOLE_PORT, public=public)
    for number, (local, target) in enumerate(pairs(place, ports)):
        server += f'[server.services.s{number}]\ntoken = "bench"\nbind_addr = "{local}"\n'
        client += f'[client.services.s{number}]\ntoken = "bench"\nlocal_addr = "{target}"\n'
    daemons = []
    for where, side, text in (("client", "server", server), ("gateway", "client", client)):
        config = place.path(f"rathole-{side}.toml")
        write_private(config, text, 0o600)
        daemons.append(place.spawn(where, f"rathole --{side}", *logged(peer("rathole"), f"--{side}", config)))
        if side == "server":
            daemons[0].wait_for("Listening at")
    wait_for_count(daemons[1], "Control channel established", len(ports))
    return daemons, {"cipher": "ChaCha20-Poly1305 (Noise NK)"}


def wait_for_count(daemon, pattern, count):
    """Until a child has said that so many times: services come up one by one."""
    deadline = time.monotonic() + START_LIMIT_S
    while sum(pattern in line for line in daemon.lines) < count:
        if daemon.process.poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"{daemon.name} didn't say {pattern!r} {count} times; its log ends:\n{daemon.tail()}")
        time.sleep(0.02)


def ssh(place, ports):
    """OpenSSH's port forwarding, both ends with keys and configuration of their own."""
    for name in ("ssh-host", "ssh-user"):
        # One rig puts it up many times; ssh-keygen would ask before it replaces a key.
        if not os.path.exists(place.path(name)):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place.path(name))
    config = place.path("sshd_config")
    write_private(config, SSHD.format(gateway=place.gateway, port=SSH_PORT, directory=place.directory), 0o600)
    with open(place.path("ssh-host.pub"), encoding="ascii") as file:
        write_private(place.path("ssh-known"), f"[{place.gateway}]:{SSH_PORT} {file.read()}", 0o600)
    # sshd drops its privileges in /run/sshd; `ip netns exec` has mounts of its own, so the machine's /run stays as it is.
    start = f"mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f {config}"
    server = place.spawn("gateway", "sshd", *logged("sh", "-c", start))
    server.wait_for("Server listening")
    forwards = [word for local, target in pairs(place, ports) for word in ("-L", f"{local}:{target}")]
    client = place.spawn("client", "ssh -L", *logged(
        "ssh", "-F", "none", "-v", "-N", "-T", "-p", str(SSH_PORT), "-i", place.path("ssh-user"), "-c", SSH_CIPHERS,
        "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "StrictHostKeyChecking=yes",
        "-o", f"UserKnownHostsFile={place.path('ssh-known')}", *forwards, f"root@{place.gateway}",
    ))  # fmt: skip
    client.wait_for("Entering interactive session")
    return [server, client], {"cipher": ssh_cipher(client.lines)}


def ssh_cipher(lines):
    """What both ends agreed on, of `ssh -v`."""
    for line in lines:
        if found := re.search(r"kex: client->server cipher: (\S+)", line):
            return found[1].removesuffix("@openssh.com")
    raise DemoError("ssh -v doesn't say which cipher it negotiated")


def bench_program(name):
    """A comparator of our own benches, which scripts/bench builds."""
    path = os.path.join(os.environ["BEAM_BENCHES"], name)
    if not os.path.exists(path):
        raise DemoError(f"{path} is not there; scripts/bench tunnel builds it")
    return path


def of_benches(program, port, *client_words):
    """Puts up a comparator of benches/: one server, and a client for each port."""

    def start(place, ports):
        certificate(place, "gateway", f"IP:{place.gateway}")
        where = f"{place.gateway}:{port}"
        identity = ["--cert", place.path("gateway.crt"), "--key", place.path("gateway.key")]
        daemons = [place.spawn("gateway", f"{program} server", *logged(bench_program(program), "server", "--listen", where, *identity))]
        daemons[0].wait_for("listening on")
        for local, target in pairs(place, ports):
            words = ["client", "--connect", where, "--ca", place.path("gateway.crt"), *client_words, "--forward", local, target]
            daemons.append(place.spawn("client", f"{program} client", *logged(bench_program(program), *words)))
            daemons[-1].wait_for("listening on")
        return daemons, {"cipher": "AES-128-GCM"}

    return start


quinn = of_benches("quinn-perf", QUINN_PORT)
tls = of_benches("tls-forward", TLS_PORT)
