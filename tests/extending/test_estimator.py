"""A third party's condition number estimator: one file, one line, and `fit` goes by it."""

import keras
import numpy as np
import pytest

from keras_qnewton import QNewton, Scheduler

SOURCE = '''
    """κ as the ratio of the diagonal's ends: a lower estimate for a definite matrix."""

    import tensorflow as tf

    from keras_qnewton.registry import register


    @register("condition_number", "diagonal")
    class Diagonal:
        def log_condition_number(self, matrix):
            diagonal = tf.linalg.diag_part(matrix)
            return tf.math.log(tf.reduce_max(diagonal) / tf.reduce_min(diagonal))
'''


def test_estimator_of_ones_own(extension):
    extension("diagonal", SOURCE)
    scheduler = Scheduler(classical="cholesky", quantum=None, estimator="diagonal")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer=QNewton(scheduler=scheduler), loss="mse")
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32") * [1, 2, 5]
    history = model.fit(x, x.sum(1), batch_size=20, epochs=3, verbose=0)
    curvature = 2 * np.sum(x.astype("float64") ** 2, axis=0) / len(x)  # diagonal of the mean's
    for decision in model.optimizer.decisions:
        damped = curvature + decision.damping
        expected = damped.max() / damped.min()
        assert decision.condition_number == pytest.approx(expected, rel=1e-4)
        assert decision.solved_by == "cholesky"
    losses = history.history["loss"]
    assert len(model.optimizer.decisions) == 3 and losses[-1] < 0.1 * losses[0]
