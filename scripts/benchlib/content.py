"""What the report says, as sections of tables and plots that HTML and Markdown render alike. Missing results are said."""

import dataclasses

from tunnellib import report as tunnel_report

from . import results, svg

TITLES = {
    "tunnel": "Tunnels side by side",
    "targets": "Targets",
    "ablation": "What each optimisation brings",
    "scale": "Scale",
    "engine": "The path in memory",
    "aead": "Packet protection",
}
TEXTS = {
    "tunnel": "One TCP stream of iperf3, and round trips of 64 bytes through the idle tunnel; each row's tunnel put up afresh, in turn. "
    "Bars are medians, whiskers minimum and maximum.",
    "targets": "What the design promised beside what was measured. Where nothing was promised the figure stands for itself.",
    "ablation": "Each part off and on, in turn, on one rig; the dashed mark is what the design promised, whiskers are the single runs' extremes.",
    "scale": "Authenticated tunnels held by one gateway, with light traffic in each; asleep: known to the gateway, and awake again in 0-RTT.",
    "engine": "Both ends on one thread, no kernel: AES-128-GCM, UDP payloads of 1,452 bytes, nanoseconds a packet.",
    "aead": "AES-128-GCM, a packet of 1,400 bytes sealed and its header protected: core cycles.",
}
NOT_QUIET = "The machine did other work meanwhile: these figures are no measurement."


class Table:
    """Rows of text. A column that is empty in every row isn't there."""

    def __init__(self, head, rows):
        full = [at for at in range(len(head)) if at == 0 or any(row[at] not in ("", "–") for row in rows)]
        self.head = tuple(head[at] for at in full)
        self.rows = [tuple(row[at] for at in full) for row in rows]


@dataclasses.dataclass
class Section:
    subject: str
    tables: list = dataclasses.field(default_factory=list)
    plots: list = dataclasses.field(default_factory=list)
    # What is wrong or missing; and what is to be said besides.
    notes: list = dataclasses.field(default_factory=list)
    remarks: list = dataclasses.field(default_factory=list)
    host: dict = dataclasses.field(default_factory=dict)
    method: str = ""

    @property
    def title(self):
        return TITLES[self.subject]

    @property
    def intro(self):
        return TEXTS[self.subject]


def sections(found):
    """One for each subject; `found` is results.all_in()."""
    return [section(subject, found.get(subject)) for subject in TITLES]


def section(subject, report):
    if report is None:
        return Section(subject, notes=[f"No result: scripts/bench {subject} has not been run."])
    if faults := results.faults(subject, report):
        return Section(subject, notes=["This result can't be shown: " + "; ".join(faults)])
    out = {"tunnel": tunnel, "targets": targets, "ablation": ablation, "scale": scale, "engine": engine, "aead": aead}[subject](report)
    out.host, out.method = report["host"], report.get("method", "")
    if report["host"].get("background_cpus_max") is not None and not tunnel_report.is_quiet(report):
        out.notes.append(NOT_QUIET)
    out.notes += [f"Check failed: {one['check']}: {one['seen']}" for one in report.get("checks", []) if not one["ok"]]
    return out


def figure(value, digits=2):
    return "–" if value is None else f"{value:,.{digits}f}"


def extremes(row, name, digits=2):
    value, low, high = row[name], row.get(f"{name}_min"), row.get(f"{name}_max")
    if value is None:
        return "–"
    return figure(value, digits) + (f" ({figure(low, digits)} to {figure(high, digits)})" if low is not None else "")


def signed(value):
    return "–" if value is None else f"{value:+,.1f}\u00a0%"


def tunnel_name(row, versions):
    known = versions.get(row.get("version")) if row.get("version") else None
    name = "no tunnel" if row["name"] == "none" else row["name"]
    return f"{name} {known}" if known else name


