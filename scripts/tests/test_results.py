"""The results of scripts/bench and the report made of them. Goal: every kept result has its shape, percent and verdicts are right to
the digit, a sentence about a difference is printed only while it is true, nothing of a result becomes markup, what is missing is
said, and README.md is made of what is kept. Method: the kept JSON itself; small results made here; arithmetic by hand."""

import contextlib
import copy
import html.parser
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import types
import unittest
import unittest.mock as mock
import xml.etree.ElementTree as xml

SCRIPTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, SCRIPTS)
from benchlib import ablation, content, handshakes, middle, promises, publish, results, rigging, scale, svg, targets, why, wide  # noqa: E402
from benchlib.rigging import REPOSITORY  # noqa: E402
from demolib import report as demo  # noqa: E402
from demolib.rig import DemoError, Stopped  # noqa: E402
from tunnellib import report as tunnel_report  # noqa: E402

HOST = {"cpu": "Some CPU", "cores": 2, "kernel": "6.18", "commit": "abc", "background_cpus": 0.01, "background_cpus_max": 0.02}
HOSTILE = "<script>alert('x')</script>|`[a](b)\" & \\"


def arm(name, group="one flow", **more):
    out = {
        "name": name, "group": group, "goodput_gbps": 2.0, "p50_ms": 0.2, "p95_ms": 0.4, "p99_ms": 0.8, "cpu_daemons_s_per_gb": 3.0,
        "busy_cpus": 1.9, "p50_ms_runs": [0.1, 0.2, 0.3], "goodput_gbps_runs": [1.0, 2.0, 3.0],
    }  # fmt: skip
    return {**out, **more}


def ablation_report(text="why"):
    row = {
        "optimisation": text, "off": "without", "on": "with", "promised_latency_percent": -20, "latency_percent": -1.5, "why": text,
        "promised_throughput_percent": 300, "throughput_percent": 12.3, "latency_percent_runs": [-2.0, -1.0], "throughput_percent_runs": [10.0, 15.0],
    }  # fmt: skip
    return {"schema": ablation.SCHEMA, "host": HOST, "checks": [], "rows": [row], "method": "m"}


def targets_report(values=None):
    rows = [promises.row(key, promises.Values() if values is None else values) for key in promises.TARGETS]
    return {"schema": targets.SCHEMA, "host": HOST, "checks": [], "rows": rows, "method": "m"}


def scale_report():
    row = {"name": "1,000 live", "mode": "hold", "live": 1000, "asleep": 0, "rss_bytes": 20_000_000, "umem_bytes": 50_331_648,
           "bytes_per_tunnel": 11_000.0, "setup_per_s": 900.0, "p95_ms": 1.5, "cpu_percent": 12.5, "problems": []}  # fmt: skip
    return {"schema": scale.SCHEMA, "host": HOST, "checks": [], "rows": [row], "method": "m"}


class Kept(unittest.TestCase):
    def test_every_kept_result_has_its_shape(self):
        for subject in results.SUBJECTS:
            if report := results.read(results.KEPT, subject):
                with self.subTest(subject):
                    self.assertEqual(results.faults(subject, report), [])

    def test_what_lacks_its_shape_is_said(self):
        report = ablation_report()
        self.assertEqual(results.faults("ablation", report), [])
        del report["rows"][0]["why"]
        self.assertEqual(results.faults("ablation", report), ["ablation: rows without why"])
        self.assertEqual(results.faults("scale", {"rows": []}), ["scale: no object with host and rows"])
        self.assertIn("rows without why", content.section("ablation", report).notes[0])

    def test_the_readme_and_its_plot_are_made_of_what_is_kept(self):
        found = results.all_in(results.KEPT)
        with open(os.path.join(REPOSITORY, "README.md"), encoding="utf-8") as file:
            readme = file.read()
        self.assertIn(f"{publish.README_BEGIN}\n{publish.readme_section(found)}\n<!-- end -->", readme)
        self.assertIn(f"(benches/results/{publish.PLOT})", readme)
        with open(os.path.join(results.KEPT, publish.PLOT), encoding="utf-8") as file:
            self.assertEqual(file.read(), publish.plot(found["tunnel"]))

    def test_the_kept_report_is_made_of_what_is_kept(self):
        with tempfile.TemporaryDirectory() as directory:
            for subject, report in results.all_in(results.KEPT).items():
                if report:
                    publish.write(directory, f"{subject}.json", json.dumps(report))
            publish.everything(directory)
            for name in ("report.html", "report.md", "report.json"):
                with open(os.path.join(directory, name), encoding="utf-8") as made, open(os.path.join(results.KEPT, name), encoding="utf-8") as kept:
                    self.assertEqual(made.read(), kept.read(), f"{name}: run scripts/bench report")


