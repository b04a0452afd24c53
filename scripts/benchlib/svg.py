"""Plots as plain SVG, by hand: a plotting library would be the largest thing that scripts/ needs, for three kinds of plot.

Colours are classes, so that a page, print and dark mode set them; `standalone` puts the same rules into a file of its own.
All text goes through `escape`: names and errors come from other programs."""

import html
import math

WIDTH = 860
ROW, GAP, LEFT, RIGHT, TOP, BOTTOM = 22, 6, 250, 150, 14, 40
CHARS_LEFT = 38
DASHES = ("", "6 3", "2 3", "8 3 2 3")
SERIES = 8

# s0 is beam's own colour.
LIGHT = {"ink": "#1b1b1a", "muted": "#62615d", "grid": "#e2e1dc", "page": "#fcfcfb", "bad": "#b3261e", "good": "#00700f",
         "s": ("#2a78d6", "#1baf7a", "#c98500", "#4a3aa7", "#e34948", "#008300", "#d55181", "#77756f")}  # fmt: skip
DARK = {"ink": "#f2f1ec", "muted": "#a9a8a2", "grid": "#393835", "page": "#1a1a19", "bad": "#ff8a80", "good": "#5fcf70",
        "s": ("#5598e7", "#25b886", "#dda62a", "#9d93ef", "#ee7c7b", "#4fae4f", "#e07ba3", "#96948d")}  # fmt: skip


def variables(theme):
    named = "".join(f"--{name}:{value};" for name, value in theme.items() if name != "s")
    return named + "".join(f"--s{number}:{value};" for number, value in enumerate(theme["s"]))


RULES = (
    "svg text{font:12px system-ui,sans-serif;fill:var(--ink)}svg .muted{fill:var(--muted);font-size:11px}"
    "svg .grid{stroke:var(--grid);stroke-width:1}svg .axis{stroke:var(--muted);stroke-width:1}"
    "svg .whisker{stroke:var(--ink);stroke-width:1.5;fill:none}svg .promise{stroke:var(--bad);stroke-width:2;stroke-dasharray:4 2}"
    "svg .line{fill:none;stroke-width:2}"
    + "".join(f"svg .s{n}{{fill:var(--s{n})}}svg .line.s{n},svg .key.s{n}{{fill:none;stroke:var(--s{n})}}" for n in range(SERIES))
)


def escape(text):
    return html.escape(str(text), quote=True)


def standalone(svg):
    """The same as a file, for pages that show it as an image: it brings its colours, dark ones, too."""
    style = f"<style>svg{{{variables(LIGHT)}}}@media(prefers-color-scheme:dark){{svg{{{variables(DARK)}}}}}{RULES}</style>"
    before, after = svg.split(">", 1)
    return f'{before}>{style}<rect width="100%" height="100%" style="fill:var(--page)"/>{after}\n'


def opened(height, title):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
    )


def steps(low, high, count=5):
    """Round numbers that cover a range: the ticks of an axis."""
    if high <= low:
        high = low + 1
    raw = (high - low) / count
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def text(x, y, words, anchor="start", kind=""):
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'


def line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def short(label, chars=CHARS_LEFT):
    return label if len(label) <= chars else label[: chars - 1] + "…"


def bars(title, unit, items, legend=()):
    """Horizontal bars. An item is a dict: label, value, and where there are any low and high (the whisker), series, promised (a
    dashed mark). A value of None is said, not drawn."""
    numbers = [one[key] for one in items for key in ("value", "low", "high", "promised") if one.get(key) is not None]
    ticks = steps(min([0, *numbers]), max([0, *numbers]))
    height = TOP + len(items) * (ROW + GAP) + BOTTOM + (20 if legend else 0)
    place = scale(ticks[0], ticks[-1])
    bottom = TOP + len(items) * (ROW + GAP)
    out = [opened(height, title)]
    for tick in ticks:
        out.append(line(place(tick), TOP, place(tick), bottom, "grid"))
        out.append(text(place(tick), bottom + 15, f"{tick:g}", "middle", "muted"))
    out.append(line(place(0), TOP, place(0), bottom, "axis"))
    for number, one in enumerate(items):
        out += bar(one, TOP + number * (ROW + GAP) + GAP / 2, place)
    out.append(text(WIDTH - RIGHT, bottom + 32, unit, "end", "muted"))
    out += keys(legend, bottom + 50)
    return "".join([*out, "</svg>"])


