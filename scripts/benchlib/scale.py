"""scripts/bench scale: thousands of tunnels held by one gateway, by the program bench-scale of benches/ on the rig."""

import json
import os
import signal
import subprocess

from demolib import report as demo
from demolib.rig import DemoError, reason, run, say
from tunnellib import load
from tunnellib.site import Site

SCHEMA = "beam.bench.scale.v1"
# Source addresses of the tunnels, all the client's.
SOURCES = "198.18.128.0/17"
# name, arguments of bench-scale, seconds that it may take
WHOLE = (
    ("1,000 live", ("hold", "1000", "--idle", "5"), 120),
    ("10,000 live", ("hold", "10000", "--idle", "5"), 180),
    ("100,000 live", ("hold", "100000", "--hold", "30"), 600),
    ("100,000 asleep, 1,000 live", ("asleep", "100000", "--live", "1000", "--storm", "10000"), 600),
    ("beyond the limit", ("limit", "1200", "--max-connections", "1000"), 120),
)
QUICK = (
    ("1,000 live", ("hold", "50", "--hold", "2"), 60),
    ("100,000 asleep, 1,000 live", ("asleep", "100", "--live", "10", "--lapse", "1", "--hold", "2", "--wakes", "5", "--storm", "50"), 90),
    ("beyond the limit", ("limit", "40", "--max-connections", "30"), 60),
)
METRICS = ("live", "asleep", "rss_bytes", "umem_bytes", "bytes_per_tunnel", "setup_per_s", "p95_ms", "cpu_percent")


def plan(flags):
    texts = [text.strip() for text in flags.only.split(",") if text.strip()]
    return [one for one in (QUICK if flags.quick else WHOLE) if not texts or any(text in one[0] for text in texts)]


def names():
    return [one[0] for one in WHOLE]


def needs(_flags):
    return {"beam", "bench-scale"}


class ScaleSite(Site):
    """The rig, with a network of source addresses at the client."""

    def build(self):
        super().build()
        run("ip", "-n", self.names["client"], "route", "add", "local", SOURCES, "dev", "lo")
        run("ip", "-n", self.names["gateway"], "route", "add", SOURCES, "via", self.client)


def bench_scale(place, arguments, limit_s):
    """One run of the program in the client's namespace; it starts its gateway in the gateway's, by AF_XDP. The limit is one
    worker's, and a gateway has one for each queue: that mode runs on the loopback of the client's namespace, with one."""
    where = ["--listen", f"{place.gateway}:{place.listen_port}", "--interface", "g0", "--netns", place.names["gateway"], "--sources", SOURCES]
    where = [] if arguments[0] == "limit" else where
    argv = [os.path.join(os.environ["BEAM_BENCHES"], "bench-scale"), *arguments, "--json", "--beam", os.environ["BEAM_BIN"], *where]
    path = place.path("bench-scale.json")
    with open(path, "wb") as file:
        child = place.spawn("client", "bench-scale", *argv, stdout=file)
    try:
        code = child.process.wait(limit_s)
    except subprocess.TimeoutExpired:
        code = f"nothing within {limit_s} s"
    end(place, child)
    with open(path, encoding="utf-8") as file:
        return parse(file.read(), f"bench-scale {' '.join(arguments)}: exit {code}", child.tail(5).strip())


def end(place, child):
    """Ends it, and its gateway, should it have been killed before it could."""
    left = load.family([child.pid])[1:]
    place.stop(child)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def parse(text, what, said):
    """The object of bench-scale, whose rows have problems where it ended with 1; an error where there is none."""
    try:
        seen = json.loads(text)
        for row in seen["rows"]:
            if lacking := {"mode", "problems", *METRICS} - set(row):
                raise DemoError(f"{what}: a row without {', '.join(sorted(lacking))}")
        if not seen["rows"] or not isinstance(seen["method"], str):
            raise DemoError(f"{what}: no rows")
        return seen
    except (ValueError, KeyError, TypeError):
        raise DemoError(f"{what}, no result: {said}") from None


def in_turn(flags, place, background):
    """Rows, checks and the method, a run of the program after the other."""
    rows, checks, method = [], [], ""
    for name, arguments, limit_s in plan(flags):
        background.append(load.background())
        say(f"{name}: bench-scale {' '.join(arguments)}")
        try:
            seen = bench_scale(place, arguments, limit_s)
            method = seen["method"]
            rows += [{"name": name, **row} for row in seen["rows"]]
            problems = [problem for row in seen["rows"] for problem in row["problems"]]
        except Exception as error:  # Whatever it is, the other rows are measured.
            say(f"{name} FAILED: {reason(error)}")
            problems = [str(error)]
            rows.append({"name": name, "mode": arguments[0], **dict.fromkeys(METRICS), "problems": problems})
        checks.append(demo.check(f"{name}: everything as it must be", not problems, problems, []))
    return rows, checks, method


def measured(flags, hold):
    place, background = ScaleSite("off"), []
    hold(place)
    place.build()
    host = demo.host_facts(os.environ["BEAM_BIN"], flags.repository)
    host.update(place.facts())
    rows, checks, method = in_turn(flags, place, background)
    host.update({"background_cpus": demo.median(background), "background_cpus_max": round(max(background), 3)})
    place.close()
    return {"schema": SCHEMA, "ok": False, "checks": checks, "host": host, "rows": rows, "runs": 1,
            "method": method + f" On the rig of scripts/bench tunnel: AF_XDP at the gateway, source addresses {SOURCES}; beyond the limit: kernel UDP on loopback."}  # fmt: skip


def table(report):
    lines = [("", "live", "asleep", "RSS MiB", "UMEM MiB", "B a tunnel", "setup/s", "P95 ms", "CPU %")]
    for row in report["rows"]:
        mib = lambda name: "-" if row[name] is None else f"{row[name] / 2**20:.1f}"  # noqa: E731, B023
        lines.append((row["name"], str(row["live"]), str(row["asleep"]), mib("rss_bytes"), mib("umem_bytes"),
                      *(demo.show(row[name]) for name in ("bytes_per_tunnel", "setup_per_s", "p95_ms", "cpu_percent"))))  # fmt: skip
    return demo.aligned(lines)
