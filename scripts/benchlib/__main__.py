"""Entry of scripts/bench ablation, targets, scale and report: flags, the one place that takes everything down, what is kept."""

import argparse
import json
import os
import sys

from demolib import report as demo
from demolib.rig import guarded, say, without_report
from tunnellib import report as reporting
from tunnellib.runs import number, write_result

from . import ablation, publish, results, scale, targets
from .rigging import REPOSITORY

SUBJECTS = {"ablation": ablation, "targets": targets, "scale": scale}
WHOLE = {"ablation": {"runs": 5, "time": 3, "probes": 500}, "targets": {"runs": 3, "time": 4, "probes": 1000}, "scale": {"runs": 1}}
# By which a row shows that it was measured.
FIGURES = {"ablation": "throughput_percent", "targets": "measured", "scale": "live"}
QUICK = {"runs": 1, "time": 1, "probes": 100}
IDLE_S, IDLE_QUICK_S = 30, 2


def parse(subject, argv):
    flags = argparse.ArgumentParser(prog=f"scripts/bench {subject}", allow_abbrev=False)
    flags.add_argument("--json", action="store_true")
    flags.add_argument("--save", action="store_true")
    flags.add_argument("--quick", action="store_true")
    flags.add_argument("--only", default="", metavar="TEXT[,TEXT]")
    if subject != "scale":
        flags.add_argument("--runs", type=number(99), metavar="N")
        flags.add_argument("--time", type=number(600), metavar="SECS")
    flags.add_argument("--needs", action="store_true", help=argparse.SUPPRESS)
    parsed = flags.parse_args(argv)
    for name, value in (QUICK if parsed.quick else WHOLE[subject]).items():
        setattr(parsed, name, getattr(parsed, name, None) or value)
    parsed.idle = IDLE_QUICK_S if parsed.quick else IDLE_S
    known = SUBJECTS[subject].names()
    texts = [text.strip() for text in parsed.only.split(",") if text.strip()]
    if texts and not any(text in name for text in texts for name in known):
        flags.error(f"--only {parsed.only!r} names no row; there are: {'; '.join(known)}")
    if parsed.save and (parsed.quick or parsed.only):
        flags.error("--save keeps whole runs; leave out --quick and --only")
    parsed.repository = REPOSITORY
    parsed.results = lambda name: results.beside(parsed.save, name)
    return parsed


def run(subject, argv):
    flags, module = parse(subject, argv), SUBJECTS[subject]
    if os.geteuid() != 0:
        say(f"error: network namespaces need root; run: sudo -E scripts/bench {subject}")
        return 1
    if flags.needs:
        print("\n".join(sorted(module.needs(flags))))
        return 0
    reports = []
    left, stopped_by = guarded(lambda hold: reports.append(module.measured(flags, hold)))
    if not reports:
        return without_report(left, stopped_by)
    report = reports[0]
    demo.judge_leftovers(report, left)
    write_result(subject, report)
    saved = keep(subject, report) if flags.save else True
    print(json.dumps(report) if flags.json else text(module, report), flush=True)
    return 0 if report["ok"] and saved else 1


def text(module, report):
    lines = [*module.table(report), ""]
    for name, facts in (("versions", report.get("versions", {})), ("host", report["host"])):
        if facts:
            lines += demo.paragraph(name, ", ".join(f"{key} {value}" for key, value in facts.items()))
    lines += demo.paragraph("method", report["method"])
    if not reporting.is_quiet(report):
        lines += demo.paragraph("NOTE", "the machine did other work meanwhile (background_cpus): these figures are no measurement")
    return "\n".join([*lines, "", *demo.verdicts(report["checks"])])


def keep(subject, report):
    """Saves the report of a quiet machine, rows that failed with their reasons; whether it was one."""
    if why := reporting.why_not_kept(report, FIGURES[subject]):
        say(f"not saved: {why}")
        return False
    results.save(subject, report)
    publish.everything(results.KEPT, readme=True)
    say(f"kept as benches/results/{subject}.json{'' if report['ok'] else ', although not all checks hold'}, and the report made anew")
    return True


def main(argv):
    subject, *rest = argv
    if subject in SUBJECTS:
        return run(subject, rest)
    # report DIRECTORY [--readme]: renders what lies there.
    directory, *more = rest
    return publish.everything(directory, readme="--readme" in more)


sys.exit(main(sys.argv[1:]))
