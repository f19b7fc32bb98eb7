"""Random small problems of kinds that stop optimizers: no step raises the loss."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))

from random_problems import FAMILIES, Trained, measured

FAST = ("barrier", "no curvature")
# Of 25, how many may stand still above BFGS's loss: at kinks all descent is slow.
STAGNANT = {"no curvature": 25, "non-convex": 3}


@pytest.mark.parametrize("name", FAST)
def test_no_step_raises_the_loss(name):
    trained = Trained(FAMILIES[name])
    for seed in range(5):
        run = trained.run(seed, steps=10)
        assert run.finite and run.rises == 0
        assert run.loss < run.start


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_trains(name):
    row = measured(name, problems=25, steps=40)
    assert row["rises"] == 0 and row["not_finite"] == 0
    assert row["stagnant"] <= STAGNANT.get(name, 2)


def test_a_step_beyond_a_barrier_is_tried_again():
    """The loss is NaN there, which is not the rounding that hides a reduction."""
    w = tf.Variable(np.array([0.5]))
    optimizer = QNewton()

    def loss() -> tf.Tensor:
        return tf.reduce_sum(1e3 * w - tf.math.log(w))

    step = tf.function(lambda: optimizer.minimize(loss, [w]), autograph=False)
    for _ in range(30):
        step()
    np.testing.assert_allclose(w.numpy(), [1e-3], rtol=1e-4)  # where 1e3 = 1/w
