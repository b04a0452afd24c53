"""What a flood does to a tunnel that is there: its goodput, and how long small requests take."""

from demolib.job import ask, fetch
from demolib.report import check, percentile
from demolib.rig import say

from .floods import FLOODS, Sending, settled

GOODPUT_METHOD = "one curl through -L, bytes over its time_total; small requests: curl through -D, a connection each"


def measure(place, tunnel, origin, delay_ns):
    rows = [one(place, tunnel, origin, None, 0)]
    rows += [one(place, tunnel, origin, flood, delay_ns) for flood in FLOODS]
    return rows


def one(place, tunnel, origin, flood, delay_ns):
    sending = Sending(place, flood, delay_ns) if flood else None
    row = {"flood": flood[0] if flood else "none"}
    seen = fetch(place, f"http://127.0.0.1:{place.forward_port}/large")
    proxy = ["--socks5-hostname", f"127.0.0.1:{place.socks_port}"]
    requests = ask(place, f"{origin.base}/small", proxy)
    said = sending.stop() if sending else {"packets": 0, "packets_per_second": 0, "drives": "-"}
    tunnel.must_live()
    client = tunnel.status("client")
    row |= {"drives": said["drives"], "flood_packets": said["packets"], "flood_per_s": said["packets_per_second"]}
    row |= {"bytes": seen["bytes"], "goodput_gbps": seen["goodput_gbps"], "curl_code": seen["curl_code"]}
    row |= {"requests_ok": requests["ok"], "requests": requests["of"]}
    row |= {f"p{p}_ms": percentile(requests["times_ms"], p) for p in (50, 99)}
    row |= {"reconnects": client["counters"].get("reconnects", 0), "conservation_holds": settled(tunnel)["conservation"]["holds"]}
    say(f"{row['flood']}: {row['flood_per_s']} packets/s; {row['goodput_gbps']} Gbit/s, P99 {row['p99_ms']} ms")
    return row


def checks(rows, large_bytes):
    for row in rows:
        name = row["flood"]
        yield check(f"{name}: bytes of the fetch", row["bytes"] == large_bytes and not row["curl_code"], row["bytes"], large_bytes)
        yield check(f"{name}: requests answered", row["requests_ok"] == row["requests"], row["requests_ok"], row["requests"])
        yield check(f"{name}: the tunnel is the one from before", not row["reconnects"], row["reconnects"], 0)
        yield check(f"{name}: every frame accounted for", row["conservation_holds"], row["conservation_holds"], True)
        if name != "none":
            yield check(f"{name}: the flood was there", row["flood_packets"], row["flood_packets"], "> 0")


def table(rows):
    yield ("flood", "packets/s", "goodput Gbit/s", "P50 ms", "P99 ms", "requests")
    for row in rows:
        yield (row["flood"], str(row["flood_per_s"]), f"{row['goodput_gbps']:.3f}", f"{row['p50_ms']}", f"{row['p99_ms']}",
               f"{row['requests_ok']} of {row['requests']}")  # fmt: skip
