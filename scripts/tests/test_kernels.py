"""The rig of scripts/kernels without its downloads. Goal: what was asked for is what boots, what a guest reports is what is
told, and every way in which a guest can fail ends soon, with a message, and leaves nothing running. Method: pure parts
against cases by hand; the watching of guests against real processes, a shell script in the place of QEMU."""

import errno
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import unittest
from unittest import mock

SCRIPTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SCRIPTS))
from demolib.rig import Stopped  # noqa: E402
from kernelslib import common, image, machine, matrix, packages, page, report, rig  # noqa: E402
from kernelslib.common import Trouble  # noqa: E402

END_LIMIT_S = 20
# What stands in QEMU's place finds the two serial ports as QEMU does, and then does what a test says.
STAND_IN = """#!/bin/sh
for word in "$@"; do case $word in file:*/console) console=${word#file:} ;; file:*/results) results=${word#file:} ;; esac; done
"""
FACTS = '{"facts":{"release":"6.1.0-0-amd64","driver":"virtio_net","queues":1}}'
GOOD = f"""echo 'BEAM booted 6.1' >> $console
cat >> $results <<'END'
{FACTS}
{{"case":"fetch-v4","mode":"copy","result":"pass","seconds":1.5}}
{{"case":"vlan","mode":"copy","result":"skip","why":"no 8021q","seconds":0}}
{{"done":true,"passed":1,"failed":0,"skipped":1}}
END
echo 'BEAM done' >> $console
"""
HANGING = "echo 'BEAM booted 6.1' >> $console; exec sleep 1000"


def kernels(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-B", "-m", "kernelslib", "--only-parse", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


class Flags(unittest.TestCase):
    def test_wrong_ones_end_with_2_and_say_what_is_known(self):
        for arguments, needed in (
            (("--kernel", "5.10"), "known: 6.1, 6.12, newest"),
            (("--nic", "virtio,ixgbe"), "'ixgbe' is not known; known: virtio, virtio-mq, igb"),
            (("--mode", ","), "names nothing"),
            (("--jobs", "0"), "'0' is not a number from 1 to 64"),
            (("--limit", "soon"), "'soon' is not a number"),
            (("--save", "--case", "fetch-v4"), "--save keeps the whole matrix"),
            (("--ci", "--kernel", "6.1"), "--ci says itself what runs"),
            (("--save", "--nic", "virtio"), "--save keeps the whole matrix"),
            (("--yaml",), "unrecognized arguments: --yaml"),
        ):
            with self.subTest(arguments=arguments):
                done = kernels(*arguments)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(needed, done.stderr)

    def test_what_no_driver_has_is_said_before_anything_is_built(self):
        done = kernels("--kernel", "6.1,6.12", "--mode", "zero-copy")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no driver among all has zero-copy on 6.1, 6.12", done.stderr)

    def test_limits_in_the_environment_are_numbers(self):
        for text in ("soon", "-1", "nan", "1e3"):
            with mock.patch.dict(os.environ, BEAM_KERNELS_BOOT_S=text):
                done = kernels("--nic", "virtio")
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"error: BEAM_KERNELS_BOOT_S is '{text}'; it wants a number of seconds", done.stderr)

    def test_help_is_the_head_of_the_script(self):
        done = subprocess.run([SCRIPTS / "kernels", "--help"], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 0)
        self.assertIn("scripts/kernels --list", done.stdout)


