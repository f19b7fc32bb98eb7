"""Tables of the pages that are made of committed results: `python docs/measured.py` writes them.

A table stands between two comments, the first with the name of its file in `docs/figures`:

    <!-- measured: whole_wait -->
    ...
    <!-- end of measured -->
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

DOCS = pathlib.Path(__file__).parent
PAGES = (DOCS / "benchmarks.md",)
_TABLE = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end of measured -->)", re.S)


def whole_wait(runs: list[dict[str, Any]]) -> list[list[str]]:
    """Of `benchmarks/whole_wait.py`."""
    names = {"curve": "curve", "poisson": "physics-informed"}
    rows = [
        [
            names[run["problem"]],
            f"`{run['method']}`" if run["method"] == "QNewton()" else run["method"],
            f"{run['first_seconds']:.1f} s",
            f"{run['steps']:,}",
            f"{run['lowest_loss']:.1e}",
        ]
        for run in runs
    ]
    return [["problem", "method", "first step", "steps", "lowest loss"], *rows]


TABLES: dict[str, Callable[[list[dict[str, Any]]], list[list[str]]]] = {"whole_wait": whole_wait}


def table(name: str) -> str:
    """The table of a file of results, in Markdown, with what the file says of its origin."""
    stored = json.loads((DOCS / "figures" / f"{name}.json").read_text("utf-8"))
    head, *rows = TABLES[name](stored["runs"])
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    origin = "; ".join(stored["about"][of] for of in ("command", "date", "machine", "versions"))
    return "\n".join([*lines, "", f"From `docs/figures/{name}.json`: {origin}."])


def rewritten(page: str) -> str:
    """The page with its tables as they are to be."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{table(found[2])}\n\n{found[3]}", page)


def main() -> None:
    for path in PAGES:
        path.write_text(rewritten(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
