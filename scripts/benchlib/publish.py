"""The report: one self-contained HTML page, Markdown and JSON, from the results of a directory, written beside them."""

import json
import os

from kernelslib import page
from tunnellib import page as tunnel_page

from . import content, results, svg

SCHEMA = "beam.bench.report.v1"
TITLE = "beam: what was measured"
PLOT = "goodput.svg"
README_BEGIN = "<!-- targets: made by scripts/bench --save -->"
STYLE = (
    f":root{{{svg.variables(svg.LIGHT)}color-scheme:light dark}}"
    f"@media(prefers-color-scheme:dark){{:root{{{svg.variables(svg.DARK)}}}}}"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1180px;margin:2em auto;padding:0 1.2em}"
    "h1{font-size:1.7em;margin:0 0 .3em}h2{font-size:1.25em;margin:2em 0 .4em;border-bottom:1px solid var(--grid);padding-bottom:.2em}"
    "table{border-collapse:collapse;font-size:13px;margin:.8em 0;font-variant-numeric:tabular-nums}"
    "th,td{text-align:left;vertical-align:top;padding:.3em .7em .3em 0;border-bottom:1px solid var(--grid)}th{font-weight:600}"
    ".wide{overflow-x:auto}.why{min-width:24em}.note{color:var(--bad)}.small{color:var(--muted);font-size:13px}"
    ".yes{color:var(--good)}.no{color:var(--bad);font-weight:600}nav a{margin-right:1em}a{color:var(--s0)}"
    "figure{margin:1.2em 0}figcaption{font-weight:600;font-size:13px;margin-bottom:.2em}svg{max-width:100%;height:auto}"
    f"@media print{{:root{{{svg.variables(svg.LIGHT)}color-scheme:light}}body{{max-width:none;margin:0;font-size:11px}}table{{font-size:9px}}"
    ".wide{overflow:visible}.why{min-width:0}figure,tr{break-inside:avoid}h2{break-after:avoid}nav{display:none}}"
    + svg.RULES
)


def everything(directory, readme=False):
    """Renders what lies in a directory; with `readme` the README's tables, too, which are those of what is kept."""
    found = results.all_in(directory)
    sections = content.sections(found)
    write(directory, "report.html", html(sections))
    write(directory, "report.md", markdown(sections, os.path.exists(os.path.join(directory, "tunnel.json"))))
    write(directory, "report.json", json.dumps({"schema": SCHEMA, "missing": [name for name, one in found.items() if one is None],
                                                **{name: one for name, one in found.items() if one}}) + "\n")  # fmt: skip
    if found["tunnel"]:
        write(directory, PLOT, plot(found["tunnel"]))
    if readme:
        page.replace(readme_section(found), README_BEGIN)
        tunnel_page.write_readme()
    return 0


def write(directory, name, text):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        file.write(text)


def plot(report):
    """The README's: goodput of all tunnels."""
    return svg.standalone(content.tunnel_plot(report, "goodput_gbps", "goodput", "Gbit/s"))