class Plans(unittest.TestCase):
    def test_everything(self):
        guests = matrix.plan()
        self.assertEqual(len(guests), len(matrix.KERNELS) * len(matrix.NICS))
        self.assertEqual(len({guest.name for guest in guests}), len(guests))

    def test_modes_are_the_drivers_and_best_comes_first(self):
        modes = {guest.name: guest.modes for guest in matrix.plan()}
        for name, expected in {
            "newest-virtio": ("zero-copy", "copy", "generic", "off"),
            "6.12-virtio": ("copy", "generic", "off"),
            "6.1-igb": ("copy", "generic", "off"),
            "newest-igb": ("zero-copy", "copy", "generic", "off"),
            "6.1-vmxnet3": ("generic", "off"),
            "newest-vmxnet3": ("copy", "generic", "off"),
            "newest-e1000e": ("generic", "off"),
        }.items():
            self.assertEqual(modes[name], expected, name)

    def test_a_choice_leaves_the_best_mode_known(self):
        (guest,) = matrix.plan(["newest"], ["igb"], ["off"])
        self.assertEqual((guest.modes, guest.best), (("off",), "zero-copy"))

    def test_a_nic_with_cases_of_its_own_goes_through_these_unless_others_were_asked_for(self):
        (guest,) = matrix.plan(["6.1"], ["virtio-mq"], ["copy"])
        self.assertIn("queue-growth", guest.nic.cases)
        self.assertEqual(rig.flags(guest, ()), f"--modes copy --cases {','.join(guest.nic.cases)}")
        self.assertEqual(rig.flags(guest, ["term", "mtu"]), "--modes copy --cases term,mtu")
        (guest,) = matrix.plan(["6.1"], ["virtio"], ["copy"])
        self.assertEqual(rig.flags(guest, ()), "--modes copy")

    def test_several_queues_come_by_tap_and_the_rest_by_a_hub(self):
        words = " ".join(matrix.NICS["virtio-mq"].arguments())
        self.assertIn("ifname=tap1,script=no,downscript=no,queues=4", words)
        self.assertIn("mq=on,vectors=10", words)
        self.assertIn("hubport", " ".join(matrix.NICS["virtio"].arguments()))


class FakeApt(packages.Apt):
    """apt's answers by hand, by the last word of its command."""

    def __init__(self, answers):
        self.answers = answers

    def _run(self, program, *arguments, cwd=None):
        return self.answers[arguments[-1]]


