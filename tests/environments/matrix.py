"""The package in environments of other versions: `make matrix`.

    newest    the newest TensorFlow, Keras and Cirq that pip finds, without TensorFlow Quantum
    tfq       README's line for TensorFlow Quantum
    lowest    the lowest versions that setup.cfg promises

Each environment is new. pip must take one TensorFlow alone, and some tests must pass: importing,
training by `fit`, saving and loading, circuits, the registry, and `doctor`. Prints a table, and
ends with 1 where a cell failed. A Python that is not installed has no cells, and is named.

    python tests/environments/matrix.py [--pythons 3.10 3.11 3.12 3.13]
        [--sets newest tfq lowest] [--log FOLDER]
"""

from __future__ import annotations

import argparse
import configparser
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import fresh

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# TensorFlow 2.18 and TensorFlow Quantum have no wheels for later ones.
SETS = {"newest": PYTHONS, "tfq": PYTHONS[:3], "lowest": PYTHONS[:3]}
TESTS = (
    "tests/test_package.py",
    "tests/test_registry.py",
    "tests/test_doctor.py",
    "tests/test_saved.py",
    "tests/test_keras_own_tests.py",
    "tests/solvers/test_qsvt.py",
)
SHOWN = ("tensorflow", "keras", "cirq-core", "numpy", "tensorflow-quantum")


class Cell(NamedTuple):
    """An environment, and what came of it.

    Attributes:
        versions: Of what is shown of its packages; empty where it could not be installed.
        tensorflows: Versions of TensorFlow that pip looked at.
        result: pytest's last line, or what went wrong before.
        passed: Whether all went well.
    """

    versions: dict[str, str]
    tensorflows: list[str]
    result: str
    passed: bool


def requirements(which: str) -> list[str]:
    """What pip is asked for besides the checkout's own requirements, and the checkout."""
    if which == "newest":
        return ["."]
    if which == "tfq":
        # On Python 3.10 pip reads what extras ask for last, and a mirror may have no metadata.
        return ["tensorflow>=2.18,<2.19", ".[tfq]"]
    setup = configparser.ConfigParser()
    setup.read(fresh.ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"].splitlines()
    promised = [line for line in lines if line and ";" not in line]  # not what extras ask for
    return [*(re.sub(r">=([\d.]+).*", r"==\1.*", one) for one in promised), "."]


def cell(python: str, which: str, folder: pathlib.Path) -> Cell:
    """Makes the environment in `folder`, with logs, and runs the tests in it."""
    clone, report = fresh.clone(folder), folder / "report.json"
    run = str(fresh.environment(folder, python) / "python")
    install = [run, "-m", "pip", "install", "--report", str(report)]
    log = logged(
        [*install, *requirements(which), "pytest", "hypothesis"], clone, folder / "pip.log"
    )
    tensorflows = sorted(
        set(re.findall(r"(?:Downloading|cached) tensorflow-(\d[\d.]+\d)", log.text))
    )
    if log.failed:
        return Cell({}, tensorflows, log.last, False)
    installed = {
        item["metadata"]["name"].lower(): item["metadata"]["version"]
        for item in json.loads(report.read_text("utf-8"))["install"]
    }
    versions = {name: installed[name] for name in SHOWN if name in installed}
    # The installed package is what is tested, not the clone's.
    shutil.rmtree(clone / "keras_qnewton")
    tests = [run, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *TESTS]
    done = logged(tests, clone, folder / "pytest.log")
    passed = not done.failed and len(tensorflows) <= 1
    return Cell(versions, tensorflows, done.last, passed)


def logged(command: list[str], folder: pathlib.Path, log: pathlib.Path) -> fresh.Done:
    done = fresh.done(command, folder)
    log.write_text(done.text, "utf-8")
    return done


def working(version: str) -> str | None:
    """The Python of that version, if there is one that starts: pyenv's shims may not."""
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-V"], capture_output=True).returncode:
        return None
    return python


def row(*columns: str) -> None:
    print("| " + " | ".join(columns) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pythons", nargs="+", default=list(PYTHONS))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--log", type=pathlib.Path, help="keeps pip's and pytest's output there")
    options = parser.parse_args()
    row("Python", "set", "result", "tests", "TensorFlows taken", *SHOWN, "seconds")
    row(*["---"] * (6 + len(SHOWN)))
    failed = 0
    for version in options.pythons:
        python = working(version)
        for which in (of for of in options.sets if version in SETS[of]):
            if python is None:
                row(version, which, f"no python{version} that starts", *[""] * (3 + len(SHOWN)))
                continue
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                found = cell(python, which, folder)
                if options.log is not None:
                    kept = options.log / f"{version}-{which}"
                    kept.mkdir(parents=True, exist_ok=True)
                    for log in folder.glob("*.log"):
                        shutil.copy(log, kept)
            failed += not found.passed
            row(
                version,
                which,
                "passed" if found.passed else "FAILED",
                found.result,
                ", ".join(found.tensorflows),
                *(found.versions.get(name, "") for name in SHOWN),
                f"{time.perf_counter() - start:.0f}",
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
