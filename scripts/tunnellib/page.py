"""The README's table of tunnels, made from benches/results/tunnel.json.

`python3 -m tunnellib.page` (with scripts/ on the path) makes it anew; a test holds the two against each other.
"""

import json
import os

from kernelslib import page

RESULTS = os.path.join(page.REPOSITORY, "benches/results/tunnel.json")
BEGIN = "<!-- tunnel: made by scripts/bench tunnel --save -->"
HEAD = (
    "| | offloads | Gbit/s (min to max) | CPU s/GB, the whole machine | of that the daemons | P50 / P95 / P99 ms |",
    "|---|---|---|---|---|---|",
)


def section(report):
    """What stands between the markers; `report` is None where none was saved yet."""
    if report is None:
        return "No result has been saved yet."
    host, of = report["host"], report["versions"]
    lines = [
        f"On {host['cpu']}, {host['cores']} CPUs, Linux {host['kernel']}, beam at commit {host['commit']}; medians of {report['runs']} runs:",
        "",
        *HEAD,
        *(_line(row, of) for row in report["rows"]),
    ]
    return "\n".join(lines)


def _line(row, versions):
    # A row whose program has a version says it: quincy's two ends have the same.
    known = versions.get(row.get("version")) or next((versions[name] for name in versions if name.startswith(row["name"])), None)
    version = f" {known}" if known else ""
    name = "no tunnel" if row["name"] == "none" else f"`{row['name']}`{version}"
    if row["goodput_gbps"] is None:
        return f"| {name} | {row['offloads']} | failed |  |  |  |"
    speed = f"{row['goodput_gbps']:.2f} ({row['goodput_gbps_min']:.2f} to {row['goodput_gbps_max']:.2f})"
    daemons = "" if row["kind"] == "none" else _figure(row["cpu_daemons_s_per_gb"])
    latency = " / ".join(_figure(row[name]) for name in ("p50_ms", "p95_ms", "p99_ms"))
    return f"| {name} | {row['offloads']} | {speed} | {_figure(row['cpu_s_per_gb'])} | {daemons} | {latency} |"


def _figure(value):
    # The cost of a row is not known where the machine was busy in each of its runs.
    return "not known" if value is None else f"{value:.2f}"


def saved():
    if not os.path.exists(RESULTS):
        return None
    with open(RESULTS, encoding="utf-8") as file:
        return json.load(file)


def write_readme():
    page.replace(section(saved()), BEGIN)


if __name__ == "__main__":
    write_readme()