class Percent(unittest.TestCase):
    def test_change_is_of_the_part_switched_on(self):
        self.assertEqual(why.change_percent(2.0, 3.0), 50.0)
        self.assertEqual(why.change_percent(4.0, 3.0), -25.0)
        self.assertEqual(why.change_percent(3.0, 3.0), 0.0)
        self.assertIsNone(why.change_percent(0.0, 3.0))
        self.assertIsNone(why.change_percent(None, 3.0))
        self.assertIsNone(why.change_percent(3.0, None))

    def test_a_row_compares_its_two_arms(self):
        arms = [arm("beam", goodput_gbps=3.0, p50_ms=0.15, goodput_gbps_runs=[2.0, 2.0, 6.0]), arm("ring"), arm("beam", group="other", goodput_gbps=99.0)]
        row = ablation.built(next(row for row in ablation.ROWS if row[0] == "SIMD"), arms, {"facts": {}}, 2)
        self.assertEqual((row["throughput_percent"], row["latency_percent"]), (50.0, -25.0))
        self.assertEqual(row["throughput_percent_runs"], [100.0, 0.0, 100.0])
        self.assertEqual((row["promised_latency_percent"], row["promised_throughput_percent"]), (-20, 300))

    def test_an_arm_without_a_run_is_no_figure(self):
        nothing = dict.fromkeys(("goodput_gbps", "p50_ms", "p95_ms", "p99_ms", "cpu_daemons_s_per_gb", "busy_cpus"))
        arms = [arm("beam"), arm("ring", **nothing, p50_ms_runs=[], goodput_gbps_runs=[])]
        row = ablation.built(next(row for row in ablation.ROWS if row[0] == "SIMD"), arms, {"facts": {}}, 2)
        self.assertEqual((row["throughput_percent"], row["latency_percent"], row["why"]), (None, None, "not measured: see errors"))

    def test_in_memory(self):
        row = lambda mode, ns, crypto: {"mode": mode, "mtu": 1452, "ns_out": ns, "ns_in": ns, "crypto_ns_out": crypto, "crypto_ns_in": crypto}  # noqa: E731
        engine = {"simd_level": "avx2", "rows": [row("eager", 500.0, 100.0), row("batched", 400.0, 50.0)]}
        aead = {"rows": [{"impl": impl, "cycles": cycles, "batch": batch} for impl, cycles, batch in (("ring", 900.0, 32), ("avx2", 300.0, 32), ("avx2", 999.0, 1))]}
        out, facts = ablation.simd(aead, engine)
        self.assertEqual((out["memory_latency_percent"], out["memory_throughput_percent"]), (-20.0, 25.0))
        self.assertEqual((out["protection_latency_percent"], out["protection_throughput_percent"]), (-66.7, 200.0))
        # A fifth of the time is crypto: without it, a packet takes four fifths, so a quarter more of them.
        self.assertEqual([round(facts[name], 6) for name in ("crypto_share_percent", "crypto_bound_percent", "protection_ratio")], [20.0, 25.0, 3.0])
        part = {"part": "fused-copy", "mtu": 1452, **{side: {"ns_off": 500.0, "ns_on": 450.0} for side in ("out", "in")}}
        out, facts = ablation.fused_copy({"rows": [part]})
        self.assertEqual((out["memory_latency_percent"], facts), (-10.0, {"copy_ns": 100.0, "packet_ns": 1000.0, "copy_percent": 10.0}))


