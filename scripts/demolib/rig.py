"""Where the demo runs: three namespaces joined by veth pairs for root, or loopback for anybody. Owns every child and
every file of the demo; `close` takes all of it away, in the reverse order of its making."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

START_LIMIT_S = 20
STOP_LIMIT_S = 15
STARTED = time.monotonic()
# Run as a module, the script is named by its package: demolib is the demo's, tunnellib that of scripts/bench tunnel.
PROGRAM = os.path.basename(os.path.dirname(os.path.abspath(sys.argv[0]))).removesuffix("lib")


class DemoError(Exception):
    """What failed, what was seen, and what to do: one line for the operator."""


def say(text):
    print(f"{PROGRAM} [{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


def reason(error):
    """An exception in words. One that nobody foresaw is told with its kind, and where it came from is said."""
    if isinstance(error, DemoError):
        return str(error)
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {error}"


def run(*argv):
    """Runs a short command to its end and returns its output; its complaint becomes the error."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise DemoError(f"{argv[0]} is not installed; run: scripts/setup") from None
    except subprocess.TimeoutExpired as late:
        raise DemoError(f"{' '.join(argv)}: no end within {late.timeout} s") from None
    if done.returncode:
        raise DemoError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Stopped(BaseException):
    """A signal asked the demo to end. Like KeyboardInterrupt, it is nothing that a part may take for a failure of its own."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


class _Held:
    depth = 0
    number = None


def stop_on(number, _frame):
    """The handler of the signals that end the demo."""
    if _Held.depth:
        _Held.number = number
    else:
        raise Stopped(number)


def on_signals(handler):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


@contextlib.contextmanager
def stops_held_back():
    """A signal in here counts when it is over: a child is either not started or on the list of those to stop."""
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1
    if _Held.number is not None and not _Held.depth:
        number, _Held.number = _Held.number, None
        raise Stopped(number)


class Child:
    """A process of ours: its standard error is kept line by line, and it can't outlive the demo."""

    def __init__(self, name, argv, **popen):
        self.name = name
        self.lines = []
        self._changed = threading.Condition()
        self._ended = False
        # setpriv execs, so the pid stays the program's; the kernel kills it should the demo itself be killed.
        # A session of its own keeps a terminal's Ctrl-C away: the demo stops its children in order.
        guarded = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        self.process = subprocess.Popen(
            guarded, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, **popen
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self):
        return self.process.pid

    def _read(self):
        for raw in self.process.stderr:
            with self._changed:
                self.lines.append(raw.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern, limit_s=START_LIMIT_S):
        """The first line with `pattern`, waited for; an error with the child's last words otherwise."""
        def found():
            return next((line for line in self.lines if pattern in line), None)

        with self._changed:
            self._changed.wait_for(lambda: self._ended or found(), limit_s)
            if line := found():
                return line
        how = f"ended (exit {self.process.poll()})" if self._ended else f"was silent for {limit_s} s"
        raise DemoError(f"{self.name} {how} instead of saying {pattern!r}; its log ends:\n{self.tail()}")

    def tail(self, count=15):
        return "\n".join(f"    {line}" for line in self.lines[-count:]) or "    (nothing)"

    def stop(self):
        """TERM, and KILL when that is not enough; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                say(f"{self.name} ignored TERM for {STOP_LIMIT_S} s; killing it")
                self.process.kill()
        code = self.process.wait()
        self._reader.join(1)
        return code


def guarded(work):
    """Runs `work(hold)`, which gives its place to `hold` as soon as it has one, and takes that place down afterwards,
    whatever ended the work. Returns what is left behind all the same, and the signal that stopped the work or 0."""
    places, stopped_by = [], 0
    on_signals(stop_on)
    try:
        work(places.append)
    except Stopped as stopped:
        stopped_by = stopped.number
        say(f"{signal.Signals(stopped_by).name}: cleaning up")
    except Exception as error:  # Whatever it is: the place is taken down, and it is an error.
        say(f"error: {reason(error)}")
    finally:
        # A second Ctrl-C must not leave half of it behind.
        on_signals(signal.SIG_IGN)
        for place in places:
            place.close()
    return [one for place in places for one in place.left_behind()], stopped_by


def without_report(left, stopped_by):
    """The exit code of a run that ended before its report."""
    if left:
        say(f"error: left behind: {', '.join(left)}")
    return 128 + stopped_by if stopped_by else 1


class Place:
    """What both places share: a private directory and the list of children."""

    prefix = "beam-demo"

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix=f"{self.prefix}-")
        self.children = []
        self.pids = []

    def path(self, name):
        return os.path.join(self.directory, name)

    def spawn(self, where, name, *argv, **popen):
        with stops_held_back():
            child = Child(name, self.inside(where, *argv), **popen)
            self.children.append(child)
            self.pids.append(child.pid)
        return child

    def stop(self, child):
        self.children.remove(child)
        return child.stop()

    def close(self):
        for child in reversed(self.children):
            child.stop()
        self.children.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def left_behind(self):
        """What is still there after `close`; empty when the demo cleaned up."""
        left = [f"process {pid}" for pid in self.pids if os.path.exists(f"/proc/{pid}")]
        return left + ([self.directory] if os.path.exists(self.directory) else [])


def free_ports(count):
    """Port numbers that nobody listens on now, TCP nor UDP; held together until all are found, so that they differ."""
    found, held = [], []
    while len(found) < count:
        tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        held += [tcp, udp]
        tcp.bind(("127.0.0.1", 0))
        try:
            udp.bind(tcp.getsockname())
            found.append(tcp.getsockname()[1])
        except OSError:
            pass
    for one in held:
        one.close()
    return found


class Loopback(Place):
    """No namespaces, no XDP: what a plain user can run."""

    kind = "loopback"
    gateway = origin = "127.0.0.1"
    interfaces = {}
    origin_network = "127.0.0.0/8"

    def __init__(self):
        super().__init__()
        self.listen_port, self.origin_port, self.forward_port, self.socks_port = free_ports(4)

    def inside(self, _where, *argv):
        return list(argv)

    def has_xdp(self, _where):
        return False

    def facts(self):
        return {"place": self.kind}


class Namespaces(Place):
    """client c0 --veth-- g0 gateway g1 --veth-- o0 origin, with forwarding on for the runs without a tunnel."""

    kind = "network namespaces"
    client, gateway, gateway_inner, origin = "198.18.0.2", "198.18.0.1", "198.19.0.1", "198.19.0.2"
    listen_port, origin_port, forward_port, socks_port = 443, 80, 8080, 1080
    interfaces = {"client": "c0", "gateway": "g0", "origin": "o0"}
    origin_network = "198.19.0.0/24"
    queues = 2

    def __init__(self, offloads):
        super().__init__()
        self.offloads = offloads
        self.names = {where: f"{self.prefix}-{os.getpid()}-{where}" for where in ("client", "gateway", "origin")}

    def build(self):
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self._join("client", "c0", "gateway", "g0")
        self._join("gateway", "g1", "origin", "o0")
        self._address("client", "c0", self.client, "2001:db8:1::2")
        self._address("gateway", "g0", self.gateway, "2001:db8:1::1")
        self._address("gateway", "g1", self.gateway_inner, "2001:db8:2::1")
        self._address("origin", "o0", self.origin, "2001:db8:2::2")
        run("ip", "-n", self.names["client"], "route", "add", "198.19.0.0/24", "via", self.gateway)
        run("ip", "-n", self.names["origin"], "route", "add", "198.18.0.0/24", "via", self.gateway_inner)
        run(*self.inside("gateway", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"))

    def _join(self, a, a_interface, b, b_interface):
        queues = ["numrxqueues", str(self.queues), "numtxqueues", str(self.queues)]
        ends = [a_interface, "netns", self.names[a], *queues, "type", "veth"]
        run("ip", "link", "add", *ends, "peer", "name", b_interface, "netns", self.names[b], *queues)
        if self.offloads == "off":
            for where, interface in ((a, a_interface), (b, b_interface)):
                off = [word for feature in ("tx", "tso", "gso", "gro") for word in (feature, "off")]
                run(*self.inside(where, "ethtool", "-K", interface, *off))

    def _address(self, where, interface, v4, v6):
        name = self.names[where]
        run("ip", "-n", name, "address", "add", f"{v4}/24", "dev", interface)
        run("ip", "-n", name, "address", "add", f"{v6}/64", "dev", interface, "nodad")
        run("ip", "-n", name, "link", "set", interface, "up")

    def inside(self, where, *argv):
        return ["ip", "netns", "exec", self.names[where], *argv]

    def has_xdp(self, where):
        shown = run("ip", "-n", self.names[where], "-j", "-d", "link", "show", "dev", self.interfaces[where])
        return "xdp" in json.loads(shown)[0]

    def facts(self):
        shown = run("ip", "-n", self.names["gateway"], "-j", "link", "show", "dev", "g0")
        return {
            "place": self.kind,
            "veth_queues": self.queues,
            "veth_mtu": json.loads(shown)[0]["mtu"],
            "veth_offloads": self.offloads + " (tx checksum, TSO, GSO, GRO)",
        }

    def close(self):
        super().close()
        for name in self.names.values():
            # Not run(): the later ones must go even if an earlier one was never made.
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def left_behind(self):
        names = [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line]
        return super().left_behind() + [f"namespace {name}" for name in self.names.values() if name in names]
