"""A run's linear systems at other gate times: by the paper's cost model, and by stricter ones.

    paper                     no constants, no reading, α = 1
    detailed, shortcut        published bounds with constants; a query is charged a sparse oracle,
                              whose α = d max|a| is that of each system
    QSVT, shortcut circuits   layers of the circuits of this package, encoded by Frobenius trees,
                              α = ‖A‖_F; the length of the solution known to the shortcut

All suppose that a query's data are there at the price of its gates. Circuits count the loading of
N² numbers, since their trees of rotations hold them. No other price does.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_qnewton import Decision, Scheduler
from keras_qnewton.scheduling import AsymptoticQLSA, CircuitQLSA, DetailedQLSA, ShortcutQLSA
from keras_qnewton.solvers import QSVT, Shortcut
from keras_qnewton.solvers.quantum.encodings import ENCODINGS
from keras_qnewton.solvers.quantum.encodings.kernel import Kernel
from keras_qnewton.solvers.quantum.resources import Resources
from keras_qnewton.solvers.quantum.transforms import bucket, inversion, kernel_reflection
from keras_qnewton.virtual_clock import Projection, projections

from .settings import GATE_TIMES

ENCODING = "frobenius"
_SOLVERS = {
    "QSVT circuit": QSVT("emulator", ENCODING, max_degree=10**9),
    "shortcut circuit": Shortcut("emulator", ENCODING, max_degree=10**9),
}
# Their routes.
CIRCUITS = ("qsvt", "shortcut")
# Name, cost model. The paper's first.
MODELS = {
    "paper": AsymptoticQLSA(),
    "paper, with readout": AsymptoticQLSA(readout=True),
    "detailed": DetailedQLSA(),
    "detailed, with readout": DetailedQLSA(readout=True),
    "shortcut": ShortcutQLSA(),
    "shortcut, with readout": ShortcutQLSA(readout=True),
    **{name: CircuitQLSA(solver) for name, solver in _SOLVERS.items()},
}
# Seconds a layer of gates takes, and whose.
MACHINES = {
    "a two-qubit gate of Sycamore (Arute et al. 2019, Nature 574, 505)": 12e-9,
    "a cycle of Willow's error correction (2024, arXiv:2408.13687)": 1.1e-6,
}


def scheduler(model: str, gate_time: float = GATE_TIMES[0]) -> Scheduler:
    """The paper's scheduler, LU or a circuit, under a cost model.

    By default a circuit is not simulated where κ is above about 2,000; priced it may be, up to
    the paper's 1e4, whatever its qubits.
    """
    quantum = _SOLVERS.get(model, QSVT(backend="emulator", max_degree=10**7))
    return Scheduler(quantum=quantum, cost=MODELS[model], gate_time=gate_time, max_qubits=64)


def encoded(decisions: Sequence[Decision], alphas: Mapping[str, float]) -> list[Decision]:
    """The decisions with the α of `ENCODING`, by block, in the place of another encoding's."""
    return [
        dataclasses.replace(d, alpha=alphas.get(str(d.block)), encoding=ENCODING) for d in decisions
    ]


def alphas(probes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Median α of `ENCODING` by block, of exact spectra on the way."""
    blocks = dict.fromkeys(record["block"] for record in probes)
    return {
        block: statistics.median(r["alpha"] for r in probes if r["block"] == block)
        for block in blocks
    }


def fault_tolerant(size: int, condition_number: float, alpha: float) -> list[dict[str, Any]]:
    """Gates, depth, T gates and their layers of one run of each circuit.

    Args:
        size: N, of which circuits are built: some hundred at most.
        condition_number: κ.
        alpha: α/‖A‖₂ of the encoding.
    """
    out = []
    for name, solver in _SOLVERS.items():
        own = isinstance(solver, QSVT)
        rows = 1 << (size - 1 if own else size).bit_length()
        # Which numbers are encoded changes angles, and no count.
        half = np.random.default_rng(0).normal(size=(rows, rows))
        encoding = ENCODINGS[ENCODING](half + half.T)
        if own:
            plan = inversion(bucket(condition_number * alpha), solver.epsilon)
        else:
            plan = kernel_reflection(condition_number * alpha, solver.epsilon / 2**0.5)
            encoding = Kernel(encoding, np.full(rows, rows**-0.5))
        found = Resources(encoding, plan, accuracy=solver.epsilon)
        out.append(
            {
                "circuit": name,
                "size": size,
                "degree": found.degree,
                "gates": found.counts.one_qubit + found.counts.two_qubit,
                "depth": found.depth,
                "t_gates": found.t_count,
                "t_depth": found.t_depth,
            }
        )
    return out


# For the sweeps.
SWEPT = ("paper", "paper, with readout")


def priced(
    decisions: Sequence[Decision],
    models: Sequence[str] = tuple(MODELS),
    alphas: Mapping[str, float] | None = None,
) -> dict[str, list[Projection]]:
    """By cost model, the run at each of `GATE_TIMES`.

    Args:
        decisions: With the sparse oracle's α.
        models: Names.
        alphas: That of `ENCODING` by block; None for the largest that N allows.
    """
    of_circuits = encoded(decisions, alphas or {})
    return {
        name: projections(
            of_circuits if name in _SOLVERS else decisions, GATE_TIMES, scheduler(name)
        )
        for name in models
    }


def saved_against_best(projection: Projection) -> float:
    """Share of the best classical routes' time that scheduling circuits among them saves."""
    best = projection.seconds["best classical"]
    quantum = np.isin(projection.routes, CIRCUITS)
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


def machines(by_model: dict[str, list[Projection]]) -> list[dict[str, Any]]:
    """How many times too slow a machine's layers are, for the block that needs the least of it."""
    rows = []
    for machine, seconds in MACHINES.items():
        for name, own in by_model.items():
            best = max(own[0].break_even.values(), default=0.0)
            rows.append(
                {
                    "machine": machine,
                    "seconds": seconds,
                    "model": name,
                    "times_too_slow": seconds / best if best > 0 else None,
                }
            )
    return rows


def quantum_share(projection: Projection, block: str | None = None) -> float:
    """Share of the systems (of a block) that go to the circuit."""
    routes = [
        route
        for route, d in zip(projection.routes, projection.decisions, strict=True)
        if block is None or str(d.block) == block
    ]
    return sum(route in CIRCUITS for route in routes) / len(routes)
