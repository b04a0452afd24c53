"""Handshakes a second on the rig: `beam bench run` at the client, against `beam bench serve` at the gateway."""

import json
import os
import subprocess

from demolib.job import own_cpu
from demolib.rig import DemoError
from tunnellib import load

from .promises import HANDSHAKES_AT_ONCE

KINDS = ("full", "resumed", "0rtt")
WARM_UP_S = 1
# beam bench run fails a server that is silent for seconds; this is for one that hangs itself.
SPARE_S = 30


def serve(place):
    """The measuring server: its fingerprint."""
    argv = [
        os.environ["BEAM_BIN"], "bench", "serve", "-l", f"{place.gateway}:{place.listen_port}", "--self-signed",
        *path_flags(place, "gateway"), "--cpus", own_cpu(0), "--control", place.path("bench.sock"),
    ]  # fmt: skip
    server = place.spawn("gateway", "beam bench serve", *argv, stdout=subprocess.DEVNULL)
    pin = server.wait_for("fingerprint sha256:").split("fingerprint ", 1)[1].split()[0]
    server.wait_for("ready")
    return pin


def path_flags(place, side):
    return ["-i", place.interfaces[side], "--queues", "all", "--xdp", "native"]


def run(place, pin, kind, flags):
    """Handshakes of a kind, a second, of each run."""
    argv = [
        os.environ["BEAM_BIN"], "bench", "run", f"https://{place.gateway}:{place.listen_port}", "--pin", pin,
        "-i", place.interfaces["client"], "--xdp", "native", "--cpus", own_cpu(1),
        "--hps", "0", "-P", str(HANDSHAKES_AT_ONCE), "--handshake", kind,
        "-t", f"{flags.time}s", "-O", f"{WARM_UP_S}s", "--runs", str(flags.runs), "--json",
    ]  # fmt: skip
    limit_s = flags.runs * (flags.time + WARM_UP_S) + SPARE_S
    return parse(load.run_in(place, "client", "beam bench run", *argv, limit_s=limit_s), kind, flags.runs)


def parse(out, kind, runs):
    """`done_per_s` of each run in the JSON of beam bench run. Runs that failed, or were of another kind, are an error."""
    try:
        report = json.loads(out)
        if report.get("trouble") or report.get("interrupted"):
            raise DemoError(f"beam bench run, {kind}: {report.get('trouble') or 'it was interrupted'}")
        (test,) = (one for one in report["tests"] if one["test"] == "handshakes")
        (spread,) = (one["spread"]["done_per_s"] for one in test["loads"] if one["load"] == "handshakes")
        seen = [next(one for one in whole["loads"] if one["load"] == "handshakes") for whole in test["runs"]]
        incomplete = [not whole["complete"] for whole in test["runs"]]
        for one in seen:
            must_be_of(kind, one["all"])
        rates = [float(one["done_per_s"]) for one in seen]
        if len(rates) != runs or any(incomplete) or not all(rates) or not spread["min"] <= spread["median"] <= spread["max"]:
            raise DemoError(f"beam bench run, {kind}: {rates} of {runs} runs, median {spread['median']}; incomplete: {incomplete}")
        return rates
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise DemoError(f"beam bench run, {kind}, wrote no result: {error!r}: {out[:200]!r}") from None


def must_be_of(kind, counts):
    """Every handshake that was done began as it was to begin."""
    done, wanted = counts["done"], {"full": (0, 0), "resumed": (1, 0), "0rtt": (1, 1)}[kind]
    tickets, early, certificates = counts["tickets_used"], counts["early_data_accepted"], counts["certificates_seen"]
    # Handshakes that a run's end cut off have used a ticket, or seen a certificate, too.
    right = tickets >= done * wanted[0] and early >= done * wanted[1] and (certificates >= done if kind == "full" else not certificates)
    none = [count for count, one in zip((tickets, early), wanted) if not one]
    if counts["failed"] or not done or not right or any(none):
        raise DemoError(f"beam bench run, {kind}: not {done} such handshakes: {counts}")