class Packages(unittest.TestCase):
    def test_the_highest_version_is_one_of_numbers_not_of_text(self):
        apt = FakeApt({"^x$": "linux-image-6.1.0-9-amd64-unsigned - Linux\nlinux-image-6.1.0-56-amd64-unsigned - Linux\n"})
        self.assertEqual(apt.highest("x"), "linux-image-6.1.0-56-amd64-unsigned")

    def test_a_package_that_is_gone(self):
        with self.assertRaisesRegex(Trouble, "no package like x any more"):
            FakeApt({"^x$": ""}).highest("x")

    def test_the_newest_kernel_is_two_packages_or_one(self):
        split = {
            "linux-image-amd64": "linux-image-amd64\n  Depends: linux-image-7.2.13+deb14-amd64\n",
            "linux-image-7.2.13+deb14-amd64": "x\n  Depends: kmod\n  Depends: linux-binary-7.2.13+deb14-amd64\n"
            "  Depends: linux-modules-7.2.13+deb14-amd64\n",
        }
        self.assertEqual(
            FakeApt(split).newest_kernel(), ["linux-binary-7.2.13+deb14-amd64", "linux-modules-7.2.13+deb14-amd64"]
        )
        split["linux-image-7.2.13+deb14-amd64"] = "x\n  Depends: kmod\n"
        self.assertEqual(FakeApt(split).newest_kernel(), ["linux-image-7.2.13+deb14-amd64"])

    def test_no_room(self):
        free = types.SimpleNamespace(free=50 << 20)
        with tempfile.TemporaryDirectory() as directory, mock.patch("shutil.disk_usage", return_value=free):
            with packages.Packages(directory) as those:
                with self.assertRaisesRegex(Trouble, "50 MiB are free.*emulator needs 381 MiB"):
                    those.emulator()
            self.assertEqual(os.listdir(directory), ["lock"])

    def test_what_another_version_unpacked_is_fetched_again(self):
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory, "emulator")
            fetched = []

            class Fetching(packages.Packages):
                def _apt(self, suites):
                    fetched.append(suites[0])
                    return types.SimpleNamespace(download_with_libraries=lambda packages, suite: [])

            with Fetching(directory) as those:
                for marker in (None, "", "layout 1\nanother suite\n"):
                    if marker is not None:
                        (root / "complete").write_text(marker)
                        (root / "of-old").touch()
                    fetched.clear()
                    those.emulator()
                    self.assertEqual((fetched, os.listdir(root)), (["stable"], ["complete"]))
                    # And not a third time.
                    those.emulator()
                    self.assertEqual(fetched, ["stable"])

    def test_an_archive_that_is_none(self):
        with tempfile.TemporaryDirectory() as directory:
            archive = os.path.join(directory, "x.deb")
            pathlib.Path(archive).write_bytes(b"no archive")
            with self.assertRaisesRegex(Trouble, "dpkg-deb --fsys-tarfile x.deb: exit 2: dpkg-deb: error: .*; run it again"):
                packages._unpack_some(archive, directory, lambda name: True)

    def test_what_this_machine_lets_pass_unsigned_does_not_pass_here(self):
        """An apt.conf that allows everything, as some images have."""
        loose = {"Acquire::AllowInsecureRepositories": "true", "Acquire::AllowDowngradeToInsecureRepositories": "true",
                 "APT::Get::AllowUnauthenticated": "true", "Acquire::Check-Valid-Until": "false"}  # fmt: skip
        if not shutil.which("apt-config") or not os.path.exists(packages.KEYRING):
            self.skipTest("needs apt and Debian's keyring")
        with tempfile.TemporaryDirectory() as directory:
            config = pathlib.Path(directory, "apt.conf")
            config.write_text("".join(f'{name} "{value}";\n' for name, value in loose.items()))
            with mock.patch.object(packages.Apt, "_run"):
                apt = packages.Apt(directory, packages.UNSTABLE)
            with mock.patch.dict(os.environ, APT_CONFIG=str(config)):
                dump = apt._run("apt-config", "dump")
            for name, value in loose.items():
                self.assertIn(f'{name} "{"false" if value == "true" else "true"}";', dump)

    def test_of_a_kernel_only_what_guests_load_is_unpacked(self):
        for name, wanted in {
            "./boot/vmlinuz-6.1.0-56-amd64": True,
            "./usr/lib/modules/7.2.13/vmlinuz": True,
            "./lib/modules/6.1.0-56-amd64/kernel/drivers/net/ethernet/intel/igb/igb.ko": True,
            "./usr/lib/modules/7.2.13/kernel/net/core/pktgen.ko.xz": True,
            "./lib/modules/6.1.0-56-amd64/kernel/drivers/net/wireless/ath/ath.ko": False,
            "./lib/modules/6.1.0-56-amd64/kernel/drivers/gpu/drm/drm.ko": False,
            "./lib/modules/6.1.0-56-amd64/modules.builtin": True,
            "./lib/modules/6.1.0-56-amd64/modules.builtin.modinfo": False,
            "./boot/System.map-6.1.0-56-amd64": False,
        }.items():
            self.assertEqual(packages._is_wanted_of_a_kernel(name), wanted, name)


