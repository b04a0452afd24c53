"""The place of the tunnels: the demo's three namespaces, and behind the gateway a network that is reached by a tunnel only.

client c0 --veth-- g0 gateway g1 --veth-- o0 LAN. The LAN's host has two addresses: `origin` is routed by the gateway, for
the row without a tunnel; to `lan_host` the client has no route until a tunnel brings one, so that nothing can pass beside it.
"""

import glob
import ipaddress
import json
import os

from demolib.rig import Namespaces, run

# wireguard-go and boringtun put their control sockets here, whatever the namespace.
WIREGUARD_SOCKETS = "/var/run/wireguard"


class Site(Namespaces):
    """`congestion` is TCP's between client and gateway, the host's own default without it: hosts differ, and beam's is CUBIC
    unless told otherwise. Routes carry it: as their default, namespaces may have only what the whole machine allows them."""

    prefix = "beam-bench"
    kind = "network namespaces"
    lan_gateway, lan_host, lan_network = "198.19.1.1", "198.19.1.2", "198.19.1.0/24"
    # Each kind of tunnel has a /24 in here for its inner addresses.
    inner_networks = "198.18.64.0/18"
    iperf_port, echo_port = 5201, 7

    def __init__(self, offloads, congestion=None):
        super().__init__(offloads)
        self.congestion = congestion

    def build(self):
        super().build()
        self._address("gateway", "g1", self.lan_gateway, "2001:db8:3::1")
        self._address("origin", "o0", self.lan_host, "2001:db8:3::2")
        run("ip", "-n", self.names["origin"], "route", "add", self.inner_networks, "via", self.lan_gateway)
        if self.congestion:
            self._set_congestion()

    def _set_congestion(self):
        network = str(ipaddress.ip_interface(f"{self.gateway}/24").network)
        for where, interface, source in (("client", "c0", self.client), ("gateway", "g0", self.gateway)):
            route = ["route", "replace", network, "dev", interface, "proto", "kernel", "scope", "link", "src", source]
            run("ip", "-n", self.names[where], *route, "congctl", self.congestion)

    def facts(self):
        with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as file:
            return {**super().facts(), "tcp_congestion_control": self.congestion or file.read().strip()}

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
