"""The targets of the design: what was promised of each, in which unit, how it is measured, and in which part of scripts/bench targets."""

import dataclasses

from demolib import report as demo

from .wide import Path

FAR = Path(delay_ms=40, loss_percent=1)
FAR_LOSSLESS = Path(delay_ms=40, loss_percent=0)
# beam's default, and what TCP is told to use beside it over the distant path, whatever the host's own default.
FAR_CONGESTION = "cubic"
HANDSHAKES_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Target:
    name: str
    promised: float | None
    unit: str
    how: str
    # Whether less is better, for whoever looks whether the promise is kept.
    less: bool = True


FIRST_BYTE = "from the start of a new `beam connect -W` (kernel UDP, process start included) to the first byte of an origin that speaks first"
FIRST_BYTE_TRIPS = f"{FIRST_BYTE}: with 80 ms of round trip in between less without, over 80 ms; judged as whole ones"
FAR_HOW = (
    f"a middlebox of ours ({FAR.text()}), eight connections at once; congestion control {FAR_CONGESTION.upper()} everywhere: beam's "
    f"`--cc {FAR_CONGESTION}` (its default) at both ends, and TCP's over the path, set by its route"
)
SHAKEN = (
    f"beam bench run --hps 0 -P {HANDSHAKES_AT_ONCE} --handshake {{}} against beam bench serve, AF_XDP at both ends, one worker each on a "
    "CPU of its own; self-signed certificate, done_per_s of each run"
)


# By the key under which a measurement leaves its values.
TARGETS = {
    "p95_idle": Target("P95 locally, idle", 1, "ms", "round trips of 64 bytes through the idle tunnel, one at a time"),
    "added_p95_idle": Target("P95 added locally, idle", 1, "ms", "P95 through the idle tunnel less P95 without one, run by run"),
    "p95_loaded": Target("P95 locally, at 90 % of the goodput", 1, "ms",
        "round trips of 64 bytes on a flow of their own, while iperf3 offers 90 % of what the tunnel had just carried"),
    "added_p95_loaded": Target("P95 added locally, at 90 % of the goodput", 1, "ms",
        "the same less P95 without a tunnel while iperf3 offers that same rate, run by run"),
    "far_p95": Target("P95 over an 80 ms path with 1 % loss", 100, "ms", f"through the tunnel and {FAR_HOW}"),
    "far_added_p95": Target("P95 added there", None, "ms", "the same less that without a tunnel: plain TCP, by the same congestion control, over the same path"),
    "goodput": Target("goodput of one tunnel", 1, "Gbit/s", "one iperf3 TCP stream, the receiver's bytes over its time", less=False),
    "goodput_per_core": Target("goodput for each core of the gateway", 10, "Gbit/s a core",
        "that stream's bits over the user and system time of the gateway's process (one worker carries the tunnel)", less=False),
    "gateway_cpu_s_per_gb": Target("CPU seconds a GB, gateway", None, "s/GB", "user and system time of its process, 10^9 bytes received"),
    "client_cpu_s_per_gb": Target("CPU seconds a GB, client", None, "s/GB", "the same at the other end"),
    "machine_cpu_s_per_gb": Target("CPU seconds a GB, whole machine", None, "s/GB",
        "busy seconds of all CPUs less the background: both ends, both iperf3 and the kernel"),
    "cpu_at_1g": Target("CPU of the gateway at 1 Gbit/s offered", 10, "% of a core",
        "iperf3 -b 1G through the tunnel; user and system time of the gateway's process over the time"),
    "client_cpu_at_1g": Target("CPU of the client at 1 Gbit/s offered", 10, "% of a core", "the same at the other end"),
    "carried_at_1g": Target("carried of the 1 Gbit/s offered", 1, "Gbit/s", "what the receiver got meanwhile", less=False),
    "idle_cpu": Target("CPU of an idle gateway with a tunnel", None, "% of a core", "/proc/PID/stat over the idle time"),
    "idle_switches": Target("wake-ups of an idle gateway with a tunnel", None, "a second", "voluntary context switches of all its threads"),
    "rss_0": Target("resident memory of a gateway without tunnels, above its UMEM", 50, "MB", "VmRSS less the UMEM, after its only tunnel has gone"),
    "rss_1": Target("resident memory with 1 tunnel, above its UMEM", 50, "MB", "the same, idle, before any load"),
    "rss_client": Target("resident memory of the client, above its UMEM", 50, "MB", "the same of the other end"),
    "rss_peak": Target("peak resident memory of the gateway under load, above its UMEM", 50, "MB", "VmHWM less the UMEM, after the streams of a run"),
    "rss_peak_client": Target("peak resident memory of the client under load, above its UMEM", 50, "MB", "the same of the other end"),
    "umem": Target("UMEM of the gateway", None, "MB", "frames of all its AF_XDP sockets (default --umem)"),
    "rss_100": Target("resident memory with 100 live tunnels, above its UMEM", 50, "MB", "bench-scale hold 100"),
    "rss_1000": Target("resident memory with 1,000 live tunnels, above its UMEM", 50, "MB", "bench-scale hold 1000"),
    "tunnel_bytes": Target("memory of a live tunnel, of 1,000", 12, "KB",
        "what the gateway has grown by at 1,000 tunnels, a tunnel: what is there once for all of them is in it"),
    "each_of_many": Target("memory of a live tunnel, of 100,000", 12, "KB",
        "what the gateway has grown by at 100,000 tunnels, a tunnel: scripts/bench scale, the result beside this one"),
    "asleep_rss": Target("memory of a gateway with 100,000 tunnels asleep and 1,000 live, above its UMEM", 50, "MB",
        "scripts/bench scale, the result beside this one"),
    "concurrent": Target("concurrent authenticated live tunnels", 100_000, "tunnels", "scripts/bench scale, the result beside this one", less=False),
    "setup_per_s": Target("new tunnels a second, with authentication", None, "a second",
        "full handshakes of new tunnels, each with its user's token and a request, client on the same machine (bench-scale hold)", less=False),
    "handshakes_full": Target("handshakes a second, full", None, "a second", SHAKEN.format("full"), less=False),
    "handshakes_resumed": Target("handshakes a second, resumed", None, "a second", SHAKEN.format("resumed"), less=False),
    "handshakes_0rtt": Target("handshakes a second, 0-RTT", None, "a second",
        SHAKEN.format("0rtt") + "; each with a request in its first flight, and its answer", less=False),
    "first_byte_full": Target("first byte, full handshake", 2, "round trips", FIRST_BYTE_TRIPS),
    "first_byte_resumed": Target("first byte, resumed", 2, "round trips", FIRST_BYTE_TRIPS),
    "first_byte_early": Target("first byte, 0-RTT", 1, "round trips", FIRST_BYTE_TRIPS),
    "first_byte_full_ms": Target("first byte locally, full handshake", None, "ms", FIRST_BYTE),
    "first_byte_resumed_ms": Target("first byte locally, resumed", None, "ms", FIRST_BYTE),
    "first_byte_early_ms": Target("first byte locally, 0-RTT", None, "ms", FIRST_BYTE),
}  # fmt: skip

