"""scripts/bench targets: the targets of the design, promised beside measured, each with how it was measured."""

import dataclasses
import os
import threading
import time

from demolib import report as demo
from demolib.job import process_seconds
from demolib.rig import DemoError, say
from tunnellib import load, tunnels
from tunnellib.site import Site

from . import scale
from .wide import Path, WideSite

SCHEMA = "beam.bench.targets.v1"
METHOD = (
    "beam -L by AF_XDP at both ends of the rig of scripts/bench tunnel, veth offloads off, one tunnel unless a row says otherwise; "
    "medians of the runs, with min and max; latency: round trips of 64 bytes on one TCP connection, one at a time. Each end's "
    "worker is pinned to a CPU of its own, which it shares with the kernel, iperf3 and the probes"
)
FAR = Path(delay_ms=40, loss_percent=1)
FAR_LOSSLESS = Path(delay_ms=40, loss_percent=0)
LOAD_SHARE = 0.9
LOADED_PROBES_MAX = 20_000
OFFERED_BITS_PER_S = 1_000_000_000
GREET_PORT = 9
FRAME_BYTES = 4096


@dataclasses.dataclass
class Target:
    name: str
    promised: float | None
    unit: str
    how: str
    # Whether less is better, for whoever looks whether the promise is kept.
    less: bool = True


# By the key under which a measurement leaves its values.
TARGETS = {
    "added_p95_idle": Target("P95 added locally, idle", 1, "ms", "P95 through the idle tunnel less P95 without one, run by run"),
    "added_p95_loaded": Target("P95 added locally, at 90 % of the goodput", 1, "ms",
        "as above, while iperf3 offers 90 % of what the tunnel had just carried; without a tunnel at that same rate"),
    "far_p95": Target("P95 over an 80 ms path with 1 % loss", None, "ms",
        f"through the tunnel and a middlebox of ours ({FAR.text()}), eight connections at once"),
    "far_added_p95": Target("P95 added there", None, "ms", "the same less that without a tunnel over the same path"),
    "goodput": Target("goodput of one tunnel", 1, "Gbit/s", "one iperf3 TCP stream, the receiver's bytes over its time", less=False),
    "goodput_per_core": Target("goodput for each core of the gateway", None, "Gbit/s a core",
        "that stream's bits over the user and system time of the gateway's process (one worker carries the tunnel)", less=False),
    "gateway_cpu_s_per_gb": Target("CPU seconds a GB, gateway", None, "s/GB", "user and system time of its process, 10^9 bytes received"),
    "client_cpu_s_per_gb": Target("CPU seconds a GB, client", None, "s/GB", "the same at the other end"),
    "machine_cpu_s_per_gb": Target("CPU seconds a GB, whole machine", None, "s/GB",
        "busy seconds of all CPUs less the background: both ends, both iperf3 and the kernel"),
    "cpu_at_1g": Target("CPU of the gateway at 1 Gbit/s offered", 10, "% of a core",
        "iperf3 -b 1G through the tunnel; user and system time of the gateway's process over the time"),
    "carried_at_1g": Target("carried of the 1 Gbit/s offered", 1, "Gbit/s", "what the receiver got meanwhile", less=False),
    "idle_cpu": Target("CPU of an idle gateway with a tunnel", None, "% of a core", "/proc/PID/stat over the idle time"),
    "idle_switches": Target("wake-ups of an idle gateway with a tunnel", None, "a second", "voluntary context switches of all its threads"),
    "rss_0": Target("resident memory of a gateway without tunnels, above its UMEM", 50, "MB", "VmRSS less the UMEM, when it is ready"),
    "rss_1": Target("resident memory with 1 tunnel, above its UMEM", 50, "MB", "the same, idle, before any load"),
    "umem": Target("its UMEM", None, "MB", "frames of all its AF_XDP sockets (default --umem)"),
    "rss_100": Target("resident memory with 100 live tunnels, above its UMEM", 50, "MB", "bench-scale hold 100"),
    "rss_1000": Target("resident memory with 1,000 live tunnels, above its UMEM", 50, "MB", "bench-scale hold 1000"),
    "tunnel_bytes": Target("memory of a live tunnel", 12, "KB", "what the gateway has grown by at 1,000 tunnels, a tunnel"),
    "setup_per_s": Target("handshakes a second, with authentication", None, "a second",
        "full handshakes of new tunnels, each with its user's token and a request, client on the same machine (bench-scale hold)", less=False),
    "asleep_rss": Target("memory of a gateway with 100,000 tunnels asleep and 1,000 live, above its UMEM", 50, "MB",
        "scripts/bench scale, the result beside this one"),
    "concurrent": Target("concurrent authenticated live tunnels", 100_000, "tunnels", "scripts/bench scale, the result beside this one", less=False),
    "first_byte_full": Target("first byte, full handshake", 2, "round trips", ""),
    "first_byte_resumed": Target("first byte, resumed", 2, "round trips", ""),
    "first_byte_early": Target("first byte, 0-RTT", 1, "round trips", ""),
    "first_byte_full_ms": Target("first byte locally, full handshake", None, "ms", ""),
    "first_byte_resumed_ms": Target("first byte locally, resumed", None, "ms", ""),
    "first_byte_early_ms": Target("first byte locally, 0-RTT", None, "ms", ""),
}  # fmt: skip
FIRST_BYTE = "from the start of a new `beam connect -W` (kernel UDP, process start included) to the first byte of an origin that speaks first"
FIRST_BYTE_TRIPS = f"{FIRST_BYTE}: with 80 ms of round trip in between less without, over 80 ms"


