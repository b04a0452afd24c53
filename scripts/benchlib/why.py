"""Why an optimisation brings another gain than the design promised: sentences written by a person, each with what must have been
measured for it to be true. A sentence whose condition doesn't hold isn't printed: somebody has to judge again."""

import dataclasses
import string

RE_JUDGE = "re-judge"
AS_PROMISED = "as promised"


@dataclasses.dataclass(frozen=True)
class Why:
    """`text` may name facts in braces; each fact of `holds` must have been measured between its two bounds."""

    text: str
    holds: dict

    def broken(self, facts):
        """The conditions that don't hold, in words; one is that all is known that the sentence names."""
        for _, name, _, _ in string.Formatter().parse(self.text):
            if name and name not in self.holds and name not in facts:
                yield f"{name} was not measured"
        for name, (least, most) in self.holds.items():
            value = facts.get(name)
            if value is None:
                yield f"{name} was not measured"
            elif not least <= value <= most:
                yield f"{name} is {value:g}, the sentence is true from {least:g} to {most:g}"


ANY = float("inf")


def undecided_or_not(text, holds):
    """The sentence, which says so where the runs disagree about whether there is a gain at all (fact `undecided`: 1)."""
    addition = "; some runs gained and others lost, in latency as in throughput, so the difference is noise"
    return Why(text + addition, {**holds, "undecided": (1, 1)}), Why(text, holds)


