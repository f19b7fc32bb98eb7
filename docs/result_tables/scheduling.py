"""Of what the scheduler believes, beside what is: `benchmarks/scheduling.py`."""

from __future__ import annotations

import statistics
from typing import Any

from result_tables.cells import Runs, Table, milliseconds, percent

_WHERE = {"choice": "to choose by", "no choice": "for the log"}
_CURVATURE = {"gauss_newton": "Gauss-Newton", "hessian": "exact Hessian"}


def rows_of(runs: Runs, part: str) -> list[dict[str, Any]]:
    (rows,) = (run["rows"] for run in runs if run["part"] == part)
    return rows


def lu(runs: Runs) -> Table:
    rows = [
        [
            f"{row['size']:,}",
            milliseconds(row["predicted"]),
            milliseconds(row["measured"]),
            f"{row['predicted'] / row['measured']:.2f}",
        ]
        for row in rows_of(runs, "lu")
    ]
    return [["N", "predicted", "measured", "predicted / measured"], *rows]


def condition(runs: Runs) -> Table:
    """A row for what κ is for and whose κ it is: medians and largest over the systems."""
    found = rows_of(runs, "condition")
    rows = []
    for where, purpose in _WHERE.items():
        for curvature, name in _CURVATURE.items():
            of = [r for r in found if (r["where"], r["curvature"]) == (where, curvature)]
            errors, shares = [abs(r["error"]) for r in of], [r["share"] for r in of]
            spread = [
                f"{percent(statistics.median(values))}, {percent(max(values))}"
                for values in (errors, shares)
            ]
            rows.append([purpose, name, str(len(of)), *spread])
    head = ["κ is", "matrix", "systems", "error of κ: median, largest"]
    return [[*head, "time / LU's: median, largest"], *rows]


def reshape(runs: Runs) -> Table:
    as_they_are, *bounded = rows_of(runs, "reshape")
    rows = [
        [
            "none" if row is as_they_are else f"{row['bound']:g}",
            f"{row['reshaped']} of {row['systems']}",
            f"{row['largest_error']:.2g}",
            f"{row['seconds'] / as_they_are['seconds']:.2f}",
            str(row["steps"]),
            f"{row['loss']:.2f}",
        ]
        for row in (as_they_are, *bounded)
    ]
    head = ["bound on the error", "reshaped", "largest error", "predicted time / as they are"]
    return [[*head, "steps", "loss"], *rows]
