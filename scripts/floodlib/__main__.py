"""Entry of scripts/pktgen/steering and scripts/pktgen/collateral: flags, the run, and taking everything down."""

import argparse
import json
import os
import sys

from demolib import report as demo
from demolib.job import Origin
from demolib.rig import guarded, say, without_report

from . import collateral, steering
from .floods import FloodTunnel, Place

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QUICK = {"count": 2000, "rate": 20_000, "bytes": 16 << 20}
WHOLE = {"count": 200_000, "rate": 0, "bytes": 256 << 20}
# The collateral needs a rate to be stated; this one leaves two cores room for the tunnel.
COLLATERAL_RATE = 20_000


def parse(argv):
    flags = argparse.ArgumentParser(prog="scripts/pktgen", allow_abbrev=False)
    flags.add_argument("verb", choices=("steering", "collateral"))
    flags.add_argument("-j", "--json", action="store_true")
    flags.add_argument("--quick", action="store_true")
    flags.add_argument("--count", type=int)
    flags.add_argument("--rate", type=int)
    flags.add_argument("--only-parse", action="store_true", help=argparse.SUPPRESS)
    parsed = flags.parse_args(argv)
    defaults = QUICK if parsed.quick else WHOLE
    parsed.count = defaults["count"] if parsed.count is None else parsed.count
    rate = COLLATERAL_RATE if parsed.verb == "collateral" else defaults["rate"]
    parsed.rate = rate if parsed.rate is None else parsed.rate
    parsed.bytes = defaults["bytes"]
    least = 0 if parsed.verb == "steering" else 1
    if parsed.count < 1 or not least <= parsed.rate <= 100_000_000:
        flags.error(f"--count wants at least 1, --rate {least} to 100000000, not {parsed.count} and {parsed.rate}")
    return parsed


def run_all(flags, place, beam):
    host = demo.host_facts(beam, REPOSITORY)
    place.build()
    host.update(place.facts())
    delay_ns = round(1e9 / flags.rate) if flags.rate else 0
    report = {"schema": f"beam.{flags.verb}.v1", "ok": False, "host": host, "asked_packets_per_s": flags.rate or "no limit"}
    if flags.verb == "steering":
        rows = steering.measure(place, FloodTunnel(place, beam), flags.count, delay_ns)
        report["checks"] = list(steering.checks(rows))
    else:
        origin = Origin(place, flags.bytes)
        rows = collateral.measure(place, FloodTunnel(place, beam), origin, delay_ns)
        report["checks"], report["method"] = list(collateral.checks(rows, flags.bytes)), collateral.GOODPUT_METHOD
    return report | {"rows": rows}


def text(flags, report):
    verb = steering if flags.verb == "steering" else collateral
    lines = demo.aligned(list(verb.table(report["rows"]))) + [""]
    bad = [one for one in report["checks"] if not one["ok"]]
    lines += [*demo.verdicts(bad)] if bad else [f"all {len(report['checks'])} checks hold"]
    facts = ", ".join(f"{name} {value}" for name, value in report["host"].items())
    return "\n".join([*lines, *demo.paragraph("host", facts)])


def main(argv):
    flags = parse(argv)
    if flags.only_parse:
        return 0
    if os.geteuid() != 0:
        say(f"error: network namespaces and AF_XDP need root, and this is user {os.geteuid()}; run: sudo -E scripts/pktgen/{flags.verb}")
        return 4
    beam, reports = os.environ["BEAM_BIN"], []

    def work(hold):
        place = Place("off")
        hold(place)
        reports.append(run_all(flags, place, beam))

    left, stopped_by = guarded(work)
    if not reports:
        return without_report(left, stopped_by)
    report = reports[0]
    demo.judge_leftovers(report, left)
    print(json.dumps(report) if flags.json else text(flags, report), flush=True)
    return 0 if report["ok"] else 1


sys.exit(main(sys.argv[1:]))
