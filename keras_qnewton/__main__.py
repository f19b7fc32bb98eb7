"""The commands `python -m keras_qnewton doctor` and `... report run.jsonl -o report.html`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

# A report computes nothing: TensorFlow's start-up notices would only be in the way.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 if it went well, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m keras_qnewton")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("report", help="an HTML page about a run that NewtonLog kept")
    one.add_argument("log", help="file of NewtonLog(path=...) or Decisions.to_jsonl")
    one.add_argument("-o", "--output", default="report.html", help="default: %(default)s")
    one.set_defaults(run=_report)
    other = commands.add_parser("doctor", help="what of this machine would be used, and what fails")
    other.add_argument("--quick", action="store_true", help="measure no solver, train no model")
    other.set_defaults(run=_doctor)
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _report(options: argparse.Namespace) -> int:
    from keras_qnewton.report import report

    try:
        report(options.log, options.output)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(options.output)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from keras_qnewton import doctor

    problems = 0
    for finding in doctor.examine(options.quick):
        print(doctor.written(finding), flush=True)
        problems += len(finding.problems)
    print(doctor.verdict(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
