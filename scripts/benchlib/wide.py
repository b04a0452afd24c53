"""The rig with a wide-area path between client and gateway: two veths and `middle.py` in between.

client c0 --veth-- m0 middle m1 --veth-- g0 gateway g1 --veth-- o0 LAN"""

import dataclasses
import json
import os

from demolib.rig import DemoError, run
from tunnellib.site import Site

MIDDLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "middle.py")


@dataclasses.dataclass(frozen=True)
class Path:
    """Both directions are alike. The round trip without any queue is twice the delay."""

    delay_ms: float
    loss_percent: float
    rate_mbit: float = 100
    queue_ms: float = 50
    seed: int = 7

    def text(self):
        return (
            f"{2 * self.delay_ms:g} ms round trip, {self.loss_percent:g} % of the packets lost each way, {self.rate_mbit:g} Mbit/s, "
            f"{self.queue_ms:g} ms of queue, seed {self.seed}"
        )


class WideSite(Site):
    """`congestion` is TCP's over the path, where it decides more than anything else."""

    def __init__(self, path, congestion="cubic"):
        # Super-packets would be lost, and queued, as one.
        super().__init__("off", congestion)
        self.path_of_middle = path
        self.names["middle"] = f"{self.prefix}-{os.getpid()}-middle"
        self.middle = None

    def _join(self, a, a_interface, b, b_interface):
        if (a, b) != ("client", "gateway"):
            super()._join(a, a_interface, b, b_interface)
            return
        super()._join(a, a_interface, "middle", "m0")
        super()._join("middle", "m1", b, b_interface)
        for interface in ("m0", "m1"):
            # The middle has nothing to say of its own.
            run(*self.inside("middle", "sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{interface}/disable_ipv6"))
            run("ip", "-n", self.names["middle"], "link", "set", interface, "up")

    def build(self):
        super().build()
        one = self.path_of_middle
        words = [one.delay_ms, one.loss_percent, one.rate_mbit, one.queue_ms, one.seed]
        argv = ["python3", "-B", MIDDLE, "m0", "m1", *map(str, words)]
        self.middle = self.spawn("middle", "middle", *argv)
        self.middle.wait_for("ready")

    def stop_middle(self):
        """What the path did, once nothing is to travel any more."""
        self.stop(self.middle)
        line = next((line for line in self.middle.lines if line.startswith("{")), None)
        if not line:
            raise DemoError(f"the middle said nothing at its end; its log ends:\n{self.middle.tail()}")
        return json.loads(line)