def bar(one, y, place):
    yield text(LEFT - 8, y + ROW / 2 + 4, short(one["label"]), "end")
    value, middle = one["value"], y + ROW / 2
    if value is None:
        yield text(place(0) + 6, middle + 4, one.get("missing", "not measured"), "start", "muted")
        return
    left, right = sorted((place(0), place(value)))
    yield f'<rect x="{left:.1f}" y="{y:.1f}" width="{max(right - left, 0.5):.1f}" height="{ROW}" rx="2" class="s{one.get("series", 0)}"/>'
    end = max(right, place(0))
    low, high = one.get("low"), one.get("high")
    if low is not None and high is not None and high > low:
        yield f'<path d="M{place(low):.1f} {middle - 5:.1f}v10M{place(low):.1f} {middle:.1f}H{place(high):.1f}m0 -5v10" class="whisker"/>'
        end = max(end, place(high))
    if one.get("promised") is not None:
        at = place(one["promised"])
        yield line(at, y - 2, at, y + ROW + 2, "promise")
        # The figure stands behind the mark only where it would be crossed by it.
        end = at if end - 4 < at < end + 60 else end
    yield text(end + 6, middle + 4, one.get("shown", f"{value:.2f}"))


def scale(low, high):
    span = (high - low) or 1
    return lambda value: LEFT + (min(max(value, low), high) - low) / span * (WIDTH - LEFT - RIGHT)


def keys(legend, y):
    x = LEFT
    for name, series in legend:
        if series == "promise":
            yield line(x + 5, y - 12, x + 5, y + 1, "promise")
        else:
            yield f'<rect x="{x}" y="{y - 10}" width="11" height="11" rx="2" class="s{series}"/>'
        yield text(x + 17, y, name, "start", "muted")
        x += 40 + 7 * len(name)


def percentiles(title, curves):
    """Latency over percentiles as HDR histograms are shown: each nine of the percentile takes as much room. A curve is a name,
    {percentile: ms}, series, dash."""
    points = [(nines(float(percent)), ms) for _, quantiles, *_ in curves for percent, ms in quantiles.items() if ms > 0]
    if not points:
        return ""
    height, bottom, right = 380, 330, WIDTH - 210
    low, high = (math.log10(pick(ms for _, ms in points)) for pick in (min, max))
    low, high = math.floor(low * 3) / 3, math.ceil(high * 3) / 3
    high = high if high > low else low + 1
    last = math.ceil(max(at for at, _ in points))
    x = lambda at: 60 + at / last * (right - 60)  # noqa: E731
    y = lambda ms: bottom - (math.log10(ms) - low) / (high - low) * (bottom - 20)  # noqa: E731
    out = [opened(height, title)]
    for number in range(last + 1):
        percent = 100 - 100 / 10**number
        out.append(line(x(number), 20, x(number), bottom, "grid"))
        out.append(text(x(number), bottom + 16, f"{percent:g} %", "middle", "muted"))
    out.append(text(x(math.log10(2)), bottom + 16, "50 %", "middle", "muted"))
    for ms in milliseconds(low, high):
        out.append(line(60, y(ms), right, y(ms), "grid"))
        out.append(text(54, y(ms) + 4, f"{ms:g}", "end", "muted"))
    out.append(text(right, bottom + 34, "percentile", "end", "muted"))
    out.append(text(10, 12, "ms", "start", "muted"))
    for number, (name, quantiles, series, dash) in enumerate(curves):
        pairs = sorted((nines(float(percent)), ms) for percent, ms in quantiles.items() if ms > 0)
        path = " ".join(f"{x(at):.1f},{y(ms):.1f}" for at, ms in pairs)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        out.append(f'<polyline points="{path}" class="line s{series}"{dashes}/>')
        at = 34 + number * 20
        out.append(f'<line x1="{right + 16}" y1="{at}" x2="{right + 42}" y2="{at}" class="key line s{series}"{dashes}/>')
        out.append(text(right + 48, at + 4, short(name, 24)))
    return "".join([*out, "</svg>"])


def nines(percent):
    """How many nines a percentile has: 0 for 0 %, 1 for 90 %, 2 for 99 %."""
    return -math.log10(max(1 - percent / 100, 1e-6))


def milliseconds(low, high):
    """1, 2 and 5 of each decade within the axis."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [mantissa * 10.0**decade for decade in decades for mantissa in (1, 2, 5) if low - 0.01 <= math.log10(mantissa * 10.0**decade) <= high + 0.01]
