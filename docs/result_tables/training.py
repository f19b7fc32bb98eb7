"""Of trainings: losses, errors, steps and seconds, beside other optimizers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from result_tables.cells import Runs, Table, code


def whole_wait(runs: Runs) -> Table:
    names = {"curve": "curve", "poisson": "physics-informed"}
    rows = [
        [
            names[run["problem"]],
            code(run["method"]) if run["method"] == "QNewton()" else run["method"],
            f"{run['first_seconds']:.1f} s",
            f"{run['steps']:,}",
            f"{run['lowest_loss']:.1e}",
        ]
        for run in runs
    ]
    return [["problem", "method", "first step", "steps", "lowest loss"], *rows]


def first_step(runs: Runs) -> Table:
    of = {(run["model"], run["optimizer"]): run for run in runs}
    rows = []
    for model in dict.fromkeys(run["model"] for run in runs):
        adam, ours = of[model, "Adam"], of[model, "QNewton"]
        parts = [f"{ours[part]:.1f} s" for part in ("tracing", "graph_optimisation", "first_run")]
        ratio = ours["first_step"] / adam["first_step"]
        rows.append([model, f"{ours['operations']:,.0f}", *parts, f"{ratio:.1f}"])
    head = ["model", "operations", "tracing", "optimisation", "first run", "times Adam's"]
    return [head, *rows]


def models(runs: Runs) -> Table:
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


def pinn(runs: Runs) -> Table:
    names = {"poisson2d": "Poisson, 2-d", "heat1d": "heat, 1-d", "poisson5d": "Poisson, 5-d"}
    rows = []
    for run in runs:
        reached = run["steps_and_seconds_to"]["1e-05"]
        level = "not reached" if reached is None else f"{reached[0]:,}"
        ours = run["method"] == "QNewton()"
        rows.append(
            [
                names[run["problem"]],
                code(run["method"]) if ours else run["method"],
                f"{1e3 * run['step_seconds_mean']:.1f} ms",
                f"{run['steps']:,}",
                level,
                f"{run['final_l2']:.1e}",
                f"{run['ms_ours_over_jax']:.2f}" if ours else "",
            ]
        )
    head = ["problem", "method", "a step", "steps", "to 1e-5", "L2 error", "a step / JAX's"]
    return [head, *rows]


def quasi_newton(runs: Runs) -> Table:
    """A row a problem and method, with the seeds' numbers one after the other."""
    names = {"poisson2d": "Poisson, 2-d", "convection20": "convection, β = 20"}
    found: dict[tuple[str, str], list[dict]] = {}
    for run in runs:
        if run["final_loss"] is not None:
            found.setdefault((run["problem"], run["label"]), []).append(run)
    rows = []
    for (problem, label), seeds in found.items():
        losses, errors = (
            ", ".join(f"{run[of]:.1e}" for run in seeds) for of in ("final_loss", "final_l2")
        )
        gradients = f"{statistics.median(run['evaluations'] for run in seeds):,.0f}"
        rows.append([names.get(problem, problem), label, gradients, losses, errors])
    return [["problem", "method", "gradients", "loss, by seed", "L2 error, by seed"], *rows]


def quasi_newton_race(runs: Runs) -> Table:
    """Lowest losses, and seconds to those of two peers."""
    rows = []
    for run in runs:
        to = [run["seconds_to"][peer] for peer in ("scipy_lbfgs", "self_scaled")]
        seconds = ["never" if s is None else f"{s:.2f} s" for s in to]
        task = run["problem"].removeprefix("race_")
        rows.append([task, run["label"], f"{run['final_loss']:.1e}", *seconds])
    head = ["task", "method", "loss", "to L-BFGS-B's lowest", "to that of BLAS"]
    return [head, *rows]


def rathore(runs: Runs) -> Table:
    """Ours beside the errors that were published."""
    names = {"convection40": "convection, β = 40", "reaction": "reaction", "wave": "wave"}
    peers = ("Adam", "L-BFGS", "Adam + L-BFGS", "Adam + L-BFGS + NNCG")
    rows = [
        [
            names[run["problem"]],
            f"{run['points']:,}",
            f"{run['seconds']:,.0f} s",
            f"{run['evaluations']:,}",
            f"{run['final_l2']:.1e}",
            *(f"{run['published_l2'][peer]:.1e}" for peer in peers),
        ]
        for run in runs
    ]
    return [["problem", "points", "seconds", "gradients", "ours", *peers], *rows]


def fronts(runs: Runs) -> Table:
    """Ours and SciPy's on equations whose solutions have fronts, and what was published."""
    names = {"burgers": "Burgers", "allen_cahn": "Allen and Cahn"}
    rows = [
        [
            names[run["problem"]],
            run["label"],
            f"{run['evaluations']:,}",
            f"{run['final_loss']:.1e}",
            f"{run['final_l2']:.1e}",
            ", ".join(f"{peer} {error:.1e}" for peer, error in run["published_l2"].items()),
        ]
        for run in runs
    ]
    return [["equation", "method", "gradients", "loss", "L2 error", "published"], *rows]


