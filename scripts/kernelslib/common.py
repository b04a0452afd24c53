"""What all parts of the rig use: words for the operator, short commands, and the pids that leftovers are named by."""

import errno
import os
import shutil
import subprocess
import sys
import time

STARTED = time.monotonic()
# The lists of packages, the archives, and what is unpacked of them, rounded up.
EMULATOR_ROOM_BYTES = 400_000_000
KERNEL_ROOM_BYTES = 400_000_000
# A guest's tree of files and the initramfs of it, about 40 MB each, and its console.
GUEST_ROOM_BYTES = 120_000_000


class Trouble(Exception):
    """What failed, what was seen, and what to do: one line for the operator."""


def say(text):
    try:
        print(f"kernels [{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)
    except OSError:
        # A message that can't be written must not keep a guest from being taken down.
        pass


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


def make_sure_of_room(directory, needed_bytes):
    if shutil.disk_usage(directory).free < needed_bytes:
        raise Trouble(no_room(directory))


def no_room(directory):
    """The words for a full disk: what is free, what is needed, what to do."""
    return (
        f"too little room: {shutil.disk_usage(directory).free >> 20} MiB are free in {directory}; "
        f"the emulator needs {EMULATOR_ROOM_BYTES >> 20} MiB, each kernel {KERNEL_ROOM_BYTES >> 20}, each guest at once "
        f"{GUEST_ROOM_BYTES >> 20}; make room, run fewer guests (--jobs 1), or set CARGO_TARGET_DIR to a larger disk"
    )


def explained(error, directory):
    """What an OSError means for the operator."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return no_room(directory) if is_full else f"{error}; may {directory} be written?"


def says_full(complaint):
    """Whether another program's complaint is about a full disk."""
    return any(os.strerror(code) in complaint for code in (errno.ENOSPC, errno.EDQUOT))
