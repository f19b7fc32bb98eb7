"""Of the parts of a step: matrices, solves, whole steps and replicas, beside other libraries."""

from __future__ import annotations

import math

from result_tables.cells import Runs, Table, code, milliseconds, two_digits

OURS = "this package"


def compared(runs: Runs) -> Table:
    """What `common.compare` made: ours, and every peer that ran."""
    rows = []
    for run in runs:
        if "peers" not in run:
            continue
        rows.append([run["title"], OURS, milliseconds(run["ours_seconds"]), ""])
        rows += [
            ["", name, milliseconds(peer["seconds"]), two_digits(peer["ratio"])]
            for name, peer in run["peers"].items()
            if "seconds" in peer
        ]
    return [["what", "by", "time", "times ours"], *rows]


def solve(runs: Runs) -> Table:
    scipys = "scipy cho_factor + cho_solve"
    rows = [
        [
            run["dtype"],
            f"{run['size']:,}",
            run["chosen"],
            milliseconds(run["peers"][scipys]["seconds"] / run["solves_in_a_row"]),
            *(f"{run['ours_over_scipy'][route]:.2f}" for route in ("cholesky", "lapack", "lu")),
            f"{run['errors'][run['chosen']]:.0e}, {run['errors']['scipy cho']:.0e}",
        ]
        for run in runs
        if "size" in run
    ]
    ratios = [f"{code(name)} / SciPy's" for name in ("Cholesky", "Lapack", "LU")]
    return [
        ["type", "N", "chosen", "SciPy's Cholesky", *ratios, "errors, chosen and SciPy's"],
        *rows,
    ]


def race(runs: Runs) -> Table:
    rows = []
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = [run for run in runs if run["task"] == task]
        (reached,) = (run["to_reach"] for run in of_task if "to_reach" in run)
        for run in of_task:
            if "lowest_by" not in run:
                continue
            against = reached.get(run["optimizer"], {})
            by = [f"{loss:.1e}" for loss in run["lowest_by"].values()]
            rows.append([task, run["optimizer"], *by, _sooner(against)])
    marks = next(list(run["lowest_by"]) for run in runs if "lowest_by" in run)
    head = ["task", "optimizer", *(f"by {mark} s" for mark in marks)]
    return [[*head, "its lowest loss: its seconds, `QNewton()`'s"], *rows]


def _sooner(against: dict[str, float]) -> str:
    if not against:
        return ""
    ours = against["qnewton_seconds"]
    when = f"{ours:.2f} s" if math.isfinite(ours) else "never"
    return f"{against['its_seconds']:.2f} s, {when}"


def replicas(runs: Runs) -> Table:
    rows = [
        [
            f"{run['size']:,}",
            f"{run['examples']:,}",
            f"{run['matrix_bytes'] / 1e3:,.0f} kB",
            f"{run['gradient_bytes'] / 1e3:,.1f} kB",
            *(
                f"{run[f'{name}_1_ms']:.1f}, {run[f'{name}_2_ms']:.1f} ms"
                for name in ("newton", "adam")
            ),
        ]
        for run in runs
    ]
    head = [
        "weights",
        "examples",
        "matrix",
        "gradient",
        "`QNewton()` on one, two",
        "Adam on one, two",
    ]
    return [head, *rows]


def bookkeeping(runs: Runs) -> Table:
    rows = [
        [
            run["task"],
            f"{run['size']:,}",
            milliseconds(run["seconds"]),
            milliseconds(run["rest"]),
            f"{run['share']:.0%}",
        ]
        for run in runs
    ]
    return [["task", "weights", "a step", "the rest of it", "share"], *rows]
