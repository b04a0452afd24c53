"""Entry of scripts/demo: flags, the order of the runs, signals, and the one place that takes everything down."""

import argparse
import json
import os
import signal
import sys

from . import report as reporting
from .job import Origin, demo_tunnel, measure
from .rig import DemoError, Loopback, Namespaces, guarded, run, say, without_report

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LARGE_BYTES = 1 << 30
SMALL_RUN_BYTES = 64 << 20


def run_count(text):
    if not text.isdigit() or not 1 <= int(text) <= 99:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 99")
    return int(text)


def parse(argv):
    flags = argparse.ArgumentParser(prog="scripts/demo", allow_abbrev=False)
    flags.add_argument("--json", action="store_true")
    flags.add_argument("--keep", action="store_true")
    flags.add_argument("--small", action="store_true")
    flags.add_argument("--runs", type=run_count, metavar="N")
    flags.add_argument("--xdp", choices=("auto", "native", "skb", "off"), default="native")
    flags.add_argument("--offloads", choices=("on", "off"), default="off")
    flags.add_argument("--only-parse", action="store_true", help=argparse.SUPPRESS)
    parsed = flags.parse_args(argv)
    parsed.runs = parsed.runs or (1 if parsed.small else 3)
    return parsed


def choose_place(flags):
    """The rig for root; loopback, said aloud, for anybody else or when asked for."""
    if flags.xdp == "off":
        say("on loopback with kernel UDP, for --xdp off was given")
        return Loopback(), [("xdp_off", "off"), ("plain_tcp", None)]
    if os.geteuid() != 0:
        say("on loopback with kernel UDP: network namespaces and XDP need root; for the rig run: sudo -E scripts/demo")
        return Loopback(), [("xdp_off", "off"), ("plain_tcp", None)]
    return Namespaces(flags.offloads), [("xdp", flags.xdp), ("xdp_off", "off"), ("plain_tcp", None)]


def run_all(flags, place, kinds, beam):
    large_bytes = SMALL_RUN_BYTES if flags.small else LARGE_BYTES
    host = reporting.host_facts(beam, REPOSITORY)
    if isinstance(place, Namespaces):
        say(f"namespaces {', '.join(place.names.values())}")
        place.build()
    host.update(place.facts())
    say(f"writing {large_bytes} random bytes for the origin to serve")
    origin = Origin(place, large_bytes)
    host["origin"] = origin.name
    samples = []
    # In turn, so that a noisy minute of the machine hits every kind.
    for index in range(flags.runs):
        for kind, xdp in kinds:
            say(f"run {index + 1} of {flags.runs}: {kind}")
            samples.append(measure(place, origin, beam, kind, xdp, with_hash=index == 0))
    return reporting.build(samples, large_bytes, place.kind, host)


def keep_up(place, kinds, beam):
    """Starts the first kind's tunnel again and waits for the signal that ends the demo."""
    demo_tunnel(place, beam, kinds[0][1])
    print(f"the rig stays up until Ctrl-C. Files: {place.directory}", file=sys.stderr)
    inside = " ".join(place.inside("client"))
    print(f"  {inside} curl -o /dev/null http://127.0.0.1:{place.forward_port}/large".lstrip(), file=sys.stderr)
    print(f"  {beam} status --control {place.path('gateway.sock')}", file=sys.stderr, flush=True)
    signal.pause()


def main(argv):
    flags = parse(argv)
    if flags.only_parse:
        return 0
    beam, reports = os.environ["BEAM_BIN"], []

    def work(hold):
        run(beam, "--version")
        place, kinds = choose_place(flags)
        hold(place)
        try:
            reports.append(run_all(flags, place, kinds, beam))
        except DemoError as error:
            say(f"error: {error}")
        if flags.keep:
            for report in reports:
                print(reporting.table(report), file=sys.stderr)
            keep_up(place, kinds, beam)

    left, stopped_by = guarded(work)
    if not reports:
        return without_report(left, stopped_by)
    report = reports[0]
    reporting.judge_leftovers(report, left)
    print(json.dumps(report) if flags.json else reporting.table(report), flush=True)
    return 0 if report["ok"] else 1


sys.exit(main(sys.argv[1:]))
