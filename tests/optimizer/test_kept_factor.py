"""`update_every` keeps factorisations as long as their systems, and changes no step by that."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Constant, QNewton, Scheduler
from keras_qnewton.directions import traits
from keras_qnewton.solvers import LDL, LU, Cholesky, Eigen, mixed_precision
from keras_qnewton.state import KeptBlock
from tests.derivatives import get_flat

EVERY, STEPS = 3, 9
# Each with the factorisations of nine steps, curvature being new at the first of three. Adaptive's
# λ is another one at each step on the same data; on batches with m = 2 it is start/2 from the
# second step on.
CASES = {
    "cholesky": ({"damping": Constant(1e-2)}, Cholesky, 3),
    "cholesky, definite": (
        {"damping": Constant(1e-2, definite=True), "curvature": "hessian"},
        Cholesky,
        3,
    ),
    "lu": (
        {"damping": Constant(1e-2), "scheduler": Scheduler(classical="lu", quantum=None)},
        LU,
        3,
    ),
    # Cholesky is not tried where H + sI is known to be indefinite, and its factor not kept instead.
    "ldl": ({"damping": Constant(1e-4), "curvature": "hessian", "learning_rate": 1e-3}, LDL, 3),
    "mixed": ({"damping": Constant(1e-2)}, "mixed", 3),
    "eigen": ({"curvature": "hessian"}, Eigen, 3),
    "mini-batches": ({"damping": Adaptive(initial=1.0, memory=2)}, Cholesky, 4),
}


def data(batches):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24 * batches, 3)).astype("float32")
    return x, np.sin(x.sum(1, keepdims=True)) + 0.3 * rng.normal(size=(len(x), 1)).astype("float32")


def trained(arguments, batches):
    """Weights after each of nine steps, on a full batch or one of several after the other."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, "tanh")])
    model.compile(QNewton(**{"learning_rate": 0.2, "update_every": EVERY, **arguments}), "mse")
    x, y = data(batches)
    weights = []
    for step in range(STEPS):
        rows = slice(24 * (step % batches), 24 * (step % batches + 1))
        model.train_on_batch(x[rows], y[rows])
        weights.append(get_flat(model.trainable_variables))
    return weights, model.optimizer.decisions


# Cholesky's other case on one shift is enough for the fast suite.
SLOW = {"cholesky, definite"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in CASES],
)
def test_as_many_factorisations_as_systems(monkeypatch, case):
    arguments, solver, expected = CASES[case]
    batches = STEPS if case == "mini-batches" else 1
    counter = tf.Variable(0)

    def counted(original):
        def factorised(*given):
            # In the graph: counts where the branch that factorises is taken.
            counter.assign_add(1)
            return original(*given)

        return factorised

    if solver == "mixed":
        monkeypatch.setattr(traits, "LARGE", 1)
        original = mixed_precision.blocked_cholesky
        monkeypatch.setattr(mixed_precision, "blocked_cholesky", counted(original))
    else:
        monkeypatch.setattr(solver, "init", counted(solver.init))
    weights, decisions = trained(arguments, batches)
    assert int(counter) == expected
    assert {d.solved_by for d in decisions} == {"cholesky" if solver == "mixed" else solver.name}

    monkeypatch.setattr(KeptBlock, "factor", lambda self, unchanged, kind, shift, make: make())
    counter.assign(0)
    every_time, _ = trained(arguments, batches)
    assert int(counter) >= STEPS
    np.testing.assert_allclose(weights, every_time, rtol=1e-6, atol=1e-7)


def test_a_factor_is_of_the_present_shift():
    """With λ that adapts, a kept factor of another λ is not used."""
    _, decisions = trained({}, 1)
    damping = [d.damping for d in decisions]
    assert len(set(damping[:EVERY])) == EVERY
    assert all(d.residual < 1e-7 for d in decisions)