def tunnel(report):
    versions = report.get("versions", {})
    table = Table(
        ("", "carries", "offloads", "Gbit/s (min to max)", "CPU s/GB, machine", "CPU s/GB, daemons", "P50 / P95 / P99 ms", "cipher"),
        [(
            tunnel_name(row, versions), {"l3": "IP", "tcp": "TCP", "none": ""}.get(row["kind"], row["kind"]), row["offloads"],
            extremes(row, "goodput_gbps"), figure(row["cpu_s_per_gb"]), "" if row["kind"] == "none" else figure(row.get("cpu_daemons_s_per_gb")),
            " / ".join(figure(row[name]) for name in ("p50_ms", "p95_ms", "p99_ms")), row.get("notes", {}).get("cipher", ""),
        ) for row in report["rows"]],
    )  # fmt: skip
    plots = [tunnel_plot(report, "goodput_gbps", "goodput", "Gbit/s"), tunnel_plot(report, "cpu_s_per_gb", "CPU", "CPU s/GB, the whole machine")]
    for kinds, what in ((("none", "l3"), "tunnels of IP packets"), (("none", "tcp"), "forwarded TCP ports")):
        plots.append(svg.percentiles(f"latency of {what}, offloads off", curves(report, kinds)))
    return Section("tunnel", [table], [plot for plot in plots if plot], [f"{row['name']}: {error}" for row in report["rows"] for error in row["errors"]])


def tunnel_plot(report, metric, title, unit):
    """Bars of all rows; beam's in its own colour, each state of the offloads in a group of its own."""
    states = list(dict.fromkeys(row["offloads"] for row in report["rows"]))
    items = []
    for state in states:
        for row in (one for one in report["rows"] if one["offloads"] == state):
            label = "no tunnel" if row["name"] == "none" else row["name"]
            items.append({
                "label": f"{label}, offloads {state}" if len(states) > 1 else label, "value": row[metric], "low": row.get(f"{metric}_min"),
                "high": row.get(f"{metric}_max"), "series": 0 if row["name"].startswith("beam") else 7 if row["name"] == "none" else 1,
            })  # fmt: skip
    return svg.bars(f"{title} of tunnels", unit, items, (("beam", 0), ("others", 1), ("no tunnel", 7)))


def curves(report, kinds):
    rows = [row for row in report["rows"] if row["offloads"] == "off" and row["kind"] in kinds and row.get("quantiles_ms")]
    out, ours, others = [], 0, 0
    for row in rows:
        if row["name"].startswith("beam"):
            out.append((row["name"], row["quantiles_ms"], 0, svg.DASHES[ours % len(svg.DASHES)]))
            ours += 1
        elif row["name"] == "none":
            out.append(("no tunnel", row["quantiles_ms"], 7, ""))
        else:
            out.append((row["name"], row["quantiles_ms"], 1 + others % 6, ""))
            others += 1
    return out


def targets(report):
    kept = {True: "yes", False: "no", None: ""}
    rows = []
    for row in report["rows"]:
        shown = row.get("missing", "not measured") if row["measured"] is None else figure(row["measured"], 3 if abs(row["measured"]) < 10 else 1)
        spread = "" if row.get("min") is None or row["min"] == row["max"] else f" ({figure(row['min'], 3)} to {figure(row['max'], 3)})"
        promised = "" if row["promised"] is None else f"{row['promised']:,g}"
        rows.append((row["target"], promised, shown + spread, row["unit"], kept[row.get("kept")], row["how"]))
    notes = [f"{row['target']}: a run failed: {row['failed']}" for row in report["rows"] if row.get("failed")]
    return Section("targets", [Table(("", "promised", "measured (min to max)", "unit", "kept", "how"), rows)], notes=notes)


def ablation(report):
    table = Table(
        ("", "off", "on", "latency, promised", "latency", "throughput, promised", "throughput", "P99", "CPU s/GB", "in memory, time a packet", "how", "why"),
        [(
            row["optimisation"], row.get("off", ""), row.get("on", ""), signed(row["promised_latency_percent"]), signed(row["latency_percent"]),
            signed(row["promised_throughput_percent"]), signed(row["throughput_percent"]), signed(row.get("p99_percent")),
            signed(row.get("cpu_percent")), signed(row.get("memory_latency_percent")), row.get("how", ""), row["why"],
        ) for row in report["rows"]],
    )  # fmt: skip
    plots = [ablation_plot(report, metric) for metric in ("throughput", "latency")]
    alone = next((row for row in report["rows"] if row.get("protection_throughput_percent") is not None), None)
    remarks = [f"Packet protection alone, {alone['level']} against ring: {signed(alone['protection_throughput_percent'])} packets, "
             f"{signed(alone['protection_latency_percent'])} time."] if alone else []  # fmt: skip
    notes = [f"{one['name']} ({one['group']}): {error}" for one in report.get("arms", []) for error in dict.fromkeys(one["errors"])]
    return Section("ablation", [table], plots, notes, remarks)


