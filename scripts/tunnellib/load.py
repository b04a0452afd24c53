"""What is sent through a tunnel, and what the machine spends on it: iperf3, the echo, the meter of CPU time."""

import json
import os
import subprocess
import time

from demolib.job import process_seconds
from demolib.rig import DemoError

ECHO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "echo.py")
ANSWER_LIMIT_S = 30
BACKGROUND_S = 1.0
# iperf3 needs a moment to end; a tunnel that lost its packets never lets it.
SPARE_S = 20


def logged(*argv):
    """The command with its standard output going where a child's log is read."""
    return ["sh", "-c", 'exec "$0" "$@" >&2', *argv]


def run_in(place, where, name, *argv, limit_s):
    """Runs a program in a namespace to its end: its standard output; an error with its last words otherwise."""
    path = place.path(f"{name}.out")
    with open(path, "wb") as file:
        child = place.spawn(where, name, *argv, stdout=file)
    try:
        code = child.process.wait(limit_s)
    except subprocess.TimeoutExpired:
        code = f"nothing within {limit_s} s"
    place.stop(child)
    with open(path, encoding="utf-8", errors="replace") as file:
        out = file.read()
    if code:
        raise DemoError(f"{name}: exit {code}: {iperf_error(out) or child.tail(5).strip()}")
    return out


def serve_echo(place):
    """One echo for all rows, in the LAN."""
    argv = ["python3", "-B", ECHO, "serve", "0.0.0.0", str(place.echo_port)]
    place.spawn("origin", "echo", *argv).wait_for("listening")


def round_trips_ms(place, host, port, count, connections=1, seconds=0):
    argv = ["python3", "-B", ECHO, "ask", host, str(port), str(count), str(ANSWER_LIMIT_S), str(connections), str(seconds)]
    return json.loads(run_in(place, "client", "echo ask", *argv, limit_s=ANSWER_LIMIT_S + 60))


def stream(place, host, port, seconds, flows=1, bits_per_s=None):
    """TCP streams of iperf3 from the client into the LAN, as fast as they go or at a rate in all; the server serves these."""
    argv = logged("iperf3", "-s", "-1", "--forceflush", "-p", str(place.iperf_port))
    server = place.spawn("origin", "iperf3 -s", *argv)
    server.wait_for("listening")
    argv = ["iperf3", "-c", host, "-p", str(port), "-t", str(seconds), "-J", "--connect-timeout", "5000", "-P", str(flows)]
    argv += ["-b", str(bits_per_s // flows)] if bits_per_s else []
    seen = parse_iperf(run_in(place, "client", "iperf3 -c", *argv, limit_s=seconds + SPARE_S))
    place.stop(server)
    return seen


def iperf_error(out):
    """What iperf3 says of its failure in its JSON; empty when it says nothing."""
    try:
        return json.loads(out).get("error", "")
    except (ValueError, AttributeError):
        return ""


def parse_iperf(out):
    """The receiver's bytes and time, and the sender's retransmissions, of iperf3's JSON."""
    try:
        end = json.loads(out)["end"]
        received = end["sum_received"]
        seen = {
            "bytes": int(received["bytes"]),
            "seconds": float(received["seconds"]),
            "retransmits": int(end["sum_sent"].get("retransmits", 0)),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise DemoError(f"iperf3 wrote no result: {iperf_error(out) or repr(error)}: {out[:200]!r}") from None
    if not seen["bytes"] or not seen["seconds"]:
        raise DemoError(f"iperf3 carried {seen['bytes']} bytes in {seen['seconds']} s")
    return {**seen, "goodput_gbps": round(seen["bytes"] * 8 / seen["seconds"] / 1e9, 6)}


class Meter:
    """CPU seconds of the whole machine and of some processes, from its making to `read`."""

    def __init__(self, pids=()):
        self.pids = family(pids)
        self.start = self._now()

    def _now(self):
        with open("/proc/stat", encoding="ascii") as file:
            machine = parse_stat(file.read(), os.sysconf("SC_CLK_TCK"))
        return {"at_s": time.monotonic(), **machine, "daemons_s": sum(process_seconds(pid) for pid in self.pids)}

    def read(self):
        """Seconds of wall clock, of busy CPUs, of softirqs among those, and of the processes."""
        now = self._now()
        spent = {name: now[name] - self.start[name] for name in now}
        # What is neither idle nor another guest's: the idle time is exact, the split of the rest is sampled by the tick.
        busy_s = spent["at_s"] * now["cores"] - spent["unused_s"]
        return {"wall_s": spent["at_s"], "busy_s": max(busy_s, 0.0), "softirq_s": spent["softirq_s"],
                "daemons_s": spent["daemons_s"]}  # fmt: skip


def family(pids):
    """These processes and their descendants: sshd gives each connection processes of its own."""
    parents = {}
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            # No process, or one that has just ended.
            continue
    found = list(pids)
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid and child not in found]
    return found


def parse_stat(text, ticks_per_s):
    """The machine's line of /proc/stat: seconds unused (idle, waiting for a disk, stolen), in softirqs; the CPUs counted."""
    lines = text.splitlines()
    fields = [int(field) for field in lines[0].split()[1:]]
    idle, iowait, softirq, steal = fields[3], fields[4], fields[6], fields[7]
    return {
        "unused_s": (idle + iowait + steal) / ticks_per_s,
        "softirq_s": softirq / ticks_per_s,
        "cores": sum(line.startswith("cpu") for line in lines) - 1,
    }


def background():
    """Busy CPU seconds a second that the machine spends on other things; measured while nothing of ours runs."""
    meter = Meter()
    time.sleep(BACKGROUND_S)
    seen = meter.read()
    return seen["busy_s"] / seen["wall_s"]
