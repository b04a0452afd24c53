"""From outcomes to the report: one row for each kernel, NIC and mode; the JSON object, the table."""

import datetime
import re
import subprocess

from demolib import report as demo

SCHEMA = "beam.kernels.v1"
RESULTS = {"passed": "pass", "failed": "fail", "skipped": "skip"}


def build(outcomes, host, some_cases=False):
    """`some_cases`: only some were asked for, and not every mode need have one of these (ladder, for one, runs once)."""
    rows, troubles = [], []
    for outcome in outcomes:
        rows += [row for row in _rows(outcome) if row["cases"] or not some_cases]
        if outcome.trouble:
            troubles.append({"kernel": outcome.plan.kernel, "nic": outcome.plan.nic.name, "trouble": outcome.trouble,
                             "log": outcome.log})  # fmt: skip
    ok = bool(rows) and not troubles and all(not row["failed"] and (row["passed"] or some_cases) for row in rows)
    return {"schema": SCHEMA, "ok": ok, "host": host, "rows": rows, "troubles": troubles}


def _rows(outcome):
    plan = outcome.plan
    facts = {key: value for key, value in outcome.facts.items() if key not in ("release", "driver")}
    rows = []
    # A mode that was planned and of which nothing was heard has a row, too: of zeroes.
    for mode in dict.fromkeys([*plan.modes, *(case["mode"] for case in outcome.cases)]):
        cases = [case for case in outcome.cases if case["mode"] == mode]
        row = {"kernel": plan.kernel, "release": outcome.facts.get("release"), "nic": plan.nic.name,
               "driver": outcome.facts.get("driver", plan.nic.driver), "mode": mode}  # fmt: skip
        row |= {word: sum(case["result"] == result for case in cases) for word, result in RESULTS.items()}
        row["facts"] = facts
        row["cases"] = {case["case"]: {key: case[key] for key in ("result", "why", "facts") if key in case} for case in cases}
        rows.append(row)
    return rows


def host_facts(beam, qemu, repository):
    """Where this was run: never a part of a verdict, always beside it. Without the load: no figure here depends on it."""
    facts = demo.host_facts(beam, repository)
    del facts["load_average_1m"]
    said = subprocess.run([*qemu, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    version = re.search(r"version (\S+)", said)
    return {
        **facts,
        "qemu": version[1] if version else "unknown",
        "accelerator": "tcg (software emulation, one CPU a guest)",
        "date": datetime.date.today().isoformat(),
    }


def passed_nowhere(report, known):
    """The cases that say nothing yet: skipped everywhere (for want of queues, say), failed, or never heard of."""
    passed = {name for row in report["rows"] for name, case in row["cases"].items() if case["result"] == "pass"}
    return [name for name in known if name not in passed]


def totals(report):
    return {word: sum(row[word] for row in report["rows"]) for word in RESULTS}


def table(report):
    """The report for a person."""
    head = ("kernel", "NIC", "mode", "passed", "failed", "skipped")
    cells = [head] + [
        (row["release"] or row["kernel"], row["nic"], row["mode"], *(str(row[word]) for word in RESULTS))
        for row in report["rows"]
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    for word, result in (("FAILED", "fail"), ("skipped", "skip")):
        lines += [
            f"{word} {row['kernel']} {row['nic']} {row['mode']} {name}: {case.get('why', 'no reason given')}"
            for row in report["rows"]
            for name, case in row["cases"].items()
            if case["result"] == result
        ]
    for one in report["troubles"]:
        log = f" (console log: {one['log']})" if one["log"] else ""
        lines.append(f"FAILED {one['kernel']} {one['nic']}: {one['trouble']}{log}")
    facts = report["host"]
    lines += ["", f"host  {', '.join(f'{key} {value}' for key, value in facts.items())}", verdict(report)]
    return "\n".join(lines)


def verdict(report):
    """The last line, in cargo's words, which scripts/test adds up. A guest in trouble is one failure more."""
    counted = totals(report)
    failed = counted["failed"] + len(report["troubles"])
    word = "ok" if report["ok"] else "FAILED"
    return f"test result: {word}. {counted['passed']} passed; {failed} failed; {counted['skipped']} skipped"
