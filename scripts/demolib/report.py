"""From samples to the report: medians, ratios, the checks that decide the exit code, the JSON object, the table."""

import os
import platform
import statistics
import subprocess
import textwrap

SCHEMA = "beam.demo.v1"
METHOD = (
    "goodput: one curl to /dev/null, bytes over curl's time_total, hashing kept out; sha256: a further fetch; latency: "
    "time_total of requests in a row, each on its own connection (SOCKS5 included); kinds run in turn, medians of the "
    "runs; plain_tcp: the same curl straight to the origin, no tunnel and no XDP (on the rig: routed by the gateway)"
)
# Where results are kept, and told.
KEPT = ("benches/results", "README.md")
KINDS = ("xdp", "xdp_off", "plain_tcp")
# A frame of the rig carries at most this much of the file, so fewer frames than bytes / FRAME_BYTES went another way.
FRAME_BYTES = 1500
# Handshakes and first packets may pass the kernel socket; one in a hundred would be a leak.
KERNEL_PACKETS_PER_FRAME_MAX = 0.01


def percentile(values, percent):
    """Nearest rank: the smallest value that at least `percent` % of the values don't exceed. None of none."""
    if not values:
        return None
    ordered = sorted(values)
    rank = int(-(-len(ordered) * percent // 100))
    return ordered[max(rank, 1) - 1]


def median(values, digits=3):
    values = [value for value in values if value is not None]
    return round(statistics.median(values), digits) if values else None


def summary(samples):
    """What the runs of one kind say together."""
    percentiles = {
        f"p{percent}": median([percentile(sample["requests"]["times_ms"], percent) for sample in samples])
        for percent in (50, 95, 99)
    }
    hashed = [sample["sha256_ok"] for sample in samples if "sha256_ok" in sample]
    out = {
        "runs": len(samples),
        "sha256_ok": bool(hashed) and all(hashed),
        "bytes": min(sample["bytes"] for sample in samples),
        "goodput_gbps": median([sample["goodput_gbps"] for sample in samples]),
        "goodput_gbps_runs": [sample["goodput_gbps"] for sample in samples],
        "requests_ok": sum(sample["requests"]["ok"] for sample in samples),
        "requests": sum(sample["requests"]["of"] for sample in samples),
        "latency_ms": percentiles,
    }
    with_status = [sample for sample in samples if "status" in sample]
    if with_status:
        out.update(daemons(with_status))
    return out


def daemons(samples):
    sides = {side: side_summary([sample["status"][side] for sample in samples]) for side in ("gateway", "client")}
    both = sides.values()
    cpu = {side: median([sample["cpu_s"][side] for sample in samples]) for side in sides}
    return {
        "xdp_mode": "+".join(sorted({side["xdp_mode"] for side in both})),
        "xsk_rx_frames": sum(side["xsk_rx_frames"] for side in both),
        "xsk_tx_frames": sum(side["xsk_tx_frames"] for side in both),
        "kernel_udp_packets": sum(side["kernel_udp_packets"] for side in both),
        "drops": {name: side["drops"] for name, side in sides.items()},
        "cpu_s_in_fetch": cpu,
        "rss_peak_mib": {side: max(sample["rss_peak_mib"][side] for sample in samples) for side in sides},
        "exits": [sample["exits"] for sample in samples],
        **sides,
    }


def side_summary(statuses):
    """Counters of one daemon, summed over its runs (each run starts a fresh one)."""
    drops = {}
    for status in statuses:
        for name, count in status.get("drops", {}).items():
            drops[name] = drops.get(name, 0) + count
    workers = [worker for status in statuses for worker in status["workers"]]
    return {
        "workers": len(statuses[-1]["workers"]),
        "xdp_mode": "+".join(sorted({worker["xdp_mode"] for worker in workers})) or "none",
        "xdp_why": sorted({why for worker in workers for why in worker.get("xdp_why", [])}),
        "xsk_rx_frames": sum(status["xsk_rx_frames"] for status in statuses),
        "xsk_tx_frames": sum(status["xsk_tx_frames"] for status in statuses),
        "kernel_udp_packets": sum(status["kernel_udp_packets"] for status in statuses),
        "drops": drops,
        "conservation_holds": all(status.get("conservation", {}).get("holds", False) for status in statuses),
    }


def build(samples, large_bytes, place_kind, host):
    """The whole report except the last check, which needs the rig taken down: see `judge_leftovers`."""
    kinds = {kind: summary(of) for kind in KINDS if (of := [s for s in samples if s["kind"] == kind])}
    main_kind = "xdp" if "xdp" in kinds else "xdp_off"
    report = {"schema": SCHEMA, "ok": False, "checks": [], "kind": main_kind, **kinds[main_kind]}
    report.update({kind: kinds[kind] for kind in kinds if kind != "xdp"})
    report["ratios"] = ratios(kinds, main_kind)
    report["host"], report["method"] = {**host, "place": place_kind}, METHOD
    for kind, seen in kinds.items():
        report["checks"] += payload_checks(kind, seen, large_bytes)
        if kind != "plain_tcp":
            report["checks"] += daemon_checks(kind, seen)
    if "xdp" in kinds:
        report["checks"] += steering_checks(kinds["xdp"], [s for s in samples if s["kind"] == "xdp"])
    return report


def ratios(kinds, main_kind):
    out, ours = {}, kinds[main_kind]
    for other in kinds:
        if other == main_kind or not kinds[other]["goodput_gbps"]:
            continue
        out[f"goodput_to_{other}"] = round(ours["goodput_gbps"] / kinds[other]["goodput_gbps"], 3)
    plain = kinds.get("plain_tcp", {}).get("latency_ms", {}).get("p95")
    if plain is not None and ours["latency_ms"]["p95"] is not None:
        out["added_latency_p95_ms"] = round(ours["latency_ms"]["p95"] - plain, 3)
    return out


def check(name, holds, seen, needed):
    return {"check": name, "ok": bool(holds), "seen": seen, "needed": needed}


def payload_checks(kind, seen, large_bytes):
    return [
        check(f"{kind}: sha256 of the file", seen["sha256_ok"], seen["sha256_ok"], True),
        check(f"{kind}: bytes of every fetch", seen["bytes"] == large_bytes, seen["bytes"], large_bytes),
        check(f"{kind}: requests answered", seen["requests_ok"] == seen["requests"], seen["requests_ok"], seen["requests"]),
    ]


def daemon_checks(kind, seen):
    codes = [exits[side] for exits in seen["exits"] for side in ("gateway", "client")]
    xdp_left = [side for exits in seen["exits"] for side in exits["xdp_left"]]
    conserved = seen["gateway"]["conservation_holds"] and seen["client"]["conservation_holds"]
    return [
        check(f"{kind}: daemons exit cleanly", not any(codes), codes, "0 each"),
        check(f"{kind}: no XDP program left on the interfaces", not xdp_left, xdp_left, []),
        check(f"{kind}: every frame accounted for", conserved, conserved, True),
    ]


def steering_checks(seen, samples):
    carried_bytes = sum(sample["bytes"] + sample.get("hashed_bytes", 0) for sample in samples)
    frames_min = carried_bytes // FRAME_BYTES
    frames = seen["xsk_rx_frames"] + seen["xsk_tx_frames"]
    kernel_max = int(frames * KERNEL_PACKETS_PER_FRAME_MAX)
    sent, received, kernel = seen["gateway"]["xsk_tx_frames"], seen["client"]["xsk_rx_frames"], seen["kernel_udp_packets"]
    native = all(mode.startswith("native") for mode in seen["xdp_mode"].split("+"))
    return [
        check("xdp: mode", native, seen["xdp_mode"], "native-*"),
        check("xdp: frames sent by the gateway's AF_XDP sockets", sent > frames_min, sent, f"> {frames_min}"),
        check("xdp: frames received by the client's", received > frames_min, received, f"> {frames_min}"),
        check("xdp: packets through kernel UDP sockets", kernel <= kernel_max, kernel, f"<= {kernel_max}"),
    ]


def judge_leftovers(report, left):
    report["checks"].append(check("nothing left behind", not left, left, []))
    report["ok"] = all(one["ok"] for one in report["checks"])


def host_facts(beam, repo):
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    git = ["git", "-C", repo]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False).stdout
    # What scripts/bench --save keeps of one subject doesn't change what the next one measures.
    changed = [*git, "status", "--porcelain", "--", ":(top)", *(f":(top,exclude){path}" for path in KEPT)]
    dirty = subprocess.run(changed, capture_output=True, text=True, check=False).stdout
    version = subprocess.run([beam, "--version"], capture_output=True, text=True, check=False).stdout if beam else "not used"
    built_from = (commit.strip() or "unknown") + (" with changes" if dirty else "")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load_average_1m": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "beam": version.strip(),
        "commit": f"not known: {beam} was given" if "BEAM_FOREIGN" in os.environ else built_from,
    }


