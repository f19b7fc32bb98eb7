"""Builds what would be published, and uses it: `make package`.

    both files          pass `twine check --strict`
    source archive      pytest collects its tests, from the archive alone
    wheel               installed in a new environment, runs README's sample

Stops at the first that fails, with what it printed.
"""

from __future__ import annotations

import os
import pathlib
import sys
import tarfile
import tempfile
from collections.abc import Sequence

import fresh
import newcomer


def run(what: str, command: Sequence[str | os.PathLike[str]], folder: pathlib.Path) -> None:
    """Runs a command in a folder; ends the program with its output where it fails."""
    done = fresh.done(command, folder)
    if done.failed:
        print(done.text)
        sys.exit(f"FAILED: {what}")
    print(f"{what}: {done.last}", flush=True)


def build(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The source archive and the wheel, made in `folder` from a clone."""
    clone, made = fresh.clone(folder), folder / "made"
    run("build", [sys.executable, "-m", "build", "--outdir", made], clone)
    (archive,), (wheel,) = made.glob("*.tar.gz"), made.glob("*.whl")
    run("twine", [sys.executable, "-m", "twine", "check", "--strict", archive, wheel], folder)
    return archive, wheel


def check_archive(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Its tests can be collected."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    (root,) = (folder / "unpacked").iterdir()
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    run("tests of the source archive", collect, root)


def check_wheel(wheel: pathlib.Path, folder: pathlib.Path) -> None:
    """README's sample runs where nothing else is installed."""
    python, sample = fresh.environment(folder) / "python", folder / "sample.py"
    text = (fresh.ROOT / "README.md").read_text("utf-8")
    sample.write_text(next(code for kind, code in newcomer.parts(text) if kind == "code"), "utf-8")
    run("installation", [python, "-m", "pip", "install", wheel], folder)
    run("README's sample", [python, sample], folder)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        archive, wheel = build(folder)
        check_archive(archive, folder)
        check_wheel(wheel, folder)


if __name__ == "__main__":
    main()