def names():
    return [target.name for target in TARGETS.values()]


def wanted(only):
    texts = [text.strip() for text in only.split(",") if text.strip()]
    return {key for key, one in TARGETS.items() if not texts or any(text in one.name for text in texts)}


def needs(flags):
    keys = wanted(flags.only)
    return {"beam", *(["bench-scale"] if keys & SCALED else [])}


LOCAL = {"added_p95_idle", "added_p95_loaded", "goodput", "goodput_per_core", "gateway_cpu_s_per_gb", "client_cpu_s_per_gb",
         "machine_cpu_s_per_gb", "cpu_at_1g", "carried_at_1g", "rss_1", "rss_0", "umem", "idle_cpu", "idle_switches"}  # fmt: skip
DISTANT = {"far_p95", "far_added_p95"}
FIRST = {key for key in TARGETS if key.startswith("first_byte")}
SCALED = {"rss_100", "rss_1000", "tunnel_bytes", "setup_per_s"}
KEPT = {"asleep_rss", "concurrent"}


class Values(dict):
    """Lists of measured values by the targets' keys, and why there is none."""

    def __init__(self):
        super().__init__()
        self.missing = {}
        self.background = []

    def add(self, key, value):
        self.setdefault(key, []).append(value)

    def lacks(self, keys, why):
        self.missing.update({key: " ".join(str(why).split())[:300] for key in keys})


def while_loaded(place, up, seconds, bits_per_s, work):
    """iperf3 at a rate, `work()` meanwhile: what it carried, and what the work returned."""
    seen = {}

    def offer():
        try:
            seen.update(load.stream(place, up.host, up.iperf_port, seconds, bits_per_s=bits_per_s))
        except DemoError as error:
            seen["error"] = error

    offering = threading.Thread(target=offer)
    offering.start()
    # Past slow start.
    time.sleep(min(1.0, seconds / 4))
    try:
        done = work()
    finally:
        offering.join()
    if "error" in seen:
        raise seen["error"]
    return seen, done


def loaded_round_trips(place, flags, up, bits_per_s):
    """Round trips while iperf3 offers so much; they end a moment before it does."""
    seconds = max(flags.time - 2, 1)
    probe = lambda: load.round_trips_ms(place, up.host, up.echo_port, LOADED_PROBES_MAX, seconds=seconds)  # noqa: E731
    return while_loaded(place, up, seconds + 2, bits_per_s, probe)[1]


