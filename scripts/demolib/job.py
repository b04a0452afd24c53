"""One run of one kind: start the origin, the gateway and the client, fetch, ask, read the counters, stop.

Method. Goodput: one curl writes to /dev/null, bytes over curl's own time from start to end, connection included; hashing
is kept out of it, for on two cores it would compete with the tunnel. SHA-256: a second fetch, read from curl's standard
output. Latency: one curl makes the requests one after the other, each on a connection of its own (SOCKS5 handshake and
tunnel flow included), and reports its total time for each.
"""

import hashlib
import json
import os
import secrets
import shutil
import subprocess

from .rig import DemoError, run, say

SMALL_BYTES = 1024
REQUEST_COUNT = 200
FETCH_LIMIT_S = 600
CHUNK_BYTES = 1 << 20

NGINX = """
# One process, ours to stop: a worker would outlive a master that is killed.
master_process off;
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    server {{
        listen {address}:{port} backlog=1024;
        root {directory}/www;
    }}
}}
"""


def own_cpu(number):
    """The CPU of one end's workers. Both ends stand on one machine here: each by itself would take the first CPU."""
    cpus = sorted(os.sched_getaffinity(0))
    return str(cpus[number % len(cpus)])


class Origin:
    """The web server behind the gateway and the files that it serves."""

    def __init__(self, place, large_bytes):
        self.large_bytes = large_bytes
        www = place.path("www")
        os.mkdir(www)
        self.sha256 = write_random(os.path.join(www, "large"), large_bytes)
        write_random(os.path.join(www, "small"), SMALL_BYTES)
        self.base = f"http://{place.origin}:{place.origin_port}"
        nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if nginx:
            self.name = "nginx"
            config = place.path("nginx.conf")
            user = "user root;" if os.geteuid() == 0 else ""
            with open(config, "w", encoding="ascii") as file:
                file.write(NGINX.format(directory=place.directory, user=user, address=place.origin, port=place.origin_port))
            place.spawn("origin", "nginx", nginx, "-e", "stderr", "-c", config)
        else:
            self.name = "python3 http.server"
            argv = ["-m", "http.server", "--bind", place.origin, "--directory", www, str(place.origin_port)]
            place.spawn("origin", "http.server", "python3", *argv, stdout=subprocess.DEVNULL)
        # curl's own retry waits until the server answers; it has no line to wait for.
        answer = ["curl", "-sS", "-o", "/dev/null", "--retry", "50", "--retry-delay", "0", "--retry-max-time", "10"]
        run(*place.inside("origin", *answer, "--retry-connrefused", f"{self.base}/small"))


