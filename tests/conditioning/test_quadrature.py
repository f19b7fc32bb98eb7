"""‖(M + sI)⁻¹ g‖ by Gauss quadrature, beside an eigendecomposition."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.conditioning.quadrature import relative_length


def exactly(matrix, rhs, shift):
    values, vectors = np.linalg.eigh(matrix)
    return np.linalg.norm((vectors.T @ rhs) / (values + shift)) / np.linalg.norm(rhs)


def semidefinite(size, rank, rng):
    rows = rng.normal(size=(rank, size)) * np.geomspace(1, 1e-2, size)
    return rows.T @ rows


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(1, 16),
    seed=st.integers(0, 999),
    power=st.integers(-3, 1),
    units=st.tuples(st.integers(-40, 40), st.integers(-100, 100)),
)
def test_small_systems_are_exact(size, seed, power, units):
    rng = np.random.default_rng(seed)
    matrix = semidefinite(size, size, rng) * 10.0 ** units[0]
    rhs, shift = rng.normal(size=size) * 10.0 ** units[1], 10.0 ** (power + units[0])
    found = relative_length(tf.constant(matrix), tf.constant(rhs), tf.constant(shift, tf.float64))
    assert float(found) == pytest.approx(exactly(matrix, rhs, shift), rel=1e-6)


@pytest.mark.parametrize("rank", [5, 15, 60, 200])
def test_larger_ones_are_bounded_from_below_and_near(rank):
    rng = np.random.default_rng(rank)
    matrix = semidefinite(100, rank, rng)
    for rhs in (rng.normal(size=100), matrix @ rng.normal(size=100)):
        for shift in np.linalg.norm(matrix, 2) * np.array([1e-3, 1e-2, 1.0]):
            given = tf.constant(matrix), tf.constant(rhs), tf.constant(shift, tf.float64)
            exact = exactly(matrix, rhs, shift)
            assert 0.5 * exact < float(relative_length(*given)) <= exact * (1 + 1e-9)


def test_no_matrix_and_no_right_hand_side():
    zeros, shift = tf.zeros([3, 3], tf.float64), tf.constant(2.0, tf.float64)
    assert float(relative_length(zeros, tf.ones([3], tf.float64), shift)) == pytest.approx(0.5)
    assert np.isfinite(relative_length(zeros, tf.zeros([3], tf.float64), shift))
