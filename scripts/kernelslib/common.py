"""What all parts of the rig use: words for the operator."""

import sys
import time

STARTED = time.monotonic()


class Trouble(Exception):
    """What failed, what was seen, and what to do: one line for the operator."""


def say(text):
    print(f"kernels [{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)
