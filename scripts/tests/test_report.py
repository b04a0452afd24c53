"""The judge of scripts/demo, judged. Goal: a report is `ok` only when everything holds, and each single defect turns it
over. Method: a faultless set of samples is built, then broken in one place a test; percentiles against counts by hand."""

import copy
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from demolib import report  # noqa: E402

LARGE_BYTES = 15_000_000
FRAME_COUNT = 20_000


def status(xdp):
    frames = FRAME_COUNT if xdp else 0
    return {
        "workers": [{"xdp_mode": "native-copy" if xdp else "off", "xdp_why": []}],
        "xsk_rx_frames": frames, "xsk_tx_frames": frames, "kernel_udp_packets": 0 if xdp else FRAME_COUNT,
        "drops": {}, "conservation": {"holds": True},
    }  # fmt: skip


def sample(kind):
    tunnel = {} if kind == "plain_tcp" else {
        "status": {side: status(kind == "xdp") for side in ("gateway", "client")},
        "cpu_s": {"gateway": 1.0, "client": 1.0}, "rss_peak_mib": {"gateway": 10, "client": 10},
        "exits": {"gateway": 0, "client": 0, "xdp_left": []},
    }  # fmt: skip
    requests = {"ok": 200, "of": 200, "times_ms": [float(n) for n in range(1, 201)]}
    return {"kind": kind, "bytes": LARGE_BYTES, "goodput_gbps": 1.0, "sha256_ok": True, "requests": requests, **tunnel}


def judged(samples, left=()):
    built = report.build(samples, LARGE_BYTES, "network namespaces", {})
    report.judge_leftovers(built, list(left))
    report.table(built)
    return built


class Percentiles(unittest.TestCase):
    def test_nearest_rank(self):
        hundred = list(range(1, 101))
        self.assertEqual([report.percentile(hundred, p) for p in (50, 95, 99, 100)], [50, 95, 99, 100])
        self.assertEqual(report.percentile([7], 99), 7)
        self.assertEqual(report.percentile([3, 1, 2], 50), 2)
        self.assertIsNone(report.percentile([], 50))

    def test_medians_of_the_runs(self):
        samples = [sample("xdp") for _ in range(3)]
        for one, goodput in zip(samples, (1.0, 9.0, 2.0)):
            one["goodput_gbps"] = goodput
        built = judged([*samples, sample("xdp_off")])
        self.assertEqual(built["goodput_gbps"], 2.0)
        self.assertEqual(built["goodput_gbps_runs"], [1.0, 9.0, 2.0])
        self.assertEqual(built["latency_ms"], {"p50": 100.0, "p95": 190.0, "p99": 198.0})
        self.assertEqual(built["ratios"]["goodput_to_xdp_off"], 2.0)


class Verdicts(unittest.TestCase):
    def setUp(self):
        self.samples = [sample(kind) for kind in report.KINDS]

    def broken(self, change):
        samples = copy.deepcopy(self.samples)
        change(samples)
        built = judged(samples)
        return [one["check"] for one in built["checks"] if not one["ok"]]

    def test_a_faultless_run_is_ok(self):
        built = judged(self.samples)
        self.assertTrue(built["ok"])
        self.assertEqual((built["requests_ok"], built["xsk_tx_frames"]), (200, 2 * FRAME_COUNT))

    def test_each_defect_is_named(self):
        xdp = lambda samples: samples[0]  # noqa: E731
        defects = {
            "xdp: sha256 of the file": lambda s: xdp(s).update(sha256_ok=False),
            "plain_tcp: sha256 of the file": lambda s: s[2].pop("sha256_ok"),
            "xdp: bytes of every fetch": lambda s: xdp(s).update(bytes=LARGE_BYTES - 1),
            "xdp_off: requests answered": lambda s: s[1]["requests"].update(ok=199),
            "xdp: daemons exit cleanly": lambda s: xdp(s)["exits"].update(client=-9),
            "xdp_off: no XDP program left on the interfaces": lambda s: s[1]["exits"].update(xdp_left=["gateway"]),
            "xdp: every frame accounted for": lambda s: xdp(s)["status"]["client"].pop("conservation"),
            "xdp: mode": lambda s: xdp(s)["status"]["client"]["workers"][0].update(xdp_mode="skb-copy"),
            "xdp: frames sent by the gateway's AF_XDP sockets":
                lambda s: xdp(s)["status"]["gateway"].update(xsk_tx_frames=LARGE_BYTES // 1500),
            "xdp: frames received by the client's":
                lambda s: xdp(s)["status"]["client"].update(xsk_rx_frames=LARGE_BYTES // 1500),
            "xdp: packets through kernel UDP sockets":
                lambda s: xdp(s)["status"]["gateway"].update(kernel_udp_packets=FRAME_COUNT),
        }  # fmt: skip
        for name, change in defects.items():
            with self.subTest(name):
                self.assertEqual(self.broken(change), [name])

    def test_what_is_left_behind_fails_the_run(self):
        self.assertFalse(judged(self.samples, left=["process 1"])["ok"])

    def test_loopback_has_no_steering_to_check(self):
        built = judged(self.samples[1:])
        self.assertTrue(built["ok"])
        self.assertEqual(built["kind"], "xdp_off")
        self.assertEqual(built["xdp_off"]["goodput_gbps"], built["goodput_gbps"])


if __name__ == "__main__":
    unittest.main()
