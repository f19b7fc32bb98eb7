"""Fingerprints of a loss's data: the same for the same bits, another for others."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.loss import record
from keras_qnewton.loss.fingerprint import (
    data_fingerprint,
    fingerprint,
    same_rows,
)

DTYPES = (
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "int8",
    "int32",
    "int64",
    "bool",
    "complex64",
)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), place=st.integers(0, 11))
def test_one_changed_element_changes_it(dtype: str, seed: int, place: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2, size=12)
    changed = values.copy()
    changed[place] = 1 - changed[place]
    one, other = (tf.cast(tf.reshape(v, [3, 4]), dtype) for v in (values, changed))
    assert fingerprint([one]) == fingerprint([tf.identity(one)])
    assert fingerprint([one]) != fingerprint([other])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_another_order_changes_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=20).astype("float32")
    order = rng.permutation(20)
    same = bool((order == np.arange(20)).all())
    shuffled = fingerprint([tf.constant(values[order])])
    assert bool(shuffled == fingerprint([tf.constant(values)])) is same


def number_of_data(x: np.ndarray, y: np.ndarray) -> tf.Tensor:
    """Of a loss of these data, which are arguments of the graph."""
    w = tf.Variable(1.0)

    @tf.function
    def number(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return data_fingerprint(record(lambda: tf.reduce_sum(tf.square(x * w - y)), [w]))

    return number(tf.constant(x), tf.constant(y))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), place=st.integers(0, 9))
def test_rows_in_another_order_are_the_same_rows(seed: int, place: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 10, 3)).astype("float32")
    order = rng.permutation(10)
    number, shuffled = number_of_data(x, y), number_of_data(x[order], y[order])
    assert (number == shuffled) == (order == np.arange(10)).all()
    assert same_rows(number, shuffled)
    x[place, 0] = np.nextafter(x[place, 0], np.float32(9))
    assert not same_rows(number, number_of_data(x[order], y[order]))


def test_zeros_are_not_nothing() -> None:
    assert fingerprint([tf.zeros([3])]) != 0


@pytest.mark.parametrize("shape", [[], [0], [0, 3], [2, 0], [1], [2, 3, 4]])
def test_tensors_of_any_shape_have_one(shape: list[int]) -> None:
    assert fingerprint([tf.ones(shape)]).dtype == tf.int64


def test_tensors_that_change_places_change_it() -> None:
    a, b = tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0])
    assert fingerprint([a, b]) != fingerprint([b, a])


def in_graph(loss_fn, variables, *arguments):
    found = {}

    @tf.function
    def trace(*values):
        value = data_fingerprint(record(lambda: loss_fn(*values), variables))
        found["operations"] = None if value is None else value.op.type
        return tf.constant(0, tf.int64) if value is None else value

    return [int(trace(*a)) for a in arguments], found["operations"]


def test_it_tells_batches_apart_and_not_weights() -> None:
    w = tf.Variable([1.0, 2.0])
    x, other = tf.constant([[1.0, 2.0]]), tf.constant([[1.0, 2.5]])
    (first, second), _ = in_graph(lambda x: tf.reduce_sum(tf.square(x * w)), [w], [x], [other])
    assert first != second
    w.assign([5.0, 6.0])
    (again,), _ = in_graph(lambda x: tf.reduce_sum(tf.square(x * w)), [w], [x])
    assert again == first


def test_data_that_are_constants_of_the_graph_are_not_read() -> None:
    w, x = tf.Variable([1.0, 2.0]), tf.constant([[1.0, 2.0]])
    _, operation = in_graph(lambda: tf.reduce_sum(tf.square(tf.sin(x) * w)), [w], [])
    assert operation == "Const"


def test_a_variable_that_is_not_trained_is_data() -> None:
    w, x = tf.Variable([1.0, 2.0]), tf.Variable([[1.0, 2.0]])

    def loss() -> tf.Tensor:
        return tf.reduce_sum(tf.square(x * w))

    (before,), _ = in_graph(loss, [w], [])
    x.assign([[1.0, 3.0]])
    (after,), _ = in_graph(loss, [w], [])
    assert before != after
