"""The tunnels that others wrote: quincy (QUIC) and WireGuard in userspace (boringtun, wireguard-go), each with its own
defaults for all that isn't an address, a name or a key."""

import hashlib
import os
import shutil
import ssl
import subprocess
import time

from demolib.job import write_private
from demolib.rig import START_LIMIT_S, DemoError, run

from .load import logged
from .site import WIREGUARD_SOCKETS

QUINCY_PORT = 55555
QUINCY_NETWORK = "198.18.65"
WIREGUARD_PORT = 51820
WIREGUARD_NETWORK = "198.18.66"
# What wg-quick gives a WireGuard device on a path of 1500 bytes.
WIREGUARD_MTU_BYTES = 1420

QUINCY_SERVER = """name = "bench"
interface_name = "{interface}"
bind_address = "{gateway}"
bind_port = {port}
tunnel_network = "{network}.1/24"
users_file = "{directory}/quincy-users.toml"

[protocol]
mode = "tls"
certificate_file = "{directory}/gateway.crt"
certificate_key_file = "{directory}/gateway.key"

[log]
level = "info"
"""

QUINCY_CLIENT = """connection_string = "{gateway}:{port}"

[protocol]
mode = "tls"
trusted_certificate_paths = ["{directory}/gateway.crt"]
client_certificate_file = "{directory}/client.crt"
client_certificate_key_file = "{directory}/client.key"

[network]
routes = ["{route}"]
interface_name = "{interface}"

[log]
level = "info"
"""


def peer(name):
    """The program that `cargo install` put under target/peers."""
    path = os.path.join(os.environ["BEAM_PEERS"], "bin", name)
    if not os.path.exists(path):
        raise DemoError(f"{path} is not there; scripts/bench tunnel builds it")
    return path


def quincy(place):
    """quincy with TLS, its default mode. Returns its daemons and the client's TUN device."""
    interfaces = {side: place.interface_name(side) for side in ("gateway", "client")}
    common = {"gateway": place.gateway, "port": QUINCY_PORT, "network": QUINCY_NETWORK, "directory": place.directory,
              "route": place.lan_network}  # fmt: skip
    certificate(place, "gateway", f"IP:{place.gateway}")
    fingerprint = certificate(place, "client", "DNS:bench")
    users = f'[users.bench]\nauthorized_keys = []\nauthorized_certs = ["sha256:{fingerprint}"]\n'
    write_private(place.path("quincy-users.toml"), users, 0o600)
    daemons = []
    for side, text, program in (("gateway", QUINCY_SERVER, "quincy-server"), ("client", QUINCY_CLIENT, "quincy-client")):
        config = place.path(f"{program}.toml")
        write_private(config, text.format(interface=interfaces[side], **common), 0o600)
        daemon = place.spawn(side, program, *logged(peer(program), "--config-path", config))
        daemons.append(daemon)
        daemon.wait_for("Created interface")
    return daemons, interfaces["client"]


def certificate(place, name, subject):
    """A self-signed certificate and its key as NAME.crt and NAME.key; its SHA-256 in hex."""
    path = place.path(f"{name}.crt")
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", f"/CN={name}", "-addext", f"subjectAltName={subject}", "-addext", "basicConstraints=critical,CA:FALSE",
        "-keyout", place.path(f"{name}.key"), "-out", path)  # fmt: skip
    with open(path, encoding="ascii") as file:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).hexdigest()


def boringtun(place):
    program = peer("boringtun-cli")
    return wireguard(place, lambda name: [program, "--foreground", "--disable-drop-privileges", name])


def wireguard_go(place):
    program = shutil.which("wireguard-go")
    if not program:
        raise DemoError("wireguard-go is not installed; run: scripts/setup --peers")
    return wireguard(place, lambda name: [program, "--foreground", name])


def wireguard(place, command):
    """Two ends of `command`, configured by wg as wg-quick would."""
    keys = {side: keypair(place, side) for side in ("gateway", "client")}
    daemons = []
    for side, number in (("gateway", 1), ("client", 2)):
        interface = place.interface_name(side)
        daemon = place.spawn(side, f"{os.path.basename(command('')[0])} {side}", *logged(*command(interface)))
        daemons.append(daemon)
        wait_for_socket(daemon, f"{WIREGUARD_SOCKETS}/{interface}.sock")
        other = "client" if side == "gateway" else "gateway"
        allowed = f"{WIREGUARD_NETWORK}.2/32" if side == "gateway" else f"{WIREGUARD_NETWORK}.0/24,{place.lan_network}"
        where = ["listen-port", str(WIREGUARD_PORT)] if side == "gateway" else []
        towards = ["endpoint", f"{place.gateway}:{WIREGUARD_PORT}"] if side == "client" else []
        run(*place.inside(side, "wg", "set", interface, "private-key", place.path(f"{side}.wg"), *where,
                          "peer", keys[other], "allowed-ips", allowed, *towards))  # fmt: skip
        name = place.names[side]
        run("ip", "-n", name, "address", "add", f"{WIREGUARD_NETWORK}.{number}/24", "dev", interface)
        run("ip", "-n", name, "link", "set", interface, "mtu", str(WIREGUARD_MTU_BYTES), "up")
    client = place.interface_name("client")
    run("ip", "-n", place.names["client"], "route", "add", place.lan_network, "dev", client)
    return daemons, client


def keypair(place, side):
    """Writes a private key as SIDE.wg and returns the public one."""
    private = run("wg", "genkey")
    write_private(place.path(f"{side}.wg"), private, 0o600)
    done = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def wait_for_socket(daemon, path):
    """WireGuard's daemons say nothing when they are up: their control socket does."""
    deadline = time.monotonic() + START_LIMIT_S
    while not os.path.exists(path):
        if daemon.process.poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"{daemon.name} opened no {path}; its log ends:\n{daemon.tail()}")
        time.sleep(0.02)