# Parts: what is measured together, and fails together.
IDLE = {"idle_cpu", "idle_switches", "rss_0"}
LOADED = {"p95_idle", "added_p95_idle", "p95_loaded", "added_p95_loaded", "goodput", "goodput_per_core", "gateway_cpu_s_per_gb",
          "client_cpu_s_per_gb", "machine_cpu_s_per_gb", "cpu_at_1g", "client_cpu_at_1g", "carried_at_1g", "rss_1", "rss_client", "rss_peak",
          "rss_peak_client", "umem"}  # fmt: skip
LOCAL = IDLE | LOADED
DISTANT = {"far_p95", "far_added_p95"}
FIRST = {key for key in TARGETS if key.startswith("first_byte")}
SHAKE = {key for key in TARGETS if key.startswith("handshakes")}
SCALED = {"rss_100", "rss_1000", "tunnel_bytes", "setup_per_s"}
KEPT = {"asleep_rss", "concurrent", "each_of_many"}


class Values(dict):
    """Lists of measured values by the targets' keys, why there is none, and what is to be said of how there is one."""

    def __init__(self):
        super().__init__()
        self.missing = {}
        self.remarks = {}
        self.background = []

    def add(self, key, value):
        self.setdefault(key, []).append(value)

    def lacks(self, keys, why):
        self.missing.update({key: " ".join(str(why).split())[:300] for key in keys})


def names():
    return [target.name for target in TARGETS.values()]


def wanted(only):
    texts = [text.strip() for text in only.split(",") if text.strip()]
    return {key for key, one in TARGETS.items() if not texts or any(text in one.name for text in texts)}


def row(key, values):
    """A target beside the median of its runs. A run that failed takes the row's `measured` with it only when it was the only one."""
    target, seen = TARGETS[key], values.get(key, [])
    value = lambda one: None if one is None else round(one, 3)  # noqa: E731
    how = target.how + (f"; {values.remarks[key]}" if key in values.remarks else "")
    out = {"target": target.name, "promised": target.promised, "measured": value(demo.median(seen)), "unit": target.unit, "how": how,
           "min": value(min(seen, default=None)), "max": value(max(seen, default=None)), "runs": len(seen)}  # fmt: skip
    out["kept"] = verdict(target, out["measured"])
    if not seen:
        out["missing"] = values.missing.get(key, "not measured")
    elif key in values.missing:
        out["failed"] = values.missing[key]
    return out


def verdict(target, measured_value):
    """Whether a promise is kept; None where there was none, or no value."""
    if target.promised is None or measured_value is None:
        return None
    if target.unit == "round trips":
        # Counted by the clock, while there are only whole ones.
        measured_value = round(measured_value)
    return measured_value <= target.promised if target.less else measured_value >= target.promised
