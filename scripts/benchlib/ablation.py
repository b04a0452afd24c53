"""scripts/bench ablation: what each optimisation of the design brings, with it and without it in turn on one rig.

A row compares two arms, `off` and `on`. What the rig hides, because the kernel's part doesn't change, is told by the path in
memory beside it."""

import json
import os
import subprocess

from demolib import report as demo
from demolib.rig import DemoError, reason, say
from tunnellib import forwards, tunnels
from tunnellib import report as reporting

from . import why
from .rigging import Group, Load, arm, background, run_group, summaries
from .wide import Path

SCHEMA = "beam.bench.ablation.v1"
POOL = 4
LOSSY = Path(delay_ms=20, loss_percent=1)
LOSSY_NAME, LOSSY_BBR_NAME = "QUIC, lossy wide area, CUBIC", "QUIC, lossy wide area, BBR"
METHOD = (
    "each row compares a part switched off with the same switched on, all arms of a group in turn, run after run, each tunnel "
    "put up afresh; beam -L by AF_XDP at both ends, veth offloads off. latency_percent: the median of 64-byte round trips, one at "
    "a time (p95_percent, p99_percent: those quantiles), medians of the runs; throughput_percent: one iperf3 TCP stream (of the "
    "pool: four), medians of the runs; 100 x (on / off - 1), so less latency is negative; *_runs: run by run, in which the spread "
    "shows. memory_*: the path in memory (no kernel), out and in together, a packet of 1,452 bytes. promised_*: the design "
    "document's. The lossy path is a middlebox of ours: " + LOSSY.text() + ", eight round trips in flight; TCP and beam go over it by one "
    "congestion control, CUBIC or BBR; elsewhere TCP between the ends is by CUBIC, too, which is beam's default"
)
# What the design promised: latency, throughput, in percent.
ROWS = (
    # optimisation, promised latency, promised throughput, group, off, on
    ("QUIC instead of TCP + TLS", -30, 50, "one flow", "TCP + TLS", "beam"),
    (LOSSY_NAME, -30, 50, "lossy path", "TCP + TLS", "beam --cc cubic"),
    (LOSSY_BBR_NAME, -30, 50, "lossy path, BBR", "TCP + TLS", "beam --cc bbr"),
    ("SIMD", -20, 300, "one flow", "ring", "beam"),
    ("fused copy", -15, 100, "one flow", "no fused copy", "beam"),
    ("allocator and arenas", -10, 50, "one flow", "system allocator, no arenas", "beam"),
    ("allocator alone", None, None, "one flow", "system allocator", "beam"),
    ("arenas alone", None, None, "one flow", "no arenas", "beam"),
    ("pool 1/N", -5, 25, "four flows", "pool 1", f"pool {POOL}"),
)


def how(group):
    """What both arms of a row go through, and by which congestion control."""
    default = " (its default)" if group.congestion == "cubic" else ""
    said = (f"TCP between the ends by {group.congestion.upper()}, set by its route, and beam by --cc {group.congestion}{default} at both ends, so "
            f"alike; {group.load.flows} iperf3 flow{'s' * (group.load.flows > 1)}, latency of {group.load.connections} at once")  # fmt: skip
    return f"{said}; {group.path.text()}" if group.path else f"{said}; no loss, veths without offloads"


def sends_by(congestion):
    """beam with a congestion control; it is what an end sends by, so both ends get it."""
    flags = ["--cc", congestion]
    return arm(f"beam --cc {congestion}", serve=flags, connect=flags)


def without(*parts):
    return {"environment": {"BEAM_ABLATION": ",".join(parts)}}


def no_other_build(_place):
    raise DemoError(
        "there is no build of beam with the system's allocator: BEAM_BIN was given, or it did not build; name one by BEAM_SYSTEM_ALLOCATOR"
    )


