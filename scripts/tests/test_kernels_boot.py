"""scripts/kernels with the real QEMU and a real kernel. Goal: whatever goes wrong with a guest, its user gets a message that
says so, soon, and nothing is left running. Method: the programs as they are, with a shell script in the place of the guest's
runner; processes, namespaces and files asked afterwards. Downloads what scripts/kernels --ci downloads, if it must."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SCRIPTS))
from kernelslib import machine, packages  # noqa: E402
from kernelslib.common import Trouble  # noqa: E402

TARGET = os.environ.get("CARGO_TARGET_DIR", str(SCRIPTS.parent / "target"))
KERNELS = os.path.join(TARGET, "kernels")
# Longer than anything that the rig itself waits for.
LIMIT_S = machine.Limits().boot + machine.Limits().silence + 60
GOOD = """printf '%s\\n' '{"facts":{"release":"'$(uname -r)'","driver":"stand-in","queues":1}}' > $BEAM_DRIVERS_RESULTS
for mode in zero-copy copy; do
    printf '%s\\n' '{"case":"nothing","mode":"'$mode'","result":"pass","seconds":0}' > $BEAM_DRIVERS_RESULTS
done
printf '%s\\n' '{"done":true,"passed":2,"failed":0,"skipped":0}' > $BEAM_DRIVERS_RESULTS
"""
IS_ROOT = os.geteuid() == 0


def downloaded():
    os.makedirs(KERNELS, exist_ok=True)
    with packages.Packages(KERNELS) as those:
        return those.emulator(), those.kernel("newest")


def qemus_of(pid):
    """The QEMUs whose files are that run's."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            words = pathlib.Path("/proc", entry, "cmdline").read_bytes() if entry.isdigit() else b""
        except OSError:
            continue
        if f"/run-{pid}/".encode() in words:
            found.append(int(entry))
    return found


