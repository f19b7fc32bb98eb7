"""The commands `python -m keras_qnewton doctor`, `report run.jsonl` and `project run.jsonl`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from keras_qnewton.version import __version__

# A report computes nothing: TensorFlow's start-up notices would only be in the way.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_LOG = "file that NewtonLog('run.jsonl') wrote during fit, or Decisions.to_jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 if it went well, 1 if not, 2 without one."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 2
    try:
        code = int(options.function(options))
        sys.stdout.flush()  # here, where what is wrong with it can be told
        return code
    except BrokenPipeError:
        # Who read has seen enough, as `head` has. Python writes what is left as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {_told(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m keras_qnewton",
        description="Newton's method for Keras models: looks at this machine, and at runs.",
        epilog="Training is done from Python: model.compile(optimizer=QNewton(), ...).",
    )
    parser.add_argument("--version", action="version", version=f"keras_qnewton {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    doctor = commands.add_parser("doctor", help="what of this machine would be used, what fails")
    doctor.add_argument("--quick", action="store_true", help="measure no solver, train no model")
    doctor.set_defaults(function=_doctor)
    report = commands.add_parser("report", help="an HTML page about a run that NewtonLog kept")
    report.add_argument("log", help=_LOG)
    report.add_argument("-o", "--output", default="report.html", help="default: %(default)s")
    report.set_defaults(function=_report)
    project = commands.add_parser("project", help="a run's systems, priced at another gate time")
    project.add_argument("log", help=_LOG)
    project.add_argument(
        "--gate-time", type=float, default=1e-9, metavar="SECONDS", help="default: %(default)s"
    )
    project.add_argument("--run", type=int, help="which of the log's runs, from 0; default: last")
    project.set_defaults(function=_project)
    return parser


def _told(error: Exception) -> str:
    """An error in words: an operating system's are a number and a few."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"there is no file or folder {error.filename!r}"
    if isinstance(error, IsADirectoryError):
        return f"{error.filename!r} is a folder, not a file"
    return str(error)


def _report(options: argparse.Namespace) -> int:
    from keras_qnewton.report import report

    report(options.log, options.output)
    print(options.output)
    return 0


def _project(options: argparse.Namespace) -> int:
    from keras_qnewton import conditioning, solvers  # which scheduling finds by their names
    from keras_qnewton.virtual_clock import project

    del conditioning, solvers
    print(project(options.log, gate_time=options.gate_time, run=options.run).summary())
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
