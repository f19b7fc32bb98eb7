"""Tables of the pages that are made of committed results: `python docs/measured.py` writes them.

A table stands between two comments, the first with its name in `TABLES`:

    <!-- measured: whole_wait -->
    ...
    <!-- end of measured -->
"""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS / "measured"
_TABLE = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end of measured -->)", re.S)


Runs = list[dict[str, Any]]
Table = list[list[str]]


def _whole_wait(runs: Runs) -> Table:
    names = {"curve": "curve", "poisson": "physics-informed"}
    rows = [
        [
            names[run["problem"]],
            _code(run["method"]) if run["method"] == "QNewton()" else run["method"],
            f"{run['first_seconds']:.1f} s",
            f"{run['steps']:,}",
            f"{run['lowest_loss']:.1e}",
        ]
        for run in runs
    ]
    return [["problem", "method", "first step", "steps", "lowest loss"], *rows]


def _quasi_newton_cost(runs: Runs) -> Table:
    head = ["weights", "step", "losses with gradients", "one of these", "passes", "ratio"]
    rows = [
        [
            f"{run['size']:,}",
            f"{run['ours_ms']:.1f} ms",
            f"{run['looks']:.2f}",
            f"{run['gradient_ms']:.1f} ms",
            f"{run['passes_ms']:.1f} ms",
            f"{run['ratio']:.2f}",
        ]
        for run in runs
        if "passes_ms" in run
    ]
    return [head, *rows]


def _random_problems(runs: Runs) -> Table:
    head = ["family", "problems", "losses raised", "not finite", "stagnant"]
    fields = ("family", "problems", "rises", "not_finite", "stagnant")
    return [head, *([str(run[field]) for field in fields] for run in runs)]


def _many_models(runs: Runs) -> Table:
    rows = [
        [
            _code(run["optimizer"]),
            str(run["models"]),
            f"{run['megabytes_a_model']:.1f} MB",
            f"{run['operations_a_model']:,.0f}",
        ]
        for run in runs
    ]
    return [["optimizer", "models", "memory a model", "operations a model"], *rows]


def _solved(runs: Runs, methods: dict[str, str]) -> Iterator[list[str]]:
    for method, shown in methods.items():
        solved = [
            sum(run["method"] == method and run["start"] == start for run in ended)
            for ended in [[run for run in runs if run["ended"] == "solved"]]
            for start in (1.0, 10.0)
        ]
        yield [shown, *map(str, solved)]


def _classics(runs: Runs) -> Table:
    methods = {
        "residuals auto": "`QNewton()`",
        "lm": 'SciPy\'s `least_squares`, "lm"',
        "trf": 'SciPy\'s `least_squares`, "trf"',
        "hidden auto": '`QNewton(curvature="hessian")`',
        "trust-exact": 'SciPy\'s `minimize`, "trust-exact"',
    }
    return [["method", "standard start", "ten times that"], *_solved(runs, methods)]


def _classics_scaling(runs: Runs) -> Table:
    names = {"residuals": "Gauss-Newton", "hidden": "exact Hessian"}
    methods = {
        f"{form} {scaling}": f"{name}, `{scaling}`"
        for form, name in names.items()
        for scaling in ("auto", "none", "diagonal")
    }
    return [["curvature, scaling", "standard start", "ten times that"], *_solved(runs, methods)]


def _encodings(runs: Runs) -> Table:
    rows = []
    for run in runs:
        kept = "" if run["kept"] == 16 else f", pruned to {run['kept']} a row"
        more = run["larger_gates"]
        gates = f"{run['gates']:,}" + (f", and {more} with three controls" if more else "")
        name = run["encoding"] + kept
        rows.append([name, f"{run['normalisation']:.2f}", str(run["ancillas"]), gates])
    return [["encoding", "α/‖A‖", "ancillas", "gates"], *rows]


def _kinks(runs: Runs) -> Table:
    rows = [
        [
            run["task"],
            str(run["batch"]),
            *(f"{run[of]:.1e}" for of in ("qnewton", "hessian", "adam")),
        ]
        for run in runs
    ]
    return [["loss", "batch", "`QNewton()`", "exact Hessian", "Adam"], *rows]


def _prices_solvers(runs: Runs) -> Table:
    rows = [
        [
            str(run["size"]),
            f"{run['condition_number']:.0f}",
            _two_digits(run["qsvt_state"] / run["shortcut_state"]),
            _two_digits(run["qsvt_read"] / run["shortcut_read"]),
            f"{run['qsvt_reached']:.0%}, {run['shortcut_reached']:.0%}",
        ]
        for run in runs
        if run["part"] == "solvers"
    ]
    return [["N", "κ", "until the state is there", "until it is read", "systems read"], *rows]


def _inexact(runs: Runs) -> Table:
    ways = {"1e-6": "1e-6", "0.1": "0.1", "forcing": "a forcing term"}
    rows = []
    for run in runs:
        if run["way"] == "1e-6":
            exact = run["layers"]
        fewer = "" if run["way"] == "1e-6" else _two_digits(exact / run["layers"])
        solver = _code("QSVT" if run["solver"] == "qsvt" else "Shortcut")
        layers = f"{run['layers']:.0e}"
        rows.append([run["data"], solver, ways[run["way"]], str(run["steps"]), layers, fewer])
    return [["data", "solver", "solutions to", "steps", "layers", "fewer"], *rows]


def _jacobian(runs: Runs) -> Table:
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


def _quasi_newton(runs: Runs) -> Table:
    rows = [
        [
            run["label"],
            f"{run['evaluations']:,}",
            f"{run['final_loss']:.1e}",
            f"{run['final_l2']:.1e}",
        ]
        for run in runs
        if run["final_loss"] is not None
    ]
    return [["method", "gradients", "loss", "L2 error"], *rows]


