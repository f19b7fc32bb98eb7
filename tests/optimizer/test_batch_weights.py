"""A batch weighs by its examples: by hand, in fit, and with steps that are learned."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, QNewton
from tests.blocks import variable
from tests.optimizer.models import L, regression_data

RNG = np.random.default_rng(3)
SIZES = (8, 8, 2, 8, 1, 1, 8)
MEMORY = 3


def batches(sizes=SIZES):
    return [(RNG.normal(size=(n, 3)), RNG.normal(size=(n, 1))) for n in sizes]


def expected_path(data, initial, of):
    """Linear least squares by NumPy: w and m after each batch."""
    w, average, m, full = np.zeros((3, 1)), None, 0.0, 0.0
    for k, (x, y) in enumerate(data):
        full = max(full, len(x))
        weight = 1.0 if k == 0 else len(x) / full
        m = min(m + weight, MEMORY)
        hessian, gradient = 2 * x.T @ x / len(x), 2 * x.T @ (x @ w - y) / len(x)
        part = weight
        if of == "sum":  # the gradient weighs by itself; curvature is that of a full batch
            hessian, gradient, part = len(x) / weight * hessian, len(x) * gradient, 1
        fresh = average is None or m - weight < 2
        average = hessian if fresh else average + weight / m * (hessian - average)
        damped = average + initial * np.linalg.eigvalsh(average)[-1] / m * np.eye(3)
        w = w - part / m * np.linalg.solve(damped, gradient)
        full = len(x) if len(x) >= full else max(len(x), (1 - 1 / MEMORY) * full)
        yield w, m


MEANS = {"mean": tf.reduce_mean, "sum": tf.reduce_sum}


@pytest.mark.parametrize("blocks", ["full", pytest.param("variable", marks=pytest.mark.slow)])
@pytest.mark.parametrize("of", MEANS)
def test_a_step_weighs_as_its_batch_has_examples(blocks, of):
    data = batches()
    w = tf.Variable(np.zeros((3, 1)), dtype=tf.float64)
    damping = Adaptive(initial=0.5, memory=MEMORY)
    optimizer = QNewton(curvature="gauss_newton", damping=damping, blocks=blocks)
    spec = [tf.TensorSpec([None, k], tf.float64) for k in (3, 1)]

    @tf.function(input_signature=spec)
    def step(x, y):
        return optimizer.minimize(lambda: MEANS[of]((x @ w - y) ** 2), [w])

    for (x, y), (expected, m) in zip(data, expected_path(data, 0.5, of), strict=True):
        step(tf.constant(x), tf.constant(y))
        assert all(d.accepted and d.attempts == 1 for d in optimizer.decisions)
        assert len({d.block for d in optimizer.decisions}) == 1
        np.testing.assert_allclose(w.numpy(), expected, rtol=1e-6, atol=1e-9)
        assert float(variable(optimizer, "batches_averaged")) == pytest.approx(m)
    # The size of a full batch is kept with the log, which earlier versions wrote without it.
    foreseen = optimizer._log.foreseen
    assert float(foreseen().full) == SIZES[-1]
    log = variable(optimizer, "log")
    log.assign(np.floor(log.numpy()))
    assert float(foreseen().full) == 0


def last_batches(model, x, y, batch_size, epochs=3, **fit):
    """Norms of the steps of an epoch's batches, `[epochs, batches]`."""
    norms = []

    def flat():
        return np.concatenate([w.numpy().ravel() for w in model.trainable_variables])

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.before = flat()

        def on_train_batch_end(self, batch, logs=None):
            norms.append(np.linalg.norm(flat() - self.before))

    model.fit(x, y, batch_size, epochs, callbacks=[Watch()], verbose=0, shuffle=False, **fit)
    return np.array(norms).reshape(epochs, -1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"curvature": "hessian"}, marks=pytest.mark.slow),
        pytest.param({"blocks": "layer"}, marks=pytest.mark.slow),
        pytest.param({"curvature": "quasi_newton"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_rest_of_an_epoch_moves_weights_a_little_and_is_not_left_out(settings):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((3,)), L.Dense(4, activation="tanh"), L.Dense(1)])
    model.compile(QNewton(**settings), "mse")
    x, y = regression_data(81)
    norms = last_batches(model, x, y + RNG.normal(size=y.shape), 16)
    assert (norms[:, -1] > 0).all()
    # One example of sixteen: its step is a sixteenth of the long one that it asks for.
    assert norms[1:, -1].mean() < norms[1:, :-1].mean()
