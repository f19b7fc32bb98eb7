"""Of trainings: losses, errors and seconds, beside other optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from result_tables.cells import Runs

from result_plots.style import (
    OURS,
    PEERS,
    dots,
    legend_above,
    of_optimizer,
    ours,
    peer,
    rows,
    ticks,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBLEMS = {
    "curve": "a curve (673 weights)",
    "poisson": "a physics-informed network (257 weights)",
}
EQUATIONS = {"poisson2d": "Poisson, 2-d", "heat1d": "heat, 1-d", "poisson5d": "Poisson, 5-d"}
# How far lines of solved problems are drawn: as many steps as a run has at most.
_MOST_STEPS = 2000
CLASSICS = {
    "residuals auto": "QNewton()",
    "lm": "least_squares, lm",
    "trf": "least_squares, trf",
    "hidden auto": 'QNewton(curvature="hessian")',
    "trust-exact": "minimize, trust-exact",
}


LEARNED_ON = {"poisson2d": "Poisson, 2-d", "convection20": "convection, β = 20"}
OUR_METHODS = ("ssbfgs", "ssbroyden", "bfgs", "lbfgs", "fit", "fit_epochs", "newton")


def whole_wait(figure: Figure, runs: Runs) -> None:
    """The lowest loss so far against seconds, a panel a problem."""
    panels = figure.subplots(1, len(PROBLEMS))
    for axes, (problem, title) in zip(panels, PROBLEMS.items(), strict=True):
        for run in (run for run in runs if run["problem"] == problem):
            points = [tuple(map(float, point.split())) for point in run["line"]]
            style = of_optimizer(run["method"]) | {"marker": ""}
            wide = 2.2 if run["method"] == "QNewton()" else 1.5
            axes.plot(*zip(*points, strict=True), label=run["method"], linewidth=wide, **style)
        axes.set(yscale="log", title=title, xlabel="seconds, tracing included")
    panels[0].set_ylabel("training loss")
    legend_above(figure, panels[0], 2)


def models(figure: Figure, runs: Runs) -> None:
    """First and later steps of each kind of model, Adam's and ours."""
    names = list(dict.fromkeys(run["model"] for run in runs))
    of = {(run["model"], run["optimizer"]): run for run in runs}
    parts = (
        ("first_seconds", "first step, seconds", 1.0, (0.3, 1, 3)),
        ("step_seconds", "later steps, milliseconds", 1e3, (1, 10, 100)),
    )
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (key, title, unit, marked) in zip(panels, parts, strict=True):
        adam = [unit * of[name, "Adam"][key] for name in names]
        newton = [unit * of[name, "QNewton"][key] for name in names]
        axes.hlines(range(len(names)), adam, newton, color="#bbbbbb", linewidth=1)
        axes.plot(adam, range(len(names)), label="Adam", **dots(peer(3)))
        axes.plot(newton, range(len(names)), label="QNewton()", **dots(ours()))
        axes.set(xscale="log", xlabel=title)
        ticks(axes.xaxis, marked)
        rows(axes, names)
    legend_above(figure, panels[0], 2)


def first_step(figure: Figure, runs: Runs) -> None:
    """What the first step is made of, a bar a model, with Adam's below each."""
    names = list(dict.fromkeys(run["model"] for run in runs))
    of = {(run["model"], run["optimizer"]): run for run in runs}
    axes = figure.subplots()
    height = 0.36
    for k, name in enumerate(names):
        run, left = of[name, "QNewton"], 0.0
        rest = run["first_run"] - run["graph_optimisation"]
        parts = (run["tracing"], run["graph_optimisation"], rest)
        labels = ("tracing", "optimisation", "the rest of the first run")
        for width, label, color in zip(parts, labels, (PEERS[1], PEERS[5], PEERS[4]), strict=True):
            shown = {"label": label} if k == 0 else {}
            axes.barh(k - height / 2, width, height, left=left, color=color, **shown)
            left += width
        shown = {"label": "Adam, all of it"} if k == 0 else {}
        axes.barh(k + height / 2, of[name, "Adam"]["first_step"], height, color="#666666", **shown)
    axes.set_xlabel("seconds of the first step")
    rows(axes, names)
    legend_above(figure, axes, 2)


