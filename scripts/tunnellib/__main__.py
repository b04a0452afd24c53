"""Entry of scripts/bench tunnel: flags, the order of the runs, and what a row that can't be measured says."""

import argparse
import json
import os
import sys

from demolib import report as demo
from demolib.rig import guarded, reason, say, without_report

from . import load, tunnels
from . import report as reporting
from .runs import error_sample, measured_or_why, number, write_result
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
            samples.append(measured_or_why(place, row, flags, f"run {index + 1} of {flags.runs}"))


def run_state(flags, place, samples, host):
    """All runs with one state of the offloads. A place that fails is a failure of each row there."""
    try:
        run_all(flags, place, samples)
        host.update(place.facts())
    except Exception as error:
        say(f"offloads {place.offloads} FAILED: {reason(error)}")
        samples += [error_sample(place, row, error) for row in flags.rows]
    finally:
        place.close()


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
            run_state(flags, place, samples, host)
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
    """Saves the report of a quiet machine, rows that failed with their reasons; whether it was one."""
    # Not above: benchlib is made of this package.
    from benchlib import publish, results

    if why := reporting.why_not_kept(report, "goodput_gbps"):
        say(f"not saved: {why}")
        return False
    results.save("tunnel", report)
    publish.everything(results.KEPT, readme=True)
    say(f"kept as benches/results/tunnel.json{'' if report['ok'] else ', although not all checks hold'}, and the report made anew")
    return True


sys.exit(main(sys.argv[1:]))
