"""Training with every Newton system on a quantum simulator."""

import gc
import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

from keras_qnewton import QNewton, Scheduler
from keras_qnewton.directions.saddle_free import Absolute
from keras_qnewton.solvers import QSVT
from keras_qnewton.solvers.quantum.backends import load


def resident():
    """MB of this process."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def train(quantum, steps, units):
    """Losses, memory after each step, and which solvers were used."""
    datasets = pytest.importorskip("sklearn.datasets")
    keras.utils.set_random_seed(0)
    decay = keras.regularizers.L2(1e-2)
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(units, activation="tanh", kernel_regularizer=decay),
            keras.layers.Dense(3, kernel_regularizer=decay),
        ]
    )
    x, y = datasets.load_iris(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype("float32")
    scheduler = Scheduler(quantum=quantum, gate_time=1e-18)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(QNewton(blocks="layer", scheduler=scheduler), loss)
    losses, memory = [], []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            losses.append(logs["loss"])
            gc.collect()
            memory.append(resident())

    model.fit(x, y, batch_size=len(x), epochs=steps, verbose=0, callbacks=[Watch()])
    return losses, memory, [str(d.solved_by) for d in model.optimizer.decisions]


def both(steps, units):
    """A training on TensorFlow Quantum, and the same by LU."""
    losses, memory, routes = train(QSVT(backend="tfq", tolerance=1e-8), steps, units)
    reference, _, classical = train(None, steps, units)
    return {
        "losses": losses,
        "reference": reference,
        "memory": memory,
        "routes": routes,
        "classical": classical,
        "serializations": load("tfq").serializations,
    }


def same_training(found, steps):
    assert len(found["routes"]) >= 2 * steps
    assert set(found["routes"]) == {"qsvt"} and set(found["classical"]) == {"lu"}
    for quantum, classical in zip(found["losses"], found["reference"], strict=True):
        assert abs(quantum - classical) <= 1e-4 * classical
    assert found["losses"][-1] < found["losses"][0]


def test_a_few_steps_on_tensorflow_quantum_are_those_of_lu():
    pytest.importorskip("tensorflow_quantum")
    same_training(both(2, units=1), 2)


@pytest.mark.slow
def test_two_hundred_steps_on_tensorflow_quantum_in_flat_memory():
    pytest.importorskip("tensorflow_quantum")
    # In a process of its own: memory is a process's.
    code = (
        "import json; from tests.optimizer.test_quantum_training import both;"
        "print(json.dumps(both(200, units=3)))"
    )
    root = pathlib.Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    same_training(found, 200)
    assert found["losses"][-1] < 0.7 * found["losses"][0]
    after_twenty = found["memory"][19:]
    assert max(after_twenty) - min(after_twenty) <= 50
    assert found["serializations"] <= 30


def test_a_circuit_behind_a_wrapper_still_solves_saddle_free_systems():
    """A proxy for timing or logging passes on what it does not know."""

    class Wrapped:
        def __init__(self, solver):
            self._solver = solver

        def __getattr__(self, name):
            return getattr(self._solver, name)

    scheduler = Scheduler(quantum=Wrapped(QSVT()))
    assert Absolute.possible(scheduler, size=4)
    assert not Absolute.possible(Scheduler(quantum=None), size=4)
