"""What all parts of the rig use: words for the operator, short commands, and the pids that leftovers are named by."""

import os
import subprocess
import sys
import time

STARTED = time.monotonic()


class Trouble(Exception):
    """What failed, what was seen, and what to do: one line for the operator."""


def say(text):
    print(f"kernels [{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


def run(*argv):
    """Runs a short command to its end and returns its output; its complaint becomes the error."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise Trouble(f"{argv[0]} is not here; run: scripts/setup --emulator") from None
    except subprocess.TimeoutExpired:
        raise Trouble(f"{' '.join(argv)}: did not end within 60 s") from None
    if done.returncode:
        raise Trouble(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def lives(pid):
    return os.path.exists(f"/proc/{pid}")
