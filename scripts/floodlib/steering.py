"""Where the packets of a flood end: at the sockets, past beam in the kernel, or under a name in the XDP program.

sent + the tunnel's own = steered + lost on the wire; redirected = received + no room; received = named: three sums, each
to the packet.
"""

import json

from demolib.report import check
from demolib.rig import run, say

from .floods import FLOODS, command, grown, settled

# What a datagram for nobody's connection may come to besides a drop.
ANSWERS = ("version_negotiations_sent", "retries_sent", "handshakes_started", "datagrams_routed")
STEERED = ("ours_", "drop_", "pass_other_target")


def wire_dropped(place):
    return int(run(*place.inside("client", "cat", "/sys/class/net/c0/statistics/tx_dropped")))


def client_out(tunnel):
    return tunnel.status("client")["counters"].get("datagrams_out", 0)


def quiet(tunnel):
    """The gateway's status, and how many packets its client has sent by then: read between two packets of the tunnel."""
    while True:
        out = client_out(tunnel)
        status = settled(tunnel)
        if client_out(tunnel) == out:
            return status, out


def measure(place, tunnel, count, delay_ns):
    return [one(place, tunnel, flood, count, delay_ns) for flood in FLOODS]


def one(place, tunnel, flood, count, delay_ns):
    (before, own), wire = quiet(tunnel), wire_dropped(place)
    # Straight to its end: -n says how many. What the device refuses is an exit code of 1, and a count here.
    said = json.loads(run(*place.inside("client", "sh", "-c", '"$@" || [ $? = 1 ]', "sh",
                                        *command(place, flood, ["-n", str(count), "-w", str(delay_ns)]))))  # fmt: skip
    after, out = quiet(tunnel)
    row = account(flood[0], said, before, after, wire_dropped(place) - wire, out - own)
    say(f"{flood[0]}: sent {row['sent']} at {row['sent_per_s']}/s, to a socket {row['to_xsk']}, passed {row['passed']}, "
        f"dropped by XDP {sum(row['dropped_by_xdp'].values())}")  # fmt: skip
    return row


def account(name, said, before, after, wire, own):
    steering = grown(before["interfaces"][0]["steering"], after["interfaces"][0]["steering"])
    steering = {key: n for key, n in steering.items() if key.startswith(STEERED)}
    drops, counters = grown(before["drops"], after["drops"]), grown(before["counters"], after["counters"])
    no_room = {key: n for key, n in drops.items() if key.startswith("xsk_rx_")}
    named = {key: n for key, n in drops.items() if key not in no_room}
    named |= {key: counters[key] for key in ANSWERS if key in counters}
    received = after["xsk_rx_frames"] - before["xsk_rx_frames"]
    seconds = said["seconds"] or 1
    per_s = lambda count: round(count / seconds)  # noqa: E731
    xdp = {key: n for key, n in steering.items() if key.startswith("drop_")}
    return {
        "flood": name, "drives": said["drives"], "sent": said["packets"], "refused_by_device": said["errors"],
        "seconds": said["seconds"], "sent_per_s": per_s(said["packets"]),
        "tunnel_packets": own, "lost_on_the_wire": wire - said["errors"],
        "redirected": steering.get("ours_redirected", 0), "to_xsk": received, "to_xsk_per_s": per_s(received),
        "no_room": no_room, "passed": steering.get("pass_other_target", 0),
        "passed_per_s": per_s(steering.get("pass_other_target", 0)),
        "dropped_by_xdp": xdp, "dropped_by_xdp_per_s": {key: per_s(n) for key, n in xdp.items()},
        "steered": sum(steering.values()), "named": named, "named_per_s": {key: per_s(n) for key, n in named.items()},
        "conservation_holds": after["conservation"]["holds"],
    }  # fmt: skip


def checks(rows):
    for row in rows:
        name, lost = row["flood"], sum(row["no_room"].values())
        sent, found = row["sent"] + row["tunnel_packets"], row["steered"] + row["lost_on_the_wire"]
        yield check(f"{name}: sent = steered + lost on the wire", sent == found and row["sent"], found, sent)
        yield check(f"{name}: redirected = received + no room", row["redirected"] == row["to_xsk"] + lost,
                    row["to_xsk"] + lost, row["redirected"])  # fmt: skip
        named = sum(row["named"].values())
        yield check(f"{name}: received = named", named == row["to_xsk"], named, row["to_xsk"])
        yield check(f"{name}: every frame accounted for", row["conservation_holds"], row["conservation_holds"], True)


def table(rows):
    yield ("flood", "sent", "sent/s", "to a socket/s", "no room", "passed/s", "dropped by XDP/s", "named")
    for row in rows:
        words = lambda counts: ", ".join(f"{key} {n}" for key, n in sorted(counts.items())) or "-"  # noqa: E731
        yield (row["flood"], str(row["sent"]), str(row["sent_per_s"]), str(row["to_xsk_per_s"]), words(row["no_room"]),
               str(row["passed_per_s"]), words(row["dropped_by_xdp_per_s"]), words(row["named"]))  # fmt: skip
