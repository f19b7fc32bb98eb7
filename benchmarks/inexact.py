"""Inexact Newton on circuits: layers of gates of whole trainings, with a forcing term and without.

    python benchmarks/inexact.py

Iris (67 weights) and digits (1,210 weights, 512 images) are trained by layer, with a penalty on the
weights, so that there is a lowest loss. Every system goes to a circuit, whose perfect amplitudes
are emulated. Where `--steps` (20) lead whose systems are solved to the scheduler's 1e-6 is the
goal. Each training is counted until it is within 1 % of that loss, or has taken three times as many
steps. Counted are all runs of all attempts, the shortcut's searches too: degree times layers of a
query over the success probability, in which a wrong guess of the solution's length shows.

    1e-6          QSVT(tolerance=1e-6), or Shortcut
    0.1           a constant tolerance, of scheduler and solver
    forcing       Scheduler(forcing=True)

    shortcut      lengths are carried from attempt to attempt, and from step to step
    searched      lengths are searched for in each run
    known         lengths are those of the solution, which nobody has

With `--batches 3` steps are of a third of the data each, in turn, and losses of all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import keras
import numpy as np
from jacobian import Recorded

from keras_qnewton import QNewton, Scheduler
from keras_qnewton.solvers import QSVT, Shortcut

# Seconds a gate: at a real machine's no circuit would be chosen.
GATE_TIME = 1e-40
PENALTY, WITHIN = 1e-3, 1.01
MOST_STEPS = 3  # times as many as lead to the goal


def iris() -> tuple[np.ndarray, np.ndarray]:
    """Standardised."""
    x, y = common.optional("sklearn.datasets").load_iris(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), y


def network(inputs: int, hidden: int, outputs: int) -> keras.Model:
    """A tanh network with a penalty on all of its weights."""
    keras.utils.set_random_seed(0)
    penalised = {
        "kernel_regularizer": keras.regularizers.L2(PENALTY),
        "bias_regularizer": keras.regularizers.L2(PENALTY),
    }
    return keras.Sequential(
        [
            keras.layers.Input((inputs,)),
            keras.layers.Dense(hidden, activation="tanh", **penalised),
            keras.layers.Dense(outputs, **penalised),
        ]
    )


class Searched(Shortcut):
    """Nothing is carried."""

    carries = False


class Known(Searched):
    """Each run is told how long its solution is."""

    def _runner(
        self, prepared: Any, details: dict[str, Any]
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        def run(rhs: np.ndarray, number: int) -> np.ndarray:
            x = np.linalg.solve(prepared.matrix, rhs)
            length = float(np.linalg.norm(x) / np.linalg.norm(rhs))
            told = prepared.from_lengths((length, length))
            return Shortcut._runner(self, told, details)(rhs, number)

        return run


KINDS = {"qsvt": QSVT, "shortcut": Shortcut, "searched": Searched, "known": Known}


def training(
    data: str, kind: type, way: str, goal: float | None, steps: int, batches: int = 1
) -> dict[str, Any]:
    """Steps until a loss, and the layers that they took; None for that of `steps` of its own."""
    x, y = iris() if data == "iris" else common.digits(512)
    tolerance = 0.1 if way == "0.1" else 1e-6
    readout = Recorded()
    solver = kind("emulator", tolerance=1e-6, readout=readout, max_degree=10**7)
    if way == "0.1":
        solver = solver.at(tolerance)
    scheduler = Scheduler(
        quantum=solver,
        gate_time=GATE_TIME,
        max_condition_number=1e9,
        max_qubits=100,
        tolerance=tolerance,
        forcing=way == "forcing",
    )
    optimizer = QNewton(blocks="layer", scheduler=scheduler)
    model = network(x.shape[1], 8 if data == "iris" else 16, int(y.max()) + 1)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses: list[float] = []
    layers: list[np.ndarray] = []
    while len(losses) < (steps if goal is None else MOST_STEPS * steps):
        part = slice(len(losses) % batches, None, batches)
        model.train_on_batch(x[part], y[part])
        model.reset_metrics()
        losses.append(float(model.test_on_batch(x, y)))
        model.reset_metrics()
        layers.append(readout.layers.copy())
        if goal is not None and losses[-1] <= WITHIN * goal:
            break
    goal = losses[-1] if goal is None else goal
    last = next((k for k, loss in enumerate(losses) if loss <= WITHIN * goal), len(losses) - 1)
    decisions = optimizer.decisions
    return {
        "data": data,
        "solver": next(name for name, own in KINDS.items() if own is kind),
        "batches": batches,
        "way": way,
        "steps": last + 1,
        "goal": goal,
        "loss": losses[last],
        "layers": float(layers[last][0]),
        "amplified": float(layers[last][1]),
        "fallbacks": sum(d.fallback for d in decisions),
        "largest_condition_number": max(d.condition_number for d in decisions),
        "largest_residual": max(d.residual for d in decisions),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", default=["iris", "digits"])
    parser.add_argument("--solvers", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--ways", nargs="*", default=["1e-6", "0.1", "forcing"])
    parser.add_argument("--batches", type=int, default=1, help="that the data are divided into")
    parser.add_argument("--steps", type=int, default=20, help="that lead to the goal")
    common.add_output_options(parser, "inexact")
    options = parser.parse_args()
    common.limit_threads()
    rows: list[dict[str, Any]] = []
    for data in options.data:
        for name in options.solvers:
            for way in ("1e-6", *(w for w in options.ways if w != "1e-6")):
                exact = None if way == "1e-6" else next(r for r in rows[::-1] if r["way"] == "1e-6")
                goal = exact and exact["goal"]
                of_data = data, KINDS[name], way, goal, options.steps, options.batches
                rows.append(training(*of_data))
                exact = exact or rows[-1]
                row = rows[-1]
                print(
                    f"{data:7}{name:9}{way:8} {row['steps']:3} steps to {row['loss']:.4f}  "
                    f"layers {row['layers']:.1e}: {exact['layers'] / row['layers']:.1f} fewer, "
                    f"amplified {exact['amplified'] / row['amplified']:.1f}  fallbacks "
                    f"{row['fallbacks']}  κ at most {row['largest_condition_number']:.0e}",
                    flush=True,
                )
    common.save("inexact", rows, options.json)


if __name__ == "__main__":
    main()
