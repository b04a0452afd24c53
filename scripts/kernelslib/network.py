"""The wire between two NICs with several queues: two taps on a bridge, in a network namespace of the run's own.

QEMU's hub carries one queue. The namespace has no addresses, no IPv6 and no way out, so nothing but the guest's own frames
passes; taking it away takes the bridge and the taps along. Needs root.
"""

import os
import re
import subprocess

from .common import Trouble, lives, run

PREFIX = "beam-kernels-"


class Bridge:
    def __init__(self, label):
        if os.geteuid() != 0:
            raise Trouble("several queues need taps in a network namespace, which needs root; run: sudo -E scripts/kernels")
        self.namespace = f"{PREFIX}{os.getpid()}-{label}"

    def build(self):
        ip = ("ip", "-n", self.namespace)
        run("ip", "netns", "add", self.namespace)
        run("ip", "netns", "exec", self.namespace, "sh", "-c", "for each in all default; do "
            "echo 1 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done")  # fmt: skip
        # Snooping would keep multicast from a port that never asked for it; a wire doesn't.
        run(*ip, "link", "add", "wire", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        for tap in ("tap0", "tap1"):
            run(*ip, "tuntap", "add", "dev", tap, "mode", "tap", "multi_queue", "vnet_hdr")
            run(*ip, "link", "set", tap, "master", "wire", "up")
        run(*ip, "link", "set", "wire", "up")

    def close(self):
        # Not run(): there may be nothing to remove.
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)


def sweep():
    """Removes namespaces of runs that were killed: their names hold the pid."""
    if os.geteuid() != 0:
        return
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        found = re.fullmatch(re.escape(PREFIX) + r"(\d+)-.*", name)
        if found and not lives(found[1]):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
