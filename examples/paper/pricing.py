"""A run's linear systems at other gate times: by the paper's cost model, and by stricter ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_qnewton import Decision, Scheduler
from keras_qnewton.scheduling import AsymptoticQLSA, DetailedQLSA
from keras_qnewton.solvers import QSVT
from keras_qnewton.virtual_clock import Projection, projections

from .settings import GATE_TIMES

# Name, cost model. The paper's first.
MODELS = {
    "paper": AsymptoticQLSA(),
    "paper, with readout": AsymptoticQLSA(readout=True),
    "detailed": DetailedQLSA(),
    "detailed, with readout": DetailedQLSA(readout=True),
}


def scheduler(model: str, gate_time: float = GATE_TIMES[0]) -> Scheduler:
    """The paper's scheduler, LU or a circuit, under a cost model.

    By default a circuit is not simulated where κ is above about 2,000; priced it may be, up to
    the paper's 1e4, whatever its qubits.
    """
    quantum = QSVT(backend="emulator", max_degree=10**7)
    return Scheduler(quantum=quantum, cost=MODELS[model], gate_time=gate_time, max_qubits=64)


# For the sweeps.
SWEPT = ("paper", "paper, with readout")


def priced(
    decisions: Sequence[Decision], models: Sequence[str] = tuple(MODELS)
) -> dict[str, list[Projection]]:
    """By cost model, the run at each of `GATE_TIMES`."""
    return {name: projections(decisions, GATE_TIMES, scheduler(name)) for name in models}


def saved_against_best(projection: Projection) -> float:
    """Share of the best classical routes' time that scheduling circuits among them saves."""
    best = projection.seconds["best classical"]
    quantum = np.array(projection.routes) == "qsvt"
    with_circuits = np.where(quantum, np.fmin(projection.seconds["scheduled"], best), best)
    return 1.0 - float(np.nansum(with_circuits)) / float(np.nansum(best))


def table(by_model: dict[str, list[Projection]]) -> dict[str, Any]:
    """What the JSON file has of a run: by cost model and gate time."""
    out: dict[str, Any] = {"gate_times": list(GATE_TIMES), "models": {}}
    for name, own in by_model.items():
        out["models"][name] = {
            "seconds": {plan: [p.total(plan) for p in own] for plan in own[0].seconds},
            "saved_against_lu": [p.saved for p in own],
            "saved_against_best_classical": [saved_against_best(p) for p in own],
            "quantum_share": [quantum_share(p) for p in own],
            "break_even": dict(own[0].break_even),
        }
    return out


def quantum_share(projection: Projection, block: str | None = None) -> float:
    """Share of the systems (of a block) that go to the circuit."""
    routes = [
        route
        for route, d in zip(projection.routes, projection.decisions, strict=True)
        if block is None or str(d.block) == block
    ]
    return sum(route == "qsvt" for route in routes) / len(routes)
