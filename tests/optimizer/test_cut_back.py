"""Steps of several blocks, cut back to the damped model's minimum along them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import Adaptive, Constant, QNewton


def quadratic(hessian, gradient, start, sizes):
    """½ w.H w - b.w of variables of these sizes, with gradient g at `start`: variables, loss."""
    b = hessian @ start - gradient
    variables = [tf.Variable(v) for v in np.split(start, np.cumsum(sizes)[:-1])]

    def loss_fn():
        w = tf.concat(variables, 0)
        return tf.tensordot(w, tf.linalg.matvec(hessian, w), 1) / 2 - tf.tensordot(w, b, 1)

    return variables, loss_fn


def flat(variables):
    return np.concatenate([v.numpy() for v in variables])


class Trained:
    """A quadratic whose blocks have these sizes, and a step on it, traced once for all systems."""

    def __init__(self, sizes, initial):
        self.sizes, size = sizes, sum(sizes)
        self.hessian = tf.Variable(np.eye(size))
        self.linear = tf.Variable(np.zeros(size))
        self.variables = [tf.Variable(np.zeros(n)) for n in sizes]
        damping = Adaptive(initial, negative_curvature="shift", retries=0)
        self.optimizer = QNewton(1.0, "hessian", "variable", damping)
        self.optimizer.build(self.variables)
        self._fresh = [v.numpy() for v in self.optimizer.variables]
        self._run = tf.function(
            lambda: self.optimizer.minimize(self.loss, self.variables), autograph=False
        )

    def loss(self):
        w = tf.concat(self.variables, 0)
        bend = tf.tensordot(w, tf.linalg.matvec(self.hessian, w), 1) / 2
        return bend - tf.tensordot(w, self.linear, 1)

    def step(self, hessian, gradient, start, rate):
        """The decision of a first step from `start`, where the gradient is as given."""
        for v, fresh in zip(self.optimizer.variables, self._fresh, strict=True):
            v.assign(fresh)
        self.optimizer.learning_rate.assign(rate)
        self.hessian.assign(hessian)
        self.linear.assign(hessian @ start - gradient)
        for v, part in zip(
            self.variables, np.split(start, np.cumsum(self.sizes)[:-1]), strict=True
        ):
            v.assign(part)
        self._run()
        return self.optimizer.decisions[-1]


@pytest.fixture(
    scope="module",
    params=[((3,), 1e-2), ((1, 3), 1e-6), ((2, 2), 1.0), ((3, 2, 1), 1e-2)],
    ids=str,
)
def model(request):
    return Trained(*request.param)


@settings(max_examples=8, deadline=None)
@given(rank=st.integers(1, 6), rate=st.sampled_from([0.3, 1.0]), seed=st.integers(0, 99))
def test_a_step_ends_where_the_damped_model_is_lowest_along_it(model, rank, rate, seed):
    rng = np.random.default_rng(seed)
    sizes = model.sizes
    size = sum(sizes)
    rows = rng.normal(size=(rank, size))
    # A block of next to no curvature would have a larger damping than λ.
    hessian, gradient, start = rows.T @ rows + 10 * np.eye(size), *rng.normal(size=(2, size))
    d = model.step(hessian, gradient, start, rate)
    step = flat(model.variables) - start
    rate = float(model.optimizer.learning_rate)  # in single precision
    ends = np.cumsum(sizes)
    solution = np.zeros(size)
    for begin, end in zip(ends - sizes, ends, strict=True):
        at = slice(begin, end)
        shifted = hessian[at, at] + d.damping * np.eye(end - begin)
        solution[at] = -rate * np.linalg.solve(shifted, gradient[at])
    bend = solution @ (hessian @ solution) + d.damping * solution @ solution
    lowest = -gradient @ solution / bend
    expected = min(1.0, lowest) if len(sizes) > 1 else 1.0
    assert d.accepted
    np.testing.assert_allclose(d.length, expected, rtol=1e-6)
    np.testing.assert_allclose(step, expected * solution, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(d.loss_after, model.loss().numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("blocks", [2, 3, 5])
def test_blocks_that_agree_take_their_share_each(blocks):
    """All see the same error and would each remove it on their own."""
    start = np.zeros(blocks)
    hessian = np.ones((blocks, blocks))
    variables, loss_fn = quadratic(hessian, -np.ones(blocks), start, [1] * blocks)
    optimizer = QNewton(1.0, "hessian", "variable", Adaptive(1e-9))
    optimizer.minimize(loss_fn, variables)
    np.testing.assert_allclose([d.length for d in optimizer.decisions], 1 / blocks, rtol=1e-6)
    np.testing.assert_allclose(flat(variables), 1 / blocks, rtol=1e-6)


def test_without_adapted_damping_a_step_is_as_the_blocks_solve_it():
    start = np.zeros(2)
    variables, loss_fn = quadratic(np.ones((2, 2)), -np.ones(2), start, [1, 1])
    optimizer = QNewton(1.0, "hessian", "variable", Constant(1e-9))
    optimizer.minimize(loss_fn, variables)
    assert {d.length for d in optimizer.decisions} == {1}
    np.testing.assert_allclose(flat(variables), 1.0, rtol=1e-6)


def test_the_step_judged_is_the_one_that_clipping_leaves():
    start = np.array([0.0, 0.0])
    variables, loss_fn = quadratic(np.ones((2, 2)), -np.ones(2), start, [1, 1])
    optimizer = QNewton(1.0, "hessian", "variable", Adaptive(1e-9), clipvalue=0.4)
    optimizer.minimize(loss_fn, variables)
    d = optimizer.decisions[-1]
    # Clipped to 0.4 in each it is not too long; ρ is 1, as on any quadratic.
    assert d.length == 1
    np.testing.assert_allclose(flat(variables), 0.4, rtol=1e-6)
    np.testing.assert_allclose(d.trust_ratio, 1.0, rtol=1e-6)
    np.testing.assert_allclose(d.loss_after, loss_fn().numpy(), rtol=1e-9)


@pytest.mark.slow
def test_layers_learn_a_curve_together():
    """Uncut, steps by layer are refused again and again: after 40 they are at 4e-3 to 2e-2."""
    keras.utils.set_random_seed(0)
    x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    y = np.sin(4 * x)
    hidden = [keras.layers.Dense(8, activation="tanh") for _ in range(3)]
    model = keras.Sequential([keras.Input((1,)), *hidden, keras.layers.Dense(1)])
    model.compile(optimizer=QNewton(blocks="layer"), loss="mse")
    losses = model.fit(x, y, batch_size=64, epochs=25, verbose=0).history["loss"]
    decisions = model.optimizer.decisions
    assert min(d.length for d in decisions) < 1
    assert all(d.loss_after <= d.loss for d in decisions if d.accepted)
    assert losses[-1] < 1e-4, losses[-1]