def facts(host):
    """A host in one line, without what is a figure of the measurement itself."""
    return ", ".join(f"{name.replace('_', ' ')} {', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in host.items() if value is not None)


def commits(sections):
    return sorted({str(one.host["commit"]) for one in sections if one.host.get("commit")})


def html(sections):
    escape = svg.escape
    out = [f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
           f"<title>{escape(TITLE)}</title><style>{STYLE}</style></head><body><h1>{escape(TITLE)}</h1>"]  # fmt: skip
    out.append(f'<p class="small">beam at commit {escape(", ".join(commits(sections)) or "not known")}. Each part tells the host that it was measured on.</p>')
    out.append("<nav>" + "".join(f'<a href="#{one.subject}">{escape(one.title)}</a>' for one in sections) + "</nav>")
    for one in sections:
        out.append(f'<section id="{one.subject}"><h2>{escape(one.title)}</h2>')
        out += [f'<p class="note">{escape(note)}</p>' for note in one.notes]
        if one.host:
            out.append(f"<p>{escape(one.intro)}</p>")
        out += [f"<figure>{drawn(picture)}</figure>" for picture in one.plots]
        out += [html_table(table) for table in one.tables]
        out += [f"<p>{escape(remark)}</p>" for remark in one.remarks]
        if one.host:
            out.append(f'<p class="small">Host: {escape(facts(one.host))}.</p>')
            out.append(f'<p class="small">Method: {escape(one.method.rstrip("."))}.</p>')
        out.append("</section>")
    return "\n".join([*out, "</body></html>", ""])


def drawn(picture):
    """A plot below its own title."""
    title = picture.split("<title>", 1)[1].split("</title>", 1)[0]
    return f"<figcaption>{title}</figcaption>{picture}"


def html_table(table):
    marked = {"yes": ' class="yes"', "no": ' class="no"'}
    kept = table.head.index("kept") if "kept" in table.head else -1
    cells = lambda row: "".join(  # noqa: E731
        f"<td{marked.get(cell, '') if at == kept else ' class=why' if table.head[at] in ('why', 'how') else ''}>{svg.escape(cell)}</td>"
        for at, cell in enumerate(row)
    )
    head = "".join(f"<th>{svg.escape(cell)}</th>" for cell in table.head)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>' + "".join(f"<tr>{cells(row)}</tr>" for row in table.rows) + "</tbody></table></div>"


def plain(text):
    """A cell of Markdown: nothing in it is markup."""
    out = svg.escape(" ".join(str(text).split())).replace("\\", "\\\\").replace("|", "\\|")
    return out.replace("`", "\\`").replace("[", "\\[").replace("&#x27;", "'").replace("&quot;", '"')


def markdown_table(table):
    lines = ["| " + " | ".join(map(plain, table.head)) + " |", "|" + "---|" * len(table.head)]
    return lines + ["| " + " | ".join(map(plain, row)) + " |" for row in table.rows]


def markdown(sections, with_plot):
    out = [f"# {TITLE}", "", f"beam at commit {plain(', '.join(commits(sections)) or 'not known')}."]
    for one in sections:
        out += ["", f"## {one.title}", ""]
        out += [line for note in one.notes for line in (f"**{plain(note)}**", "")]
        if one.host:
            out += [one.intro, ""]
        if one.subject == "tunnel" and with_plot:
            out += [f"![goodput of tunnels]({PLOT})", ""]
        for table in one.tables:
            out += [*markdown_table(table), ""]
        out += [line for remark in one.remarks for line in (plain(remark), "")]
        if one.host:
            out += [f"Host: {plain(facts(one.host))}.", "", f"Method: {plain(one.method.rstrip('.'))}."]
    return "\n".join(out) + "\n"


def readme_section(found):
    """The README's: targets that something was promised of, and ablation, each without its long columns."""
    out = []
    for subject in ("targets", "ablation"):
        report = found[subject]
        if report is None:
            out += [f"No result of `scripts/bench {subject}` has been saved yet.", ""]
            continue
        section, host = content.section(subject, report), report["host"]
        wanted = ("", "promised", "measured (min to max)", "unit", "kept") if subject == "targets" else (
            "", "latency, promised", "latency", "throughput, promised", "throughput", "why")  # fmt: skip
        table = section.tables[0]
        at = [table.head.index(name) for name in wanted if name in table.head]
        rows = [row for row in table.rows if "promised" not in table.head or row[table.head.index("promised")]]
        short = content.Table([table.head[number] for number in at], [tuple(row[number] for number in at) for row in rows])
        more = f"; {len(table.rows) - len(rows)} more rows, and how each was measured, are in the [report](benches/results/report.md)" if len(rows) < len(table.rows) else ""
        out += [f"{section.title}, on {host['cpu']}, {host['cores']} CPUs, Linux {host['kernel']}, beam at commit {host['commit']}{more}:", "",
                *markdown_table(short), ""]  # fmt: skip
    return "\n".join(out).rstrip()


