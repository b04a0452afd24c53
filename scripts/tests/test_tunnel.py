"""The parsers and the judge of scripts/bench tunnel. Goal: what iperf3 and /proc/stat say is read to the digit, a failure is
never a figure, and each single defect turns the report over. Method: answers as the programs write them, a faultless set of
samples that is then broken in one place a test, the echo's two ends on loopback; arithmetic against counts by hand."""

import copy
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import types
import unittest
import unittest.mock as mock

SCRIPTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, SCRIPTS)
from demolib import report as demo  # noqa: E402
from demolib.rig import DemoError, Stopped  # noqa: E402
from tunnellib import echo, forwards, load, page, report, runs, tunnels  # noqa: E402

RUNS = 3
GIGABYTE = 1_000_000_000
STAT = """cpu  100 20 300 4000 50 6 70 8 0 0
cpu0 50 10 150 2000 25 3 35 4 0 0
cpu1 50 10 150 2000 25 3 35 4 0 0
intr 12345
softirq 999 1 2
"""


def iperf(received_bytes=GIGABYTE, seconds=4.0, **more):
    return json.dumps({"end": {
        "sum_sent": {"bytes": 2 * GIGABYTE, "seconds": 3.0, "retransmits": 17},
        "sum_received": {"bytes": received_bytes, "seconds": seconds},
    }, **more})  # fmt: skip