def _pinn(runs: Runs) -> Table:
    names = {"poisson2d": "Poisson, 2-d", "heat1d": "heat, 1-d", "poisson5d": "Poisson, 5-d"}
    rows = []
    for run in runs:
        reached = run["steps_and_seconds_to"]["1e-05"]
        level = "not reached" if reached is None else f"{reached[0]:,}"
        ours = run["method"] == "QNewton()"
        rows.append(
            [
                names[run["problem"]],
                _code(run["method"]) if ours else run["method"],
                f"{1e3 * run['step_seconds_mean']:.1f} ms",
                f"{run['steps']:,}",
                level,
                f"{run['final_l2']:.1e}",
                f"{run['ms_ours_over_jax']:.2f}" if ours else "",
            ]
        )
    head = ["problem", "method", "a step", "steps", "to 1e-5", "L2 error", "a step / JAX's"]
    return [head, *rows]


def _small_batches(runs: Runs) -> Table:
    """Of each batch ours, and Adam at its best rate."""
    rows = []
    for batch in sorted({run["batch"] for run in runs}):
        of = {run["method"]: run["accuracy"] for run in runs if run["batch"] == batch}
        adam = max((value, name) for name, value in of.items() if name.startswith("Adam"))
        rows.append([str(batch), f"{of['QNewton()']:.3f}", f"{adam[0]:.3f}, {adam[1]}"])
    return [["batch", "`QNewton()`", "Adam at its best rate"], *rows]


def _small_batches_memory(runs: Runs) -> Table:
    names = {"QNewton()": "`memory=20`, the default", "memory=1": "`memory=1`"}
    rows = [
        [
            str(run["batch"]),
            names[run["method"]],
            f"{run['accuracy']:.3f}",
            f"{run['largest_fall']:.3f}",
        ]
        for run in runs
        if run["method"] in names
    ]
    return [["batch", "steps", "test accuracy", "largest fall"], *rows]


def _two_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _code(text: str) -> str:
    return f"`{text}`"


# By what a page calls it: the file of its results, and how it is made of them.
def _paper(runs: list[dict[str, Any]]) -> list[list[str]]:
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


def _peers_quantum(runs: list[dict[str, Any]]) -> list[list[str]]:
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


def _models(runs: Runs) -> Table:
    of = {(run["model"], run["optimizer"]): run for run in runs}
    rows = []
    for model in dict.fromkeys(run["model"] for run in runs):
        adam, ours = of[model, "Adam"], of[model, "QNewton"]
        seconds = [f"{run['first_seconds']:.1f} s" for run in (adam, ours)]
        later = [f"{1e3 * run['step_seconds']:.1f} ms" for run in (adam, ours)]
        formed = ours["formed_by"].split(":")[0]
        rows.append([model, f"{ours['weights']:,}", *seconds, *later, f"{ours['route']}, {formed}"])
    head = ["model", "weights", "first, Adam", "first, `QNewton()`", "later, Adam"]
    return [[*head, "later, `QNewton()`", "solved by, formed by"], *rows]


def _first_step(runs: Runs) -> Table:
    of = {(run["model"], run["optimizer"]): run for run in runs}
    rows = []
    for model in dict.fromkeys(run["model"] for run in runs):
        adam, ours = of[model, "Adam"], of[model, "QNewton"]
        parts = [f"{ours[part]:.1f} s" for part in ("tracing", "graph_optimisation", "first_run")]
        ratio = ours["first_step"] / adam["first_step"]
        rows.append([model, f"{ours['operations']:,.0f}", *parts, f"{ratio:.1f}"])
    head = ["model", "operations", "tracing", "optimisation", "first run", "times Adam's"]
    return [head, *rows]


TABLES: dict[str, tuple[str, Callable[[Runs], Table]]] = {
    "paper": ("paper", _paper),
    "peers_quantum": ("peers_quantum", _peers_quantum),
    "whole_wait": ("whole_wait", _whole_wait),
    "models": ("models", _models),
    "first_step": ("first_step", _first_step),
    "quasi_newton_cost": ("quasi_newton_cost", _quasi_newton_cost),
    "random_problems": ("random_problems", _random_problems),
    "many_models": ("many_models", _many_models),
    "classics": ("classics", _classics),
    "classics_scaling": ("classics", _classics_scaling),
    "encodings": ("encodings", _encodings),
    "kinks": ("kinks", _kinks),
    "prices_solvers": ("prices", _prices_solvers),
    "inexact": ("inexact", _inexact),
    "jacobian": ("jacobian", _jacobian),
    "quasi_newton": ("quasi_newton", _quasi_newton),
    "pinn": ("pinn", _pinn),
    "small_batches": ("small_batches", _small_batches),
    "small_batches_memory": ("small_batches", _small_batches_memory),
}


def table(name: str) -> str:
    """A table of committed results, in Markdown, with what their file says of its origin."""
    file, made = TABLES[name]
    stored = json.loads((RESULTS / f"{file}.json").read_text("utf-8"))
    about = stored["about"]
    head, *rows = made(stored["runs"])
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    origin = "; ".join(about[of] for of in ("date", "machine", "versions"))
    busy = f"; load {about['load']}" if "load" in about else ""
    return "\n".join(
        [*lines, "", f"From `docs/measured/{file}.json`, by `{about['command']}`: {origin}{busy}."]
    )


def rewritten(page: str) -> str:
    """The page with its tables as they are to be."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{table(found[2])}\n\n{found[3]}", page)


def main() -> None:
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text("utf-8")
        if rewritten(text) != text:
            path.write_text(rewritten(text), "utf-8")


if __name__ == "__main__":
    main()