class Modules(unittest.TestCase):
    def test_what_a_module_needs_is_loaded_before_it(self):
        with tempfile.TemporaryDirectory() as directory:
            kernel, root = pathlib.Path(directory, "kernel"), os.path.join(directory, "root")
            kernel.mkdir()
            for name, needs in (("igb", "dca,i2c-algo-bit"), ("dca", ""), ("i2c-algo-bit", ""), ("pktgen", ""), ("gpu", "")):
                (kernel / f"{name}.ko").write_bytes(b"\x7fELF\0depends=" + needs.encode() + b"\0")
            (kernel / "modules.builtin").write_text("kernel/drivers/virtio/virtio-pci.ko\nkernel/net/veth.ko\n")
            image._modules(root, str(kernel), ["virtio_pci", "igb", "pktgen", "veth"])
            order = pathlib.Path(root, "modules/list").read_text().split()
            self.assertEqual(order, ["dca", "i2c_algo_bit", "igb", "pktgen"])
            self.assertEqual(sorted(os.listdir(f"{root}/modules")), sorted(["list", *(f"{name}.ko" for name in order)]))

    def made(self, wanted, kernel_name="linux-x", **files):
        with tempfile.TemporaryDirectory() as directory:
            kernel, root = pathlib.Path(directory, kernel_name), os.path.join(directory, "root")
            (kernel / "lib/modules").mkdir(parents=True)
            for name, body in files.items():
                (kernel / "lib/modules" / name.replace("__", ".")).write_bytes(body)
            image._modules(root, str(kernel), wanted)
            return pathlib.Path(root, "modules/list").read_text().split()

    def test_a_module_that_is_not_there(self):
        igb = b"\x7fELF\0depends=dca\0"
        with self.assertRaisesRegex(Trouble, "linux-x has no module dca, which igb needs"):
            self.made(["igb"], igb__ko=igb)
        with self.assertRaisesRegex(Trouble, "linux-x has no module veth, which the guest needs"):
            self.made(["veth"], modules__builtin=b"kernel/net/8021q.ko\n")
        # What Debian left out of 6.1 is missed in every other kernel.
        self.assertEqual(self.made(["xsk_diag"], "linux-6.1"), [])
        with self.assertRaisesRegex(Trouble, "linux-6.12 has no module xsk_diag"):
            self.made(["xsk_diag"], "linux-6.12")
        # Where a package doesn't say what is built in, only what is known to be counts.
        self.assertEqual(self.made(["virtio_pci"]), [])
        with self.assertRaisesRegex(Trouble, "no module virtio_pci"):
            self.made(["virtio_pci"], modules__builtin=b"kernel/net/8021q.ko\n")

    def test_a_module_that_is_damaged(self):
        with self.assertRaisesRegex(Trouble, "veth.ko.xz can't be decompressed: .*; remove .*/linux-x, and"):
            self.made(["veth"], veth__ko__xz=b"no archive")


def until_done(look):
    deadline = time.monotonic() + END_LIMIT_S
    while time.monotonic() < deadline:
        try:
            if look():
                return "done"
        except Trouble as trouble:
            return str(trouble)
        # There is no event for a file that grew; this is how the rig looks, too.
        time.sleep(0.01)
    return f"neither done nor in trouble after {END_LIMIT_S} s"


