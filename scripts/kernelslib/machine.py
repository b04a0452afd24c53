"""One guest: QEMU under software emulation, watched, with a limit; nothing of it is left running."""

import os
import signal
import subprocess
import time

from .common import Trouble

# A guest that says nothing for so long hangs: every case has a limit of its own inside, well below.
SILENCE_S = 420
BOOT_S = 180


class Guest:
    """A running QEMU; its console and its results are files."""

    def __init__(self, emulator, run, kernel, initrd, nic, append, memory_mib=1536, namespace=None):
        self.console, self.results = os.path.join(run, "console"), os.path.join(run, "results")
        for path in (self.console, self.results):
            with open(path, "w", encoding="ascii"):
                pass
        libraries = [os.path.join(emulator, part) for part in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")]
        command = [
            os.path.join(emulator, "usr/bin/qemu-system-x86_64"),
            "-L", os.path.join(emulator, "usr/share/qemu"),
            "-L", os.path.join(emulator, "usr/share/seabios"),
            "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(memory_mib),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", kernel, "-initrd", initrd,
            # panic=-1 reboots at once, and -no-reboot turns that into an end.
            "-append", f"console=ttyS0 panic=-1 nokaslr mitigations=off {append}",
            "-serial", f"file:{self.console}", "-serial", f"file:{self.results}",
            *nic,
        ]
        if namespace:
            command = ["ip", "netns", "exec", namespace, *command]
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
        self.complaints = open(os.path.join(run, "qemu"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self.complaints, stderr=self.complaints,
            start_new_session=True,
        )
        self.started = time.monotonic()

    def wait(self, limit_s, on_result):
        """Until the guest has switched itself off; `on_result` gets each line of its results as it comes."""
        seen, heard, last, booted = 0, 0, self.started, False
        while True:
            ended = self.process.poll() is not None
            with open(self.results, "rb") as file:
                file.seek(seen)
                body = file.read()
            whole = body.rfind(b"\n") + 1
            for line in body[:whole].splitlines():
                on_result(line.decode(errors="replace"))
            seen += whole
            console = _text(self.console)
            now = time.monotonic()
            if (len(console), seen) != heard:
                heard, last = (len(console), seen), now
            booted = booted or "BEAM booted" in console
            if ended:
                break
            if "Kernel panic" in console:
                raise Trouble(f"the kernel panicked: {self.last_words(console)}")
            if not booted and now - self.started > BOOT_S:
                raise Trouble(f"the kernel did not boot within {BOOT_S} s; {self.last_words(console)}")
            if now - last > SILENCE_S:
                raise Trouble(f"the guest hangs: it said nothing for {SILENCE_S} s; {self.last_words(console)}")
            if now - self.started > limit_s:
                raise Trouble(f"the guest was not done within {limit_s:.0f} s (--limit); {self.last_words(console)}")
            time.sleep(0.2)
        if "BEAM done" not in console:
            self.complaints.seek(0)
            words = self.complaints.read().strip().replace("\n", " ") or self.last_words(console)
            raise Trouble(f"the guest ended early (QEMU's exit {self.process.returncode}): {words}")

    def last_words(self, console):
        lines = [line for line in console.splitlines() if line.strip()]
        return f"its console ends: {lines[-1].strip()}" if lines else "its console is empty"

    def close(self):
        """Ends QEMU, if it runs: by its own pid."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.complaints.close()


def _text(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