def ablation_plot(report, metric):
    items = []
    for row in report["rows"]:
        runs = [one for one in row.get(f"{metric}_percent_runs", []) if one is not None]
        value = row[f"{metric}_percent"]
        items.append({"label": row["optimisation"], "value": value, "low": min(runs, default=None), "high": max(runs, default=None),
                      "promised": row[f"promised_{metric}_percent"], "series": 0, "shown": signed(value)})  # fmt: skip
    return svg.bars(f"change of {metric} by each optimisation", f"change of {metric}, %", items, (("measured", 0), ("promised", "promise")))


def scale(report):
    mb = lambda row, name: "–" if row[name] is None else figure(row[name] / 1e6, 1)  # noqa: E731
    table = Table(
        ("", "live", "asleep", "resident MB, UMEM apart", "UMEM MB", "bytes a tunnel", "set-ups a second", "P95 ms", "CPU %"),
        [(
            row.get("name", row.get("mode", "")), figure(row["live"], 0), figure(row["asleep"], 0), mb(row, "rss_bytes"), mb(row, "umem_bytes"),
            figure(row["bytes_per_tunnel"], 0), figure(row["setup_per_s"], 0), figure(row["p95_ms"]), figure(row["cpu_percent"], 1),
        ) for row in report["rows"]],
    )  # fmt: skip
    items = [{"label": row.get("name", row.get("mode", "")), "value": row["bytes_per_tunnel"], "shown": figure(row["bytes_per_tunnel"], 0)} for row in report["rows"]]
    plots = [svg.bars("memory of the gateway a tunnel", "bytes a tunnel, UMEM apart", items)] if items else []
    notes = [f"{row.get('name', row.get('mode', ''))}: {problem}" for row in report["rows"] for problem in row.get("problems", [])]
    return Section("scale", [table], plots, notes)


MODES = {"quinn_alone": "quinn alone", "eager": "beam, packet by packet", "batched": "beam, in batches"}


def engine(report):
    rows = [row for row in report["rows"] if (row["cipher"], row["mtu"]) == ("aes128gcm", 1452)]
    table = Table(
        ("", "out ns", "in ns", "out Gbit/s", "in Gbit/s", "out instructions", "in instructions"),
        [(
            MODES.get(row["mode"], row["mode"]), figure(row["ns_out"], 0), figure(row["ns_in"], 0), figure(row["gbps_out"], 1), figure(row["gbps_in"], 1),
            figure(row.get("instructions_out"), 0), figure(row.get("instructions_in"), 0),
        ) for row in rows],
    )  # fmt: skip
    items = [
        {"label": f"{MODES.get(row['mode'], row['mode'])}, {side}", "value": row[f"ns_{side}"], "series": 1 if row["mode"] == "quinn_alone" else 0,
         "shown": figure(row[f"ns_{side}"], 0)}
        for side in ("out", "in") for row in rows
    ]  # fmt: skip
    return Section("engine", [table], [svg.bars("nanoseconds a packet in memory", "ns a packet", items, (("beam", 0), ("quinn-proto alone", 1)))] if items else [])


def aead(report):
    rows = [row for row in report["rows"] if (row["cipher"], row["op"], row["size_bytes"], row["keys"]) == ("aes128gcm", "protect", 1400, 1)]
    # Of several sizes of a batch, the largest.
    rows = [row for row in rows if row.get("batch") == max(one.get("batch", 0) for one in rows)]
    table = Table(("", "cycles a packet", "times as fast as ring"), [(row["impl"], figure(row["cycles"], 0), figure(row.get("ratio_to_ring"))) for row in rows])
    ours = ("aesni", "avx2", "avx512")
    items = [{"label": row["impl"], "value": row["cycles"], "series": 0 if row["impl"] in ours else 1, "shown": figure(row["cycles"], 0)} for row in rows]
    return Section("aead", [table], [svg.bars("cycles a packet", "cycles", items, (("beam", 0), ("others", 1)))] if items else [])
