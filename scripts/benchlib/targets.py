"""scripts/bench targets: the targets of the design, promised beside measured, each with how it was measured."""

import contextlib
import os
import select
import threading
import time

from demolib import report as demo
from demolib.job import process_seconds
from demolib.rig import START_LIMIT_S, DemoError, reason, say
from tunnellib import load, tunnels
from tunnellib.site import Site

from . import handshakes, scale
from .promises import DISTANT, FAR, FAR_CONGESTION, FAR_LOSSLESS, FIRST, IDLE, KEPT, LOADED, LOCAL, SCALED, SHAKE, TARGETS, Values, names, row, wanted
from .wide import WideSite

__all__ = ["measured", "names", "needs", "table"]

SCHEMA = "beam.bench.targets.v1"
METHOD = (
    "beam -L by AF_XDP at both ends of the rig of scripts/bench tunnel, veth offloads off, one tunnel unless a row says otherwise; "
    "medians of the runs, with min and max; latency: round trips of 64 bytes on one TCP connection, one at a time. Each end's "
    "worker is pinned to a CPU of its own, which it shares with the kernel, iperf3 and the probes. beam's congestion control is "
    "its default, CUBIC; TCP's is the host's (tcp_congestion_control) but where a row says otherwise"
)
LOAD_SHARE = 0.9
LOADED_PROBES_MAX = 20_000
OFFERED_BITS_PER_S = 1_000_000_000
GREET_PORT = 9
FRAME_BYTES = 4096


def needs(flags):
    keys = wanted(flags.only)
    return {"beam", *(["bench-scale"] if keys & SCALED else [])}


def while_loaded(place, up, seconds, bits_per_s, work):
    """iperf3 at a rate, `work()` meanwhile: what it carried, and what the work returned."""
    seen = {}

    def offer():
        try:
            seen.update(load.stream(place, up.host, up.iperf_port, seconds, bits_per_s=bits_per_s))
        except Exception as error:  # Whatever it is, the other thread tells it.
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


def memory(up, side="gateway"):
    """VmRSS and its peak above the UMEM, and the UMEM, in bytes."""
    status = up.beam.status(side)
    umem = sum(frames["total"] for worker in status["workers"] for frames in worker.get("frames", ())) * FRAME_BYTES
    daemon = up.daemons[("gateway", "client").index(side)]
    with open(f"/proc/{daemon.pid}/status", encoding="ascii", errors="replace") as file:
        return *resident(file.read(), umem), umem


def resident(status, umem_bytes):
    """VmRSS and VmHWM of /proc/PID/status less the UMEM, of which huge pages aren't counted there."""
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.startswith(("VmRSS:", "VmHWM:", "HugetlbPages:"))}
    if not {"VmRSS", "VmHWM"} <= set(kilobytes):
        raise DemoError(f"/proc/PID/status without VmRSS and VmHWM: {status[:200]!r}")
    counted = max(umem_bytes - kilobytes.get("HugetlbPages", 0) * 1024, 0)
    return tuple(max(kilobytes[name] * 1024 - counted, 0) for name in ("VmRSS", "VmHWM"))


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
        above, _, umem = memory(up)
        values.add("rss_1", above / 1e6)
        values.add("umem", umem / 1e6)
        values.add("rss_client", memory(up, "client")[0] / 1e6)
        idle_ms = load.round_trips_ms(place, up.host, up.echo_port, flags.probes)
        values.add("p95_idle", demo.percentile(idle_ms, 95))
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
        values.add("p95_loaded", demo.percentile(loaded_ms, 95))
        costs = {"cpu_at_1g": load.Meter([gateway.pid]), "client_cpu_at_1g": load.Meter([client.pid])}
        carried = load.stream(place, up.host, up.iperf_port, flags.time, bits_per_s=OFFERED_BITS_PER_S)
        for key, meter in costs.items():
            values.add(key, 100 * meter.read()["daemons_s"] / carried["seconds"])
        values.add("carried_at_1g", carried["goodput_gbps"])
        for key, side in (("rss_peak", "gateway"), ("rss_peak_client", "client")):
            values.add(key, memory(up, side)[1] / 1e6)
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
        values.add("rss_0", memory(up)[0] / 1e6)
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
        answered, _, _ = select.select([child.process.stdout], [], [], START_LIMIT_S)
        byte = child.process.stdout.read(1) if answered else f"nothing within {START_LIMIT_S} s"
        took_ms = (time.monotonic() - began) * 1e3
    finally:
        place.stop(child)
        child.process.stdout.close()
    if byte != b"!":
        raise DemoError(f"beam connect -W brought {byte!r} of the greeting; its log ends:\n{child.tail()}")
    return took_ms


def guarded_part(values, keys, what, work):
    """A part that fails leaves its targets without a value, or with one fewer, and the reason; the others go on."""
    before = {key: len(values.get(key, ())) for key in keys}
    try:
        say(what)
        work()
    except Exception as error:  # Whatever it is, it ends this part and nothing else.
        say(f"{what} FAILED: {reason(error)}")
        values.lacks([key for key, count in before.items() if len(values.get(key, ())) == count], reason(error))


@contextlib.contextmanager
def standing(place, hold):
    """A place, from its building to its end."""
    hold(place)
    try:
        place.build()
        yield place
    finally:
        place.close()


def local(flags, hold, values, host):
    with standing(Site("off"), hold) as place:
        host.update(place.facts())
        load.serve_echo(place)
        for index in range(flags.runs):
            guarded_part(values, LOADED, f"local, run {index + 1} of {flags.runs}", lambda: local_run(place, flags, values))
        guarded_part(values, IDLE, f"idle for {flags.idle} s", lambda: idle_run(place, flags, values))


