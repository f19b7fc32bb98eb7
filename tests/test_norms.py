"""Norms of numbers of any size, against exact arithmetic of Python's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.norms import hypotenuse, norm, power_of_two

_LARGEST = {"float32": 1e37, "float64": 1e307}
_SMALLEST = {"float32": 1e-37, "float64": 1e-307}


def numbers(dtype: str) -> st.SearchStrategy[float]:
    width, largest, smallest = int(dtype[5:]), _LARGEST[dtype], _SMALLEST[dtype]
    rounded = [float(np.dtype(dtype).type(x)) for x in (smallest, largest)]
    return st.floats(*rounded, width=width) | st.floats(-rounded[1], -rounded[0], width=width)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_norm_is_right_for_numbers_of_any_size(dtype, data):
    x = np.array(data.draw(st.lists(numbers(dtype), min_size=1, max_size=6)), dtype)
    largest = max(abs(float(v)) for v in x)
    exact = largest * math.sqrt(math.fsum((float(v) / largest) ** 2 for v in x))
    np.testing.assert_allclose(float(norm(tf.constant(x))), exact, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_hypotenuse_is_right_for_numbers_of_any_size(dtype, data):
    a, b = data.draw(numbers(dtype)), data.draw(numbers(dtype))
    found = float(hypotenuse(tf.constant(a, dtype), tf.constant(b, dtype)))
    np.testing.assert_allclose(found, math.hypot(a, b), rtol=4 * np.finfo(dtype).eps)


@given(x=numbers("float64"))
@settings(max_examples=50, deadline=None)
def test_a_power_of_two_is_that_of_the_exponent(x):
    _, exponent = math.frexp(x)
    assert float(power_of_two(tf.constant(x, tf.float64))) == math.ldexp(1.0, exponent - 1)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_norm_of_zeros_is_zero(jit_compile):
    of_zeros = tf.function(norm, jit_compile=jit_compile)
    assert float(of_zeros(tf.zeros([3], tf.float64))) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_of_what_is_not_finite_is_not_finite(bad):
    assert not math.isfinite(float(norm(tf.constant([1.0, bad]))))


def test_a_norm_in_range_is_that_of_tensorflow_to_the_bit():
    x = tf.constant(np.random.default_rng(0).normal(size=1000), tf.float32)
    assert float(norm(x)) == float(tf.norm(x))
