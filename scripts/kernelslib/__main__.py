"""Entry of scripts/kernels: flags, signals, and the one place that takes everything down."""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys

from demolib.rig import Stopped, on_signals, stop_on

from . import machine, matrix, page, report as reporting
from .common import Trouble, explained, say
from .packages import Packages
from .rig import Rig

# What CI runs: the newest kernel, one NIC, both ways into AF_XDP.
CI = {"kernel": ["newest"], "nic": ["virtio"], "mode": ["zero-copy", "copy"]}
# Not those that take longest (wide-area, wireguard), nor those that this NIC's one queue has no use for.
CI_CASES = ("ladder", "mtu", "fetch-v4", "fetch-v6", "vlan", "frames", "fragments", "pktgen", "link-flap", "kill", "term")
CI_LIMIT_S = 900
LIMIT_S = 3600


def several(known):
    """An argument that may be repeated and may hold several, with commas."""

    def parse(text):
        words = [word for word in text.split(",") if word]
        for word in words:
            if known and word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is not known; known: {', '.join(known)}")
        if not words:
            raise argparse.ArgumentTypeError("names nothing")
        return words

    return parse


def number(most):
    def parse(text):
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return parse


def parse(argv):
    flags = argparse.ArgumentParser(prog="scripts/kernels", allow_abbrev=False)
    for name, known in (("kernel", matrix.KERNELS), ("nic", matrix.NICS), ("mode", matrix.MODES), ("case", ())):
        flags.add_argument(f"--{name}", type=several(tuple(known)), action="extend", default=[])
    flags.add_argument("--limit", type=number(86400), metavar="S")
    flags.add_argument("--jobs", type=number(64), metavar="N", default=os.cpu_count() or 1)
    for name in ("save", "json", "list", "keep", "ci"):
        flags.add_argument(f"--{name}", action="store_true")
    flags.add_argument("--only-parse", action="store_true", help=argparse.SUPPRESS)
    parsed = flags.parse_args(argv)
    chosen = parsed.kernel + parsed.nic + parsed.mode + parsed.case
    if parsed.ci and (chosen or parsed.save):
        flags.error("--ci says itself what runs; leave out --kernel, --nic, --mode, --case and --save")
    if parsed.save and chosen:
        flags.error("--save keeps the whole matrix; leave out --kernel, --nic, --mode and --case")
    if parsed.ci:
        vars(parsed).update(CI, case=list(CI_CASES))
    parsed.limit = parsed.limit or (CI_LIMIT_S if parsed.ci else LIMIT_S)
    return parsed


def check_host(plans):
    if platform.machine() != "x86_64":
        raise Trouble(f"the guests run this machine's own binaries on emulated x86-64; this is {platform.machine()}")
    if os.geteuid() != 0 and any(plan.nic.queue_pairs > 1 for plan in plans):
        others = [name for name, nic in matrix.NICS.items() if nic.queue_pairs == 1]
        raise Trouble(
            "virtio-mq needs root, for taps in a network namespace of the run's own; "
            f"run: sudo -E scripts/kernels, or without it: scripts/kernels --nic {','.join(others)}"
        )


def known_cases(runner):
    """The cases' names: the first word of each line that the runner lists."""
    done = subprocess.run([runner, "--list"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(f"{runner} --list: exit {done.returncode}: {done.stderr.strip()}")
    return [line.split()[0] for line in done.stdout.splitlines() if line.split()]


def show_list(plans, known):
    for plan in plans:
        only = f" (cases: {', '.join(plan.nic.cases)})" if plan.nic.cases else ""
        print(f"{plan.kernel:8} {plan.nic.name:10} {', '.join(plan.modes)}{only}")
    print("cases:", *known)


def check_cases(wanted, known):
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise Trouble(f"no case is called {', '.join(unknown)}; known: {', '.join(known)}")


def limits(flags):
    """A test of the limits wants them short."""
    seconds = {}
    for name in ("boot", "silence"):
        variable = f"BEAM_KERNELS_{name.upper()}_S"
        text = os.environ.get(variable)
        if not text:
            continue
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text):
            raise Trouble(f"{variable} is {text!r}; it wants a number of seconds")
        seconds[name] = float(text)
    return machine.Limits(whole=flags.limit, **seconds)


def run(flags, plans, binaries):
    directory = os.path.join(os.environ["BEAM_TARGET"], "kernels")
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise Trouble(f"{directory} can't be made: {error.strerror}") from None
    packages = Packages(directory)
    rig = Rig(directory, packages, binaries, limits(flags), flags.case, flags.keep)
    try:
        # All downloads come first: where they can't be had, nothing boots.
        with packages:
            emulator = packages.emulator()
            for plan in plans:
                packages.kernel(plan.kernel)
        rig.prepare()
        outcomes = rig.run(plans, flags.jobs)
        host = reporting.host_facts(binaries["beam"], machine.qemu(emulator), page.REPOSITORY)
        return reporting.build(outcomes, host, some_cases=bool(flags.case) and not flags.ci)
    except OSError as error:
        raise Trouble(explained(error, directory)) from None
    finally:
        # A second Ctrl-C must not leave half of it behind.
        on_signals(signal.SIG_IGN)
        rig.close()


def main(argv):
    flags = parse(argv)
    try:
        plans = matrix.plan(flags.kernel, flags.nic, flags.mode)
        check_host(plans)
        limits(flags)
        if flags.only_parse:
            return 0
        on_signals(stop_on)
        binaries = {"beam": os.environ["BEAM_BIN"], "drivers": os.environ["BEAM_RIG_RUNNER"]}
        known = known_cases(binaries["drivers"]) if flags.list or flags.case or flags.save else []
        if flags.list:
            show_list(plans, known)
            return 0
        if flags.case:
            check_cases(flags.case, known)
        report = run(flags, plans, binaries)
    except Trouble as trouble:
        say(f"error: {trouble}")
        return 1
    except Stopped as stopped:
        say(f"{signal.Signals(stopped.number).name}: everything was taken down")
        return 128 + stopped.number
    print(json.dumps(report) if flags.json else reporting.table(report), flush=True)
    is_kept = keep_result(report, known) if flags.save else True
    return 0 if report["ok"] and is_kept else 1


def keep_result(report, known):
    """Saves a complete matrix; whether it was one."""
    if report["troubles"]:
        say("not saved: not every guest came to its end, so this is no complete matrix")
        return False
    if nowhere := reporting.passed_nowhere(report, known):
        say(f"not saved: of these cases, none passed on any guest: {', '.join(nowhere)}; the table says why")
        return False
    try:
        page.save(report)
    except OSError as error:
        say(f"not saved: {error}")
        return False
    say("kept as benches/results/kernels.json, and README.md's section made of it")
    return True


sys.exit(main(sys.argv[1:]))
