"""Sums of products of a and d, against NumPy's einsum."""

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature.contractions import contracted, lengths, reshaped
from keras_qnewton.curvature.span import Span

LENGTHS = {"R": 3, "B": 4, "P": 2, "a": 4, "b": 3, "c": 2, "x": 5, "y": 6, "z": 3}
EQUATIONS = [
    ("BPy", "RBPz", "RByz"),
    ("BPy", "RBPz", "RBzy"),
    ("BPbcy", "RBPbcz", "RByz"),
    ("BPbcz", "RBPbcy", "RByz"),
    ("BPbxy", "RBPbz", "RByxz"),
    ("BPbcxy", "RBPbcyz", "RBxyz"),
    ("BPby", "RBPcz", "RByz"),
    ("BPz", "RBPz", "RBz"),
    ("y", "RBPz", "RByz"),
    ("y", "BP", "y"),
    ("BPy", "BPz", "yz"),
    ("BPbcy", "BPbcz", "zy"),
    ("BPbxy", "BPbz", "xzy"),
    ("BPbcxy", "BPbcyz", "xyz"),
    ("BP", "BPz", "z"),
    ("BP", "BPbz", "z"),
    (None, "BPbz", "z"),
    (None, "RBPbz", "RBz"),
    (None, "RBPbz", "RBzb"),
]


@pytest.mark.parametrize("known", [True, False], ids=["known lengths", "unknown"])
@pytest.mark.parametrize("positions", [1, 2])
@pytest.mark.parametrize("of_a, of_d, to", EQUATIONS)
def test_equals_einsum(of_a, of_d, to, positions, known):
    rng, lengths = np.random.default_rng(0), LENGTHS | {"P": positions}
    operands = [
        (letters, rng.normal(size=[lengths[c] for c in letters]))
        for letters in (of_a, of_d)
        if letters is not None
    ]
    letters, arrays = zip(*operands, strict=True)
    expected = np.einsum(f"{','.join(letters)}->{to}", *arrays)

    def spec(letters, array):
        shape = [
            n if known or c not in "BPb" else None
            for c, n in zip(letters, array.shape, strict=True)
        ]
        return tf.TensorSpec(shape, tf.float64)

    @tf.function(input_signature=[spec(*pair) for pair in operands], autograph=False)
    def found(*tensors):
        a, d = tensors if len(tensors) == 2 else (None, *tensors)
        return contracted(a, of_a or "", d, of_d, to)

    np.testing.assert_allclose(found(*arrays), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "shape, known",
    [
        ((3, 0, 4), (3, None, 4)),
        ((3, 5, 4), (3, None, 4)),
        ((0, 5, 4), (0, None, 4)),
        ((3, 0, 4), (None, None, 4)),
        ((0, 5, 4), (None, None, 4)),
        ((3, 5, 4), (None, None, None)),
    ],
)
def test_reshaped_where_lengths_are_not_known(shape, known):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)

    @tf.function(input_signature=[tf.TensorSpec(known, tf.float64)], autograph=False)
    def both(tensor):
        return reshaped(tensor, 2, 2, 2), reshaped(tensor, 0, *lengths(tensor)[1:], shape[0])

    first, second = both(values)
    np.testing.assert_array_equal(first, values.reshape(*shape[:2], 2, 2))
    np.testing.assert_array_equal(second, values.reshape(*shape[1:], shape[0]))


def test_an_inferred_length_takes_one_operation_and_its_constant():
    @tf.function(input_signature=[tf.TensorSpec([3, None, 4], tf.float64)], autograph=False)
    def one(tensor):
        return reshaped(tensor, 2, 2, 2)

    operations = one.get_concrete_function().graph.get_operations()
    assert [op.type for op in operations] == ["Placeholder", "Const", "Reshape", "Identity"]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_spans_slice_one_axis(axis):
    values = np.random.default_rng(0).normal(size=(6, 7, 8))
    whole = (slice(None),) * axis

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32)], autograph=False)
    def some(start):
        span = Span(start, 5)
        return span.of(tf.constant(values), axis), span.of(tf.constant(-values), axis), span.count

    for start in (0, 2, 5):
        first, second, count = some(start)
        np.testing.assert_array_equal(first, values[(*whole, slice(start, 5))])
        np.testing.assert_array_equal(second, -first)
        assert count == 5 - start


def test_a_span_of_everything_cuts_nothing():
    tensor = tf.zeros([3, 4])
    assert Span(None, 4).of(tensor, axis=1) is tensor
    assert Span(None, 4).count == 4
