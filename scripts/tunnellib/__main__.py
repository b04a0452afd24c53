"""Entry of scripts/bench tunnel: flags, the order of the runs, and what a row that can't be measured says."""

import argparse
import json
import os
import sys

from demolib import report as demo
from demolib.rig import DemoError, guarded, say, without_report

from . import load, page, tunnels
from . import report as reporting
from .runs import error_sample, measure, number, write_result
from .site import Site

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QUICK = {"runs": 1, "time": 2, "probes": 100}
WHOLE = {"runs": 3, "time": 10, "probes": 1000}


def parse(argv):
    flags = argparse.ArgumentParser(prog="scripts/bench tunnel", allow_abbrev=False)
    flags.add_argument("--json", action="store_true")
    flags.add_argument("--save", action="store_true")
    flags.add_argument("--quick", action="store_true")
    flags.add_argument("--only", default="", metavar="TEXT[,TEXT]")
    flags.add_argument("--runs", type=number(99), metavar="N")
    flags.add_argument("--time", type=number(600), metavar="SECS")
    flags.add_argument("--offloads", choices=("on", "off", "both"))
    flags.add_argument("--needs", action="store_true", help=argparse.SUPPRESS)
    parsed = flags.parse_args(argv)
    defaults = QUICK if parsed.quick else WHOLE
    for name, value in defaults.items():
        setattr(parsed, name, getattr(parsed, name, None) or value)
    # What is kept shows both; one state takes half the time.
    parsed.offloads = parsed.offloads or ("both" if parsed.save else "off")
    parsed.states = ["off", "on"] if parsed.offloads == "both" else [parsed.offloads]
    parsed.rows = tunnels.chosen(parsed.only)
    if parsed.save and (parsed.quick or parsed.only or parsed.offloads != "both"):
        flags.error("--save keeps whole runs; leave out --quick, --only and --offloads")
    if not parsed.rows:
        flags.error(f"--only {parsed.only!r} names no row; there are: {', '.join(row.name for row in tunnels.ROWS)}")
    return parsed


def run_all(flags, place, samples):
    place.build()
    load.serve_echo(place)
    # In turn, so that a noisy minute of the machine hits every row.
    for index in range(flags.runs):
        for row in flags.rows:
            try:
                one = measure(place, row, flags)
                say(f"run {index + 1} of {flags.runs}: {row.name}: {one['goodput_gbps']:.2f} Gbit/s, P50 {one['p50_ms']:.3f} ms")
            except DemoError as error:
                one = error_sample(place, row, error)
                say(f"run {index + 1} of {flags.runs}: {row.name} FAILED: {error}")
            samples.append(one)


def main(argv):
    flags = parse(argv)
    needs = {need for row in flags.rows for need in row.needs}
    if os.geteuid() != 0:
        say("error: network namespaces and TUN devices need root; run: sudo -E scripts/bench tunnel")
        return 1
    if flags.needs:
        print("\n".join(sorted(needs)))
        return 0
    reports = []

    def work(hold):
        samples = []
        host = demo.host_facts(os.environ["BEAM_BIN"] if "beam" in needs else None, REPOSITORY)
        for offloads in flags.states:
            place = Site(offloads)
            hold(place)
            run_all(flags, place, samples)
            host.update(place.facts())
            place.close()
        versions = reporting.versions(flags.rows)
        host["veth_offloads"] = "as each row says (tx checksum, TSO, GSO, GRO)"
        reports.append(reporting.build(flags.rows, flags.states, samples, flags.runs, host, versions))

    left, stopped_by = guarded(work)
    if not reports:
        return without_report(left, stopped_by)
    report = reports[0]
    demo.judge_leftovers(report, left)
    write_result("tunnel", report)
    saved = keep(report) if flags.save else True
    print(json.dumps(report) if flags.json else reporting.table(report), flush=True)
    return 0 if report["ok"] and saved else 1


def keep(report):
    """Saves a faultless report of a quiet machine; whether it was one."""
    if not report["ok"] or not reporting.is_quiet(report):
        why = "the machine did other work meanwhile" if report["ok"] else "not all checks hold"
        say(f"not saved: {why}")
        return False
    page.save(report)
    say("kept as benches/results/tunnel.json, and README.md's table made of it")
    return True


sys.exit(main(sys.argv[1:]))
