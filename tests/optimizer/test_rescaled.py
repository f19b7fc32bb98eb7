"""λD² in place of λI: directions in rescaled weights, and when a step takes them."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import Adaptive, QNewton
from keras_qnewton.directions import BlockProblem, direction
from tests.blocks import settings_of, variable

SIZE = 5
EXPONENTS = st.lists(st.integers(-30, 30), min_size=SIZE, max_size=SIZE)
UNITS = EXPONENTS.map(lambda e: 2.0 ** np.array(e))


class Block:
    """A block's direction at λ, traced once for all matrices, gradients and λ.

    Args:
        negative_curvature: `Adaptive`'s; "absolute" takes indefinite matrices.
        rescaled: Whether its weights are; None has no such operations in the graph.
    """

    def __init__(self, negative_curvature, rescaled):
        policies = settings_of(damping=Adaptive(negative_curvature=negative_curvature))

        @tf.function(autograph=False)
        def solve(matrix, gradient, damping, vector):
            problem = BlockProblem.of_matrix(matrix, gradient, negative_curvature == "shift")
            if rescaled is not None:
                problem = dataclasses.replace(problem, rescaled=tf.constant(rescaled))
            method = direction(problem, policies)
            state = method.init(problem)
            product = method.product(problem, state, vector)
            product = tf.zeros_like(vector) if product is None else product
            return (
                method.solve(problem, state, damping).x,
                state.scale,
                product,
                method.damped(problem, state, vector),
            )

        self._solve = solve

    def __call__(self, matrix, gradient, damping, vector=None):
        """x, the largest |eigenvalue|, H v by the matrix that was formed, and D v."""
        vector = np.ones(SIZE) if vector is None else vector
        arrays = (tf.constant(a, tf.float64) for a in (matrix, gradient, damping, vector))
        return [t.numpy() for t in self._solve(*arrays)]


@pytest.fixture(scope="module")
def shifted():
    return Block("shift", rescaled=True)


@pytest.fixture(scope="module")
def absolute():
    return Block("absolute", rescaled=True)


def definite(seed):
    rows, gradient = np.random.default_rng(seed).normal(size=(2 * SIZE, SIZE)), np.arange(1.0, 6.0)
    return rows.T @ rows, gradient


def indefinite(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(SIZE, SIZE))
    return matrix + matrix.T, rng.normal(size=SIZE)


def root_of_diagonal(matrix):
    found = np.abs(np.diag(matrix))
    return np.sqrt(np.where(found > 0, found, found.max()))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-6, 1e-2, 10.0]), UNITS)
def test_a_shift_is_by_the_diagonal(shifted, seed, damping, units):
    matrix, gradient = definite(seed)
    matrix, gradient = matrix / np.outer(units, units), gradient / units
    d, vector = root_of_diagonal(matrix), units * np.arange(SIZE)
    x, scale, product, damped = shifted(matrix, gradient, damping, vector)
    # Solved in weights of one size: in the others `np.linalg.solve` has few digits.
    inner = matrix / np.outer(d, d)
    expected = np.linalg.solve(inner + damping * np.eye(SIZE), gradient / d) / d
    np.testing.assert_allclose(x, expected, rtol=1e-7)
    np.testing.assert_allclose(scale, np.linalg.eigvalsh(inner)[-1], rtol=1e-6)
    np.testing.assert_allclose(product, matrix @ vector, rtol=1e-9, atol=1e-12 / units.min())
    np.testing.assert_allclose(damped, d * vector, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-6, 1e-2, 10.0]), UNITS)
def test_magnitudes_are_of_rescaled_curvature(absolute, seed, damping, units):
    matrix, gradient = indefinite(seed)
    matrix, gradient = matrix / np.outer(units, units), gradient / units
    d = root_of_diagonal(matrix)
    values, vectors = np.linalg.eigh(matrix / np.outer(d, d))
    inner = vectors @ ((vectors.T @ (gradient / d)) / np.sqrt(values**2 + damping**2))
    x, scale, *_ = absolute(matrix, gradient, damping)
    np.testing.assert_allclose(x, inner / d, rtol=1e-6, atol=1e-9 * np.abs(inner / d).max())
    np.testing.assert_allclose(scale, np.abs(values).max(), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-20, 1.0, 1e20]))
def test_a_scale_of_the_loss_changes_no_direction(shifted, seed, scale):
    matrix, gradient = definite(seed)
    x = shifted(matrix, gradient, 0.1)[0]
    again = shifted(scale * matrix, scale * gradient, 0.1)[0]
    np.testing.assert_allclose(again, x, rtol=1e-9)


def test_a_weight_without_curvature_counts_as_one_of_the_largest(shifted):
    matrix, gradient = np.diag([4.0, 1.0, 0.0, 1e-12, 0.0]), np.ones(SIZE)
    x, *_, damped = shifted(matrix, gradient, 0.5)
    np.testing.assert_allclose(damped, [2.0, 1.0, 2.0, 1e-6, 2.0], rtol=1e-12)
    np.testing.assert_allclose(x, 1 / (np.diag(matrix) + 0.5 * damped**2), rtol=1e-9)


@pytest.mark.parametrize("kind", ["shift", "absolute"])
def test_weights_that_are_not_rescaled_are_as_before_bit_for_bit(kind):
    matrix, gradient = definite(0)
    for one, other in zip(
        Block(kind, rescaled=None)(matrix, gradient, 0.1),
        Block(kind, rescaled=False)(matrix, gradient, 0.1),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


class Fit:
    """exp(-a t) + b at ten points, of weights in these units; a few steps from one start."""

    def __init__(self, units, blocks="auto", curvature="auto", jit_compile=False, **options):
        start = np.array([3.0, -1.0])
        self.weights = [tf.Variable(w, dtype=tf.float64) for w in start / units]
        self.optimizer = QNewton(
            1.0, curvature, blocks, damping=Adaptive(**options.pop("damping", {})), **options
        )
        t = tf.constant(np.linspace(0, 1, 10))

        def loss():
            a, b = (w * u for w, u in zip(self.weights, units, strict=True))
            return tf.reduce_sum(tf.square(tf.exp(-a * t) + b - tf.exp(-0.5 * t) - 2.0))

        self._step = tf.function(
            lambda: self.optimizer.minimize(loss, self.weights),
            autograph=False,
            jit_compile=jit_compile,
        )

    def losses(self, steps):
        return [float(self._step()) for _ in range(steps)]


@pytest.mark.parametrize("curvature", ["auto", "hessian"])
@pytest.mark.parametrize("blocks", ["auto", "variable"])
def test_units_of_weights_change_no_loss(curvature, blocks):
    of_one, of_another = (
        Fit(units, blocks, curvature, damping={"scaling": "diagonal"}).losses(6)
        for units in ([1.0, 1.0], [2.0**-20, 2.0**25])
    )
    np.testing.assert_allclose(of_one, of_another, rtol=1e-6, atol=1e-12)


def powell(curvature="auto", scaling="auto", jit_compile=False):
    """Powell's badly scaled function (Moré, Garbow & Hillstrom 1981, no. 3): optimizer and step."""
    w, optimizer = (
        keras.Variable([0.0, 1.0], dtype="float64"),
        QNewton(curvature=curvature, damping=Adaptive(scaling=scaling)),
    )

    def loss():
        one, other = w[0], w[1]
        sums = tf.exp(-one) + tf.exp(-other) - tf.constant(1.0001, tf.float64)
        return tf.square(1e4 * one * other - 1) + tf.square(sums)

    step = tf.function(
        lambda: optimizer.minimize(loss, [w]), autograph=False, jit_compile=jit_compile
    )
    return w, optimizer, step