class InADirectory(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory(prefix="beam-test-")
        self.addCleanup(held.cleanup)
        self.directory = held.name

    def stand_in(self, behaviour, name="stand-in"):
        path = os.path.join(self.directory, name)
        pathlib.Path(path).write_text(STAND_IN + behaviour)
        os.chmod(path, 0o755)
        return path


class Guests(InADirectory):
    """Real processes, each with one defect."""

    def end_of(self, behaviour, **limits):
        lines = []
        guest = machine.Guest(
            [self.stand_in(behaviour)], self.directory, "vmlinuz", "initrd", [], lines.append, machine.Limits(**limits)
        )
        self.addCleanup(lambda: self.assertIsNotNone(guest.process.returncode, "it still runs"))
        self.addCleanup(guest.close)
        return until_done(guest.is_done), lines

    def test_one_that_ends_well(self):
        verdict, lines = self.end_of(GOOD)
        self.assertEqual((verdict, len(lines)), ("done", 4))

    def test_each_defect_is_named(self):
        for behaviour, limits, needed in (
            ("echo 'no such device' >&2; exit 1", {}, r"QEMU did not start a guest \(exit 1\): no such device"),
            ("exit 2", {}, r"QEMU did not start a guest \(exit 2\): it said nothing"),
            ("exit 0", {}, "the kernel did not boot: it reset the machine; its console is empty"),
            ("exec sleep 1000", {"boot": 0.2}, "did not boot within 0.2 s; its console is empty"),
            ("echo early > $console; exec sleep 1000", {"boot": 1}, "did not boot within 1 s; its console ends: early"),
            (HANGING, {"silence": 1}, "hangs: it said nothing for 1 s; its console ends: BEAM booted 6.1"),
            ("echo 'BEAM booted' >> $console; while :; do echo x >> $results; done", {"whole": 0.5},
             r"not done within 0.5 s \(--limit\)"),
            ("echo 'Kernel panic - not syncing: VFS' > $console; exec sleep 1000", {},
             "panicked: Kernel panic - not syncing: VFS"),
            ("echo \"insmod: can't insert '/modules/veth.ko': invalid module format\" > $console; "
             f"echo '{image.REFUSED} veth' >> $console; exec sleep 1000", {},
             "refused its module veth: insmod: can't insert '/modules/veth.ko': invalid module format"),
            ("echo 'BEAM booted' > $console; exit 0", {},
             r"before the guest was done \(exit 0\): its console ends: BEAM booted"),
            ("echo 'BEAM booted' > $console; kill -KILL $$", {}, r"\(signal 9: something killed it; .*memory"),
        ):  # fmt: skip
            with self.subTest(needed):
                self.assertRegex(self.end_of(behaviour, **limits)[0], needed)

    def test_it_dies_with_us_even_by_kill_9(self):
        program = f"""if True:
            import time
            from kernelslib import machine
            guest = machine.Guest([{self.stand_in(HANGING)!r}], {self.directory!r}, "vmlinuz", "initrd", [], print)
            while "booted" not in guest.console.text:
                guest.is_done()
            print(guest.process.pid, flush=True)
            time.sleep(1000)
        """
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
        parent = subprocess.Popen([sys.executable, "-B", "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(parent.stdout.close)
        pid = int(parent.stdout.readline())
        handle = os.pidfd_open(pid)
        self.addCleanup(os.close, handle)
        parent.kill()
        parent.wait()
        self.assertTrue(select.select([handle], [], [], END_LIMIT_S)[0], f"process {pid} still runs")


class Rigs(InADirectory):
    """The whole way of several guests, a stand-in in the place of each QEMU."""

    def setUp(self):
        super().setUp()
        for patch in (
            mock.patch.object(image, "build", return_value="vmlinuz"),
            mock.patch.object(image, "pack"),
            mock.patch.object(machine, "qemu", side_effect=lambda emulator: [self.programs.pop(0)]),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def run_rig(self, *behaviours, each_look=None, keep=False):
        self.programs = [self.stand_in(behaviour, f"stand-in-{number}") for number, behaviour in enumerate(behaviours)]
        those = types.SimpleNamespace(emulator=lambda: "emulator", kernel=lambda name: "kernel")
        plans = [plan for plan in matrix.plan(["6.1"], [], ["copy", "generic"]) if plan.nic.queue_pairs == 1]
        one = rig.Rig(self.directory, those, {"beam": "/bin/true", "drivers": "/bin/true"}, machine.Limits(), keep=keep)
        processes = []

        def look(run, original=one._look):
            if run.guest.process not in processes:
                processes.append(run.guest.process)
            if each_look:
                each_look(run)
            original(run)

        one._look = look
        try:
            one.prepare()
            return one.run(plans[: len(behaviours)], jobs=2)
        finally:
            one.close()
            self.assertEqual([process.pid for process in processes if process.returncode is None], [])
            self.assertNotIn(f"run-{os.getpid()}", os.listdir(self.directory))

    def test_a_good_run(self):
        (outcome,) = self.run_rig(GOOD)
        self.assertIsNone(outcome.trouble)
        self.assertTrue(outcome.is_good)
        self.assertEqual([case["result"] for case in outcome.cases], ["pass", "skip"])
        self.assertEqual(os.listdir(f"{self.directory}/logs"), [])

    def test_one_of_two_is_killed_and_the_other_goes_on(self):
        # The second waits at a pipe until the first is gone: so both run at once, however slow this machine is.
        gate = os.path.join(self.directory, "gate")
        os.mkfifo(gate)

        def kill_first(run):
            if run.outcome.plan.nic.name == "virtio" and run.guest._booted:
                run.guest.process.kill()
                run.guest.process.wait()
                with open(gate, "w", encoding="ascii"):
                    pass

        killed, good = self.run_rig(HANGING, f"cat {gate}\n{GOOD}", each_look=kill_first)
        self.assertRegex(killed.trouble, "signal 9")
        self.assertIn("BEAM booted", pathlib.Path(killed.log).read_text())
        self.assertTrue(good.is_good, good.trouble)

    def test_what_runners_do_wrong(self):
        for change, needed in (
            (('passed":1', 'passed":2'), "the runner counted .*'passed': 2.* arrived"),
            ((FACTS, "Segmentation fault"), "something other than a result: Segmentation fault"),
            (('"done":true,', '"facts":{},'), "did not come to its end"),
            (('"pass"', '"maybe"'), "a result 'maybe'"),
        ):
            with self.subTest(needed):
                (outcome,) = self.run_rig(GOOD.replace(*change))
                self.assertRegex(outcome.trouble, needed)

    def test_a_signal_takes_everything_down(self):
        def stop(_run):
            raise Stopped(signal.SIGINT)

        with self.assertRaises(Stopped):
            self.run_rig(HANGING, HANGING, each_look=stop)

    def test_what_a_killed_run_left_is_swept(self):
        ended = subprocess.Popen(["true"])
        ended.wait()
        os.mkdir(f"{self.directory}/run-{ended.pid}")
        self.run_rig(GOOD)
        self.assertNotIn(f"run-{ended.pid}", os.listdir(self.directory))

    def test_what_is_kept_is_not_swept(self):
        kept = f"{self.directory}/kept-{os.getpid()}"
        for path in (kept, f"{kept}-again"):
            self.run_rig(GOOD, keep=True)
            self.assertIn("BEAM booted", pathlib.Path(path, "6.1-virtio/console").read_text())

    def test_a_full_disk_keeps_nobody_from_being_taken_down(self):
        """/dev/full is one."""
        os.mkdir(f"{self.directory}/logs")
        os.symlink("/dev/full", f"{self.directory}/logs/6.1-virtio.log")

        def stop(run):
            if all(os.path.exists(f"{self.directory}/run-{os.getpid()}/6.1-{nic}/console") for nic in ("virtio", "igb")):
                raise Stopped(signal.SIGINT)

        with self.assertRaises(Stopped), mock.patch.object(rig, "say") as say:
            self.run_rig(HANGING, HANGING, each_look=stop)
        said = [call.args[0] for call in say.call_args_list]
        (complaint,) = [line for line in said if "could not be saved" in line]
        self.assertRegex(complaint, "^6.1-virtio: its console log could not be saved as .*: No space left on device$")
        self.assertTrue(os.path.exists(f"{self.directory}/logs/6.1-igb.log"))
        # The same where a guest ends by itself: its trouble is told, without a log.
        (outcome,) = self.run_rig("exit 2")
        self.assertRegex(outcome.trouble, "QEMU did not start a guest")
        self.assertIsNone(outcome.log)

    def test_a_disk_that_is_full_when_a_guest_is_made(self):
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mock.patch.object(image, "build", side_effect=full):
            (outcome,) = self.run_rig(GOOD)
        self.assertRegex(outcome.trouble, "could not be made: too little room: .*each guest at once 114")
        with mock.patch.object(common, "GUEST_ROOM_BYTES", 1 << 60), mock.patch.object(rig, "GUEST_ROOM_BYTES", 1 << 60):
            (outcome,) = self.run_rig(GOOD)
        self.assertRegex(outcome.trouble, "^too little room: ")


def outcome_of(kernel, nic, *cases, trouble=None):
    (plan,) = matrix.plan([kernel], [nic], ["copy", "generic"])
    made = rig.Outcome(plan)
    made.facts = {"release": f"{kernel}.0-amd64", "driver": plan.nic.driver, "queues": 1}
    made.cases = [{"case": case, "mode": mode, "result": result} for case, mode, result in cases]
    made.trouble = trouble
    return made


BOTH = (("fetch-v4", "copy", "pass"), ("fetch-v6", "copy", "pass"), ("fetch-v4", "generic", "pass"))
HOST = {"qemu": "10.0.2", "commit": "0123456789ab", "date": "2026-01-01"}


class Reports(unittest.TestCase):
    def test_rows(self):
        built = report.build([outcome_of("6.1", "igb", *BOTH), outcome_of("6.12", "igb", *BOTH)], HOST)
        self.assertTrue(built["ok"])
        self.assertEqual([(row["kernel"], row["mode"], row["passed"]) for row in built["rows"]],
                         [("6.1", "copy", 2), ("6.1", "generic", 1), ("6.12", "copy", 2), ("6.12", "generic", 1)])  # fmt: skip
        self.assertEqual(built["rows"][0]["cases"]["fetch-v6"], {"result": "pass"})
        self.assertIn("test result: ok. 6 passed; 0 failed; 0 skipped", report.table(built))
        self.assertEqual(json.loads(json.dumps(built)), built)

    def test_each_defect_turns_it_over(self):
        for bad in (
            outcome_of("6.1", "igb", *BOTH[:2], ("fetch-v4", "generic", "fail")),
            outcome_of("6.1", "igb", *BOTH, trouble="the guest hangs"),
            # A planned mode of which nothing was heard.
            outcome_of("6.1", "igb", *BOTH[:2]),
        ):
            built = report.build([outcome_of("6.12", "igb", *BOTH), bad], HOST)
            self.assertFalse(built["ok"])
            self.assertIn("test result: FAILED", report.table(built))
        self.assertFalse(report.build([], HOST)["ok"])

    def test_a_mode_without_cases_is_no_defect_where_only_some_cases_were_asked_for(self):
        built = report.build([outcome_of("6.1", "igb", *BOTH[:2])], HOST, some_cases=True)
        self.assertEqual((built["ok"], [row["mode"] for row in built["rows"]]), (True, ["copy"]))

    def test_a_matrix_in_which_a_case_passed_nowhere_is_not_saved(self):
        known = ["fetch-v4", "fetch-v6", "hand-over", "term", "wireguard"]
        outcomes = [outcome_of("6.1", "igb", *BOTH, ("hand-over", "copy", "skip"), ("term", "copy", "fail"))]
        built = report.build(outcomes, HOST)
        self.assertEqual(report.passed_nowhere(built, known), ["hand-over", "term", "wireguard"])
        # It is enough that it passed somewhere.
        outcomes.append(outcome_of("6.12", "virtio-mq", *BOTH, ("hand-over", "copy", "pass")))
        self.assertEqual(report.passed_nowhere(report.build(outcomes, HOST), known), ["term", "wireguard"])


class Page(unittest.TestCase):
    def test_the_readme_says_what_the_saved_result_says(self):
        readme = pathlib.Path(page.README).read_text(encoding="utf-8")
        self.assertEqual(readme, page.put(readme, page.section(page.saved())))

    def test_a_section(self):
        bad = outcome_of("6.12", "igb", *BOTH[:2], ("fetch-v4", "generic", "fail"))
        text = page.section(report.build([outcome_of("6.1", "igb", *BOTH), bad], HOST))
        self.assertIn("| 6.1.0-amd64 | igb | the driver has none | 2 of 2 | 1 of 1 | the driver has none |", text)
        self.assertIn("| fetch |", text)
        self.assertIn("- 6.12.0-amd64, igb, generic: `fetch-v4`: no reason given", text)

    def test_a_readme_without_the_marks(self):
        with self.assertRaisesRegex(ValueError, "has no <!-- kernels"):
            page.put("# beam\n", "text")


if __name__ == "__main__":
    unittest.main()