class Whole(unittest.TestCase):
    """The whole of scripts/kernels but the builds."""

    def start(self, runner, *arguments, **environment):
        held = tempfile.TemporaryDirectory(prefix="beam-test-")
        self.addCleanup(held.cleanup)
        path = os.path.join(held.name, "drivers")
        pathlib.Path(path).write_text("#!/bin/sh\n" + runner)
        os.chmod(path, 0o755)
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "BEAM_TARGET": TARGET, "BEAM_BIN": "/bin/true",
                       "BEAM_RIG_RUNNER": path, **environment}  # fmt: skip
        command = [sys.executable, "-B", "-m", "kernelslib", "--kernel", "newest", "--mode", "zero-copy,copy", *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started = subprocess.Popen(command, env=environment, text=True, **pipes)
        self.addCleanup(self.nothing_is_left, started)
        return started

    def nothing_is_left(self, started):
        if started.poll() is None:
            started.terminate()
        started.communicate(timeout=60)
        self.assertEqual(qemus_of(started.pid), [])
        self.assertNotIn(f"run-{started.pid}", os.listdir(KERNELS))
        listed = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
        self.assertEqual([name for name in listed if name.startswith(f"beam-kernels-{started.pid}-")], [])

    def test_a_good_guest_is_reported(self):
        run = self.start(GOOD, "--nic", "virtio", "--json")
        out, err = run.communicate(timeout=LIMIT_S)
        self.assertEqual(run.returncode, 0, err)
        report = json.loads(out)
        self.assertTrue(report["ok"])
        self.assertEqual([(row["nic"], row["mode"], row["passed"]) for row in report["rows"]],
                         [("virtio", "zero-copy", 1), ("virtio", "copy", 1)])  # fmt: skip
        self.assertRegex(report["rows"][0]["release"], r"^\d+\.\d+.*amd64$")

    def test_two_scripts_of_pktgen_at_once(self):
        """The kernel's own pktgen: the second is turned away, and the first goes on. The lock doesn't outlive it."""
        runner = """
            # Nothing is drained where the other end is down, and pktgen waits for what the device holds.
            ip link set eth0 up; ip link set eth1 up
            send="bash /usr/share/pktgen/single-flow -i eth0 -d 198.18.0.1 -m 02:00:00:00:00:01 -w 1000000"
            $send -n 0 & first=$!
            until grep -q eth0@0 /proc/net/pktgen/kpktgend_0; do sleep 1; done
            $send -n 9; beside=$?
            kill $first; wait $first; ended=$?
            $send -n 09; after=$?
            $send -s 1515; too_large=$?
            grep '^Stopped:.*eth0@0' /proc/net/pktgen/kpktgend_0 && left=1
            echo "codes: $beside $ended $after $too_large left ${left:-0}"
            [ "$beside $ended $after $too_large ${left:-0}" = "4 0 0 4 0" ] || exit 1
        """
        run = self.start(runner + GOOD, "--nic", "virtio", "--limit", "300")
        out, err = run.communicate(timeout=LIMIT_S)
        log = pathlib.Path(KERNELS, "logs/newest-virtio.log")
        self.assertEqual(run.returncode, 0, out + err + (log.read_text(errors="replace") if log.exists() else ""))

    def test_a_guest_that_hangs(self):
        run = self.start("echo this much; exec sleep 1000", "--nic", "virtio", BEAM_KERNELS_SILENCE_S="20")
        out, err = run.communicate(timeout=LIMIT_S)
        self.assertEqual(run.returncode, 1)
        self.assertIn("the guest hangs: it said nothing for 20 s; its console ends: this much", err)
        self.assertIn("test result: FAILED. 0 passed; 1 failed; 0 skipped", out)
        log = os.path.join(KERNELS, "logs/newest-virtio.log")
        self.assertIn(f"console log: {log}", err)
        self.assertIn("BEAM booted", pathlib.Path(log).read_text(errors="replace"))

    def test_an_interrupt_of_several_guests(self):
        nics = "virtio,virtio-mq" if IS_ROOT else "virtio,igb"
        if not IS_ROOT:
            print("SKIPPED: needs root: taps in a namespace; two guests with a hub each were run", file=sys.stderr, flush=True)
        run = self.start("exec sleep 1000", "--nic", nics, "--jobs", "2")
        booting = 0
        for line in run.stderr:
            booting += ": booting" in line
            if booting == 2:
                break
        # The second is said to boot just before it does; QEMU being there or not, nothing of it may stay.
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
        self.assertEqual((run.returncode, out), (130, ""), err)
        self.assertIn("SIGINT: everything was taken down", err)


class Broken(unittest.TestCase):
    """QEMU itself, given what doesn't work."""

    @classmethod
    def setUpClass(cls):
        cls.emulator, kernel = downloaded()
        cls.vmlinuz = next(str(path) for path in pathlib.Path(kernel).rglob("vmlinuz*") if path.is_file())

    def trouble_of(self, kernel, nic=(), **limits):
        with tempfile.TemporaryDirectory(prefix="beam-test-") as directory:
            initrd = os.path.join(directory, "initrd")
            pathlib.Path(initrd).write_bytes(b"no archive")
            if isinstance(kernel, bytes):
                pathlib.Path(directory, "kernel").write_bytes(kernel)
                kernel = os.path.join(directory, "kernel")
            guest = machine.Guest(
                machine.qemu(self.emulator), directory, kernel, initrd, list(nic), print, machine.Limits(**limits)
            )
            try:
                while not guest.is_done():
                    # Its end, or the next look.
                    try:
                        guest.process.wait(0.1)
                    except subprocess.TimeoutExpired:
                        pass
            except Trouble as trouble:
                return str(trouble)
            finally:
                guest.close()
                self.assertIsNotNone(guest.process.returncode)
        return "none"

    def test_qemu_uses_nothing_of_this_machine(self):
        loader, *words = machine.qemu(self.emulator)
        listed = subprocess.run([loader, "--list", *words[:3]], capture_output=True, text=True, check=True).stdout
        # NAME => FILE (ADDRESS); the kernel's vdso has no file.
        libraries = [line.split()[-2] for line in listed.splitlines() if "/" in line]
        self.assertGreater(len(libraries), 20)
        self.assertEqual([path for path in libraries if not path.startswith(self.emulator)], [])

    def test_a_kernel_that_is_none(self):
        self.assertRegex(self.trouble_of(b"text" * 4096, boot=60), r"QEMU did not start a guest \(exit 1\): .*kernel")

    def test_a_kernel_that_breaks_off(self):
        with open(self.vmlinuz, "rb") as file:
            half = file.read(1 << 20)
        self.assertIn("the kernel did not boot: it reset the machine", self.trouble_of(half, boot=60))

    def test_a_kernel_that_is_not_there_in_time(self):
        self.assertIn("did not boot within 1 s; its console", self.trouble_of(self.vmlinuz, boot=1))

    def test_a_kernel_that_panics(self):
        self.assertIn("the kernel panicked: ", self.trouble_of(self.vmlinuz))

    def test_a_device_that_qemu_does_not_have(self):
        self.assertIn("'no-such-nic' is not a valid device", self.trouble_of(self.vmlinuz, ["-device", "no-such-nic"]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
