"""Runs a plan: makes each guest's files, boots some at a time, and collects what their runners report.

One thread looks at all guests in turn, so a signal finds everything in one place, and QEMU, which dies with the thread
that started it, dies exactly with this process.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time

from demolib.rig import stops_held_back

from . import image, machine, network
from .common import GUEST_ROOM_BYTES, Trouble, explained, lives, make_sure_of_room, say

LOOK_EVERY_S = 0.2
PKTGEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "pktgen")

JOB = """stty -F /dev/ttyS1 raw -echo
export BEAM_BIN=/usr/bin/beam BEAM_RIG_NICS=eth0,eth1 BEAM_RIG_SLOW=8 BEAM_DRIVERS_RESULTS=/dev/ttyS1 BEAM_RIG_BEST={best}
export BEAM_PKTGEN=/usr/share/pktgen{injector}
/usr/bin/drivers {flags}
echo "BEAM runner ended with $?"
"""


class Outcome:
    """What one guest reported, line by line, and why it went no further, if so."""

    def __init__(self, plan):
        self.plan = plan
        self.facts, self.cases = {}, []
        self.trouble = self.log = None
        self._done = None

    def take(self, line):
        try:
            said = json.loads(line)
            if "case" in said:
                self._take_case(said)
            elif "done" in said:
                self._done = said
            else:
                self.facts = said["facts"]
        except (ValueError, KeyError, TypeError):
            raise Trouble(f"the runner wrote something other than a result: {line[:200]}") from None

    def _take_case(self, said):
        if said["result"] not in ("pass", "fail", "skip"):
            raise Trouble(f"the runner knows a result {said['result']!r}; known here: pass, fail, skip")
        # How long an emulated guest took means nothing to anybody: it isn't kept.
        kept = {key: said[key] for key in ("case", "mode", "result", "why", "facts") if said.get(key)}
        if said.get("why"):
            # A panic's words stand on several lines; a table has one.
            kept["why"] = " ".join(said["why"].split())
        why = f": {kept['why']}" if said.get("why") else ""
        self.cases.append(kept)
        say(f"{self.plan.name} {said['mode']} {said['case']}: {said['result']}{why}")

    def judge(self):
        """Called when the guest ended well: did its runner, too, and did every line arrive?"""
        if self._done is None:
            raise Trouble("the guest ended, but its runner did not come to its end")
        counted = {word: sum(case["result"] == result for case in self.cases) for word, result in
                   (("passed", "pass"), ("failed", "fail"), ("skipped", "skip"))}  # fmt: skip
        told = {word: self._done.get(word) for word in counted}
        if counted != told:
            raise Trouble(f"the runner counted {told}, but {counted} arrived")

    @property
    def is_good(self):
        return not self.trouble and not any(case["result"] == "fail" for case in self.cases)


class Rig:
    """Everything that the guests share. `close` takes all of it away but the logs of what failed."""

    def __init__(self, directory, packages, binaries, limits, cases=(), keep=False):
        self.packages, self.limits, self.cases, self.keep = packages, limits, cases, keep
        self.logs = os.path.join(directory, "logs")
        self.directory = os.path.join(directory, f"run-{os.getpid()}")
        self.binaries, self.files, self.running = binaries, {}, []

    def prepare(self):
        """Removes what runs that were killed left, and makes what all guests share."""
        network.sweep()
        _sweep(os.path.dirname(self.directory))
        os.makedirs(self.logs, exist_ok=True)
        os.mkdir(self.directory)
        self.files = {f"usr/bin/{name}": self._stripped(name, path) for name, path in self.binaries.items()}
        self.files |= {f"usr/share/pktgen/{name}": os.path.join(PKTGEN, name) for name in os.listdir(PKTGEN)}

    def _stripped(self, name, path):
        """Debug information would only fill the guest's memory."""
        copy = os.path.join(self.directory, name)
        done = subprocess.run(["strip", "-o", copy, path], capture_output=True, text=True)
        if done.returncode:
            # A script, for one, can't be stripped.
            shutil.copy(path, copy)
        os.chmod(copy, 0o755)
        return copy

    def run(self, plans, jobs):
        """Every guest of the plan, `jobs` at a time; their outcomes in the plan's order."""
        outcomes = [Outcome(plan) for plan in plans]
        waiting = list(outcomes)
        while waiting or self.running:
            while waiting and len(self.running) < jobs:
                self._start(waiting.pop(0))
            for run in list(self.running):
                self._look(run)
            time.sleep(LOOK_EVERY_S)
        return outcomes

    def _start(self, outcome):
        run = Run(self, outcome)
        self.running.append(run)
        try:
            run.boot()
        except Trouble as trouble:
            self._end(run, str(trouble))
        except OSError as error:
            self._end(run, f"the guest's files could not be made: {explained(error, self.directory)}")

    def _look(self, run):
        try:
            if run.guest.is_done():
                run.outcome.judge()
                self._end(run)
        except Trouble as trouble:
            self._end(run, str(trouble))

    def _end(self, run, trouble=None):
        outcome = run.outcome
        outcome.trouble = trouble
        # The log first: closing removes where it lies.
        if outcome.is_good:
            self._forget(outcome.plan.name)
        else:
            outcome.log = self._save_log(run)
        if trouble:
            say(f"{outcome.plan.name}: error: {trouble}" + (f" (console log: {outcome.log})" if outcome.log else ""))
        self._take_down(run)

    def _save_log(self, run):
        """The path of the saved log; None, with a word about it, where it can't be saved."""
        path = os.path.join(self.logs, f"{run.outcome.plan.name}.log")
        try:
            return run.save_log(path)
        except OSError as error:
            say(f"{run.outcome.plan.name}: its console log could not be saved as {path}: {error.strerror or error}")
            return None

    def _take_down(self, run):
        """Whatever happens to this one, the others get their turn."""
        try:
            run.close()
        except OSError as error:
            say(f"{run.outcome.plan.name}: not all of it could be removed: {error}")
        # Only now: a signal during the above leaves it to `close`.
        self.running.remove(run)

    def _forget(self, name):
        """An old log beside a good run would mislead."""
        path = os.path.join(self.logs, f"{name}.log")
        if os.path.exists(path):
            os.unlink(path)

    def close(self):
        for run in list(self.running):
            # What ends early is worth a look, too.
            self._save_log(run)
            self._take_down(run)
        if self.keep and os.path.isdir(self.directory):
            self._keep()
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _keep(self):
        """Under another name: what is called run-* is removed by the next run."""
        kept = os.path.join(os.path.dirname(self.directory), f"kept-{os.getpid()}")
        while os.path.exists(kept):
            kept += "-again"
        try:
            os.rename(self.directory, kept)
            say(f"kept: {kept}")
        except OSError as error:
            say(f"kept: {self.directory}, until the next run removes it: it could not be renamed: {error}")


