"""The same training run on two imagined machines: one sends its Newton systems to circuits.

A small classifier of Fisher's iris flowers has Hessian blocks of 20 and 15 weights: small
enough for the scheduler to send them to a quantum linear solver (QSVT, run gate by gate on
Cirq's simulator) if a gate takes 1e-18 s, and to LU if it takes 1e-6 s. Both trainings must
reach the same loss.

    python examples/hybrid_iris.py [--steps 8]
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from newton_table import NewtonTable, make_console, verdict
from rich.console import Console
from sklearn.datasets import load_iris

from keras_qnewton import QNewton, Scheduler


def iris() -> tuple[np.ndarray, np.ndarray]:
    """Features `[150, 4]` of zero mean and unit variance, classes `[150]`."""
    x, y = load_iris(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), y.astype("int32")


def classifier() -> keras.Model:
    """4-4-3 tanh with weight decay in the loss, which keeps condition numbers below 1,000."""
    keras.utils.set_random_seed(0)
    decay = keras.regularizers.L2(1e-2)
    return keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(4, activation="tanh", kernel_regularizer=decay, name="hidden"),
            keras.layers.Dense(3, kernel_regularizer=decay, name="output"),
        ]
    )


def train(gate_time: float, steps: int, console: Console) -> tuple[float, set[str]]:
    """Trains for `steps` full-batch steps; the final loss, and which solvers were used."""
    x, y = iris()
    model = classifier()
    model.compile(
        optimizer=QNewton(
            blocks="layer", scheduler=Scheduler(gate_time=gate_time, max_condition_number=1e3)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    with NewtonTable(f"iris, {gate_time:g} s a gate", console) as table:
        model.fit(x, y, batch_size=len(x), epochs=steps, verbose=0, callbacks=[table.log])
    loss = float(model.evaluate(x, y, batch_size=len(x), verbose=0))
    return loss, {str(d.solved_by) for d in table.log.decisions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="full-batch Newton steps")
    arguments = parser.parse_args()
    console = make_console()

    quantum_loss, quantum_routes = train(1e-18, arguments.steps, console)
    classical_loss, classical_routes = train(1e-6, arguments.steps, console)

    same = abs(quantum_loss - classical_loss) <= 1e-4 * classical_loss
    verdict(
        console,
        same and "qsvt" in quantum_routes and classical_routes == {"lu"},
        f"at 1e-18 s a gate solved by {', '.join(sorted(quantum_routes))}, "
        f"at 1e-6 s by {', '.join(sorted(classical_routes))}; "
        f"losses {quantum_loss:.6f} and {classical_loss:.6f}",
    )


if __name__ == "__main__":
    main()