def classics(figure: Figure, runs: Runs) -> None:
    """How many problems are solved within so many steps."""
    starts = {1.0: "standard start", 10.0: "ten times the standard start"}
    look = {"residuals auto": ours(), "hidden auto": ours() | {"linestyle": "--"}}
    look |= {name: peer(k) for k, name in enumerate(name for name in CLASSICS if name not in look)}
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (start, title) in zip(panels, starts.items(), strict=True):
        for method, name in CLASSICS.items():
            of = [run for run in runs if (run["method"], run["start"]) == (method, start)]
            steps = sorted(max(1, run["steps"]) for run in of if run["ended"] == "solved")
            counts = [*range(1, len(steps) + 1), len(steps)]
            style = look[method] | {"marker": ""}
            axes.step([*steps, _MOST_STEPS], counts, where="post", label=name, **style)
        axes.set(xscale="log", title=title, xlabel="steps (SciPy's: evaluations)")
    panels[0].set_ylabel("problems solved, of 35")
    legend_above(figure, panels[0], 2)


def pinn(figure: Figure, runs: Runs) -> None:
    """When each error is reached, a panel an equation."""
    look = {"QNewton()": ours(), "JAX LM": peer(0)}
    panels = figure.subplots(1, len(EQUATIONS), sharex=True, sharey=True)
    for axes, (problem, title) in zip(panels, EQUATIONS.items(), strict=True):
        for run in (run for run in runs if run["problem"] == problem):
            reached = run["steps_and_seconds_to"].items()
            points = [(at[1], float(error)) for error, at in reached if at is not None]
            points.append((run["seconds"], run["final_l2"]))
            axes.plot(*zip(*points, strict=True), label=run["method"], **look[run["method"]])
        axes.set(xscale="log", yscale="log", title=title, xlabel="seconds")
    panels[0].set_ylabel("L2 error")
    legend_above(figure, panels[0], 2)


def deepxde(figure: Figure, runs: Runs) -> None:
    """The error of each example's solution, by method."""
    names = list(dict.fromkeys(run["problem"] for run in runs))
    shown = {"QNewton": "QNewton()", "quasi-Newton": "quasi-Newton steps"}
    shown |= {"adam": "Adam", "L-BFGS": "L-BFGS"}
    look = {"QNewton": ours(), "quasi-Newton": peer(1), "adam": peer(3), "L-BFGS": peer(0)}
    axes = figure.subplots()
    for method, label in shown.items():
        errors = {run["problem"]: run["l2"] for run in runs if run["optimizer"] == method}
        if errors:
            places = [names.index(name) for name in errors]
            axes.plot(list(errors.values()), places, label=label, **dots(look[method]))
    axes.set(xscale="log", xlabel="L2 error after as many seconds")
    rows(axes, names)
    legend_above(figure, axes, 2)


def quasi_newton(figure: Figure, runs: Runs) -> None:
    """L2 error of each method on each equation, a point a seed."""
    ended = [run for run in runs if run["final_l2"] is not None]
    names = list(dict.fromkeys(run["label"] for run in ended))
    problems = list(dict.fromkeys(run["problem"] for run in ended))
    panels = figure.subplots(1, len(problems), sharey=True, squeeze=False)[0]
    for axes, problem in zip(panels, problems, strict=True):
        for run in (run for run in ended if run["problem"] == problem):
            of_ours = run["method"] in OUR_METHODS
            place = names.index(run["label"])
            axes.plot(run["final_l2"], place, **dots(ours() if of_ours else peer(0)))
        axes.set(xscale="log", xlabel="L2 error", title=LEARNED_ON.get(problem, problem))
        rows(axes, names)


def small_batches(figure: Figure, runs: Runs) -> None:
    """Test accuracy against Adam's learning rate; ours has none to be tuned."""
    axes = figure.subplots()
    for k, batch in enumerate(sorted({run["batch"] for run in runs})):
        of: dict[str, Any] = {r["method"]: r["accuracy"] for r in runs if r["batch"] == batch}
        rates = {float(m[5:-1]): a for m, a in of.items() if m.startswith("Adam(")}
        axes.plot(*zip(*sorted(rates.items()), strict=True), label=f"Adam, {batch}", **peer(k + 2))
        line = {"color": OURS, "linestyle": "-" if k == 0 else (0, (6, 3))}
        axes.axhline(of["QNewton()"], label=f"QNewton(), {batch}", **line)
    axes.set(xscale="log", xlabel="Adam's learning rate", ylabel="test accuracy")
    ticks(axes.xaxis, sorted(rates))
    legend_above(figure, axes, 2)