def table(report):
    """The report for a person."""
    rows = [("", "goodput Gbit/s", "runs", "P50 ms", "P95 ms", "P99 ms", "requests")]
    titles = {"xdp": "beam over AF_XDP", "xdp_off": "beam over kernel UDP", "plain_tcp": "no tunnel"}
    for kind in KINDS:
        seen = report if kind == report["kind"] else report.get(kind)
        if seen:
            runs = " ".join(f"{one:.2f}" for one in seen["goodput_gbps_runs"])
            latency = [show(seen["latency_ms"][p]) for p in ("p50", "p95", "p99")]
            rows.append((titles[kind], show(seen["goodput_gbps"]), runs, *latency, f"{seen['requests_ok']}/{seen['requests']}"))
    return "\n".join([*aligned(rows), "", *detail(report), "", *verdicts(report["checks"])])


def aligned(rows):
    """The lines of a table whose columns are as wide as they need."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def verdicts(checks):
    """A line a check, and the verdict of all."""
    for one in checks:
        verdict = "ok  " if one["ok"] else "FAIL"
        yield f"{verdict} {one['check']}: {one['seen']}" + ("" if one["ok"] else f" (needed {one['needed']})")
    yield ""
    yield "all checks hold" if all(one["ok"] for one in checks) else "NOT all checks hold"


def detail(report):
    seen, host = report, report["host"]
    yield f"path      {seen['xdp_mode']}; AF_XDP frames {seen['xsk_rx_frames']} in, {seen['xsk_tx_frames']} out; " \
          f"kernel UDP packets {seen['kernel_udp_packets']} (gateway and client together)"
    for side in ("gateway", "client"):
        for why in seen[side]["xdp_why"]:
            yield f"          {side}: {why}"
    yield f"drops     gateway {seen['drops']['gateway'] or 'none'}, client {seen['drops']['client'] or 'none'}"
    yield f"cost      CPU s a fetch: {seen['cpu_s_in_fetch']}; peak MiB: {seen['rss_peak_mib']}"
    if report["ratios"]:
        yield "ratios    " + ", ".join(f"{name} {value}" for name, value in report["ratios"].items())
    facts = ", ".join(f"{name} {value}" for name, value in host.items())
    yield from paragraph("host", facts)
    yield from paragraph("method", report["method"])


def paragraph(title, text):
    return textwrap.wrap(f"{title:<10}{text}", 110, subsequent_indent=" " * 10)


def show(value):
    return "-" if value is None else f"{value:.3f}"
