"""The inverse Hessian of the last pairs."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LbfgsInvHessProduct

from keras_qnewton.quasi_newton.limited_memory import LimitedMemoryInverse
from tests.quasi_newton.variables import add_variable

SIZE = 12


def pairs_of_a_quadratic(count, seed, size=SIZE, condition=1e2):
    """Steps and changes of the gradient, rows `[count, size]`; y = A s, A positive definite."""
    random = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(random.standard_normal((size, size)))
    A = basis * np.geomspace(1, condition, size) @ basis.T
    steps = random.standard_normal((count, size)) * 10.0 ** random.uniform(-3, 1, (count, 1))
    return steps, steps @ A


class Traced:
    """An inverse Hessian whose methods are graphs, so that many pairs are learned soon."""

    def __init__(self, history, dtype="float64"):
        self.inverse = LimitedMemoryInverse(history, SIZE, add_variable, dtype)
        self.product = tf.function(self.inverse.product)
        self._learned = tf.function(
            lambda *pair: self.inverse.learned(self.inverse.prepared(*pair))
        )

    def learned(self, s, y, gradient=None):
        """H' g'. What limited memory ignores is NaN."""
        gradient = np.ones_like(s) if gradient is None else gradient
        nan = np.full_like(s, np.nan)
        vectors = (s, y, gradient, nan)
        return self._learned(*map(tf.constant, vectors), tf.constant(np.nan, tf.float64)).numpy()

    def dense(self):
        return np.stack([self.product(tf.constant(e)).numpy() for e in np.eye(SIZE)], axis=1)


traced = functools.cache(Traced)


def inverse_of(steps, changes, history, dtype="float64"):
    """Of one for all tests, which are therefore of `reset`, too."""
    inverse = traced(history, dtype)
    inverse.inverse.reset()
    for s, y in zip(steps, changes, strict=True):
        inverse.learned(s, y)
    return inverse


def two_loops(steps, changes, vector):
    """Nocedal & Wright 2006, algorithm 7.4, with H₀ = γI of equation 7.20."""
    q, kept = vector.copy(), []
    for s, y in zip(steps[::-1], changes[::-1], strict=True):
        a = s @ q / (y @ s)
        q -= a * y
        kept.append(a)
    r = (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1]) * q
    for s, y, a in zip(steps, changes, kept[::-1], strict=True):
        r += s * (a - y @ r / (y @ s))
    return r


# Fewer pairs than there is room for, as many, and more, so that the ring wraps.
@pytest.mark.parametrize("count", [1, 3, 5, 6, 14])
def test_a_product_is_that_of_the_two_loops(count):
    steps, changes = pairs_of_a_quadratic(count, seed=count)
    vector = np.random.default_rng(0).standard_normal(SIZE)
    ours = inverse_of(steps, changes, 5).product(tf.constant(vector)).numpy()
    np.testing.assert_allclose(ours, two_loops(steps[-5:], changes[-5:], vector), rtol=1e-9)


@pytest.mark.parametrize("count", [2, 9])
def test_the_update_of_the_initial_inverse_is_scipys(count):
    # SciPy's starts from I. In variables that are divided by √γ, ours does.
    steps, changes = pairs_of_a_quadratic(count, seed=count)
    ours = inverse_of(steps, changes, 6).dense()
    steps, changes = steps[-6:], changes[-6:]
    scale = steps[-1] @ changes[-1] / (changes[-1] @ changes[-1])
    theirs = scale * LbfgsInvHessProduct(steps / scale**0.5, changes * scale**0.5).todense()
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10 * np.abs(theirs).max())


def test_learning_returns_the_new_product_with_the_gradient():
    steps, changes = pairs_of_a_quadratic(7, seed=1)
    inverse = inverse_of(steps[:-1], changes[:-1], 4)
    gradient = np.random.default_rng(2).standard_normal(SIZE)
    found = inverse.learned(steps[-1], changes[-1], gradient)
    np.testing.assert_allclose(found, inverse.product(tf.constant(gradient)).numpy(), rtol=1e-10)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**31), st.floats(0, 4))
def test_it_is_symmetric_and_positive_definite(count, history, seed, decades):
    steps, changes = pairs_of_a_quadratic(count, seed, condition=10.0**decades)
    H = inverse_of(steps, changes, history).dense()
    np.testing.assert_allclose(H, H.T, atol=1e-9 * np.abs(H).max())
    assert np.linalg.eigvalsh((H + H.T) / 2)[0] > 0


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**31))
def test_the_newest_pair_meets_the_secant_equation(count, history, seed):
    steps, changes = pairs_of_a_quadratic(count, seed)
    inverse = inverse_of(steps, changes, history)
    found = inverse.product(tf.constant(changes[-1])).numpy()
    np.testing.assert_allclose(found, steps[-1], atol=1e-9 * np.linalg.norm(steps[-1]))


def test_it_is_the_identity_at_first():
    np.testing.assert_array_equal(Traced(4).dense(), np.eye(SIZE))


def test_reset_forgets_all_pairs():
    steps, changes = pairs_of_a_quadratic(6, seed=3)
    inverse = Traced(4)
    for s, y in zip(steps, changes, strict=True):
        inverse.learned(s, y)
    inverse.inverse.reset()
    np.testing.assert_array_equal(inverse.dense(), np.eye(SIZE))
    # Old pairs are not there again once a new one is.
    fresh = Traced(4)
    for either in (inverse, fresh):
        either.learned(steps[0], changes[0])
    np.testing.assert_array_equal(inverse.dense(), fresh.dense())


@pytest.mark.parametrize("factor", [-1.0, 0.0, 1e-14])
def test_a_pair_without_curvature_is_left_out(factor):
    steps, changes = pairs_of_a_quadratic(3, seed=4)
    inverse = inverse_of(steps, changes, 4)
    before = inverse.dense()
    s, y = np.eye(SIZE)[:2]
    found = inverse.learned(s, y + factor * s, s)
    np.testing.assert_array_equal(inverse.dense(), before)
    np.testing.assert_array_equal(found, before[:, 0])


def test_single_precision_is_as_exact_as_its_pairs():
    steps, changes = pairs_of_a_quadratic(9, seed=5)
    vector = np.random.default_rng(0).standard_normal(SIZE)
    ours = inverse_of(steps, changes, 5, "float32").product(tf.constant(vector)).numpy()
    expected = two_loops(steps[-5:], changes[-5:], vector)
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


def test_it_learns_eagerly_what_it_learns_in_a_graph():
    steps, changes = pairs_of_a_quadratic(7, seed=6)
    eager, nan = LimitedMemoryInverse(4, SIZE, add_variable), tf.constant(np.nan, tf.float64)
    for s, y in zip(steps, changes, strict=True):
        pair = eager.prepared(*map(tf.constant, (s, y, y, s)), nan)
        found = eager.learned(pair).numpy()
        np.testing.assert_allclose(found, s, atol=1e-9 * np.linalg.norm(s))
    expected = inverse_of(steps, changes, 4).product(tf.constant(steps[0])).numpy()
    np.testing.assert_allclose(eager.product(tf.constant(steps[0])).numpy(), expected, rtol=1e-12)
