"""The results of scripts/bench and the report made of them. Goal: every kept result has its shape, percent and verdicts are right to
the digit, a sentence about a difference is printed only while it is true, nothing of a result becomes markup, what is missing is
said, and README.md is made of what is kept. Method: the kept JSON itself; small results made here; arithmetic by hand."""

import copy
import html.parser
import json
import os
import re
import subprocess
import sys
import tempfile
import types
import unittest
import xml.etree.ElementTree as xml

SCRIPTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, SCRIPTS)
from benchlib import ablation, content, middle, publish, results, scale, svg, targets, why, wide  # noqa: E402
from benchlib.rigging import REPOSITORY  # noqa: E402
from demolib import report as demo  # noqa: E402
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
    rows = [targets.row(key, targets.Values() if values is None else values) for key in targets.TARGETS]
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
        self.assertEqual(self.judged(optimisation="magic"), "re-judge: no sentence was written for it")

    def test_a_promise_that_is_kept_needs_no_sentence(self):
        self.assertEqual(self.judged(measured=(-20.0, 300.0)), why.AS_PROMISED)
        self.assertNotEqual(self.judged(measured=(-19.9, 300.0)), why.AS_PROMISED)

    def test_every_row_has_sentences_whose_facts_are_measured(self):
        self.assertEqual(set(why.TEXTS), {row[0] for row in ablation.ROWS})
        memory = {"facts": {name: 1.0 for name in ("crypto_share_percent", "crypto_bound_percent", "protection_ratio", "copy_ns", "packet_ns", "copy_percent")}}
        row = dict.fromkeys(("latency_percent", "throughput_percent", "p95_percent", "p99_percent"), 1.0)
        known = ablation.facts(row, arm("off"), arm("on"), memory, 2)
        for optimisation, texts in why.TEXTS.items():
            for one in texts:
                with self.subTest(optimisation):
                    self.assertLessEqual(set(one.holds) | set(re.findall(r"{(\w+)", one.text)), set(known))
                    self.assertTrue(one.holds, "a sentence that can't be untrue")
                    one.text.format(**known)


class Targets(unittest.TestCase):
    def test_less_or_more_is_better(self):
        cheap, fast = targets.TARGETS["cpu_at_1g"], targets.TARGETS["goodput"]
        self.assertEqual([targets.verdict(cheap, value) for value in (9.9, 10, 10.1)], [True, True, False])
        self.assertEqual([targets.verdict(fast, value) for value in (0.9, 1, 1.1)], [False, True, True])
        self.assertIsNone(targets.verdict(targets.TARGETS["far_p95"], 90.0))
        self.assertIsNone(targets.verdict(fast, None))

    def test_a_row_is_the_median_of_its_runs(self):
        values = targets.Values()
        for one in (3.0, 9.0, 4.0):
            values.add("goodput", one)
        row = targets.row("goodput", values)
        self.assertEqual((row["measured"], row["min"], row["max"], row["runs"], row["kept"]), (4.0, 3.0, 9.0, 3, True))

    def test_what_was_not_measured_says_why(self):
        values = targets.Values()
        values.lacks(["concurrent"], "no whole\nresult")
        row = targets.row("concurrent", values)
        self.assertEqual((row["measured"], row["kept"], row["missing"]), (None, None, "no whole result"))
        self.assertIn("no whole result", publish.html([content.section("targets", targets_report(values))]))

    def test_every_target_belongs_to_a_part(self):
        parts = [targets.LOCAL, targets.DISTANT, targets.FIRST, targets.SCALED, targets.KEPT]
        self.assertEqual(sorted(key for part in parts for key in part), sorted(targets.TARGETS))

    def test_of_scale_only_whole_rows_count(self):
        report = {"rows": [{"problems": ["lost one"], "mode": "hold", "live": 100_000}, {"problems": [], "mode": "hold", "live": 1000}]}
        values = targets.Values()
        targets.kept(types.SimpleNamespace(results=lambda _: report), values)
        self.assertEqual((values["concurrent"], "asleep_rss" in values.missing), ([1000], True))
        targets.kept(types.SimpleNamespace(results=lambda _: None), values := targets.Values())
        self.assertEqual(set(values.missing), targets.KEPT)


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
        values = targets.Values()
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
