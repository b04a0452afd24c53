"""scripts/demo itself, as its user runs it. Goal: the short run holds every check and reports exact counts, and neither
its end nor a Ctrl-C leaves anything on the machine. Method: the real command; namespaces, processes and files asked
afterwards. As root on the rig of namespaces, otherwise on loopback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LARGE_BYTES = 64 << 20
REQUEST_COUNT = 200
LIMIT_S = 1200


def start(directory, *flags):
    argv = [os.path.join(SCRIPTS, "demo"), *flags]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(argv, text=True, env={**os.environ, "TMPDIR": directory}, **pipes)


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def progress(demo, said):
    """Passes the demo's progress on as it comes, for it takes a while; returns at the first line with `said`."""
    for line in demo.stderr:
        print(line, end="", file=sys.stderr, flush=True)
        if said and said in line:
            return


class Demo(unittest.TestCase):
    def run_demo(self, *flags):
        """Starts the demo with a private place for its files; whatever happens then, nothing may be left of it."""
        directory = tempfile.TemporaryDirectory(prefix="beam-test-")
        self.addCleanup(directory.cleanup)
        demo = start(directory.name, *flags)
        self.addCleanup(self.nothing_is_left, demo, directory.name)
        return demo

    def nothing_is_left(self, demo, directory):
        if demo.poll() is None:
            demo.terminate()
        demo.communicate(timeout=60)
        self.assertEqual(os.listdir(directory), [])
        if shutil.which("ip"):
            listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
            # scripts/demo execs, so its pid is the one in the names.
            self.assertNotIn(f"beam-demo-{demo.pid}-", listed)

    def test_the_small_run_holds_every_check(self):
        demo = self.run_demo("--small", "--json")
        progress(demo, None)
        out = demo.stdout.read()
        code = demo.wait(LIMIT_S)
        report = json.loads(out)
        self.assertEqual([one for one in report["checks"] if not one["ok"]], [])
        self.assertEqual((code, report["schema"], report["ok"]), (0, "beam.demo.v1", True))
        on_rig = os.geteuid() == 0
        if not on_rig:
            print("SKIPPED: needs root: the demo's rig of namespaces; it ran on loopback", file=sys.stderr, flush=True)
        for kind in ("xdp_off", "plain_tcp") + (("xdp",) if on_rig else ()):
            seen = report if kind == "xdp" else report[kind]
            self.assertEqual((seen["bytes"], seen["sha256_ok"]), (LARGE_BYTES, True), kind)
            self.assertEqual((seen["requests_ok"], seen["requests"]), (REQUEST_COUNT, REQUEST_COUNT), kind)
            self.assertGreater(seen["goodput_gbps"], 0, kind)
            p50, p95, p99 = (seen["latency_ms"][p] for p in ("p50", "p95", "p99"))
            self.assertTrue(0 < p50 <= p95 <= p99, kind)
        self.assertEqual(report["xdp_off"]["xdp_mode"], "off")
        self.assertEqual(report["xdp_off"]["xsk_rx_frames"] + report["xdp_off"]["xsk_tx_frames"], 0)
        if on_rig:
            self.assertTrue(report["xdp_mode"].startswith("native"), report["xdp_mode"])
            # Two fetches (one is hashed) in frames of at most 1500 bytes.
            self.assertGreater(report["gateway"]["xsk_tx_frames"], 2 * LARGE_BYTES // 1500)
            self.assertGreater(report["client"]["xsk_rx_frames"], 2 * LARGE_BYTES // 1500)

    def test_an_interrupt_leaves_nothing(self):
        demo = self.run_demo("--small")
        progress(demo, ": fetching ")
        children = children_of(demo.pid)
        self.assertGreaterEqual(len(children), 3, "an origin, a gateway, a client")
        demo.send_signal(signal.SIGINT)
        progress(demo, None)
        self.assertEqual(demo.stdout.read(), "")
        self.assertEqual(demo.wait(60), 130)
        self.assertEqual([pid for pid in children if os.path.exists(f"/proc/{pid}")], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