def quasi_newton_cost(runs: Runs) -> Table:
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


def _solved(runs: Runs, methods: dict[str, str]) -> Iterator[list[str]]:
    for method, shown in methods.items():
        solved = [
            sum(run["method"] == method and run["start"] == start for run in ended)
            for ended in [[run for run in runs if run["ended"] == "solved"]]
            for start in (1.0, 10.0)
        ]
        yield [shown, *map(str, solved)]


def classics(runs: Runs) -> Table:
    methods = {
        "residuals auto": "`QNewton()`",
        "lm": 'SciPy\'s `least_squares`, "lm"',
        "trf": 'SciPy\'s `least_squares`, "trf"',
        "hidden auto": '`QNewton(curvature="hessian")`',
        "trust-exact": 'SciPy\'s `minimize`, "trust-exact"',
    }
    return [["method", "standard start", "ten times that"], *_solved(runs, methods)]


def classics_scaling(runs: Runs) -> Table:
    names = {"residuals": "Gauss-Newton", "hidden": "exact Hessian"}
    methods = {
        f"{form} {scaling}": f"{name}, `{scaling}`"
        for form, name in names.items()
        for scaling in ("auto", "none", "diagonal")
    }
    return [["curvature, scaling", "standard start", "ten times that"], *_solved(runs, methods)]


def random_problems(runs: Runs) -> Table:
    head = ["family", "problems", "losses raised", "not finite", "stagnant"]
    fields = ("family", "problems", "rises", "not_finite", "stagnant")
    return [head, *([str(run[field]) for field in fields] for run in runs)]


def kinks(runs: Runs) -> Table:
    rows = [
        [
            run["task"],
            str(run["batch"]),
            *(f"{run[of]:.1e}" for of in ("qnewton", "hessian", "adam")),
        ]
        for run in runs
    ]
    return [["loss", "batch", "`QNewton()`", "exact Hessian", "Adam"], *rows]


def small_batches(runs: Runs) -> Table:
    """Of each batch ours, and Adam at its best rate."""
    rows = []
    for batch in sorted({run["batch"] for run in runs}):
        of = {run["method"]: run["accuracy"] for run in runs if run["batch"] == batch}
        adam = max((value, name) for name, value in of.items() if name.startswith("Adam"))
        rows.append([str(batch), f"{of['QNewton()']:.3f}", f"{adam[0]:.3f}, {adam[1]}"])
    return [["batch", "`QNewton()`", "Adam at its best rate"], *rows]


def small_batches_memory(runs: Runs) -> Table:
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


def many_models(runs: Runs) -> Table:
    rows = [
        [
            code(run["optimizer"]),
            str(run["models"]),
            f"{run['megabytes_a_model']:.1f} MB",
            f"{run['operations_a_model']:,.0f}",
        ]
        for run in runs
    ]
    return [["optimizer", "models", "memory a model", "operations a model"], *rows]


def deepxde(runs: Runs) -> Table:
    """Of each problem a row a method: loss, error of the solution, and unknowns."""
    ours = {"QNewton": code("QNewton()"), "quasi-Newton": "quasi-Newton steps"}
    rows = []
    for run in runs:
        name = ours.get(run["optimizer"], run["optimizer"])
        found = zip(run["unknowns"], run["true_values"], strict=True)
        errors = ", ".join(f"{abs(value - true):.0e}" for value, true in found)
        rows.append(
            [
                run["problem"],
                f"{run['weights']:,}",
                name,
                f"{run['steps']:,}",
                f"{run['loss']:.1e}",
                f"{run['l2']:.1e}",
                errors,
            ]
        )
    head = ["example", "weights", "method", "steps", "loss", "L2 error", "error of the unknown"]
    return [head, *rows]


def kills(runs: Runs) -> Table:
    """How killed trainings ended, by how often they were saved and where they were killed."""
    rows = []
    for save_freq in dict.fromkeys(run["save_freq"] for run in runs):
        saved = "an epoch" if save_freq == "epoch" else f"{save_freq} batches"
        for place in ("step", "backup"):
            killed = [r for r in runs if (r["save_freq"], r["in"]) == (save_freq, place)]
            for optimizer in ("QNewton", "Adam"):
                ends = [run[optimizer] for run in killed]
                counts = (str(ends.count(end)) for end in ("equal", "other", "unreadable"))
                rows.append([saved, f"in a {place}", optimizer, str(len(ends)), *counts])
    head = ["saved each", "killed", "optimizer", "times", "equal", "other", "unreadable"]
    return [head, *rows]
