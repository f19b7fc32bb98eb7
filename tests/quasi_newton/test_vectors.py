"""How weights lie in vectors, and that a line's points are the weights that Keras makes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import QNewton, QuasiNewton
from keras_qnewton.state import Foreseen, QuasiNewtonState
from tests.quasi_newton.variables import add_variable

SHAPES = [(2, 3), (), (4,), (1, 2, 2)]
SIZE = 15


def state(positions: list[int]) -> QuasiNewtonState:
    inverse = QuasiNewton("lbfgs", history=2).inverse(SIZE, add_variable)
    optimizer = QNewton(curvature="quasi_newton")
    variables = [tf.Variable(tf.zeros(shape)) for shape in SHAPES]
    made = QuasiNewtonState.create(
        optimizer, inverse, variables, lambda: Foreseen(tf.constant(0.0), tf.constant(0.0))
    )
    return made.of_weights(positions)


subsets = st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True)


@settings(max_examples=15, deadline=None)
@given(positions=subsets, seed=st.integers(0, 1000), mixed=st.booleans())
def test_a_vector_of_some_weights_and_back(positions: list[int], seed: int, mixed: bool) -> None:
    rng, some = np.random.default_rng(seed), state(positions)
    dtypes = ["float64" if mixed and k % 2 else "float32" for k in positions]
    values = [
        np.asarray(rng.normal(size=SHAPES[k]), dtype)
        for k, dtype in zip(positions, dtypes, strict=True)
    ]
    tensors = [tf.constant(v) for v in values]
    whole = some.flatten(tensors)
    # As written out: each weight's entries in its place, and zeros in those of the others.
    expected = np.zeros(SIZE)
    ends = np.cumsum([0] + [int(np.prod(shape)) for shape in SHAPES])
    for k, value in zip(positions, values, strict=True):
        expected[ends[k] : ends[k + 1]] = value.ravel()
    np.testing.assert_array_equal(whole, expected)
    for back, tensor in zip(some.unflatten(whole, tensors), tensors, strict=True):
        assert back.dtype == tensor.dtype and back.shape == tensor.shape
        np.testing.assert_array_equal(back, tensor)
    np.testing.assert_array_equal(some.flatten([None, *tensors[1:]])[ends[positions[0]]], 0.0)


@pytest.mark.parametrize(
    ("dtypes", "rate"),
    [(("float32", "float32"), 1.0), (("float64",) * 2, 0.3), (("float32", "float64"), 1.0)],
)
def test_the_next_step_finds_the_weights_that_it_foresaw(
    dtypes: tuple[str, str], rate: float
) -> None:
    """To the last bit: else the loss would be evaluated again where each step starts."""
    rng = np.random.default_rng(0)
    weights = [
        keras.Variable(rng.normal(size=shape), dtype=dtype)
        for shape, dtype in zip([(3, 2), (5,)], dtypes, strict=True)
    ]

    def loss() -> tf.Tensor:
        first, second = (tf.cast(w.value, dtypes[1]) for w in weights)
        return tf.reduce_sum(tf.square(first)) + tf.reduce_sum(tf.exp(second) - second)

    optimizer = QNewton(learning_rate=rate, curvature="quasi_newton")
    step = tf.function(lambda: optimizer.minimize(loss, weights), autograph=False)
    for _ in range(6):
        step()
        here = optimizer._state.last().weights
        flat = optimizer._state.flatten([w.value for w in weights])
        np.testing.assert_array_equal(flat, here)
