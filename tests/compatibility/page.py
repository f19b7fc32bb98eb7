"""The page of all rows, in the order of the modules that have them."""

from __future__ import annotations

import importlib
import pathlib

from tests.compatibility.cells import CELLS, Cell

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "compatibility.md"
MODULES = (
    "test_precision",
    "test_rate",
    "test_weights",
    "test_data",
    "test_training",
    "test_files",
    "test_devices",
    "test_wrappers",
)


def rows() -> list[Cell]:
    """All rows; tests may have been imported in another order."""
    found = []
    for name in MODULES:
        module = importlib.import_module(f"tests.compatibility.{name}")
        found += [c for c in CELLS if getattr(module, c.test, None) is not None]
    return found


def page() -> str:
    lines = [
        "# Compatibility",
        "",
        "What Keras and TensorFlow offer, and what QNewton makes of it. Each row is a test of",
        "`tests/compatibility/`, of which this page is made. Keras's own tests of optimizers",
        "are run by `test_keras_own_tests.py`, but for those with gradients of no loss.",
        "",
    ]
    cells = rows()
    for area in dict.fromkeys(c.area for c in cells):
        lines += [f"## {area}", "", "| what | verdict | test |", "|---|---|---|"]
        lines += [f"| {c.what} | {c.verdict} | `{c.test}` |" for c in cells if c.area == area]
        lines.append("")
    return "\n".join(lines)