def memory(tunnel, side="gateway"):
    """VmRSS above the UMEM, and the UMEM, in bytes."""
    status = tunnel.status(side)
    umem = sum(frames["total"] for worker in status["workers"] for frames in worker.get("frames", ())) * FRAME_BYTES
    return status["process"]["resident_bytes"] - umem, umem


def switches(pid):
    """Voluntary context switches of all threads of a process."""
    count = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status", encoding="ascii", errors="replace") as file:
            count += int(next(line for line in file if line.startswith("voluntary_ctxt")).split()[1])
    return count


def local_run(place, flags, values):
    """One run without a tunnel and one with: latency idle and loaded, goodput, cost."""
    background_cpus = load.background()
    values.background.append(background_cpus)
    mark = len(place.children)
    try:
        up = tunnels.beam_forward(place, "native")
        gateway, client = up.daemons
        above, umem = memory(up.beam)
        values.add("rss_1", above / 1e6)
        values.add("umem", umem / 1e6)
        idle_ms = load.round_trips_ms(place, up.host, up.echo_port, flags.probes)
        costs = (load.Meter([gateway.pid]), load.Meter([client.pid]))
        seen = load.stream(place, up.host, up.iperf_port, flags.time)
        at_gateway, at_client = (meter.read() for meter in costs)
        gigabytes = seen["bytes"] / 1e9
        values.add("goodput", seen["goodput_gbps"])
        values.add("gateway_cpu_s_per_gb", at_gateway["daemons_s"] / gigabytes)
        values.add("client_cpu_s_per_gb", at_client["daemons_s"] / gigabytes)
        values.add("machine_cpu_s_per_gb", (at_gateway["busy_s"] - background_cpus * at_gateway["wall_s"]) / gigabytes)
        if at_gateway["daemons_s"]:
            values.add("goodput_per_core", seen["bytes"] * 8e-9 / at_gateway["daemons_s"])
        rate = int(seen["goodput_gbps"] * 1e9 * LOAD_SHARE)
        loaded_ms = loaded_round_trips(place, flags, up, rate)
        meter = load.Meter([gateway.pid])
        carried = load.stream(place, up.host, up.iperf_port, flags.time, bits_per_s=OFFERED_BITS_PER_S)
        spent = meter.read()
        values.add("cpu_at_1g", 100 * spent["daemons_s"] / carried["seconds"])
        values.add("carried_at_1g", carried["goodput_gbps"])
        up.must_live()
    finally:
        place.stop_since(mark)
    bare = tunnels.none(place)
    bare_idle_ms = load.round_trips_ms(place, bare.host, bare.echo_port, flags.probes)
    bare_loaded_ms = loaded_round_trips(place, flags, bare, rate)
    values.add("added_p95_idle", demo.percentile(idle_ms, 95) - demo.percentile(bare_idle_ms, 95))
    values.add("added_p95_loaded", demo.percentile(loaded_ms, 95) - demo.percentile(bare_loaded_ms, 95))


def idle_run(place, flags, values):
    """A gateway without tunnels, then with one, both left alone."""
    mark = len(place.children)
    try:
        up = tunnels.beam_forward(place, "native")
        gateway = up.daemons[0]
        # What the start leaves to do is not idleness.
        time.sleep(2)
        cpu_s, woken, began = process_seconds(gateway.pid), switches(gateway.pid), time.monotonic()
        time.sleep(flags.idle)
        seconds = time.monotonic() - began
        values.add("idle_cpu", 100 * (process_seconds(gateway.pid) - cpu_s) / seconds)
        values.add("idle_switches", (switches(gateway.pid) - woken) / seconds)
        # The client goes, and its tunnel with it; a gateway that never had one is smaller by what that left.
        place.stop(up.daemons[1])
        values.add("rss_0", memory(up.beam)[0] / 1e6)
    finally:
        place.stop_since(mark)