class Sentences(unittest.TestCase):
    def setUp(self):
        self.facts = {"throughput_percent": 12.0, "crypto_bound_percent": 30.0, "protection_ratio": 2.0, "crypto_share_percent": 23.0}

    def judged(self, measured=(-1.0, 12.0), promised=(-20, 300), optimisation="SIMD"):
        return why.judged(optimisation, promised, measured, self.facts)

    def test_it_is_said_while_it_is_true(self):
        self.assertTrue(self.judged().startswith("vectors make protection alone 2.0 times as fast"))

    def test_otherwise_somebody_judges_again(self):
        self.facts["protection_ratio"] = 1.1
        self.assertEqual(self.judged(), "re-judge: protection_ratio is 1.1, the sentence is true from 1.2 to 5")
        del self.facts["protection_ratio"]
        self.assertEqual(self.judged(), "re-judge: protection_ratio was not measured")
        self.facts["protection_ratio"] = 2.0
        del self.facts["crypto_share_percent"]
        self.assertEqual(self.judged(), "re-judge: crypto_share_percent was not measured", "named, and no condition")
        self.assertEqual(self.judged(optimisation="magic"), "re-judge: no sentence was written for it")

    def test_a_promise_that_is_kept_needs_no_sentence(self):
        self.assertEqual(self.judged(measured=(-20.0, 300.0)), why.AS_PROMISED)
        self.assertNotEqual(self.judged(measured=(-19.9, 300.0)), why.AS_PROMISED)

    def test_every_row_has_sentences_whose_facts_are_measured(self):
        self.assertEqual(set(why.TEXTS), {row[0] for row in ablation.ROWS})
        memory = {"facts": {name: 1.0 for name in ("crypto_share_percent", "crypto_bound_percent", "protection_ratio", "copy_ns", "packet_ns", "copy_percent")}}
        row = dict.fromkeys(("latency_percent", "throughput_percent", "p95_percent", "p99_percent"), 1.0)
        row.update(latency_percent_runs=[-1.0, 2.0], throughput_percent_runs=[None, -1.0, 2.0])
        known = ablation.facts(row, arm("off"), arm("on"), memory, 2)
        self.assertEqual(known["undecided"], 1)
        row["latency_percent_runs"] = [1.0, 2.0]
        self.assertEqual(ablation.facts(row, arm("off"), arm("on"), memory, 2)["undecided"], 0)
        for optimisation, texts in why.TEXTS.items():
            for one in texts:
                with self.subTest(optimisation):
                    self.assertLessEqual(set(one.holds) | set(re.findall(r"{(\w+)", one.text)), set(known))
                    self.assertTrue(one.holds, "a sentence that can't be untrue")
                    one.text.format(**known)


