"""Builds what would be published, and uses it: `make package`.

    both files          pass `twine check --strict`
    source archive      pytest collects its tests, from the archive alone
    wheel               installed in a new environment, runs README's sample

Stops at the first that fails, with what it printed.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence

import newcomer


def run(what: str, command: Sequence[object], folder: pathlib.Path) -> None:
    """Runs a command in a folder; ends the program with its output where it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        print(done.stdout)
        sys.exit(f"FAILED: {what}")
    print(f"{what}: {done.stdout.strip().splitlines()[-1]}", flush=True)


def build(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The source archive and the wheel, made in `folder` from a clone."""
    clone, made = folder / "clone", folder / "made"
    subprocess.run(["git", "clone", "--quiet", str(newcomer.ROOT), str(clone)], check=True)
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
    environment, sample = folder / "environment", folder / "sample.py"
    text = (newcomer.ROOT / "README.md").read_text("utf-8")
    sample.write_text(next(code for kind, code in newcomer.parts(text) if kind == "code"), "utf-8")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
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