def far_run(place, flags, values):
    """Latency over the distant path, with a tunnel and without."""
    values.background.append(load.background())
    count, at_once = max(flags.probes * 4 // 5, 16), 8
    mark = len(place.children)
    try:
        up = tunnels.beam_forward(place, "native")
        through_ms = load.round_trips_ms(place, up.host, up.echo_port, count, at_once)
        up.must_live()
    finally:
        place.stop_since(mark)
    bare = tunnels.none(place)
    bare_ms = load.round_trips_ms(place, bare.host, bare.echo_port, count, at_once)
    values.add("far_p95", demo.percentile(through_ms, 95))
    values.add("far_added_p95", demo.percentile(through_ms, 95) - demo.percentile(bare_ms, 95))


def first_bytes(place, runs, times_ms):
    """First-byte times of new clients, by kind: full, 0-RTT, and resumed at a gateway that permits no early data."""
    place.spawn("origin", "greeting", "python3", "-B", load.ECHO, "greet", "0.0.0.0", str(GREET_PORT)).wait_for("listening")
    mark = len(place.children)
    try:
        for early in ("safe", "off"):
            beam = tunnels.beam_forward(place, "native", ["--allow", f"{place.lan_network}:{GREET_PORT}", "--0rtt", early]).beam
            state = place.path(f"visitor-{early}")
            first_ms = visit(place, beam, state)
            if early == "safe":
                times_ms["full"].append(first_ms)
            for _ in range(runs):
                times_ms["early" if early == "safe" else "resumed"].append(visit(place, beam, state))
            for number in range(runs - 1 if early == "safe" else 0):
                times_ms["full"].append(visit(place, beam, place.path(f"stranger-{number}")))
            place.stop_since(mark)
    finally:
        place.stop_since(mark)


def visit(place, beam, state):
    """One `beam connect -W`, from its start to its first byte."""
    argv = [
        os.environ["BEAM_BIN"], "connect", f"https://{place.gateway}:{place.listen_port}", "--token-file", place.path("token"), "--pin", beam.pin,
        "--state-dir", state, "--xdp", "off", "-W", f"{place.lan_host}:{GREET_PORT}",
    ]  # fmt: skip
    began = time.monotonic()
    child = place.spawn("client", "beam connect -W", *argv, stdout=-1)
    try:
        byte = child.process.stdout.read(1)
        took_ms = (time.monotonic() - began) * 1e3
    finally:
        place.stop(child)
        child.process.stdout.close()
    if byte != b"!":
        raise DemoError(f"beam connect -W brought {byte!r} of the greeting; its log ends:\n{child.tail()}")
    return took_ms


def guarded_part(values, keys, what, work):
    """A part that fails leaves its targets without a value, and the reason; the others go on."""
    try:
        say(what)
        work()
    except DemoError as error:
        say(f"{what} FAILED: {error}")
        values.lacks([key for key in keys if key not in values], error)


def measured(flags, hold):
    keys, values = wanted(flags.only), Values()
    host = demo.host_facts(os.environ["BEAM_BIN"], flags.repository)
    if keys & LOCAL:
        place = site(Site("off"), hold)
        load.serve_echo(place)
        for index in range(flags.runs):
            guarded_part(values, LOCAL, f"local, run {index + 1} of {flags.runs}", lambda: local_run(place, flags, values))
        guarded_part(values, LOCAL, f"idle for {flags.idle} s", lambda: idle_run(place, flags, values))
        host.update(place.facts())
        place.close()
    if keys & DISTANT:
        place = site(WideSite(FAR), hold)
        load.serve_echo(place)
        for index in range(flags.runs):
            guarded_part(values, DISTANT, f"far away, run {index + 1} of {flags.runs}", lambda: far_run(place, flags, values))
        host["far_path"], host["middle"] = FAR.text(), place.stop_middle()
        place.close()
    if keys & FIRST:
        guarded_part(values, FIRST, "first bytes", lambda: all_first_bytes(flags, hold, values))
    if keys & SCALED:
        guarded_part(values, SCALED, "hundreds of tunnels", lambda: hundreds(flags, hold, values))
    if keys & KEPT:
        kept(flags, values)
    host.update({"background_cpus": demo.median(values.background), "background_cpus_max": max(values.background, default=None)})
    rows = [row(key, values) for key in TARGETS if key in keys]
    # Whoever runs this subject alone need not have the other's result.
    of_scale = {TARGETS[key].name for key in KEPT}
    checks = [demo.check(f"{one['target']}: measured", one["measured"] is not None, one.get("missing", one["measured"]), "a value") for one in rows if one["target"] not in of_scale]
    return {"schema": SCHEMA, "ok": False, "checks": checks, "host": host, "runs": flags.runs, "rows": rows, "method": METHOD}


def site(place, hold):
    hold(place)
    place.build()
    return place


def all_first_bytes(flags, hold, values):
    near, far = ({kind: [] for kind in ("full", "resumed", "early")} for _ in range(2))
    for place, times_ms in ((Site("off"), near), (WideSite(FAR_LOSSLESS), far)):
        first_bytes(site(place, hold), flags.runs, times_ms)
        place.close()
    for kind, near_ms in near.items():
        for one in near_ms:
            values.add(f"first_byte_{kind}_ms", one)
        for one in far[kind]:
            values.add(f"first_byte_{kind}", (one - demo.median(near_ms)) / (2 * FAR_LOSSLESS.delay_ms))


def hundreds(flags, hold, values):
    place = site(scale.ScaleSite("off"), hold)
    counts = ("10", "20") if flags.quick else ("100", "1000")
    for key, count in zip(("rss_100", "rss_1000"), counts):
        rows = scale.bench_scale(place, ("hold", count, "--hold", "2" if flags.quick else "5"), 120)["rows"]
        if any(one["problems"] for one in rows):
            raise DemoError(f"bench-scale hold {count}: {rows[0]['problems']}")
        values.add(key, rows[0]["rss_bytes"] / 1e6)
    values.add("tunnel_bytes", rows[0]["bytes_per_tunnel"] / 1e3)
    values.add("setup_per_s", rows[0]["setup_per_s"])
    place.close()


def kept(flags, values):
    """What scripts/bench scale has measured, of the same results."""
    report = flags.results("scale")
    whole = [one for one in (report or {"rows": []})["rows"] if not one["problems"]]
    asleep = [one for one in whole if one["mode"] == "asleep"]
    held = [one for one in whole if one["mode"] == "hold"]
    if asleep:
        values.add("asleep_rss", asleep[-1]["rss_bytes"] / 1e6)
    if held:
        values.add("concurrent", max(one["live"] for one in held))
    values.lacks([key for key in KEPT if key not in values], "no whole result of scripts/bench scale lies beside this one")


def row(key, values):
    target, seen = TARGETS[key], values.get(key, [])
    how = target.how or (FIRST_BYTE_TRIPS if target.unit == "round trips" else FIRST_BYTE)
    value = lambda one: None if one is None else round(one, 3)  # noqa: E731
    out = {"target": target.name, "promised": target.promised, "measured": value(demo.median(seen)), "unit": target.unit, "how": how,
           "min": value(min(seen, default=None)), "max": value(max(seen, default=None)), "runs": len(seen)}  # fmt: skip
    out["kept"] = verdict(target, out["measured"])
    if not seen:
        out["missing"] = values.missing.get(key, "not measured")
    return out


def verdict(target, measured_value):
    """Whether a promise is kept; None where there was none, or no value."""
    if target.promised is None or measured_value is None:
        return None
    return measured_value <= target.promised if target.less else measured_value >= target.promised


def table(report):
    lines = [("", "promised", "measured", "unit", "min to max", "kept")]
    for one in report["rows"]:
        kept_word = {True: "yes", False: "NO", None: ""}[one["kept"]]
        extremes = f"{demo.show(one['min'])} to {demo.show(one['max'])}"
        promised = "-" if one["promised"] is None else f"{one['promised']:g}"
        lines.append((one["target"], promised, demo.show(one["measured"]), one["unit"], extremes, kept_word))
    return demo.aligned(lines)
