"""One run of one row, for scripts/bench tunnel, ablation and targets; and what their flags and results have in common."""

import argparse
import json
import os

from demolib.rig import DemoError, reason, say

from . import load
from . import report as reporting

# Of an error in the report; the whole of it, logs included, has been said.
ERROR_CHARS = 300


def number(most):
    def parsed(text):
        if not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return parsed


def measure(place, row, flags):
    """One run of one row; an error of its daemons comes with the end of their logs."""
    background_cpus = load.background()
    mark, codes = len(place.children), {}
    try:
        up = row.start(place)
        sent_before = place.sent_bytes("client", up.device) if up.device else 0
        times_ms = load.round_trips_ms(place, up.host, up.echo_port, flags.probes, getattr(flags, "connections", 1))
        meter = load.Meter(daemon.pid for daemon in up.daemons)
        seen = load.stream(place, up.host, up.iperf_port, flags.time, getattr(flags, "flows", 1))
        spent = meter.read()
        up.must_live()
        out = reporting.sample(row, place.offloads, times_ms, seen, spent, background_cpus)
        if up.device:
            out["device_bytes"] = place.sent_bytes("client", up.device) - sent_before
        out["facts"], out["notes"] = up.facts(), up.notes
    except DemoError as error:
        logs = [f"  {child.name}:\n{child.tail()}" for child in place.children[mark:] if child.tail() not in str(error)]
        raise DemoError("\n".join([str(error), *logs])) from None
    finally:
        codes.update(place.stop_since(mark))
    return {**out, "exits": list(codes.values())}


def measured_or_why(place, row, flags, where, digits=2):
    """One run of one row, or why there is none: a row that fails, however it does, leaves the others alone."""
    try:
        one = measure(place, row, flags)
    except Exception as error:
        say(f"{where}: {row.name} FAILED: {reason(error)}")
        one = error_sample(place, row, error)
    else:
        say(f"{where}: {row.name}: {one['goodput_gbps']:.{digits}f} Gbit/s, P50 {one['p50_ms']:.3f} ms")
    note(where, one)
    return one


def note(where, sample):
    """Appends it to what a run that is ended too early leaves: target/bench/samples.jsonl."""
    if directory := os.environ.get("BEAM_BENCH_RESULTS"):
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "samples.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps({"where": where, **sample}) + "\n")


def error_sample(place, row, error):
    text = str(error) if isinstance(error, DemoError) else f"{type(error).__name__}: {error}"
    return {"name": row.name, "offloads": place.offloads, "error": " ".join(text.split())[:ERROR_CHARS]}


def write_result(subject, report):
    """Leaves the report where scripts/bench makes the report of all subjects from."""
    directory = os.environ.get("BEAM_BENCH_RESULTS")
    if not directory:
        return
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, f"{subject}.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(report) + "\n")
