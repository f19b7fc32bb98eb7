"""Trains, prices and writes the study of arXiv:2405.00252."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keras_qnewton import Decision
from keras_qnewton.decision_log import Decisions
from keras_qnewton.virtual_clock import project

from . import by_rows, claims, digest, figures, pricing, training, webpage
from .settings import GATE_TIMES, Family, Study
from .settings import study as settings_of


def run(
    profile: str,
    out: pathlib.Path,
    console: Console,
    text: str | None = None,
    only: str | None = None,
) -> dict[str, Any]:
    """Everything; writes results.json, digest.json, report.html, figures and logs to `out`.

    Returns:
        What results.json has.
    """
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    study = settings_of(profile, text, only)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        everything: list[Decision] = []
        runs, priced, results = {}, {}, {"profile": profile, "families": {}}
        for family in study.families:
            runs[family.name] = own = _train(family, study, progress)
            Decisions(own["newton"].decisions).to_jsonl(out / f"{family.name}.jsonl")
            everything += own["newton"].decisions
            task = progress.add_task(f"{family.name}: prices", total=1)
            alphas = pricing.alphas(own["newton"].probes)
            priced[family.name] = pricing.priced(own["newton"].decisions, alphas=alphas)
            results["families"][family.name] = _family(own, priced[family.name])
            progress.advance(task)
        results["sweeps"] = _sweeps(study, progress, everything)
        first = study.families[0].name
        shortest = project(everything, GATE_TIMES[-1], pricing.scheduler("paper"))
        probes = {name: own["newton"].probes for name, own in runs.items()}
        results["machines"] = pricing.machines(priced[first])
        smallest = min(results["families"][first]["blocks"], key=lambda block: block["size"])
        alpha = pricing.alphas(probes[first])[smallest["block"]]
        results["circuits"] = pricing.fault_tolerant(smallest["size"], smallest["kappa"], alpha)
        results["claims"] = claims.claims(priced[first], everything, shortest, probes)
        task = progress.add_task("figures and page", total=1)
        pictures = figures.draw(out, runs, priced, results)
        results["seconds"] = time.perf_counter() - start
        for name, content in (("results", results), ("digest", digest.of(results))):
            text = json.dumps(_plain(content), indent=1, allow_nan=False)
            (out / f"{name}.json").write_text(text)
        (out / "report.html").write_text(webpage.of(results, pictures), encoding="utf-8")
        progress.advance(task)
    return results


def _train(family: Family, study: Study, progress: Progress) -> dict[str, training.Run]:
    """The family's Newton run and its baselines."""
    own = family.data()
    task = progress.add_task(f"{family.name}: Newton", total=family.steps)
    out = {
        "newton": training.newton(
            family,
            own,
            family.steps,
            # It sends all to LU as the paper's does, and logs α.
            pricing.scheduler("detailed", study.gate_time),
            probes=study.probes,
            on_step=lambda: progress.advance(task),
        )
    }
    for name in ("sgd", "adam"):
        steps = family.steps * family.baseline_factor
        task = progress.add_task(f"{family.name}: {name}", total=steps)
        out[name] = training.baseline(
            family, own, name, on_step=lambda task=task: progress.advance(task)
        )
    return out


def _family(own: dict[str, training.Run], priced: dict[str, Any]) -> dict[str, Any]:
    decisions = own["newton"].decisions
    return {
        "runs": {name: run.summary() for name, run in own.items()},
        "blocks": claims.by_block(decisions, priced),
        "prices": pricing.table(priced),
        "probes": own["newton"].probes,
        "rows": by_rows.by_block(own["newton"].probes),
        "systems": len(decisions),
        "fallbacks": sum(bool(d.fallback) for d in decisions),
    }


def _sweeps(
    study: Study, progress: Progress, everything: list[Decision]
) -> dict[str, list[dict[str, Any]]]:
    """The perceptron at other sparsities, regularisations and hidden sizes."""
    family, out = study.families[0], {}
    own = family.data()
    sweeps = {
        "sparsity": study.sparsities,
        "epsilon": study.epsilons,
        "hidden": study.hidden_sizes,
    }
    for name, values in sweeps.items():
        out[name] = []
        for value in values:
            of_family = {"hidden": value} if name == "hidden" else {}
            of_training = {} if name == "hidden" else {name: value}
            # The larger blocks' eigenvalues are not for this: a few steps tell their prices.
            steps = study.sweep_steps if name != "hidden" else max(study.sweep_steps // 5, 3)
            task = progress.add_task(f"{name} {value:g}", total=steps)
            run = training.newton(
                dataclasses.replace(family, **of_family),
                own,
                steps,
                pricing.scheduler("paper", study.gate_time),
                on_step=lambda task=task: progress.advance(task),
                **of_training,
            )
            everything += run.decisions
            priced = pricing.priced(run.decisions, pricing.SWEPT)
            out[name].append(
                {"value": value}
                | run.summary()
                | {
                    "blocks": claims.by_block(run.decisions, priced),
                    "prices": pricing.table(priced),
                }
            )
    return out


def _plain(value: Any) -> Any:
    """Numbers that JSON has; None for NaN and Inf."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