def groups(flags):
    """All arms by their groups, less what `--only` leaves out."""
    both = ["--simd", "ring"]
    other = os.environ.get("BEAM_SYSTEM_ALLOCATOR")
    # Where a binary was given there is no other build of it, and the arms say so.
    system = {"needs": ("beam", "beam-system-allocator"), **({"beam": other} if other else {"start": no_other_build})}
    tls = {"start": tunnels.forwarded(forwards.tls), "needs": ("tls-forward",), "xdp": None}
    plain = Load(flags.probes, flags.time)
    far = Load(max(flags.probes * 2 // 5, 8), flags.time * 2, connections=8)
    every = [
        Group("one flow", [
            arm("beam"), arm("TCP + TLS", **tls), arm("ring", serve=both, connect=both), arm("no fused copy", **without("no-fused-copy")),
            arm("no arenas", **without("no-arenas")), arm("system allocator", **system),
            arm("system allocator, no arenas", **system, **without("no-arenas")),
        ], plain),
        Group("four flows", [arm("pool 1", connect=["--pool", "1"]), arm(f"pool {POOL}", connect=["--pool", str(POOL)])],
              Load(flags.probes, flags.time, flows=POOL)),
        Group("lossy path", [sends_by("cubic"), arm("TCP + TLS", **tls)], far, LOSSY, "cubic"),
        Group("lossy path, BBR", [sends_by("bbr"), arm("TCP + TLS", **tls)], far, LOSSY, "bbr"),
    ]  # fmt: skip
    wanted = chosen(flags.only)
    for group in every:
        names = {name for row in wanted if row[3] == group.name for name in row[4:]}
        group.arms = [row for row in group.arms if row.name in names]
    return [group for group in every if group.arms]


def chosen(only):
    texts = [text.strip() for text in only.split(",") if text.strip()]
    return [row for row in ROWS if not texts or any(text in row[0] for text in texts)]


def names():
    return [row[0] for row in ROWS]


def needs(flags):
    programs = {"bench-aead", "bench-engine", "bench-overhead"}
    return programs | {need for group in groups(flags) for row in group.arms for need in row.needs}


def measured(flags, hold):
    """The report, less the last check."""
    memory, checks = in_memory(flags)
    samples, arms, facts, hows = [], [], {}, {}
    for group in groups(flags):
        of_group, place = run_group(hold, group, flags.runs)
        samples += of_group
        arms += summaries(group, of_group)
        facts[group.name], hows[group.name] = place, how(group)
        # Groups have arms of the same name.
        of_rows = [check for one in arms if one["group"] == group.name for check in reporting.row_checks(one, flags.runs)]
        checks += [{**one, "check": f"{group.name}: {one['check']}"} for one in of_rows]
    host = demo.host_facts(os.environ["BEAM_BIN"], flags.repository)
    host.update(background(samples))
    for place in reversed(facts.values()):
        host.update({key: value for key, value in place.items() if key != "middle"})
    # It differs from group to group, and each row says its own.
    host.pop("tcp_congestion_control", None)
    lossy = {name: place["middle"] for name, place in facts.items() if "middle" in place}
    if lossy:
        host["lossy_path"], host["middle"] = LOSSY.text(), lossy
    rows = [{**built(row, arms, memory, host["cores"]), "how": hows[row[3]]} for row in chosen(flags.only)]
    return {
        "schema": SCHEMA, "ok": False, "checks": checks, "host": host, "versions": {"rustls": reporting.locked_crate("rustls")},
        "runs": flags.runs, "rows": rows, "arms": arms, "method": METHOD,
    }  # fmt: skip


def built(row, arms, memory, cores):
    """One row of the table, of its two arms."""
    optimisation, latency, throughput, group, *pair = row
    off, on = (next(one for one in arms if (one["group"], one["name"]) == (group, name)) for name in pair)
    change = lambda metric: why.change_percent(off[metric], on[metric])  # noqa: E731
    out = {
        "optimisation": optimisation, "off": pair[0], "on": pair[1],
        "promised_latency_percent": latency, "latency_percent": change("p50_ms"),
        "promised_throughput_percent": throughput, "throughput_percent": change("goodput_gbps"),
        "p95_percent": change("p95_ms"), "p99_percent": change("p99_ms"), "cpu_percent": change("cpu_daemons_s_per_gb"),
        "latency_percent_runs": by_run(off["p50_ms_runs"], on["p50_ms_runs"]),
        "throughput_percent_runs": by_run(off["goodput_gbps_runs"], on["goodput_gbps_runs"]),
    }  # fmt: skip
    out.update(memory.get(optimisation, {}))
    measured_pair = (out["latency_percent"], out["throughput_percent"])
    out["why"] = why.judged(optimisation, (latency, throughput), measured_pair, facts(out, off, on, memory, cores))
    return out


def by_run(off, on):
    """Runs in turn are pairs: the change in each."""
    return [why.change_percent(*pair) for pair in zip(off, on)]


def facts(row, off, on, memory, cores):
    """Numbers that the sentences may name, or depend on."""
    out = {**memory.get("facts", {}), "cores": cores}
    for name in ("latency_percent", "throughput_percent", "p95_percent", "p99_percent"):
        out[name] = row[name]
    for side, one in (("off", off), ("on", on)):
        busy = one["busy_cpus"]
        out[f"{side}_cpu_daemons"], out[f"{side}_busy_cpus"] = one["cpu_daemons_s_per_gb"], busy
        out[f"{side}_busy_share"] = busy and busy / cores
        out[f"{side}_p99_ms"] = one["p99_ms"]
        out[f"{side}_goodput_mbps"] = one["goodput_gbps"] and one["goodput_gbps"] * 1e3
    pairs = [[one for one in row[f"{name}_percent_runs"] if one is not None] for name in ("latency", "throughput")]
    if all(pairs):
        out["undecided"] = int(all(min(one) <= 0 <= max(one) for one in pairs))
    if off["cpu_daemons_s_per_gb"] and on["cpu_daemons_s_per_gb"]:
        out["cpu_ratio"] = on["cpu_daemons_s_per_gb"] / off["cpu_daemons_s_per_gb"]
    return {name: value for name, value in out.items() if value is not None}


def in_memory(flags):
    """The same without a kernel: further keys of rows, and facts for their sentences; and a check of each part."""
    wanted = {row[0] for row in chosen(flags.only)}
    out, checks = {"facts": {}}, []
    for optimisation, work in (("SIMD", simd_in_memory), ("fused copy", copy_in_memory)):
        if optimisation not in wanted:
            continue
        why_not = None
        try:
            out[optimisation], found = work(flags)
            out["facts"].update(found)
        except Exception as error:  # Its row lacks these figures then, and its arms are measured all the same.
            why_not = reason(error)
            say(f"in memory, {optimisation} FAILED: {why_not}")
        checks.append(demo.check(f"{optimisation}: in memory", why_not is None, why_not or "measured", "measured"))
    return out, checks


def simd_in_memory(flags):
    return simd(program("bench-aead", "aes128gcm/protect/1400/1", flags), program("bench-engine", "aes128gcm/1452", flags))


def copy_in_memory(flags):
    return fused_copy(program("bench-overhead", "fused-copy", flags))


def program(name, only, flags):
    """The JSON of a program of benches/."""
    argv = [os.path.join(os.environ["BEAM_BENCHES"], name), "--json", "--only", only, *(["--quick"] if flags.quick else [])]
    say(f"in memory: {name} --only {only}")
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise DemoError(f"{name}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def simd(aead, engine):
    """Packet protection alone, ring against the best level; and the engine, packet by packet against batches."""
    batch = max(row["batch"] for row in aead["rows"])
    cycles = {row["impl"]: row["cycles"] for row in aead["rows"] if row["batch"] == batch}
    best = engine["simd_level"]
    modes = {row["mode"]: row for row in engine["rows"] if row["mtu"] == 1452}
    whole = {name: row["ns_out"] + row["ns_in"] for name, row in modes.items()}
    crypto = modes["eager"]["crypto_ns_out"] + modes["eager"]["crypto_ns_in"]
    share = crypto / whole["eager"]
    row = {
        "memory_latency_percent": why.change_percent(whole["eager"], whole["batched"]),
        "memory_throughput_percent": why.change_percent(whole["batched"], whole["eager"]),
        "protection_latency_percent": why.change_percent(cycles["ring"], cycles[best]) if best in cycles else None,
        "protection_throughput_percent": why.change_percent(cycles[best], cycles["ring"]) if best in cycles else None,
        "level": best,
    }  # fmt: skip
    facts_of_simd = {"crypto_share_percent": 100 * share, "crypto_bound_percent": 100 * (1 / (1 - share) - 1)}
    if best in cycles:
        facts_of_simd["protection_ratio"] = cycles["ring"] / cycles[best]
    return row, facts_of_simd


def fused_copy(overhead):
    row = next(row for row in overhead["rows"] if row["part"] == "fused-copy" and row["mtu"] == 1452)
    off, on = (sum(row[side][f"ns_{state}"] for side in ("out", "in")) for state in ("off", "on"))
    out = {"memory_latency_percent": why.change_percent(off, on), "memory_throughput_percent": why.change_percent(on, off)}
    return out, {"copy_ns": off - on, "packet_ns": off, "copy_percent": 100 * (off - on) / off}


def table(report):
    head = ("", "latency %", "promised", "throughput %", "promised", "in memory %", "why")
    lines = [head]
    for row in report["rows"]:
        figures = [row[name] for name in ("latency_percent", "promised_latency_percent", "throughput_percent", "promised_throughput_percent")]
        lines.append((row["optimisation"], *map(signed, [*figures, row.get("memory_throughput_percent")]), ""))
    out = demo.aligned(lines)
    for row in report["rows"]:
        out += demo.paragraph("", f"{row['optimisation']}: {row['why']}")
    return out


def signed(value):
    return "-" if value is None else f"{value:+.1f}" if isinstance(value, float) else f"{value:+d}"