# Several for one optimisation: the first whose conditions hold is said.
TEXTS = {
    "QUIC instead of TCP + TLS": (
        Why(
            "a path without loss has no use for what QUIC does better, and it pays for its place: TLS over TCP hands the kernel "
            "64 KB at once and is acknowledged by it ({off_cpu_daemons:.2f} CPU s/GB in its processes), QUIC frames, seals and "
            "acknowledges each packet of 1,452 bytes itself ({on_cpu_daemons:.2f}); both CPUs are busy with either "
            "({off_busy_cpus:.1f} and {on_busy_cpus:.1f} of {cores}), so what costs more carries less",
            {"throughput_percent": (-ANY, 0), "cpu_ratio": (1.1, ANY), "on_busy_share": (0.7, 1.0)},
        ),
        Why(
            "faster than TLS over TCP, by less than promised: {on_cpu_daemons:.2f} CPU s/GB in its processes against "
            "{off_cpu_daemons:.2f}, and no loss on this path for QUIC to recover from more quickly",
            {"throughput_percent": (0, 49.9)},
        ),
    ),
    "QUIC, lossy wide area, CUBIC": (
        Why(
            "with CUBIC on both sides the loss sets the speed of one flow: {off_goodput_mbps:.1f} and {on_goodput_mbps:.1f} Mbit/s of "
            "the path's 100, and quinn-proto's CUBIC comes back from a loss more slowly than the kernel's; a round trip can't be "
            "shorter than the path's, so the median is the same, and QUIC's gain lies in the tail (P99 {off_p99_ms:.0f} and "
            "{on_p99_ms:.0f} ms)",
            {"throughput_percent": (-60, -15), "latency_percent": (-10, 10), "on_goodput_mbps": (0, 60), "p99_percent": (-ANY, -1)},
        ),
        Why(
            "with CUBIC on both sides the loss, not the protocol, sets the speed of one flow: {off_goodput_mbps:.1f} and "
            "{on_goodput_mbps:.1f} Mbit/s of the path's 100; a round trip can't be shorter than the path's, so the median is the "
            "same, and QUIC's gain lies in the tail (P99 {off_p99_ms:.0f} and {on_p99_ms:.0f} ms)",
            {"throughput_percent": (-15, 49.9), "latency_percent": (-10, 10), "on_goodput_mbps": (0, 60), "p99_percent": (-ANY, -1)},
        ),
        Why(
            "with CUBIC on both sides the loss, not the protocol, sets the speed of one flow: {off_goodput_mbps:.1f} and "
            "{on_goodput_mbps:.1f} Mbit/s of the path's 100; a round trip can't be shorter than the path's, so the median is the "
            "same, and the kernel's TCP repairs a lost packet as quickly (P99 {off_p99_ms:.0f} and {on_p99_ms:.0f} ms)",
            {"throughput_percent": (-50, 49.9), "latency_percent": (-10, 10), "on_goodput_mbps": (0, 60), "p99_percent": (-1, ANY)},
        ),
        Why(
            "QUIC's recovery carries more over the lossy path than promised ({off_goodput_mbps:.1f} and {on_goodput_mbps:.1f} Mbit/s); "
            "the median round trip is the path's own, which no protocol shortens",
            {"throughput_percent": (50, ANY), "latency_percent": (-10, 10)},
        ),
    ),
    "QUIC, lossy wide area, BBR": (
        Why(
            "BBR takes a lost packet for no sign of congestion, so TLS over TCP fills {off_goodput_mbps:.1f} of the path's 100 Mbit/s and "
            "leaves QUIC nothing to win; quinn-proto's BBR, which its authors call experimental, fills {on_goodput_mbps:.1f}",
            {"throughput_percent": (-ANY, 0), "off_goodput_mbps": (50, 100)},
        ),
        Why(
            "BBR takes a lost packet for no sign of congestion, in the kernel or in QUIC: {off_goodput_mbps:.1f} and "
            "{on_goodput_mbps:.1f} of the path's 100 Mbit/s, and the median round trip is the path's own",
            {"throughput_percent": (0, 49.9), "latency_percent": (-10, 10), "off_goodput_mbps": (50, 100)},
        ),
    ),
    "SIMD": (
        Why(
            "vectors make protection alone {protection_ratio:.1f} times as fast as ring at 1,400 bytes, but ring is assembly with AES "
            "instructions already, and protection is only {crypto_share_percent:.0f} % of a packet's time in memory: if it cost "
            "nothing, the engine would gain {crypto_bound_percent:.0f} %, and the kernel's part of this rig gains nothing; an idle "
            "round trip of a few packets waits for wake-ups, not for ciphers",
            {"throughput_percent": (-10, 60), "crypto_bound_percent": (5, 150), "protection_ratio": (1.2, 5)},
        ),
    ),
    "fused copy": undecided_or_not(
        "a second copy of a packet that is in the cache costs {copy_ns:.0f} ns of its {packet_ns:.0f} ns in memory, both ends "
        "together ({copy_percent:.1f} %): modern cores copy 1,452 bytes faster than they do anything else with them, and native "
        "XDP on veth copies each frame in the kernel twice all the same",
        {"throughput_percent": (-10, 30), "copy_percent": (-2, 30)},
    ),
    "allocator and arenas": undecided_or_not(
        "the hot path allocates little whichever allocator there is: buffers of bursts, frames and batches are kept, so the rest "
        "is quinn-proto's own bookkeeping and one block per read (CPU s/GB in the daemons {off_cpu_daemons:.2f} without, "
        "{on_cpu_daemons:.2f} with); a round trip of 64 bytes allocates a handful of times",
        {"throughput_percent": (-10, 40), "latency_percent": (-25, 15)},
    ),
    "allocator alone": (
        Why(
            "the C library's allocator carries more on this rig ({off_cpu_daemons:.2f} CPU s/GB in the daemons, {on_cpu_daemons:.2f} with "
            "mimalloc; why was not found out): mimalloc stays for the memory that it gives back",
            {"throughput_percent": (-15, -3)},
        ),
        Why("see the row of both", {"throughput_percent": (-3, 49.9)}),
    ),
    "arenas alone": (
        Why("see the row of both", {"throughput_percent": (-15, 49.9)}),
    ),
    "pool 1/N": (
        Why(
            "more connections need more cores: on this machine of {cores} CPUs one connection keeps {off_busy_cpus:.1f} busy already, "
            "gateway, client, both ends of iperf3 and the kernel together, and the rig gives each end one CPU for all its workers",
            {"throughput_percent": (-30, 24.9), "cores": (1, 4), "off_busy_share": (0.7, 1.0)},
        ),
    ),
}


def judged(optimisation, promised, measured, facts):
    """The sentence for a row. `promised` and `measured` are pairs: latency, throughput, in percent."""
    if None in measured:
        return "not measured: see errors"
    if promised[0] is not None and measured[0] <= promised[0] and measured[1] >= promised[1]:
        return AS_PROMISED
    broken = []
    for why in TEXTS.get(optimisation, ()):
        reasons = list(why.broken(facts))
        if not reasons:
            return why.text.format(**facts)
        broken.append(", ".join(reasons))
    return f"{RE_JUDGE}: {'; or '.join(broken) or 'no sentence was written for it'}"


def change_percent(off, on):
    """How much more `on` is than `off`; nothing of nothing."""
    if not off or on is None:
        return None
    return round((on / off - 1) * 100, 1)
