"""Does what README says, line by line, as somebody would who has nothing but README.

A clone of this checkout stands for the one that README speaks of, since nothing is published; the
environment is a new one. Stops at the first line that fails, with what it printed.

    make newcomer
    python tests/environments/newcomer.py [--leave-out "make test" ...]
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator

import fresh

# Commands are indented, Python is fenced; in the order in which they stand on the page.
_PARTS = re.compile(r"^    (?P<command>\S[^\n]*)$|^```python\n(?P<code>.*?)^```$", re.M | re.S)


def parts(text: str) -> Iterator[tuple[str, str]]:
    """ "command" or "code", and the text of it, of a page in Markdown."""
    outside = _without_samples(text)
    for found in _PARTS.finditer(outside):
        if found["code"] is not None:
            yield "code", found["code"]
        else:
            yield "command", found["command"].split("  #")[0].strip()


def _without_samples(text: str) -> str:
    """The page without fenced blocks of other kinds than Python."""
    return re.sub(
        r"^```(\w+)\n.*?^```$", lambda m: m[0] if m[1] == "python" else "", text, flags=re.M | re.S
    )


def follow(folder: pathlib.Path, left_out: list[str]) -> int:
    """0 if every line of README went well in `folder`, else 1."""
    clone, programs = fresh.clone(folder), fresh.environment(folder)
    print(f"A clone of {fresh.ROOT} stands for a checkout, which README supposes.", flush=True)
    # What another environment is active must not be seen.
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables["PATH"] = f"{programs}{os.pathsep}{variables['PATH']}"
    sample = folder / "sample.py"
    for kind, text in parts((clone / "README.md").read_text("utf-8")):
        if text in left_out:
            print(f"left out: {text}", flush=True)
            continue
        if kind == "code":
            sample.write_text(text, "utf-8")
        name = "the sample" if kind == "code" else text
        print(f"> {name}", flush=True)
        start = time.perf_counter()
        done = fresh.done(
            f"python {sample}" if kind == "code" else text,
            folder if kind == "code" else clone,  # a sample must not need the checkout
            variables,
        )
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
        if done.failed:
            print(done.text)
            print(f"FAILED: {name}")
            return 1
    print("Every line of README went well.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--leave-out", nargs="*", default=[], help="commands that are not run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return follow(pathlib.Path(folder), options.leave_out)


if __name__ == "__main__":
    sys.exit(main())