class Targets(unittest.TestCase):
    def test_what_the_product_was_promised_to_be(self):
        promised = {key: (one.promised, one.unit, one.less) for key, one in promises.TARGETS.items() if one.promised is not None}
        memory = dict.fromkeys(("rss_0", "rss_1", "rss_client", "rss_peak", "rss_peak_client", "rss_100", "rss_1000", "asleep_rss"), (50, "MB", True))
        latency = dict.fromkeys(("p95_idle", "added_p95_idle", "p95_loaded", "added_p95_loaded"), (1, "ms", True))
        self.assertEqual(promised, {
            **memory, **latency, "far_p95": (100, "ms", True), "goodput": (1, "Gbit/s", False), "goodput_per_core": (10, "Gbit/s a core", False),
            "cpu_at_1g": (10, "% of a core", True), "client_cpu_at_1g": (10, "% of a core", True), "carried_at_1g": (1, "Gbit/s", False),
            "tunnel_bytes": (12, "KB", True), "each_of_many": (12, "KB", True), "concurrent": (100_000, "tunnels", False),
            "first_byte_full": (2, "round trips", True), "first_byte_resumed": (2, "round trips", True), "first_byte_early": (1, "round trips", True),
        })  # fmt: skip
        self.assertTrue(all(one.how for one in promises.TARGETS.values()))

    def test_less_or_more_is_better(self):
        cheap, fast = promises.TARGETS["cpu_at_1g"], promises.TARGETS["goodput"]
        self.assertEqual([promises.verdict(cheap, value) for value in (9.9, 10, 10.1)], [True, True, False])
        self.assertEqual([promises.verdict(fast, value) for value in (0.9, 1, 1.1)], [False, True, True])
        self.assertIsNone(promises.verdict(promises.TARGETS["far_added_p95"], 90.0))
        self.assertIsNone(promises.verdict(fast, None))

    def test_round_trips_are_whole(self):
        early = promises.TARGETS["first_byte_early"]
        self.assertEqual([promises.verdict(early, value) for value in (0.9, 1.04, 1.49, 1.51, 2.0)], [True, True, True, False, False])

    def test_a_row_is_the_median_of_its_runs(self):
        values = promises.Values()
        for one in (3.0, 9.0, 4.0):
            values.add("goodput", one)
        row = promises.row("goodput", values)
        self.assertEqual((row["measured"], row["min"], row["max"], row["runs"], row["kept"]), (4.0, 3.0, 9.0, 3, True))
        self.assertNotIn("failed", row)

    def test_what_was_not_measured_says_why(self):
        values = promises.Values()
        values.lacks(["concurrent"], "no whole\nresult")
        row = promises.row("concurrent", values)
        self.assertEqual((row["measured"], row["kept"], row["missing"]), (None, None, "no whole result"))
        self.assertIn("no whole result", publish.html([content.section("targets", targets_report(values))]))

    def test_a_part_that_fails_leaves_the_others_alone(self):
        values = promises.Values()
        values.add("goodput", 2.0)
        for error in (DemoError("no\ntunnel"), KeyError("bytes"), OSError(28, "No space left")):
            with self.subTest(error), open(os.devnull, "w", encoding="ascii") as nothing, contextlib.redirect_stderr(nothing):
                values.missing.clear()

                def work(error=error):
                    values.add("rss_1", 9.0)
                    raise error

                targets.guarded_part(values, ["goodput", "rss_1", "umem"], "a part", work)
                self.assertEqual(set(values.missing), {"goodput", "umem"}, "rss_1 was measured before it failed")
        rows = {key: promises.row(key, values) for key in ("goodput", "rss_1", "umem")}
        self.assertEqual((rows["goodput"]["measured"], rows["goodput"]["failed"]), (2.0, "OSError: [Errno 28] No space left"))
        self.assertEqual((rows["umem"]["measured"], rows["umem"]["missing"]), (None, "OSError: [Errno 28] No space left"))
        self.assertEqual([one["ok"] for one in targets.checks(list(rows.values()))], [False, True, False])
        self.assertIn("a run failed: OSError", content.section("targets", targets_report(values)).notes[0])

    def test_a_signal_is_no_failure_of_a_part(self):
        def work():
            raise Stopped(2)

        with open(os.devnull, "w", encoding="ascii") as nothing, contextlib.redirect_stderr(nothing), self.assertRaises(Stopped):
            targets.guarded_part(promises.Values(), ["goodput"], "a part", work)

    def test_every_target_belongs_to_a_part(self):
        self.assertEqual(sorted(key for part, *_ in targets.PARTS for key in part), sorted(promises.TARGETS))
        self.assertEqual(sorted([*promises.IDLE, *promises.LOADED]), sorted(promises.LOCAL))

    def test_memory_is_told_without_the_umem(self):
        status = "Name:\tbeam\nVmHWM:\t   90000 kB\nVmRSS:\t   60000 kB\nHugetlbPages:\t       {} kB\n"
        self.assertEqual(targets.resident(status.format(0), 48_000 * 1024), (12_000 * 1024, 42_000 * 1024))
        # Huge pages are in neither figure, so they aren't taken from it.
        self.assertEqual(targets.resident(status.format(48_000), 48_000 * 1024), (60_000 * 1024, 90_000 * 1024))
        with self.assertRaises(DemoError):
            targets.resident("Name:\tbeam\nVmRSS:\t 1 kB\n", 0)

    def test_of_scale_only_whole_rows_count(self):
        report = {"host": {"commit": "abc"}, "rows": [
            {"problems": ["lost one"], "mode": "hold", "live": 100_000, "bytes_per_tunnel": 1}, {"problems": [], "mode": "hold", "live": 1000, "bytes_per_tunnel": 12_340},
            {"problems": [], "mode": "hold", "live": 100, "bytes_per_tunnel": 50_000},
        ]}  # fmt: skip
        values, of = promises.Values(), lambda one: types.SimpleNamespace(results=lambda _: one)  # noqa: E731
        targets.kept(of(report), None, values, HOST)
        self.assertEqual((values["concurrent"], values["each_of_many"], "asleep_rss" in values.missing, values.remarks), ([1000], [12.34], True, {}))
        targets.kept(of(report), None, values := promises.Values(), {**HOST, "commit": "def"})
        self.assertTrue(promises.row("concurrent", values)["how"].endswith("; of commit abc"))
        targets.kept(of(None), None, values := promises.Values(), HOST)
        self.assertEqual(set(values.missing), promises.KEPT)
        report["rows"].append({"problems": [], "mode": "asleep", "rss_bytes": 60_000_000, "rss_file_bytes": 12_340_000})
        for commit, end in (("abc", "12.3 MB of it are pages of the program's and the libraries' files"), ("def", "files; of commit abc")):
            targets.kept(of(report), None, values := promises.Values(), {**HOST, "commit": commit})
            self.assertEqual(values["asleep_rss"], [60.0])
            self.assertTrue(promises.row("asleep_rss", values)["how"].endswith(end), values.remarks)


