"""The place of the tunnels: the demo's three namespaces, and behind the gateway a network that is reached by a tunnel only.

client c0 --veth-- g0 gateway g1 --veth-- o0 LAN. The LAN's host has two addresses: `origin` is routed by the gateway, for
the row without a tunnel; to `lan_host` the client has no route until a tunnel brings one, so that nothing can pass beside it.
"""

import glob
import json
import os

from demolib.rig import Namespaces, run

# wireguard-go and boringtun put their control sockets here, whatever the namespace.
WIREGUARD_SOCKETS = "/var/run/wireguard"


class Site(Namespaces):
    prefix = "beam-bench"
    kind = "network namespaces"
    lan_gateway, lan_host, lan_network = "198.19.1.1", "198.19.1.2", "198.19.1.0/24"
    # Each kind of tunnel has a /24 in here for its inner addresses.
    inner_networks = "198.18.64.0/18"
    iperf_port, echo_port = 5201, 7

    def build(self):
        super().build()
        self._address("gateway", "g1", self.lan_gateway, "2001:db8:3::1")
        self._address("origin", "o0", self.lan_host, "2001:db8:3::2")
        run("ip", "-n", self.names["origin"], "route", "add", self.inner_networks, "via", self.lan_gateway)

    def facts(self):
        with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as file:
            return {**super().facts(), "tcp_congestion_control": file.read().strip()}

    def interface_name(self, side):
        """A TUN device's name that no other run has, for control sockets are named by it."""
        return f"bb{os.getpid()}{side[0]}"

    def sent_bytes(self, where, interface):
        shown = run("ip", "-n", self.names[where], "-j", "-s", "link", "show", "dev", interface)
        return json.loads(shown)[0]["stats64"]["tx"]["bytes"]

    def stop_since(self, mark):
        """Stops the children that came after there were `mark` of them, the last first: exit codes by name."""
        codes = {}
        while len(self.children) > mark:
            child = self.children[-1]
            codes[child.name] = self.stop(child)
        self._remove_sockets()
        return codes

    def _remove_sockets(self):
        for side in ("client", "gateway"):
            for path in glob.glob(f"{WIREGUARD_SOCKETS}/{self.interface_name(side)}.sock"):
                os.unlink(path)

    def close(self):
        super().close()
        self._remove_sockets()
