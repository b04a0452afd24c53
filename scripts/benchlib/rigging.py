"""What ablation and targets do alike: groups of arms, each a way to put a tunnel up, measured in turn on one site."""

import dataclasses
import os

from demolib import report as demo
from demolib.rig import reason, say
from tunnellib import load, tunnels
from tunnellib import report as reporting
from tunnellib.runs import error_sample, measured_or_why
from tunnellib.site import Site

from .wide import WideSite

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclasses.dataclass
class Load:
    """What each run of an arm does: see tunnellib.runs.measure."""

    probes: int
    time: int
    connections: int = 1
    flows: int = 1


@dataclasses.dataclass
class Group:
    """Arms that are measured in turn; `path` puts the middle in between. `congestion` is TCP's between client and gateway, so
    that an arm of TCP differs from beam's, whose default is CUBIC too, by all but that."""

    name: str
    arms: list
    load: Load
    path: object = None
    congestion: str = "cubic"

    def site(self):
        return WideSite(self.path, self.congestion) if self.path else Site("off", self.congestion)


def arm(name, *, needs=("beam",), start=None, xdp="native", **how):
    """A tunnel `beam -L`, with flags or an environment of its own; or what `start` puts up."""
    start = start or (lambda place: tunnels.beam_forward(place, xdp, **how))
    return tunnels.Row(name, "tcp", start, needs, xdp)


def run_group(hold, group, runs):
    """Samples of every arm, in turn, and the site's facts. The site is taken down afterwards. An arm, or the site, that fails
    is a sample with its reason."""
    place, samples, facts = group.site(), [], {}
    hold(place)
    try:
        place.build()
        facts = place.facts()
        load.serve_echo(place)
        for index in range(runs):
            for row in group.arms:
                one = measured_or_why(place, row, group.load, f"{group.name}, run {index + 1} of {runs}", digits=3)
                samples.append(one)
        if group.path:
            facts["middle"] = place.stop_middle()
    except Exception as error:  # Whatever it is, the other groups are measured.
        say(f"{group.name} FAILED: {reason(error)}")
        samples += [error_sample(place, row, error) for row in group.arms]
    finally:
        place.close()
    return samples, facts


def summaries(group, samples):
    """A summary an arm, with the busy CPUs besides."""
    out = []
    for row in group.arms:
        its = [one for one in samples if one["name"] == row.name]
        summary = reporting.summary(row, "off", its)
        summary["group"] = group.name
        summary["busy_cpus"] = demo.median([one.get("busy_cpus") for one in its])
        summary["p50_ms_runs"] = [one["p50_ms"] for one in its if "error" not in one]
        out.append(summary)
    return out


def background(samples):
    seen = [one["background_cpus"] for one in samples if "background_cpus" in one]
    return {"background_cpus": demo.median(seen), "background_cpus_max": max(seen, default=None)}