def shaken(kind="full", rates=(900.0, 1100.0, 1000.0), **more):
    """What beam bench run prints of handshakes."""
    counts = {"asked": 1010, "done": 1000, "failed": 0, "unanswered": 10, "tickets_used": 0, "early_data_accepted": 0, "certificates_seen": 0}
    counts.update({"full": {"certificates_seen": 1005}, "resumed": {"tickets_used": 1005}, "0rtt": {"tickets_used": 1005, "early_data_accepted": 1000}}[kind])
    counts.update(more)
    runs = [{"complete": True, "loads": [{"load": "handshakes", "done_per_s": rate, "all": counts}]} for rate in rates]
    spread = {"done_per_s": {"median": sorted(rates)[len(rates) // 2], "min": min(rates), "max": max(rates)}}
    return {"schema": "beam.bench.run.v1", "trouble": None, "interrupted": False,
            "tests": [{"test": "handshakes", "loads": [{"load": "handshakes", "spread": spread}], "runs": runs}]}  # fmt: skip


class Handshakes(unittest.TestCase):
    def parsed(self, report, kind="full"):
        return handshakes.parse(json.dumps(report), kind, 3)

    def test_the_median_of_the_runs_is_that_of_the_program(self):
        for kind in handshakes.KINDS:
            report, values = shaken(kind), promises.Values()
            for one in self.parsed(report, kind):
                values.add(f"handshakes_{kind}", one)
            row, said = promises.row(f"handshakes_{kind}", values), report["tests"][0]["loads"][0]["spread"]["done_per_s"]
            self.assertEqual({name: row[key] for name, key in (("median", "measured"), ("min", "min"), ("max", "max"))}, said)
            self.assertEqual((row["unit"], row["promised"], row["runs"]), ("a second", None, 3))
            self.assertIn(f"--hps 0 -P 16 --handshake {kind} ", row["how"])

    def test_what_is_no_measurement_is_an_error(self):
        broken = shaken()
        broken["tests"][0]["runs"][1]["complete"] = False
        for report, kind, said in (
            ({**shaken(), "trouble": "no answer"}, "full", "no answer"),
            ({**shaken(), "interrupted": True}, "full", "interrupted"),
            (shaken(failed=1), "full", "not 1000 such handshakes"),
            (shaken(done=0), "full", "not 0 such handshakes"),
            (shaken("resumed"), "full", "such handshakes"),
            (shaken("full"), "resumed", "such handshakes"),
            (shaken("resumed"), "0rtt", "such handshakes"),
            (shaken("0rtt"), "resumed", "such handshakes"),
            (shaken("0rtt", early_data_accepted=999), "0rtt", "such handshakes"),
            (shaken("resumed", certificates_seen=1), "resumed", "such handshakes"),
            (shaken(rates=(1.0, 2.0)), "full", "of 3 runs"),
            (shaken(rates=(1.0, 0.0, 2.0)), "full", "of 3 runs"),
            (broken, "full", "incomplete"),
            ({"tests": []}, "full", "no result"),
            ([], "full", "no result"),
        ):
            with self.subTest(said), self.assertRaisesRegex(DemoError, said):
                self.parsed(report, kind)
        with self.assertRaisesRegex(DemoError, "no result"):
            handshakes.parse("", "full", 3)


class Scale(unittest.TestCase):
    def test_the_programs_rows(self):
        row = {"mode": "hold", "problems": ["one"], **dict.fromkeys(scale.METRICS, 1)}
        good = {"method": "m", "rows": [row]}
        self.assertEqual(scale.parse(json.dumps(good), "bench-scale hold", "its log"), good)
        for text, said in (
            ("", "no result: its log"), ("[]", "no result"), (json.dumps({"method": "m"}), "no result"), (json.dumps({"rows": [row]}), "no result"), (json.dumps({"method": "m", "rows": []}), "no rows"),
            (json.dumps({"method": "m", "rows": [{**row, "x": 1}, {"mode": "hold", "problems": []}]}), "a row without asleep, bytes_per_tunnel"),
        ):  # fmt: skip
            with self.subTest(said), self.assertRaisesRegex(DemoError, said):
                scale.parse(text, "bench-scale hold: exit 1", "its log")

    def test_a_row_that_fails_is_kept_with_its_reason(self):
        answers = iter([ValueError("odd"), {"method": "m", "rows": [scale_report()["rows"][0]]}, DemoError("nothing within 60 s")])

        def answer(*_):
            if isinstance(one := next(answers), Exception):
                raise one
            return one

        flags = types.SimpleNamespace(only="", quick=True)
        with mock.patch.object(scale, "bench_scale", answer), mock.patch.object(scale.load, "background", lambda: 0.01), mock.patch("sys.stderr", io.StringIO()):
            rows, checks, method = scale.in_turn(flags, None, [])
        self.assertEqual([row["problems"] for row in rows], [["odd"], [], ["nothing within 60 s"]])
        self.assertEqual(([one["ok"] for one in checks], method), ([False, True, False], "m"))
        report = {**scale_report(), "rows": rows}
        self.assertEqual(results.faults("scale", report), [])
        self.assertIn("nothing within 60 s", publish.html([content.section("scale", report)]))


class Congestion(unittest.TestCase):
    """Over a lossy path congestion control decides more than anything else: rows compare like with like, and say by what."""

    def test_both_arms_of_a_lossy_row_have_the_same(self):
        flags = types.SimpleNamespace(only="lossy", probes=500, time=3)
        with mock.patch.dict(os.environ, {"BEAM_BIN": "beam"}), mock.patch.object(ablation.tunnels, "beam_forward") as forward:
            for group, congestion in zip(ablation.groups(flags), ("cubic", "bbr")):
                self.assertEqual(group.site().congestion, congestion)
                group.arms[0].start(None)
                self.assertEqual(forward.call_args.kwargs, dict.fromkeys(("serve", "connect"), ["--cc", congestion]))
                self.assertIn(f"TCP between the ends by {congestion.upper()}", ablation.how(group))
                self.assertIn(f"beam by --cc {congestion}", ablation.how(group))

    def test_elsewhere_too(self):
        flags = types.SimpleNamespace(only="QUIC instead", probes=500, time=3)
        (group,) = ablation.groups(flags)
        self.assertEqual((group.site().congestion, group.path), ("cubic", None))
        self.assertIn("by --cc cubic (its default)", ablation.how(group))
        self.assertIsNone(rigging.Site("off").congestion)

    def test_beams_default_is_the_one_that_is_named(self):
        for file in ("serve", "gateway"):
            with open(os.path.join(REPOSITORY, f"userspace/src/cli/{file}.rs"), encoding="utf-8") as source:
                self.assertRegex(source.read(), r'default_value = "cubic", env = "BEAM_CC"')
        self.assertIn("--cc cubic` (its default)", promises.TARGETS["far_p95"].how)
        self.assertEqual(promises.FAR_CONGESTION, "cubic")


class Keeping(unittest.TestCase):
    def test_failed_rows_are_kept_and_nothing_measured_on_a_busy_machine(self):
        report = scale_report()
        failed = {**report["rows"][0], "live": None}
        kept = lambda **more: tunnel_report.why_not_kept({**report, **more}, "live")  # noqa: E731
        self.assertIsNone(kept(ok=False, rows=[failed, *report["rows"]]))
        self.assertEqual(kept(rows=[failed]), "nothing was measured")
        self.assertEqual(kept(host={**HOST, "background_cpus": 0.9}), "the machine did other work meanwhile")


class Middle(unittest.TestCase):
    """The path's arithmetic, without a network: times are numbers."""

    frame = bytes(12) + middle.IP_TYPES[0] + bytes(986)

    def direction(self, **path):
        self.sent = []
        outward = types.SimpleNamespace(send=self.sent.append)
        return middle.Direction(None, outward, {"delay_s": 0.04, "loss_percent": 0.0, "bits_per_s": 8e6, "queue_s": 0.01, **path}, "7/0")

    def test_the_line_then_the_delay(self):
        one = self.direction()
        one.offer(1.0, self.frame)
        one.offer(1.0, self.frame)
        # A thousand bytes take a millisecond at 8 Mbit/s, one behind the other.
        self.assertEqual([round(at, 6) for at, _ in one.flights], [1.041, 1.042])
        one.deliver(1.0409)
        self.assertEqual(self.sent, [])
        one.deliver(1.0411)
        self.assertEqual((len(self.sent), one.counts["forwarded"], round(one.next_at(), 6)), (1, 1, 1.042))

    def test_a_full_queue_loses(self):
        one = self.direction()
        for _ in range(20):
            one.offer(1.0, self.frame)
        self.assertEqual((len(one.flights), one.counts["overflowed"]), (11, 9))

    def test_loss_is_of_packets_and_of_the_seed(self):
        counts = []
        for _ in range(2):
            one = self.direction(loss_percent=1.0, queue_s=1e9)
            for _ in range(10_000):
                one.offer(1.0, self.frame)
            counts.append(one.counts["lost"])
        self.assertEqual(counts[0], counts[1])
        self.assertTrue(60 < counts[0] < 140, counts)
        one = self.direction(loss_percent=100.0)
        one.offer(1.0, bytes(12) + b"\x08\x06" + bytes(30))
        self.assertEqual((len(one.flights), one.counts["lost"]), (1, 0), "ARP isn't lost")

    def test_it_says_what_it_is(self):
        self.assertEqual(
            wide.Path(20, 1).text(), "40 ms round trip, 1 % of the packets lost each way, 100 Mbit/s, 50 ms of queue, seed 7"
        )


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen, self.sources = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


class Pages(unittest.TestCase):
    def sections(self, text="why"):
        values = promises.Values()
        values.add("goodput", 2.0)
        found = {"ablation": ablation_report(text), "targets": targets_report(values), "scale": scale_report()}
        for subject in ("aead", "engine", "tunnel"):
            found[subject] = results.read(results.KEPT, subject)
        return content.sections(found)

    def test_a_page_stands_alone(self):
        page = publish.html(self.sections())
        tags = Tags(page)
        self.assertFalse(tags.seen & {"script", "link", "img", "iframe", "object"})
        self.assertTrue(all(source.startswith("#") for source in tags.sources), tags.sources)
        self.assertNotIn("@import", page)
        self.assertNotIn("url(", page)
        self.assertIn("prefers-color-scheme:dark", page)
        self.assertIn("@media print", page)

    def test_every_plot_is_xml(self):
        plots = [plot for section in self.sections(HOSTILE) for plot in section.plots]
        self.assertGreater(len(plots), 5)
        for plot in [*plots, svg.standalone(plots[0])]:
            self.assertEqual(xml.fromstring(plot).tag, "{http://www.w3.org/2000/svg}svg")

    def test_nothing_of_a_result_is_markup(self):
        sections = self.sections(HOSTILE)
        sections[0].notes.append(HOSTILE)
        sections[0].host = {**sections[0].host, "commit": HOSTILE}
        self.assertNotIn("script", Tags(publish.html(sections)).seen)
        page = publish.markdown(sections, True)
        self.assertNotIn("<script", page)
        row = next(line for line in page.splitlines() if line.startswith("| &lt;script"))
        head = next(line for line in page.splitlines() if line.startswith("|  | off | on"))
        bare = lambda line: len(re.findall(r"(?<!\\)\|", line))  # noqa: E731
        self.assertEqual(bare(row), bare(head))

    def test_what_is_missing_is_said(self):
        sections = content.sections(dict.fromkeys(results.SUBJECTS))
        self.assertEqual([section.notes for section in sections], [[f"No result: scripts/bench {name} has not been run."] for name in content.TITLES])
        self.assertIn("No result: scripts/bench scale has not been run.", publish.html(sections))
        self.assertIn("No result of `scripts/bench targets` has been saved yet.", publish.readme_section(dict.fromkeys(results.SUBJECTS)))

    def test_a_busy_machine_and_a_failed_check_are_said(self):
        report = copy.deepcopy(scale_report())
        report["host"]["background_cpus"] = report["host"]["background_cpus_max"] = 1.5
        report["checks"] = [demo.check("all there", False, "one lost", "none")]
        self.assertEqual(content.section("scale", report).notes, [content.NOT_QUIET, "Check failed: all there: one lost"])

    def test_bars_say_what_they_have_no_value_for(self):
        plot = svg.bars("t", "u", [{"label": "a", "value": None}, {"label": "b", "value": -5.0, "low": -6.0, "high": -4.0, "promised": 20}])
        self.assertIn("not measured", plot)
        self.assertEqual(plot.count("<rect"), 1)
        self.assertEqual(plot.count('class="promise"'), 1)

    def test_quantiles_are_of_enough_values(self):
        times = [float(n) for n in range(1, 1001)]
        seen = tunnel_report.quantiles(times)
        self.assertEqual((seen["50"], seen["99"], "99.5" in seen), (500.0, 990.0, False))
        self.assertEqual(tunnel_report.quantiles([]), {})
        self.assertEqual([svg.nines(percent) for percent in (0, 90)], [0, 1])


class Refusals(unittest.TestCase):
    def test_wrong_flags_end_before_anything_is_built(self):
        for arguments, needed in (
            (("targets", "--yaml"), "unrecognized arguments: --yaml"),
            (("ablation", "--only", "magic"), "there are: QUIC instead of TCP + TLS"),
            (("scale", "--runs", "3"), "unrecognized arguments"),
            (("scale", "--save", "--quick"), "--save keeps whole runs"),
            (("targets", "--runs", "0"), "'0' is not a number from 1 to 99"),
        ):
            with self.subTest(arguments):
                done = subprocess.run([os.path.join(SCRIPTS, "bench"), *arguments], capture_output=True, text=True, timeout=20)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(needed, done.stderr)


if __name__ == "__main__":
    unittest.main()
