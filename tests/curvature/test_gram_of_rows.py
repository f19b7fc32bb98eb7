"""Products UᵀU, by panels, pieces, outputs and a few examples at a time, against NumPy's."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.example_sums import gram, symmetric_product
from keras_qnewton.curvature.gradient_of_rows import gradient_of_rows
from keras_qnewton.curvature.gram_of_rows import RowsOfOutput, gram_of_rows
from keras_qnewton.curvature.pieces import Piece
from keras_qnewton.curvature.row_factors import Factor, OfPiece, joined
from keras_qnewton.curvature.span import Span
from keras_qnewton.loss.uses import Equation, Use

RNG = np.random.default_rng(0)
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "sizes",
    [[1], [255], [257], [641], [1025], [128, 64, 64, 1], [1, 700], [90] * 9, [300, 1, 2, 400]],
    ids=str,
)
def test_gram_by_panels(sizes, dtype):
    rows = RNG.normal(size=(7, sum(sizes))).astype(dtype)
    found = gram(tf.split(tf.constant(rows), sizes, axis=1)).numpy()
    assert np.array_equal(found, found.T)
    assert error(found, rows.T.astype("float64") @ rows) < TOLERANCE[dtype]


@pytest.mark.parametrize("size", [1, 255, 641, 1025])
def test_symmetric_product(size):
    left = RNG.normal(size=(size, 5))
    weights = RNG.uniform(size=5)
    product = symmetric_product(tf.constant(left), tf.constant(left * weights)).numpy()
    assert np.array_equal(product, product.T)
    assert error(product, (left * weights) @ left.T) < TOLERANCE["float64"]


def rows_of(examples, count, known=True, columns=6, noise=None):
    """Rows of an output in a weight that is added, and the same as an array `[R B, columns]`."""
    derivatives = RNG.normal(size=(count, examples, 1, columns))
    use = Use(0, None, Equation("", "b", "ab"), None, tf.zeros([examples, columns], tf.float64))
    of_piece = OfPiece(Piece((use,), columns), [Factor(use, None, tf.constant(derivatives))])
    rows = RowsOfOutput(
        tf.constant(examples), examples if known else None, count, [of_piece], noise
    )
    return rows, derivatives.reshape(-1, columns)


@pytest.mark.parametrize("memory", [1e9, 2000, 1], ids=["all", "some outputs", "one example"])
@pytest.mark.parametrize("known", [True, False], ids=["known batch", "unknown batch"])
def test_gram_of_several_outputs(memory, known):
    made = [rows_of(*size, known) for size in ((9, 2), (1, 2), (4, 3), (30, 1), (2, 1))]
    found = gram_of_rows([rows for rows, _ in made], 6, memory, tf.float64, tf.float64)
    expected = sum(array.T @ array for _, array in made)
    assert np.array_equal(found, tf.transpose(found))
    assert error(found, expected) < TOLERANCE["float64"]


def test_noise_is_a_column_at_the_end():
    noise = RNG.normal(size=(9, 2))
    rows, array = rows_of(9, 2, noise=lambda: tf.constant(noise))
    found = gram_of_rows([rows], 6, 1e9, tf.float64, tf.float64).numpy()
    assert error(found[:6, 6], array.T @ noise.T.ravel()) < TOLERANCE["float64"]


def factor_of(equation, positions, roots, **others):
    """Random a and d of an equation, and how many elements its weight has."""
    lengths = {"y": 3, "z": 2, "b": 4, **others}
    inner = [[lengths[c] for c in letters[1:]] for letters in (equation.inputs, equation.outputs)]
    a = tf.constant(RNG.normal(size=(5, positions, *inner[0]))) if equation.inputs else None
    d = tf.constant(RNG.normal(size=(roots, 5, positions, *inner[1])))
    size = int(np.prod([lengths[c] for c in equation.weights]))
    return Factor(Use(0, None, equation, a, d), a, d), size


@pytest.mark.parametrize("roots", [1, 3])
@pytest.mark.parametrize("positions", [1, 2])
@pytest.mark.parametrize("equation", [("ay", "yz", "az"), ("az", "yz", "ay"), ("", "b", "ab")])
def test_total_is_the_weighted_sum_of_rows(equation, positions, roots):
    factor, size = factor_of(Equation(*equation), positions, roots)
    c = RNG.normal(size=(5, roots))
    expected = np.einsum("br,rbn->n", c, factor.rows(size).numpy())
    assert error(factor.total(tf.constant(c), size), expected) < TOLERANCE["float64"]


def test_uses_that_mirror_each_other_have_one_equation():
    plain, _ = factor_of(Equation("ay", "yz", "az"), 2, 1)
    transposed, size = factor_of(Equation("az", "yz", "ay"), 2, 1)
    found = [factor.with_smaller_inputs() for factor in (plain, transposed)]
    assert found[0].key == found[1].key
    for factor, mirrored in zip((plain, transposed), found, strict=True):
        assert error(mirrored.rows(size), factor.rows(size).numpy()) < TOLERANCE["float64"]


def test_uses_of_a_weight_and_of_its_transpose_are_joined():
    plain, size = factor_of(Equation("ay", "yz", "az"), 2, 1)
    turned, _ = factor_of(Equation("ay", "zy", "az"), 1, 1, y=2, z=3)
    factors = [factor.with_smaller_inputs() for factor in (plain, turned)]
    assert factors[0].key == factors[1].key
    expected = plain.rows(size).numpy() + turned.rows(size).numpy()
    assert error(joined(factors).rows(size), expected) < TOLERANCE["float64"]


def test_rows_that_are_made_give_the_same_sums_and_slices():
    factor, size = factor_of(Equation("ay", "yz", "az"), 3, 2)
    piece = OfPiece(Piece((factor.use,), size), [factor])
    assert piece.sums_positions
    made, c = piece.with_rows(), tf.constant(RNG.normal(size=(5, 2)))
    assert error(made.total(c, tf.float64), piece.total(c, tf.float64).numpy()) < 1e-13
    some = [
        of.rows(Span(tf.constant(1), tf.constant(4)), 2, tf.float64).numpy() for of in (piece, made)
    ]
    assert some[0].shape == (2, 3, size)
    assert error(some[1], some[0]) < 1e-13


class Output(NamedTuple):
    """Of `ExampleRows` what a gradient asks for."""

    made: list[list[OfPiece]]
    count: int = 1
    known_examples: int | None = 5

    def of_blocks(self, found):
        return [list(pieces) for pieces in self.made]


def summed_piece(positions, roots=1):
    factor, size = factor_of(Equation("ay", "yz", "az"), positions, roots, y=2)
    return OfPiece(Piece((factor.use,), size), [factor])


@pytest.mark.parametrize(
    ("memory", "known", "roots", "positions", "size", "made"),
    [
        (1e9, 5, 1, 3, 4, 4),
        (3 * 5 * 4 * 8, 5, 1, 3, 4, 3),  # of four, three fit
        (0, 5, 1, 3, 4, 0),
        (1e9, None, 1, 3, 4, 0),
        (1e9, 5, 2, 3, 4, 0),
        (1e9, 5, 1, 1, 4, 0),
        (1e9, 5, 1, 3, 6, 0),  # a block of more columns than rows may never be formed
    ],
)
def test_rows_are_made_once_and_within_memory(memory, known, roots, positions, size, made):
    outputs = [
        Output([[summed_piece(positions, roots)] for _ in range(2)], roots, known) for _ in range(2)
    ]
    parts = [Part(str(k), (k,), size, dense=True) for k in range(2)]
    coefficients = [tf.constant(RNG.normal(size=(5, roots))) for _ in outputs]
    found = gradient_of_rows(outputs, [[], []], coefficients, parts, tf.float64, memory)
    pieces = [piece for of in found.pieces for block in of for piece in block]
    assert sum(piece.made is not None for piece in pieces) == made and found.finite
    for k, flat in enumerate(found.flat):
        expected = sum(
            np.einsum("br,rbn->n", c, of.made[k][0].factors[0].rows(4).numpy())
            for of, c in zip(outputs, coefficients, strict=True)
        )
        assert error(flat, expected) < TOLERANCE["float64"]
