"""What the scripts of this folder share: a clone of the checkout, a new environment, a command."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]


class Done(NamedTuple):
    """What a command printed, stderr included, and whether it failed."""

    text: str
    failed: bool

    @property
    def last(self) -> str:
        """The last line that says something."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        return lines[-1].strip("= ") if lines else "nothing was printed"


def clone(folder: pathlib.Path) -> pathlib.Path:
    """A clone of the checkout in `folder`: what is committed."""
    path = folder / "checkout"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(path)], check=True)
    return path


def environment(folder: pathlib.Path, python: str = sys.executable) -> pathlib.Path:
    """The folder of programs of a new environment in `folder`, "python" among them."""
    path = folder / "environment"
    subprocess.run([python, "-m", "venv", str(path)], check=True)
    return path / "bin"


def done(
    command: str | Sequence[str | os.PathLike[str]],
    folder: pathlib.Path,
    variables: Mapping[str, str] | None = None,
) -> Done:
    """Runs a command in a folder; a string by the shell."""
    result = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Done(result.stdout, result.returncode != 0)
