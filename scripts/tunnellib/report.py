"""From samples to the report of scripts/bench tunnel: medians with their extremes, ratios, checks, the JSON object, the table."""

import os
import subprocess
import tomllib

from demolib import report as demo
from kernelslib import page

from .echo import MESSAGE

SCHEMA = "beam.bench.tunnel.v1"
METHOD = (
    "client, gateway and LAN in three network namespaces joined by veth pairs; every row in turn, run after run, each with "
    "its tunnel put up afresh; medians of the runs, with min and max. goodput: one iperf3 TCP stream, client to LAN, the "
    "receiver's bytes over the receiver's time. latency: round trips of 64 bytes through the idle tunnel, one at a time on "
    "one TCP connection, before the stream. cpu_s_per_gb: busy CPU seconds of the whole machine while iperf3 runs (wall "
    "clock times CPUs, less idle, iowait and steal), less what the machine was busy with just before the tunnel came up, "
    "per 10^9 bytes received; so it holds the daemons, the kernel's work for them, softirqs included, and both ends of "
    "iperf3: the row none is what remains without a tunnel. cpu_daemons_s_per_gb: of that, user and system time of the "
    "tunnel's processes, in which the tick counts softirqs that happen to run on top of them; cpu_softirq_s_per_gb: all "
    "softirqs. No tunnel is pinned or tuned: beam's one worker an interface queue and each peer's threads as they come, "
    "but that beam's ends get a CPU each. WireGuard's devices have an MTU of 1420. TCP's congestion control is the host's (tcp_congestion_control), beam's and quinn's CUBIC. ssh is asked for AES-GCM, which beam, quinn and "
    "TLS use too; rathole's Noise has ChaCha20-Poly1305 only. quinn and TCP + TLS are programs of benches/: one connection "
    "for each of the two ports, and TLS one for each flow"
)
METRICS = ("goodput_gbps", "cpu_s_per_gb", "cpu_daemons_s_per_gb", "cpu_softirq_s_per_gb", "p50_ms", "p95_ms", "p99_ms")
QUANTILES = (1, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 99.99)
# Busy CPUs before a tunnel comes up: with more than this the machine does other work, which no subtraction takes out.
QUIET_CPUS_MAX = 0.2
# Comparators that benches/ has, built on these crates.
OWN_PROGRAMS = ("quinn-perf", "tls-forward")
OURS = ("beam --tun", "beam --tun --xdp off", "beam --lan")


def sample(row, offloads, times_ms, seen, spent, background_cpus):
    """One run of one row, in the units of the report."""
    gigabytes = seen["bytes"] / 1e9
    per_gb = lambda seconds: round(max(seconds, 0.0) / gigabytes, 4)  # noqa: E731
    own_s = spent["busy_s"] - background_cpus * spent["wall_s"]
    return {
        "name": row.name, "offloads": offloads, **seen,
        "cpu_s_per_gb": per_gb(own_s) if background_cpus <= QUIET_CPUS_MAX else None,
        "cpu_daemons_s_per_gb": per_gb(spent["daemons_s"]),
        "cpu_softirq_s_per_gb": per_gb(spent["softirq_s"]),
        **{f"p{percent}_ms": demo.percentile(times_ms, percent) for percent in (50, 95, 99)},
        "probes": len(times_ms), "background_cpus": round(background_cpus, 3), "times_ms": times_ms,
        "busy_cpus": round(spent["busy_s"] / spent["wall_s"], 3),
    }  # fmt: skip


def build(rows, states, samples, runs, host, versions):
    """The whole report except the last check, which needs the rig taken down: demolib's `judge_leftovers`."""
    summaries = []
    for offloads in states:
        for row in rows:
            summaries.append(summary(row, offloads, [one for one in samples if (one["name"], one["offloads"]) == (row.name, offloads)]))
    background = [one["background_cpus"] for one in samples if "background_cpus" in one]
    host = {**host, "background_cpus": demo.median(background), "background_cpus_max": max(background, default=None)}
    return {
        "schema": SCHEMA, "ok": False, "checks": [one for row in summaries for one in row_checks(row, runs)],
        "host": host, "versions": versions, "runs": runs, "rows": summaries, "ratios": ratios(summaries), "method": METHOD,
    }  # fmt: skip


def summary(row, offloads, samples):
    whole = [one for one in samples if "error" not in one]
    out = {"name": row.name, "kind": row.kind, "offloads": offloads}
    for metric in METRICS:
        values = [one[metric] for one in whole if one[metric] is not None]
        # Over a lossy path a flow carries some Mbit/s.
        out[metric] = demo.median(values, 6 if metric == "goodput_gbps" else 3)
        out[f"{metric}_min"], out[f"{metric}_max"] = min(values, default=None), max(values, default=None)
    out["quantiles_ms"] = quantiles([time for one in whole for time in one.get("times_ms", ())])
    out["runs"] = len(whole)
    out["goodput_gbps_runs"] = [one["goodput_gbps"] for one in whole]
    out["retransmits"] = sum(one["retransmits"] for one in whole)
    out["notes"] = next((one["notes"] for one in reversed(whole) if "notes" in one), {})
    out["version"] = row.version
    out["errors"] = [one["error"] for one in samples if "error" in one]
    if any("device_bytes" in one for one in whole):
        least = [one["bytes"] + one["probes"] * len(MESSAGE) for one in whole]
        out["all_through_device"] = all(one["device_bytes"] >= needed for one, needed in zip(whole, least))
    if row.xdp:
        sides = [one["facts"][side] for one in whole for side in ("gateway", "client")]
        out["xdp_wanted"], out["xdp_mode"] = row.xdp, "+".join(sorted({side["xdp_mode"] for side in sides}))
        out["every_frame_accounted_for"] = all(side["conservation_holds"] for side in sides)
        out["exits"] = [code for one in whole for code in one["exits"]]
        out["drops"] = {side: one["facts"][side]["drops"] for one in whole[-1:] for side in ("gateway", "client")}
    return out


