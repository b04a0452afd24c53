"""Goal: scripts/pktgen/steering finds every packet of a flood, and says so when one is missing.
Method: counters of a gateway as its status gives them, whole and with one packet taken away at each place."""

import copy
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from floodlib import steering  # noqa: E402

BEFORE = {
    "interfaces": [{"steering": {"ours_redirected": 5, "pass_not_udp": 1}}],
    "drops": {}, "counters": {}, "xsk_rx_frames": 5, "conservation": {"holds": True},
}  # fmt: skip
# 1,000 malformed and one of the tunnel's own; seven found no room, two were lost on the wire.
AFTER = {
    "interfaces": [{"steering": {"ours_redirected": 504, "drop_udp_long": 500, "pass_not_udp": 9}}],
    "drops": {"xsk_rx_dropped": 7, "drop_cid_unknown": 300}, "xsk_rx_frames": 497,
    "counters": {"retries_sent": 100, "handshakes_started": 91, "datagrams_routed": 1, "bytes_in": 9},
    "conservation": {"holds": True},
}  # fmt: skip
SAID = {"packets": 1000, "errors": 10, "seconds": 2.0, "drives": "AF_XDP"}


def failed(after=AFTER, said=SAID, wire=12, own=1):
    row = steering.account("a flood", said, BEFORE, after, wire, own)
    return [one["check"].split(": ")[1] for one in steering.checks([row]) if not one["ok"]]


class Steering(unittest.TestCase):
    def test_all_is_found(self):
        self.assertEqual(failed(), [])
        row = steering.account("a flood", SAID, BEFORE, AFTER, 12, 1)
        self.assertEqual((row["to_xsk"], row["to_xsk_per_s"], row["dropped_by_xdp_per_s"]), (492, 246, {"drop_udp_long": 250}))

    def test_one_is_missing(self):
        for path, check in (
            (("drops", "drop_cid_unknown"), "received = named"),
            (("counters", "retries_sent"), "received = named"),
            (("drops", "xsk_rx_dropped"), "redirected = received + no room"),
            (("interfaces", 0, "steering", "drop_udp_long"), "sent = steered + lost on the wire"),
        ):
            after = copy.deepcopy(AFTER)
            place = after
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] -= 1
            self.assertEqual(failed(after), [check])
        self.assertEqual(failed(own=2), ["sent = steered + lost on the wire"])
        self.assertEqual(failed({**AFTER, "conservation": {"holds": False}}), ["every frame accounted for"])


if __name__ == "__main__":
    unittest.main()