class Run:
    """One guest with its files and its wire."""

    def __init__(self, rig, outcome):
        self.rig, self.outcome = rig, outcome
        self.directory = os.path.join(rig.directory, outcome.plan.name)
        self.guest = self.bridge = None

    def boot(self):
        plan = self.outcome.plan
        make_sure_of_room(self.rig.directory, GUEST_ROOM_BYTES)
        emulator, kernel = self.rig.packages.emulator(), self.rig.packages.kernel(plan.kernel)
        root, initrd = os.path.join(self.directory, "root"), os.path.join(self.directory, "initrd")
        os.makedirs(root)
        injector = f" BEAM_RIG_INJECTOR={plan.nic.injector}" if plan.nic.injector else ""
        job = JOB.format(best=plan.best, flags=flags(plan, self.rig.cases), injector=injector)
        vmlinuz = image.build(root, emulator, kernel, plan.nic.driver, self.rig.files, job)
        image.pack(root, initrd)
        if not self.rig.keep:
            shutil.rmtree(root)
        namespace = None
        if plan.nic.queue_pairs > 1:
            self.bridge = network.Bridge(plan.name)
            namespace = self.bridge.namespace
            self.bridge.build()
        say(f"{plan.name}: booting; modes {', '.join(plan.modes)}")
        # A signal in between would leave a QEMU that nobody knows.
        with stops_held_back():
            self.guest = machine.Guest(
                machine.qemu(emulator), self.directory, vmlinuz, initrd, plan.nic.arguments(), self.outcome.take,
                self.rig.limits, namespace,
            )  # fmt: skip

    def save_log(self, path):
        """QEMU's own words and the console; None when there was no guest yet."""
        if not self.guest:
            return None
        with open(path, "wb") as log:
            for name in ("qemu", "console", "results"):
                with open(os.path.join(self.directory, name), "rb") as part:
                    log.write(f"=== {name}\n".encode())
                    shutil.copyfileobj(part, log)
        return path

    def close(self):
        # From the last to the first, each whatever happens to the others.
        with contextlib.ExitStack() as ends:
            if not self.rig.keep:
                ends.callback(shutil.rmtree, self.directory, ignore_errors=True)
            if self.bridge:
                ends.callback(self.bridge.close)
            if self.guest:
                ends.callback(self.guest.close)


def flags(plan, asked_for):
    """What the guest's runner is told: the plan's modes, and which cases if not all."""
    cases = asked_for or plan.nic.cases
    return f"--modes {','.join(plan.modes)}" + (f" --cases {','.join(cases)}" if cases else "")


def _sweep(directory):
    """Removes the files of runs that were killed: their names hold the pid."""
    for name in os.listdir(directory):
        if name.startswith("run-") and not lives(name.removeprefix("run-")):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
