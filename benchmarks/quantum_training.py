"""Training on circuits at a size worth showing: digits by layer, every system by QSVT.

A 64-16-16-10 tanh network, 512 images, three blocks of 1,040, 272 and 170 unknowns, the paper's
damping and learning rate. QSVT's circuits are too long to be simulated gate by gate: the emulator
gives the amplitudes of perfect ones. Beside it is LU, from the same weights, by turns of a step.
Gates take next to no time here, so that every system is sent to a circuit.

Prints the seconds of a step after the first, how far the losses are apart, and who solved what.

    python benchmarks/quantum_training.py [--steps 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import collections
import statistics
import time
from collections.abc import Callable
from typing import Any

import common
import keras

from keras_qnewton import Constant, QNewton, Scheduler
from keras_qnewton.solvers import QSVT

# Seconds a gate: at a real machine's no circuit would be chosen.
GATE_TIME = 1e-24
# Enough for κ of some 10,000, the scheduler's own limit.
MAX_DEGREE = 200_000
LEARNING_RATE = 1e-2


def training(scheduler: Scheduler) -> tuple[QNewton, Callable[[], tuple[float, float]]]:
    """The optimizer, and a step that returns its seconds and the loss before it."""
    x, y = common.digits(512)
    optimizer = QNewton(
        LEARNING_RATE, blocks="layer", damping=Constant(definite=True), scheduler=scheduler
    )
    model = common.keras_mlp((64, 16, 16, 10))
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        loss = float(model.train_on_batch(x, y))
        model.reset_metrics()
        return time.perf_counter() - start, loss

    return optimizer, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    common.add_output_options(parser, "quantum_training")
    options = parser.parse_args()
    common.limit_threads()
    circuits = Scheduler(quantum=QSVT(max_degree=MAX_DEGREE), gate_time=GATE_TIME)
    schedulers = {"qsvt": circuits, "lu": Scheduler(quantum=None)}
    runs = {name: training(scheduler) for name, scheduler in schedulers.items()}
    steps: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(options.steps):
        for name, (_, step) in runs.items():
            steps[name].append(step())
    rows: list[dict[str, Any]] = []
    for name, (optimizer, _) in runs.items():
        seconds, losses = zip(*steps[name], strict=True)
        rows.append(
            {
                "route": name,
                "step_seconds": statistics.median(seconds[1:]),
                "first_seconds": seconds[0],
                "losses": losses,
                "solved_by": collections.Counter(d.solved_by for d in optimizer.decisions),
                "largest_condition_number": max(d.condition_number for d in optimizer.decisions),
                "fallbacks": sum(d.fallback for d in optimizer.decisions),
            }
        )
        last = rows[-1]
        print(
            f"{name:<5}{common.milliseconds(last['step_seconds'])} a step, first "
            f"{last['first_seconds']:.1f} s; solved by {dict(last['solved_by'])}, fallbacks "
            f"{last['fallbacks']}, κ at most {last['largest_condition_number']:.1e}",
            flush=True,
        )
    apart = max(abs(a - b) for a, b in zip(*(row["losses"] for row in rows), strict=True))
    print(f"losses are {apart:.1e} apart at most, from {losses[0]:.3f} to {losses[-1]:.3f}")
    common.save("quantum_training", [*rows, {"largest_difference": apart}], options.json)


if __name__ == "__main__":
    main()