@pytest.mark.parametrize("curvature", ["auto", "hessian"])
def test_weights_of_very_different_scales_converge(curvature):
    w, optimizer, step = powell(curvature)
    losses = [float(step()) for _ in range(120)]
    assert losses[-1] < 1e-20
    np.testing.assert_allclose(w.numpy(), [1.098159e-5, 9.106146], rtol=1e-5)
    # λ and whether weights are rescaled are one number.
    assert float(variable(optimizer, "damping")) < 0
    assert all(d.damping > 0 for d in optimizer.decisions)


def test_nothing_is_rescaled_before_the_smallest_damping():
    paths = []
    for scaling in ("auto", "none"):
        w, optimizer, step = powell(scaling=scaling)
        losses = []
        while not losses or optimizer.decisions[-1].damping > 1.0:
            losses.append(float(step()))
        paths.append((losses, w.numpy().tolist()))
    assert len(paths[0][0]) > 3
    assert paths[0] == paths[1]


@pytest.mark.slow
def test_training_is_resumed_in_rescaled_weights():
    w, optimizer, step = powell()
    for _ in range(40):
        step()
    assert float(variable(optimizer, "damping")) < 0
    v, again, other_step = powell()
    again.build([v])
    v.assign(w)
    for one, other in zip(again.variables, optimizer.variables, strict=True):
        one.assign(other)
    assert [float(other_step()) for _ in range(5)] == [float(step()) for _ in range(5)]


@pytest.mark.slow
def test_xla_compiles_rescaled_steps():
    losses = [float(s()) for s in [powell(jit_compile=True)[2]] for _ in range(120)]
    assert losses[-1] < 1e-20


def test_kept_factors_are_of_weights_as_they_are():
    fits = [
        Fit([1.0, 1.0], damping={"scaling": scaling}, update_every=2).losses(4)
        for scaling in ("none", "diagonal")
    ]
    assert fits[0] == fits[1]


@pytest.mark.slow
def test_few_rows_are_formed_for_their_diagonal():
    x = np.random.default_rng(0).normal(size=(8, 300))
    layer = keras.layers.Dense(1, dtype="float64")
    layer.build((None, 300))

    def loss():
        return tf.reduce_mean(tf.square(layer(x) - 1.0))

    routes = []
    for scaling in ("auto", "diagonal"):
        optimizer = QNewton(damping=Adaptive(scaling=scaling))
        tf.function(lambda o=optimizer: o.minimize(loss, layer.trainable_variables))()
        routes.append(optimizer.decisions[-1].solved_by)
    assert routes == ["woodbury", "cholesky"]


def test_inputs_in_different_units_are_fitted_in_single_precision():
    rng = np.random.default_rng(0)
    inputs = np.concatenate([rng.normal(size=(64, 3)), np.ones((64, 1))], 1)
    targets = inputs @ rng.normal(size=(4, 2)) + rng.normal(size=(64, 2))
    lowest = np.mean((targets - inputs @ np.linalg.lstsq(inputs, targets)[0]) ** 2)
    x = (inputs[:, :3] * [1e-3, 1.0, 1e4]).astype("float32")
    layer, optimizer = keras.layers.Dense(2), QNewton()
    layer.build((None, 3))

    def loss():
        return tf.reduce_mean(tf.square(layer(x) - targets.astype("float32")))

    step = tf.function(lambda: optimizer.minimize(loss, layer.trainable_variables))
    losses = [float(step()) for _ in range(40)]
    np.testing.assert_allclose(losses[-1], lowest, rtol=1e-4)
