"""Markdown pages as tests read them: their blocks of code, and their links."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

from tests import hangs

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# Modules that an extra installs, by the import in a block that needs them.
EXTRAS = {
    "from keras_qnewton.report import": "matplotlib",
    "import deepxde": "deepxde",
    "import matplotlib": "matplotlib",
    "from sklearn": "sklearn",
}
_MAKES_DEVICES = "set_logical_device_configuration"
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")


def text_of(page: pathlib.Path) -> str:
    return page.read_text("utf-8")


def prose_of(page: pathlib.Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", text_of(page))


def blocks(page: pathlib.Path, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(text_of(page)) if found == language]


def installed(code: str) -> bool:
    needed = [module for line, module in EXTRAS.items() if line in code]
    return all(importlib.util.find_spec(module) for module in needed)


def run(page: pathlib.Path, folder: pathlib.Path) -> None:
    """Runs a page's Python blocks, one after the other in one namespace.

    A page that makes devices has a process of its own: TensorFlow makes none once it is in use.
    """
    if _MAKES_DEVICES not in text_of(page):
        run_here(page, folder)
        return
    program = "import sys, pathlib; from tests.pages import run_here; "
    program += "run_here(*map(pathlib.Path, sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(page), str(folder)]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    options = {"text": True, "env": environment, "timeout": hangs.SECONDS}
    done = subprocess.run(command, capture_output=True, **options)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    print(done.stdout, end="")


def run_here(page: pathlib.Path, folder: pathlib.Path) -> None:
    """See `run`.

    From files: without a source, TensorFlow warns that it cannot convert a function.
    """
    namespace = {"__name__": "page"}
    for number, code in enumerate(blocks(page, "python")):
        if installed(code):
            path = folder / f"block_{number}.py"
            path.write_text(code, "utf-8")
            exec(compile(code, str(path), "exec"), namespace)


def same_but_for_rounding(printed: str, promised: str) -> bool:
    """Whether two texts differ in their numbers at most, and in none by more than a factor of 10.

    Rounding on another machine may cost a digit of a small loss, not two.
    """
    if NUMBER.sub("#", printed) != NUMBER.sub("#", promised):
        return False
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(promised), strict=True)
    numbers = [(float(value), float(said)) for value, said in pairs]
    return all(value <= 10 * said and said <= 10 * value for value, said in numbers)


def broken_links(page: pathlib.Path) -> list[str]:
    """Links and pictures of a page whose file is missing, or whose heading is."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


def anchors(page: pathlib.Path) -> set[str]:
    """The headings' anchors: lower case, hyphens for spaces, punctuation left out."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