class Parsers(unittest.TestCase):
    def test_the_receivers_figures_count(self):
        seen = load.parse_iperf(iperf())
        self.assertEqual(seen, {"bytes": GIGABYTE, "seconds": 4.0, "retransmits": 17, "goodput_gbps": 2.0})

    def test_a_failed_iperf_is_an_error_and_no_figure(self):
        refused = json.dumps({"start": {}, "error": "unable to connect to server: Connection refused"})
        for out, said in (
            (refused, "Connection refused"), ("", "no result"), ("[]", "no result"), (iperf(0), "carried 0 bytes"),
            (iperf(seconds=0.0), "in 0.0 s"),
        ):  # fmt: skip
            with self.subTest(out[:20]), self.assertRaises(DemoError) as raised:
                load.parse_iperf(out)
            self.assertIn(said, str(raised.exception))

    def test_the_machines_seconds(self):
        # idle 4000, iowait 50 and steal 8 ticks are unused; softirq 70; hundred ticks a second.
        self.assertEqual(load.parse_stat(STAT, 100), {"unused_s": 40.58, "softirq_s": 0.7, "cores": 2})

    def test_versions_of_what_cargo_installed(self):
        with tempfile.TemporaryDirectory() as root:
            self.assertEqual(report.installed_crates(root), {})
            with open(os.path.join(root, ".crates.toml"), "w", encoding="utf-8") as file:
                file.write('[v1]\n"quincy-server 3.1.1 (registry+https://example.org/index)" = ["quincy-server"]\n')
            self.assertEqual(report.installed_crates(root), {"quincy-server": "3.1.1"})

    def test_the_rows_of_only(self):
        names = lambda only: [row.name for row in tunnels.chosen(only)]  # noqa: E731
        self.assertEqual(names(""), [row.name for row in tunnels.ROWS])
        self.assertEqual(names("none, -L"), ["none", "beam -L", "beam -L --xdp off", "ssh -L"])
        self.assertEqual(names("wireguard-go,"), ["wireguard-go"])
        self.assertEqual(names("beam9"), [])


    def test_what_ssh_negotiated(self):
        said = [
            "debug1: kex: algorithm: curve25519-sha256",
            "debug1: kex: client->server cipher: aes128-gcm@openssh.com MAC: <implicit> compression: none",
        ]
        self.assertEqual(forwards.ssh_cipher(said), "aes128-gcm")
        with self.assertRaises(DemoError):
            forwards.ssh_cipher(said[:1])

    def test_the_versions_of_our_own_comparators_are_those_of_their_crates(self):
        self.assertRegex(report.locked_crate("rustls"), r"^0\.\d+\.\d+$")
        self.assertEqual(report.locked_crate("no-such-crate"), "not in Cargo.lock")

    def test_a_daemons_children_are_its_own(self):
        argv = [sys.executable, "-c", "import subprocess as s; c = s.Popen(['sleep', '60']); print(c.pid, flush=True); c.wait()"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
            child = int(parent.stdout.readline())
            self.assertEqual(load.family([parent.pid]), [parent.pid, child])
            os.kill(child, 9)


class Echo(unittest.TestCase):
    def serve(self):
        server = echo.Server(("127.0.0.1", 0), echo.Echo)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    def free_port(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            return taken.getsockname()[1]

    def ask(self, port, count, limit_s):
        argv = ["ask", "127.0.0.1", str(port), str(count), str(limit_s)]
        return subprocess.run([sys.executable, "-B", load.ECHO, *argv], capture_output=True, text=True, timeout=60)

    def test_as_many_round_trips_as_asked_for(self):
        done = self.ask(self.serve(), 20, 10)
        times_ms = json.loads(done.stdout)
        self.assertEqual((done.returncode, len(times_ms)), (0, 20))
        self.assertTrue(all(one > 0 for one in times_ms))

    def test_it_waits_for_the_far_end(self):
        # Nobody listens there until the asking has begun.
        port = self.free_port()
        argv = [sys.executable, "-B", load.ECHO, "ask", "127.0.0.1", str(port), "5", "30"]
        asking = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        server = echo.Server(("127.0.0.1", port), echo.Echo)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        out, _ = asking.communicate(timeout=60)
        self.assertEqual((asking.returncode, len(json.loads(out))), (0, 5))

    def test_no_far_end_is_said(self):
        port = self.free_port()
        done = self.ask(port, 5, 0.2)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(f"no answer from 127.0.0.1:{port}", done.stderr)


class Failures(unittest.TestCase):
    """A row that fails, however it does, is a sample with its reason; a signal is none."""

    place = types.SimpleNamespace(offloads="off")
    row = types.SimpleNamespace(name="quincy")

    def measured(self, error):
        with mock.patch.object(runs, "measure", side_effect=error), mock.patch("sys.stderr", io.StringIO()) as said:
            return runs.measured_or_why(self.place, self.row, None, "run 1 of 3"), said.getvalue()

    def test_foreseen_or_not(self):
        for error, reason in ((DemoError("it\n ended"), "it ended"), (KeyError("end"), "KeyError: 'end'"), (subprocess.TimeoutExpired("ip", 60), "timed out")):
            one, said = self.measured(error)
            self.assertEqual((one["name"], one["offloads"]), ("quincy", "off"))
            self.assertIn(reason, one["error"])
            self.assertIn("run 1 of 3: quincy FAILED", said)
            self.assertEqual("Traceback" in said or "Error:" in said, not isinstance(error, DemoError))

    def test_each_is_noted_when_it_is_done(self):
        with tempfile.TemporaryDirectory() as directory, mock.patch.dict(os.environ, {"BEAM_BENCH_RESULTS": directory}):
            self.measured(DemoError("first"))
            self.measured(DemoError("second"))
            with open(os.path.join(directory, "samples.jsonl"), encoding="utf-8") as file:
                seen = [json.loads(line) for line in file]
        self.assertEqual([(one["where"], one["name"], one["error"]) for one in seen], [("run 1 of 3", "quincy", text) for text in ("first", "second")])

    def test_a_signal_ends_it_all(self):
        with self.assertRaises(Stopped):
            self.measured(Stopped(2))


class Samples(unittest.TestCase):
    row = types.SimpleNamespace(name="quincy", kind="l3", xdp=None)

    def sample(self, background_cpus):
        seen = {"bytes": 2 * GIGABYTE, "seconds": 4.0, "retransmits": 0, "goodput_gbps": 4.0}
        spent = {"wall_s": 4.0, "busy_s": 6.4, "softirq_s": 1.0, "daemons_s": 5.0}
        return report.sample(self.row, "off", [float(n) for n in range(1, 101)], seen, spent, background_cpus)

    def test_cost_is_a_gigabyte_and_without_the_background(self):
        one = self.sample(0.1)
        self.assertEqual((one["cpu_s_per_gb"], one["cpu_daemons_s_per_gb"], one["cpu_softirq_s_per_gb"]), (3.0, 2.5, 0.5))
        self.assertEqual((one["p50_ms"], one["p95_ms"], one["p99_ms"], one["probes"]), (50.0, 95.0, 99.0, 100))

    def test_a_busy_machine_gives_no_cost(self):
        self.assertIsNone(self.sample(1.5)["cpu_s_per_gb"])


def sample(row, goodput_gbps):
    side = {"xdp_mode": "off" if row.xdp == "off" else "native-copy", "conservation_holds": True, "drops": {}}
    out = {
        "name": row.name, "offloads": "off", "bytes": GIGABYTE, "seconds": 4.0, "retransmits": 2, "probes": 100,
        "goodput_gbps": goodput_gbps, "cpu_s_per_gb": 2.0, "cpu_daemons_s_per_gb": 1.0, "cpu_softirq_s_per_gb": 0.5,
        "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "background_cpus": 0.01, "exits": [0, 0],
        "facts": {"gateway": dict(side), "client": dict(side)} if row.xdp else {}, "notes": {},
    }  # fmt: skip
    if row.kind == "l3":
        out["device_bytes"] = GIGABYTE + 100 * len(echo.MESSAGE)
    return out


class Verdicts(unittest.TestCase):
    def setUp(self):
        self.samples = [sample(row, goodput) for goodput in (1.0, 9.0, 2.0) for row in tunnels.ROWS]

    def judged(self, samples, left=()):
        built = report.build(tunnels.ROWS, ["off"], samples, RUNS, {}, {})
        demo.judge_leftovers(built, list(left))
        self.assertTrue(report.table(built))
        json.dumps(built)
        return built

    def broken(self, name, change):
        samples = copy.deepcopy(self.samples)
        change(next(one for one in samples if one["name"] == name))
        built = self.judged(samples)
        return built, [one["check"] for one in built["checks"] if not one["ok"]]

    def test_a_faultless_run_is_ok(self):
        built = self.judged(self.samples)
        self.assertTrue(built["ok"])
        self.assertEqual([row["name"] for row in built["rows"]], [row.name for row in tunnels.ROWS])
        for row in built["rows"]:
            self.assertEqual((row["goodput_gbps"], row["goodput_gbps_min"], row["goodput_gbps_max"]), (2.0, 1.0, 9.0))
            self.assertEqual((row["offloads"], row["runs"], row["retransmits"], row["errors"]), ("off", RUNS, 6, []))
            self.assertIn(row["kind"], ("none", "l3", "tcp"))
        self.assertEqual((built["host"]["background_cpus"], report.is_quiet(built)), (0.01, True))

    def test_ratios_are_of_the_medians_at_layer_3(self):
        samples = copy.deepcopy(self.samples)
        for one in samples:
            if one["name"] == "beam --lan":
                one["goodput_gbps"] = 3.0
        ratios = self.judged(samples)["ratios"]
        self.assertEqual(ratios["beam --lan to quincy (off)"], 1.5)
        self.assertEqual(ratios["beam --tun to wireguard-go (off)"], 1.0)
        self.assertFalse([name for name in ratios if "-L" in name or "to beam" in name])

    def test_each_defect_is_named(self):
        side = lambda one: one["facts"]["client"]  # noqa: E731
        defects = (
            ("beam --tun (off): probes and stream went through the TUN device", lambda s: s.update(device_bytes=GIGABYTE)),
            ("quincy (off): probes and stream went through the TUN device", lambda s: s.update(device_bytes=0)),
            ("beam --lan (off): mode", lambda s: side(s).update(xdp_mode="off")),
            ("beam -L --xdp off (off): mode", lambda s: side(s).update(xdp_mode="native-copy")),
            ("beam -L (off): every frame accounted for", lambda s: side(s).update(conservation_holds=False)),
            ("beam --tun (off): daemons exit cleanly", lambda s: s.update(exits=[0, -9])),
        )
        for check, change in defects:
            with self.subTest(check):
                built, broken = self.broken(check.split(" (")[0], change)
                self.assertEqual((broken, built["ok"]), ([check], False))

    def test_a_row_that_failed_is_no_gap(self):
        samples = [one for one in copy.deepcopy(self.samples) if one["name"] != "quincy"]
        samples += [{"name": "quincy", "offloads": "off", "error": "quincy-server ended"}] * RUNS
        built = self.judged(samples)
        row = next(row for row in built["rows"] if row["name"] == "quincy")
        self.assertEqual((row["goodput_gbps"], row["p99_ms"], row["runs"]), (None, None, 0))
        self.assertEqual(row["errors"], ["quincy-server ended"] * RUNS)
        self.assertEqual([one["check"] for one in built["checks"] if not one["ok"]], ["quincy (off): runs"])
        self.assertNotIn("beam --tun to quincy (off)", built["ratios"])
        self.assertFalse(built["ok"])

    def test_one_failed_run_of_three_fails_the_row(self):
        built, broken = self.broken("none", lambda one: one.update(error="iperf3 -c: exit 1"))
        self.assertEqual(broken, ["none (off): runs"])
        self.assertEqual(built["rows"][0]["goodput_gbps_runs"], [9.0, 2.0])

    def test_what_is_left_behind_fails_the_run(self):
        self.assertFalse(self.judged(self.samples, left=["namespace beam-bench-1-client"])["ok"])

    def test_a_busy_machine_is_said(self):
        samples = [{**one, "background_cpus": 1.2, "cpu_s_per_gb": None} for one in self.samples]
        built = self.judged(samples)
        self.assertFalse(report.is_quiet(built))
        self.assertIn("these figures are no measurement", report.table(built))


class Page(unittest.TestCase):
    def test_the_table_has_every_row(self):
        samples = [sample(row, goodput) for goodput in (1.0, 9.0, 2.0) for row in tunnels.ROWS]
        versions = {"iperf3": "3.12", "quincy-client": "3.1.1", "quincy-server": "3.1.1", "wireguard-go": "0.0.1"}
        built = report.build(tunnels.ROWS, ["off"], samples, RUNS, {"cpu": "X", "cores": 2, "kernel": "6", "commit": "c"}, versions)
        lines = page.section(built).splitlines()
        self.assertEqual(len(lines), 4 + len(tunnels.ROWS))
        self.assertIn("| no tunnel | off | 2.00 (1.00 to 9.00) | 2.00 |  | 1.00 / 2.00 / 3.00 |", lines)
        self.assertIn("| `quincy` 3.1.1 | off | 2.00 (1.00 to 9.00) | 2.00 | 1.00 | 1.00 / 2.00 / 3.00 |", lines)
        self.assertIn("| `beam --lan` | off | 2.00 (1.00 to 9.00) | 2.00 | 1.00 | 1.00 / 2.00 / 3.00 |", lines)

    def test_a_row_that_failed_says_so(self):
        samples = [{"name": row.name, "offloads": "off", "error": "it ended"} if row.name == "quincy" else sample(row, 2.0) for row in tunnels.ROWS]
        next(one for one in samples if one["name"] == "beam -L")["cpu_s_per_gb"] = None
        built = report.build(tunnels.ROWS, ["off"], samples, 1, {"cpu": "X", "cores": 2, "kernel": "6", "commit": "c"}, {})
        lines = page.section(built).splitlines()
        self.assertIn("| `quincy` | off | failed |  |  |  |", lines)
        self.assertIn("| `beam -L` | off | 2.00 (2.00 to 2.00) | not known | 1.00 | 1.00 / 2.00 / 3.00 |", lines)

    def test_the_readme_is_made_of_the_saved_result(self):
        with open(os.path.join(os.path.dirname(SCRIPTS), "README.md"), encoding="utf-8") as file:
            readme = file.read()
        self.assertIn(f"{page.BEGIN}\n{page.section(page.saved())}\n<!-- end -->", readme)


if __name__ == "__main__":
    unittest.main()
