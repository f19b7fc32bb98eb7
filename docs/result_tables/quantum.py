"""Of quantum linear solvers: circuits, their prices, and the paper's study."""

from __future__ import annotations

import math
import statistics

from result_tables.cells import Runs, Table, code, milliseconds, two_digits


def paper(runs: Runs) -> Table:
    """Of `examples/paper`: the perceptron's break-even gate times by cost model."""
    blocks = [run for run in runs if run["part"] == "block" and run["family"] == "mlp"]
    prices = {r["model"]: r for r in runs if r["part"] == "price" and r["family"] == "mlp"}
    machines = [run for run in runs if run["part"] == "machine"]
    nearest = min(machines, key=lambda run: run["seconds"])["seconds"]
    slow = {run["model"]: run["times_too_slow"] for run in machines if run["seconds"] == nearest}
    rows = []
    for model, price in prices.items():
        even = [block["break_even"][model] for block in blocks]
        saved = zip(price["gate_times"], price["saved_against_lu"], strict=True)
        enough = max((time for time, share in saved if share >= 0.9), default=None)
        rows.append(
            [
                model,
                f"{min(even):.0e} to {max(even):.0e} s",
                "none down to 1e-18 s" if enough is None else f"{enough:.0e} s",
                f"{slow[model]:.0e}",
            ]
        )
    too_slow = f"gates of {1e9 * nearest:.0f} ns are too slow by"
    head = ["cost model", "breaks even with LU", "saves 90 %, from", too_slow]
    return [head, *rows]


def paper_rows(runs: Runs) -> Table:
    """Of `examples/paper`: the Jacobian's circuit beside those of the matrix, over all blocks."""
    head = ["model", "circuit", "degree", "p", "breaks even with LU", "with the best classical"]
    head += ["with LU, read"]
    found = [run for run in runs if run["part"] == "rows"]
    rows = []
    for family, circuit in dict.fromkeys((run["family"], run["circuit"]) for run in found):
        own = [run for run in found if (run["family"], run["circuit"]) == (family, circuit)]
        degree, p = (statistics.median(run[key] for run in own) for key in ("degree", "success"))
        keys = ("break_even", "break_even_best", "break_even_read")
        even = (_range([run[key] for run in own]) for key in keys)
        rows.append([family, circuit, f"{degree:,.0f}", f"{p:.1g}", *even])
    return [head, *rows] if rows else [head, ["not in these results", *[""] * (len(head) - 1)]]


def _range(seconds: list[float | None]) -> str:
    known = [number for number in seconds if number is not None]
    return f"{min(known):.0e} to {max(known):.0e} s" if known else "not solved"


def encodings(runs: Runs) -> Table:
    rows = []
    for run in runs:
        kept = "" if run["kept"] == 16 else f", pruned to {run['kept']} a row"
        more = run["larger_gates"]
        gates = f"{run['gates']:,}" + (f", and {more} with three controls" if more else "")
        name = run["encoding"] + kept
        rows.append([name, f"{run['normalisation']:.2f}", str(run["ancillas"]), gates])
    return [["encoding", "α/‖A‖", "ancillas", "gates"], *rows]


def prices_solvers(runs: Runs) -> Table:
    rows = [
        [
            str(run["size"]),
            f"{run['condition_number']:.0f}",
            two_digits(run["qsvt_state"] / run["shortcut_state"]),
            two_digits(run["qsvt_read"] / run["shortcut_read"]),
            f"{run['qsvt_reached']:.0%}, {run['shortcut_reached']:.0%}",
        ]
        for run in runs
        if run["part"] == "solvers"
    ]
    return [["N", "κ", "until the state is there", "until it is read", "systems read"], *rows]


def inexact(runs: Runs) -> Table:
    ways = {"1e-6": "1e-6", "0.1": "0.1", "forcing": "a forcing term"}
    rows = []
    for run in runs:
        if run["way"] == "1e-6":
            exact = run["layers"]
        fewer = "" if run["way"] == "1e-6" else two_digits(exact / run["layers"])
        solver = code("QSVT" if run["solver"] == "qsvt" else "Shortcut")
        layers = f"{run['layers']:.0e}"
        rows.append([run["data"], solver, ways[run["way"]], str(run["steps"]), layers, fewer])
    return [["data", "solver", "solutions to", "steps", "layers", "fewer"], *rows]


def jacobian(runs: Runs) -> Table:
    methods = ("U, from g", "U, from r", "K, shortcut", "G", "G, shifted", "G, shortcut")
    rows = [
        [
            run["case"],
            str(run["step"]),
            f"{run['condition_number']:,.0f}",
            *(_layers(run["layers"][method]) for method in methods),
        ]
        for run in runs
        if run["encoding"] == "dilation" and run["step"] != 4
    ]
    return [["rows", "step", "κ", *methods], *rows]


def _layers(count: float) -> str:
    return "not solved" if math.isnan(count) else f"{count:.0e}"


def peers_quantum(runs: Runs) -> Table:
    """Of `benchmarks/peers_quantum.py`."""
    rows = [
        [
            f"{run['condition_number']:g}",
            run["solver"],
            f"{run['error']:.1e}",
            f"{run['success']:.2f}",
            f"{run['queries']}",
            "" if run["gates"] is None else f"{run['gates']:,}",
            "" if run["qubits"] is None else f"{run['qubits']}",
            f"{run['seconds']:.2g} s",
        ]
        for run in runs
    ]
    return [["κ", "circuit", "error", "success", "queries", "gates", "qubits", "seconds"], *rows]


def solvers(runs: Runs) -> Table:
    """Of `benchmarks/quantum.py`: those that answered."""
    rows = []
    for run in runs:
        answers = {name: row for name, row in run["rows"].items() if "error" in row}
        for k, (name, row) in enumerate(answers.items()):
            rows.append(
                [
                    run["title"] if k == 0 else "",
                    name.replace("keras_qnewton", "this package"),
                    f"{row['error']:.0e}",
                    milliseconds(row["seconds"]),
                    two_digits(row["ratio"]) if k else "",
                    f"{row['qubits'] or ''}",
                    f"{row['gates']:,}" if row["gates"] else "",
                ]
            )
    return [["what", "by", "error", "time", "times the first", "qubits", "gates"], *rows]
