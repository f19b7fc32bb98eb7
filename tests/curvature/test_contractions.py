"""Sums of products of a and d, against NumPy's einsum."""

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature.contractions import contracted

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