def write_random(path, size_bytes):
    """Writes that many random bytes and returns their SHA-256, computed while writing."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        left_bytes = size_bytes
        while left_bytes:
            chunk = secrets.token_bytes(min(CHUNK_BYTES, left_bytes))
            digest.update(chunk)
            file.write(chunk)
            left_bytes -= len(chunk)
    os.chmod(path, 0o644)
    return digest.hexdigest()


class Tunnel:
    """A gateway and a client. `serve` and `connect` are the flags that say what goes through; the rest is the same always."""

    def __init__(self, place, beam, xdp, serve, connect, environment=None):
        self.place, self.beam = place, beam
        popen = {"stdout": subprocess.DEVNULL, "env": {**os.environ, **(environment or {})}}
        self.controls = {side: place.path(f"{side}.sock") for side in ("gateway", "client")}
        token = secrets.token_hex(16)
        write_private(place.path("token"), token + "\n", 0o600)
        digest = hashlib.sha256(token.encode()).hexdigest()
        write_private(place.path("users"), f"demo sha256:{digest}\n", 0o640)
        self.gateway = place.spawn("gateway", "beam serve", *self._serve(xdp), *serve, **popen)
        try:
            self.pin = self.gateway.wait_for("fingerprint sha256:").split("fingerprint ", 1)[1].split()[0]
            self.gateway.wait_for("ready")
            argv = [*self._connect(xdp, self.pin), *connect]
            self.client = place.spawn("client", "beam connect", *argv, **popen)
            self.client.wait_for("ready")
        except DemoError as error:
            raise DemoError(f"{error}\nthe gateway's log ends:\n{self.gateway.tail()}") from None

    def _path_flags(self, side, xdp):
        interface = self.place.interfaces.get(side)
        on = ["-i", interface, "--queues", "all"] if interface and xdp != "off" else []
        return [*on, "--xdp", xdp, "--control", self.controls[side]]

    def _serve(self, xdp):
        place = self.place
        return [
            self.beam, "serve", "-l", f"{place.gateway}:{place.listen_port}", *self._path_flags("gateway", xdp),
            "--self-signed", "--state-dir", place.directory, "--users", place.path("users"),
            "--drain-timeout", "5s", "--cpus", own_cpu(0),
        ]  # fmt: skip

    def _connect(self, xdp, fingerprint):
        place = self.place
        return [
            self.beam, "connect", f"https://{place.gateway}:{place.listen_port}", *self._path_flags("client", xdp),
            "--token-file", place.path("token"), "--pin", fingerprint, "--cpus", own_cpu(1),
        ]  # fmt: skip

    def must_live(self):
        for child in (self.gateway, self.client):
            if child.process.poll() is not None:
                raise DemoError(f"{child.name} died with {child.process.returncode}; its log ends:\n{child.tail()}")

    def status(self, side):
        answer = json.loads(run(self.beam, "status", "-j", "--control", self.controls[side]))
        if answer.get("schema") != "beam.status.v1" or not answer.get("ready"):
            raise DemoError(f"beam status of the {side} is not a ready beam.status.v1: {answer}")
        return answer

    def stop(self):
        """Client first, then the gateway, as an operator would; both exit codes."""
        codes = {"client": self.place.stop(self.client), "gateway": self.place.stop(self.gateway)}
        codes["xdp_left"] = [side for side in ("client", "gateway") if self.place.has_xdp(side)]
        return codes


def demo_tunnel(place, beam, xdp):
    """The tunnel of the demo: the origin by a forward, and by SOCKS5."""
    forward = f"127.0.0.1:{place.forward_port}:{place.origin}:{place.origin_port}"
    serve = ["--allow", f"{place.origin_network}:{place.origin_port}"]
    return Tunnel(place, beam, xdp, serve, ["-L", forward, "-D", f"127.0.0.1:{place.socks_port}"])


def write_private(path, text, mode):
    # Created afresh with its mode, so that it is never readable by others in between.
    if os.path.exists(path):
        os.unlink(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def measure(place, origin, beam, kind, xdp, with_hash):
    """One run: `kind` is the report's name for it, `xdp` the flag for both daemons, or None for no tunnel."""
    tunnel = demo_tunnel(place, beam, xdp) if xdp else None
    base = f"http://127.0.0.1:{place.forward_port}" if tunnel else origin.base
    proxy = ["--socks5-hostname", f"127.0.0.1:{place.socks_port}"] if tunnel else []
    sample = {"kind": kind}
    before = processor_seconds(tunnel)
    say(f"{kind}: fetching {origin.large_bytes} bytes")
    sample.update(fetch(place, f"{base}/large"))
    sample["cpu_s"] = {side: round(after - before[side], 2) for side, after in processor_seconds(tunnel).items()}
    say(f"{kind}: {sample['goodput_gbps']:.2f} Gbit/s; {REQUEST_COUNT} requests")
    sample["requests"] = ask(place, f"{origin.base}/small", proxy)
    if with_hash:
        say(f"{kind}: fetching once more for the SHA-256")
        sample["hashed_bytes"], digest = fetch_hashed(place, f"{base}/large")
        sample["sha256_ok"] = digest == origin.sha256
    if tunnel:
        tunnel.must_live()
        sample["status"] = {side: tunnel.status(side) for side in ("gateway", "client")}
        sample["rss_peak_mib"] = {"gateway": peak_mib(tunnel.gateway.pid), "client": peak_mib(tunnel.client.pid)}
        sample["exits"] = tunnel.stop()
    return sample


def curl(place, *argv):
    """Runs curl in the client's place to its end. curl's exit code is part of the result, not an error of the demo."""
    child = place.spawn("client", "curl", "curl", "-sS", "--max-time", str(FETCH_LIMIT_S), *argv, stdout=subprocess.PIPE)
    out = child.process.stdout.read().decode()
    code = child.process.wait()
    place.children.remove(child)
    if code:
        say(f"curl failed with {code}: {child.tail(3).strip()}")
    return code, out


def fetch(place, url):
    code, out = curl(place, "-o", "/dev/null", "-w", "%{http_code} %{size_download} %{time_total}", url)
    status, size_bytes, seconds = out.split() if out else ("000", "0", "0")
    seconds = float(seconds)
    goodput_gbps = int(size_bytes) * 8 / seconds / 1e9 if seconds else 0.0
    return {"curl_code": code, "http_status": int(status), "bytes": int(size_bytes), "seconds": seconds,
            "goodput_gbps": round(goodput_gbps, 3)}  # fmt: skip


def fetch_hashed(place, url):
    child = place.spawn("client", "curl", "curl", "-sS", "--max-time", str(FETCH_LIMIT_S), url, stdout=subprocess.PIPE)
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := child.process.stdout.read(CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
    child.process.wait()
    place.children.remove(child)
    return size_bytes, digest.hexdigest()


def ask(place, url, proxy):
    """`REQUEST_COUNT` small requests, each on its own connection: how many came whole, and the time of each."""
    written = "%{http_code} %{size_download} %{num_connects} %{time_total}\\n"
    # The range in the query makes as many requests; Connection: close makes as many connections.
    argv = ["-o", "/dev/null", "-w", written, "-H", "Connection: close", *proxy, f"{url}?[1-{REQUEST_COUNT}]"]
    _, out = curl(place, *argv)
    rows = [line.split() for line in out.splitlines()]
    whole = [row for row in rows if row[:3] == ["200", str(SMALL_BYTES), "1"]]
    return {"ok": len(whole), "of": REQUEST_COUNT, "times_ms": [round(float(row[3]) * 1e3, 3) for row in whole]}


def processor_seconds(tunnel):
    """User and system time that each daemon has used, without the kernel's softirq work on its behalf."""
    if not tunnel:
        return {}
    tunnel.must_live()
    return {side: process_seconds(child.pid) for side, child in (("gateway", tunnel.gateway), ("client", tunnel.client))}


def process_seconds(pid):
    """User and system time of all threads of a process."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024
