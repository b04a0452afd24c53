"""The results that scripts/bench keeps: one JSON object a subject, each with the host beside its figures."""

import json
import os

from .rigging import REPOSITORY

KEPT = os.path.join(REPOSITORY, "benches/results")
SUBJECTS = ("aead", "engine", "tunnel", "targets", "ablation", "scale")
# What rows must have, by subject; further keys are fine.
ROW_KEYS = {
    "tunnel": ("name", "kind", "offloads", "goodput_gbps", "cpu_s_per_gb", "p50_ms", "p95_ms", "p99_ms"),
    "targets": ("target", "promised", "measured", "unit", "how"),
    "ablation": ("optimisation", "promised_latency_percent", "latency_percent", "promised_throughput_percent", "throughput_percent", "why"),
    "scale": ("live", "asleep", "rss_bytes", "umem_bytes", "bytes_per_tunnel", "setup_per_s", "p95_ms", "cpu_percent"),
    "aead": ("cipher", "op", "size_bytes", "keys", "impl", "cycles"),
    "engine": ("cipher", "mode", "mtu", "gbps_out", "gbps_in", "ns_out", "ns_in"),
}


def read(directory, subject):
    """What lies there, or None."""
    path = os.path.join(directory, f"{subject}.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def all_in(directory):
    """By subject, in the report's order; None where nothing lies."""
    return {subject: read(directory, subject) for subject in SUBJECTS}


def beside(saved, subject):
    """The result of another subject that belongs to this run: what is kept, where this one will be, or the last run's."""
    directory = KEPT if saved else os.environ.get("BEAM_BENCH_RESULTS", "")
    return read(directory, subject)


def save(subject, report):
    os.makedirs(KEPT, exist_ok=True)
    path = os.path.join(KEPT, f"{subject}.json")
    # The one before stays until this one is whole.
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.write(json.dumps(report) + "\n")
    os.replace(f"{path}.part", path)


def faults(subject, report):
    """What a result lacks of its shape."""
    if not isinstance(report.get("host"), dict) or not isinstance(report.get("rows"), list):
        return [f"{subject}: no object with host and rows"]
    lacking = {key for row in report["rows"] for key in ROW_KEYS[subject] if key not in row}
    return [f"{subject}: rows without {key}" for key in sorted(lacking)]
