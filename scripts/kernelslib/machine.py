"""One guest: QEMU under software emulation, watched, with limits; nothing of it is left running.

QEMU comes with its own C library and loader (packages.py), so what this machine has installed doesn't matter. It dies with
this process: the kernel kills it, whatever killed us.
"""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass

from .common import Trouble
from .image import REFUSED

MEMORY_MIB = 1536


@dataclass(frozen=True)
class Limits:
    """All in seconds. Each case has a limit of its own inside the guest, well below the silence that means a hang."""

    # About 20 on a quiet machine; two cores with a load of 10 took over 100.
    boot: float = 300
    silence: float = 420
    whole: float = 3600


def qemu(emulator):
    """The command of the QEMU that lies unpacked in `emulator`."""
    libraries = [os.path.join(emulator, part) for part in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")]
    return [
        # Not the one in lib64, which is an absolute link: to this machine's own.
        os.path.join(libraries[0], "ld-linux-x86-64.so.2"), "--library-path", ":".join(libraries),
        os.path.join(emulator, "usr/bin/qemu-system-x86_64"),
        "-L", os.path.join(emulator, "usr/share/qemu"), "-L", os.path.join(emulator, "usr/share/seabios"),
    ]  # fmt: skip


def arguments(kernel, initrd, console, results, nic):
    return [
        # One CPU: with two, this QEMU crashes now and then while Linux patches its code.
        "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(MEMORY_MIB),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", kernel, "-initrd", initrd,
        # panic=-1 reboots at once, and -no-reboot turns that into an end. On a busy machine the emulated timer misses its
        # check, and 7.2 panics ("IO-APIC + timer doesn't work!").
        "-append", "console=ttyS0 panic=-1 nokaslr mitigations=off no_timer_check quiet",
        "-serial", f"file:{console}", "-serial", f"file:{results}",
        *nic,
    ]  # fmt: skip


class Tail:
    """A file that grows, read as it does."""

    def __init__(self, path):
        self.path, self.text = path, ""
        self._seen_bytes = 0
        with open(path, "wb"):
            pass

    def grew(self):
        """Reads on; whether there was something."""
        with open(self.path, "rb") as file:
            file.seek(self._seen_bytes)
            body = file.read()
        self._seen_bytes += len(body)
        self.text += body.decode(errors="replace")
        return bool(body)


class Guest:
    """A running QEMU. `command` is QEMU's, as qemu() gives it; `on_result` gets each line of the second serial port."""

    def __init__(self, command, directory, kernel, initrd, nic, on_result, limits=Limits(), namespace=None):
        self.console = Tail(os.path.join(directory, "console"))
        self._results = Tail(os.path.join(directory, "results"))
        self._on_result, self._limits = on_result, limits
        command = [*command, *arguments(kernel, initrd, self.console.path, self._results.path, nic)]
        if namespace:
            command = ["ip", "netns", "exec", namespace, *command]
        self._complaints = open(os.path.join(directory, "qemu"), "w+", encoding="utf-8", errors="replace")
        # All of these exec, so the pid stays QEMU's. A session of its own keeps a terminal's Ctrl-C away: we end it.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL, stdout=self._complaints, stderr=self._complaints, start_new_session=True,
        )  # fmt: skip
        self._started = self._heard = time.monotonic()
        self._booted = False

    def is_done(self):
        """Looks once at the guest: whether it has switched itself off in good order. Trouble when it never will."""
        # Asked first, so that what is read afterwards is all that there will be.
        ended = self.process.poll() is not None
        now = time.monotonic()
        # Both are read: no short cut.
        if self.console.grew() | self._results.grew():
            self._heard = now
        *whole, self._results.text = self._results.text.split("\n")
        for line in whole:
            if line.strip():
                self._on_result(line.strip())
        self._booted = self._booted or "BEAM booted" in self.console.text
        if "Kernel panic" in self.console.text:
            panic = next(line for line in self.console.text.splitlines() if "Kernel panic" in line)
            raise Trouble(f"the kernel panicked: {panic.strip()}")
        if refusal := re.search(rf"{re.escape(REFUSED)} (\S+)\s", self.console.text):
            before = self.console.text[: refusal.start()].splitlines()
            words = next((line.strip() for line in reversed(before) if line.strip()), "it said nothing")
            raise Trouble(f"the kernel refused its module {refusal[1]}: {words}")
        if ended:
            return self._ended_well()
        if not self._booted and now - self._started > self._limits.boot:
            raise Trouble(f"the kernel did not boot within {self._limits.boot:g} s; {self._last_words()}")
        if self._booted and now - self._heard > self._limits.silence:
            raise Trouble(f"the guest hangs: it said nothing for {self._limits.silence:g} s; {self._last_words()}")
        if now - self._started > self._limits.whole:
            raise Trouble(f"the guest was not done within {self._limits.whole:g} s (--limit); {self._last_words()}")
        return False

    def _ended_well(self):
        if "BEAM done" in self.console.text:
            return True
        code = self.process.returncode
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        if code == -signal.SIGKILL:
            how += f": something killed it; a guest needs {MEMORY_MIB} MiB of memory, did it run out? --jobs 1 needs least"
        self._complaints.seek(0)
        words = " ".join(self._complaints.read().split())
        if code == 0 and not words and not self._booted:
            # A triple fault, for one; -no-reboot makes an end of it.
            raise Trouble(f"the kernel did not boot: it reset the machine; {self._last_words()}")
        if not self._booted and not self.console.text.strip():
            raise Trouble(f"QEMU did not start a guest ({how}): {words or 'it said nothing'}")
        raise Trouble(f"QEMU ended before the guest was done ({how}): {words + '; ' if words else ''}{self._last_words()}")

    def _last_words(self):
        lines = [line.strip() for line in self.console.text.splitlines() if line.strip()]
        return f"its console ends: {lines[-1]}" if lines else "its console is empty"

    def close(self):
        """Ends QEMU, if it runs: by its own pid."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._complaints.close()