def quantiles(times_ms):
    """Of all runs together: what a latency plot shows. A quantile that fewer than ten values lie beyond is left out."""
    shown = [percent for percent in QUANTILES if percent <= 50 or len(times_ms) * (100 - percent) >= 1000]
    return {f"{percent:g}": demo.percentile(times_ms, percent) for percent in shown} if times_ms else {}


def row_checks(row, runs):
    name = f"{row['name']} ({row['offloads']})"
    yield demo.check(f"{name}: runs", row["runs"] == runs, row["errors"] or row["runs"], runs)
    if "all_through_device" in row:
        yield demo.check(f"{name}: probes and stream went through the TUN device", row["all_through_device"], row["all_through_device"], True)
    if not row["runs"] or "xdp_wanted" not in row:
        return
    modes = row["xdp_mode"].split("+")
    yield demo.check(f"{name}: mode", all(mode.startswith(row["xdp_wanted"]) for mode in modes), row["xdp_mode"], row["xdp_wanted"])
    yield demo.check(f"{name}: every frame accounted for", row["every_frame_accounted_for"], row["every_frame_accounted_for"], True)
    yield demo.check(f"{name}: daemons exit cleanly", not any(row["exits"]), row["exits"], "0 each")


def ratios(rows):
    """beam's goodput at layer 3 over each other's, by offloads: what is said of being ahead."""
    out = {}
    for ours in rows:
        for other in rows:
            both = ours["goodput_gbps"] and other["goodput_gbps"]
            if not both or ours["name"] not in OURS or other["name"] in OURS or ours["offloads"] != other["offloads"]:
                continue
            if other["kind"] in ("l3", "none"):
                key = f"{ours['name']} to {other['name']} ({ours['offloads']})"
                out[key] = round(ours["goodput_gbps"] / other["goodput_gbps"], 3)
    return out


def is_quiet(report):
    return (report["host"]["background_cpus"] or 0) <= QUIET_CPUS_MAX


def why_not_kept(report, figure):
    """Why a report isn't to be kept: the machine was busy, or no row has this figure. A row that failed is kept with its reason."""
    if not is_quiet(report):
        return "the machine did other work meanwhile"
    return None if any(row[figure] is not None for row in report["rows"]) else "nothing was measured"


def versions(rows):
    """Of iperf3 and of each peer in the run."""
    out = {"iperf3": first_line("iperf3", "--version").removeprefix("iperf ").split(" ")[0]}
    installed = installed_crates(os.environ.get("BEAM_PEERS", ""))
    for need in sorted({need for row in rows for need in row.needs} - {"beam", *OWN_PROGRAMS}):
        out[need] = installed.get(need, "not installed")
    wanted = {row.version for row in rows}
    if "wireguard-go" in wanted:
        out["wireguard-go"] = first_line("wireguard-go", "--version").removeprefix("wireguard-go v")
    if "OpenSSH" in wanted:
        out["OpenSSH"] = first_line("ssh", "-V").split(",")[0].removeprefix("OpenSSH_")
    for crate in sorted({"quinn", "rustls"} & wanted):
        out[crate] = locked_crate(crate)
    return out


def first_line(*argv):
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return "not installed"
    return (done.stdout or done.stderr).split("\n", 1)[0]


def locked_crate(name):
    """The version of a crate in Cargo.lock."""
    with open(os.path.join(page.REPOSITORY, "Cargo.lock"), "rb") as file:
        versions = [one["version"] for one in tomllib.load(file)["package"] if one["name"] == name]
    return " and ".join(versions) or "not in Cargo.lock"


def installed_crates(root):
    """Versions by name, of what `cargo install --root` put there."""
    try:
        with open(os.path.join(root, ".crates.toml"), "rb") as file:
            keys = tomllib.load(file).get("v1", {})
    except FileNotFoundError:
        return {}
    return dict(key.split(" ")[:2] for key in keys)


def table(report):
    """The report for a person."""
    head = ("", "kind", "offloads", "Gbit/s", "min to max", "CPU s/GB", "daemons", "P50 ms", "P95 ms", "P99 ms", "runs")
    lines = [head]
    for row in report["rows"]:
        extremes = f"{demo.show(row['goodput_gbps_min'])} to {demo.show(row['goodput_gbps_max'])}"
        figures = [demo.show(row[name]) for name in ("cpu_s_per_gb", "cpu_daemons_s_per_gb", "p50_ms", "p95_ms", "p99_ms")]
        lines.append((row["name"], row["kind"], row["offloads"], demo.show(row["goodput_gbps"]), extremes, *figures, str(row["runs"])))
    return "\n".join([*demo.aligned(lines), "", *detail(report), "", *demo.verdicts(report["checks"])])


def detail(report):
    for name, facts in (("ratios", report["ratios"]), ("versions", report["versions"]), ("host", report["host"])):
        yield from demo.paragraph(name, ", ".join(f"{key} {value}" for key, value in facts.items()) or "none")
    yield from demo.paragraph("method", report["method"])
    if not is_quiet(report):
        yield from demo.paragraph("NOTE", "the machine did other work meanwhile (background_cpus): these figures are no measurement")