def distant(flags, hold, values, host):
    with standing(WideSite(FAR, FAR_CONGESTION), hold) as place:
        host["far_path"], host["far_congestion_control"] = FAR.text(), FAR_CONGESTION
        load.serve_echo(place)
        for index in range(flags.runs):
            guarded_part(values, DISTANT, f"far away, run {index + 1} of {flags.runs}", lambda: far_run(place, flags, values))
        host["middle"] = place.stop_middle()


def first_byte(flags, hold, values, _host):
    near, far = ({kind: [] for kind in ("full", "resumed", "early")} for _ in range(2))
    for place, times_ms in ((Site("off"), near), (WideSite(FAR_LOSSLESS), far)):
        with standing(place, hold):
            first_bytes(place, flags.runs, times_ms)
    for kind, near_ms in near.items():
        for one in near_ms:
            values.add(f"first_byte_{kind}_ms", one)
        for one in far[kind]:
            values.add(f"first_byte_{kind}", (one - demo.median(near_ms)) / (2 * FAR_LOSSLESS.delay_ms))


def shaken(flags, hold, values, _host):
    values.background.append(load.background())
    with standing(Site("off"), hold) as place:
        pin = handshakes.serve(place)
        for kind in handshakes.KINDS:
            add = lambda: [values.add(f"handshakes_{kind}", one) for one in handshakes.run(place, pin, kind, flags)]  # noqa: E731, B023
            guarded_part(values, {f"handshakes_{kind}"}, f"handshakes, {kind}", add)


def hundreds(flags, hold, values, _host):
    counts = ("10", "20") if flags.quick else ("100", "1000")
    with standing(scale.ScaleSite("off"), hold) as place:
        for keys, count in zip((("rss_100",), ("rss_1000", "tunnel_bytes", "setup_per_s")), counts):
            guarded_part(values, keys, f"{count} tunnels", lambda: held(place, flags, values, keys, count))  # noqa: B023


def held(place, flags, values, keys, count):
    """So many tunnels by bench-scale, and what is told of them."""
    seen = scale.bench_scale(place, ("hold", count, "--hold", "2" if flags.quick else "5"), 120)["rows"][0]
    if seen["problems"]:
        raise DemoError(f"bench-scale hold {count}: {seen['problems']}")
    figures = {"tunnel_bytes": seen["bytes_per_tunnel"] / 1e3, "setup_per_s": seen["setup_per_s"]}
    for key in keys:
        values.add(key, figures.get(key, seen["rss_bytes"] / 1e6))


def kept(flags, _hold, values, host):
    """What scripts/bench scale has measured, of the same results."""
    report = flags.results("scale") or {"rows": [], "host": {}}
    whole = [one for one in report["rows"] if not one["problems"]]
    asleep = [one for one in whole if one["mode"] == "asleep"]
    live = [one for one in whole if one["mode"] == "hold"]
    if asleep:
        values.add("asleep_rss", asleep[-1]["rss_bytes"] / 1e6)
        if (file_bytes := asleep[-1].get("rss_file_bytes")) is not None:
            values.remarks["asleep_rss"] = f"{file_bytes / 1e6:.1f} MB of it are pages of the program's and the libraries' files"
    if live:
        most = max(live, key=lambda one: one["live"])
        values.add("concurrent", most["live"])
        values.add("each_of_many", most["bytes_per_tunnel"] / 1e3)
    values.lacks([key for key in KEPT if key not in values], "no whole result of scripts/bench scale lies beside this one")
    # It may be an older one, when this run of scale was not saved.
    if (commit := report["host"].get("commit")) != host.get("commit"):
        values.remarks.update({key: "; ".join(filter(None, (values.remarks.get(key), f"of commit {commit}"))) for key in KEPT})


# Keys, what is said of it, and who measures them.
PARTS = (
    (LOCAL, "local", local),
    (DISTANT, "far away", distant),
    (FIRST, "first bytes", first_byte),
    (SHAKE, "handshakes", shaken),
    (SCALED, "hundreds of tunnels", hundreds),
    (KEPT, "what scale has measured", kept),
)


def measured(flags, hold):
    keys, values = wanted(flags.only), Values()
    host = demo.host_facts(os.environ["BEAM_BIN"], flags.repository)
    for part, what, work in PARTS:
        if keys & part:
            guarded_part(values, part, what, lambda: work(flags, hold, values, host))  # noqa: B023
    host.update({"background_cpus": demo.median(values.background), "background_cpus_max": max(values.background, default=None)})
    rows = [row(key, values) for key in TARGETS if key in keys]
    return {"schema": SCHEMA, "ok": False, "checks": checks(rows), "host": host, "runs": flags.runs, "rows": rows, "method": METHOD}


def checks(rows):
    """Each has a value of every run. Whoever runs this subject alone need not have scale's result."""
    of_scale = {TARGETS[key].name for key in KEPT}
    judged = [one for one in rows if one["target"] not in of_scale]
    return [demo.check(f"{one['target']}: measured", "missing" not in one and "failed" not in one, one.get("missing") or one.get("failed") or one["measured"], "a value of each run")
            for one in judged]  # fmt: skip


def table(report):
    lines = [("", "promised", "measured", "unit", "min to max", "kept")]
    for one in report["rows"]:
        kept_word = {True: "yes", False: "NO", None: ""}[one["kept"]]
        extremes = f"{demo.show(one['min'])} to {demo.show(one['max'])}"
        promised = "-" if one["promised"] is None else f"{one['promised']:g}"
        lines.append((one["target"], promised, demo.show(one["measured"]), one["unit"], extremes, kept_word))
    return demo.aligned(lines)
