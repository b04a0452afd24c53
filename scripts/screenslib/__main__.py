"""Entry of scripts/screens: flags, the commands whose output is shown, and where it goes."""

import argparse
import os
import shlex
import signal
import sys
import time

from demolib.rig import guarded, run, say, without_report

from .blocks import MissingBlock, fenced, replaced
from .site import Site

README = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "README.md")
NAMES = ("doctor", "status", "top", "ping")
# The load is under way by then.
WARM_UP_S = 3


def parse(argv):
    flags = argparse.ArgumentParser(prog="scripts/screens", allow_abbrev=False)
    flags.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    flags.add_argument("--readme", action="store_true")
    flags.add_argument("--file", default=README)
    flags.add_argument("--keep", action="store_true")
    flags.add_argument("--only-parse", action="store_true", help=argparse.SUPPRESS)
    parsed = flags.parse_args(argv)
    if wrong := [name for name in parsed.names if name not in NAMES]:
        flags.error(f"no screen is called {wrong[0]!r}; there are {', '.join(NAMES)}")
    parsed.names = parsed.names or NAMES
    return parsed


def commands(site):
    """By name: where, the words of the command as they are shown, and what the environment says besides."""
    url = f"https://{site.gateway}"
    identity = (("BEAM_TOKEN_FILE", site.path("bob.token")), ("BEAM_PIN", site.pin))
    return {
        "doctor": ("gateway", ["doctor", "-i", "g0"], ()),
        "status": ("gateway", ["status"], ()),
        "top": ("gateway", ["top", "--once"], ()),
        "ping": ("client", ["ping", url, "-c", "4"], identity),
    }


def screens(site, names):
    for name in NAMES:
        if name in names:
            where, argv, environment = commands(site)[name]
            say(f"beam {shlex.join(argv)}")
            yield name, fenced(f"beam {shlex.join(argv)}", site.beam_says(where, argv, environment))


def into_file(path, made):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for name, block in made:
        text = replaced(text, name, block)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def keep_up(site):
    say("it all stays up until Ctrl-C; look at it yourself:")
    print(f"  {site.beam} top --control {site.control}", file=sys.stderr, flush=True)
    signal.pause()


def main(argv):
    flags = parse(argv)
    if flags.only_parse:
        return 0
    if os.geteuid() != 0:
        say("error: network namespaces and XDP need root; run: sudo -E scripts/screens")
        return 1
    made = []

    def work(hold):
        beam = os.environ["BEAM_BIN"]
        run(beam, "--version")
        site = Site(beam)
        hold(site)
        site.start()
        time.sleep(WARM_UP_S)
        made.extend(screens(site, flags.names))
        if flags.keep:
            keep_up(site)

    left, stopped_by = guarded(work)
    if len(made) < len(flags.names):
        return without_report(left, stopped_by)
    if flags.readme:
        try:
            into_file(flags.file, made)
        except MissingBlock as error:
            say(f"error: {flags.file}: {error}")
            return 1
    else:
        print("\n\n".join(block for _, block in made))
    if left:
        say(f"error: left behind: {', '.join(left)}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
