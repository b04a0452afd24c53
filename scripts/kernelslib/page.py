"""The README's section on kernels and drivers, made from benches/results/kernels.json.

`python3 -m kernelslib.page` (with scripts/ on the path) makes it anew; a test holds the two against each other.
"""

import json
import os

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESULTS = os.path.join(REPOSITORY, "benches/results/kernels.json")
README = os.path.join(REPOSITORY, "README.md")
BEGIN, END = "<!-- kernels: made by scripts/kernels --save -->", "<!-- end -->"
MODES = ("zero-copy", "copy", "generic", "off")


def section(report):
    """What stands between the markers; `report` is None where none was saved yet."""
    if report is None:
        return "No result has been saved yet."
    host = report["host"]
    lines = [
        f"Cases passed, of those that apply, on stock Debian kernels in QEMU {host['qemu']} (software emulation), for beam at "
        f"commit {host['commit']}, {host['date']}:",
        "",
        *_matrix(report["rows"]),
        "",
        "The same by kind of case, over all of these guests:",
        "",
        *_groups(report["rows"]),
    ]
    failures = [
        f"- {row['release']}, {row['nic']}, {row['mode']}: `{name}`: {case.get('why', 'no reason given')}"
        for row in report["rows"]
        for name, case in row["cases"].items()
        if case["result"] == "fail"
    ]
    return "\n".join([*lines, "", *(["Failed:", "", *failures] if failures else ["None failed."])])


def _matrix(rows):
    """One line for each kernel and NIC, one column for each mode."""
    modes = [*MODES, *dict.fromkeys(row["mode"] for row in rows if row["mode"] not in MODES)]
    lines = ["| kernel | driver | " + " | ".join(modes) + " |", "|---|---|" + "---|" * len(modes)]
    for kernel, nic in dict.fromkeys((row["kernel"], row["nic"]) for row in rows):
        mine = {row["mode"]: row for row in rows if (row["kernel"], row["nic"]) == (kernel, nic)}
        first = next(iter(mine.values()))
        queues = ", several queues" if nic.endswith("-mq") else ""
        cells = [_cell(mine[mode]["passed"], mine[mode]["failed"]) if mode in mine else "the driver has none" for mode in modes]
        lines.append(f"| {first['release']} | {first['driver']}{queues} | " + " | ".join(cells) + " |")
    return lines


def _groups(rows):
    """One line for each kind of case: what its name says before the first hyphen."""
    counted = {}
    for row in rows:
        for name, case in row["cases"].items():
            cell = counted.setdefault(name.split("-")[0], {}).setdefault(row["mode"], {"pass": 0, "fail": 0, "skip": 0})
            cell[case["result"]] += 1
    modes = [*MODES, *dict.fromkeys(row["mode"] for row in rows if row["mode"] not in MODES)]
    lines = ["| cases | " + " | ".join(modes) + " |", "|---|" + "---|" * len(modes)]
    for group, by_mode in counted.items():
        cells = [_cell(by_mode[mode]["pass"], by_mode[mode]["fail"]) if mode in by_mode else "" for mode in modes]
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return lines


def _cell(passed, failed):
    return f"{passed} of {passed + failed}" if passed + failed else "not applicable"


def saved():
    if not os.path.exists(RESULTS):
        return None
    with open(RESULTS, encoding="utf-8") as file:
        return json.load(file)


def put(readme, text, marker=BEGIN):
    """The README with that text between the marker and the end."""
    before, begin, rest = readme.partition(marker)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {marker} ... {END} any more: where should the section go?")
    return f"{before}{marker}\n{text}\n{END}{after}"


def save(report):
    """Keeps the report and makes the page of it."""
    with open(RESULTS, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    write_readme()


def write_readme():
    replace(section(saved()), BEGIN)


def replace(text, marker):
    """Writes the README anew with that text behind its marker."""
    with open(README, encoding="utf-8") as file:
        readme = file.read()
    with open(README, "w", encoding="utf-8") as file:
        file.write(put(readme, text, marker))


if __name__ == "__main__":
    write_readme()
