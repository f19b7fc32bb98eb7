"""Block LDL: several block rows, what has no such factorisation, and XLA."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.solvers import LDL

from .systems import relative_error, symmetric, vector

# One block row, two, some with a narrower last one, many.
SIZES = (96, 145, 300, 700)


@pytest.mark.parametrize("size", SIZES)
def test_the_factors_are_those_of_the_matrix(size):
    matrix = symmetric(size, 100, definite=False)
    state = LDL().init(matrix)
    assert len(state.values) == round(size / 96)
    upper, start = np.eye(size), 0
    decomposed = zip(state.values, state.vectors, strict=True)
    blocks = [(v.numpy() * w.numpy()) @ v.numpy().T for w, v in decomposed]
    for block, right in zip(blocks, state.right, strict=False):
        stop = start + len(block)
        upper[start:stop, stop:] = np.linalg.solve(block, right.numpy())
        start = stop
    np.testing.assert_allclose(
        upper.T @ scipy.linalg.block_diag(*blocks) @ upper, matrix, atol=1e-8
    )


@settings(deadline=None, max_examples=10)
@given(
    size=st.sampled_from(SIZES),
    condition_number=st.floats(1, 1e4),
    definite=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 10**6),
)
def test_solution_is_scipys(size, condition_number, definite, dtype, seed):
    matrix = symmetric(size, condition_number, definite, seed, dtype)
    rhs = vector(size, seed, dtype)
    solution = LDL(refinements=4, tolerance=0).solve(matrix, rhs)
    exact = scipy.linalg.solve(matrix.astype("float64"), rhs.astype("float64"), assume_a="sym")
    # Refined until nothing is gained: a backward stable solution's error, κ u and a factor that
    # grows with N (35 was seen at κ = 1). Without refinement float64 has eight digits to spare, of
    # random matrices; float32 would not.
    assert relative_error(solution.x, exact) <= 128 * condition_number * np.finfo(dtype).eps
    gap = matrix.astype("float64") @ solution.x.numpy().astype("float64") - rhs
    np.testing.assert_allclose(
        solution.residual, np.linalg.norm(gap) / np.linalg.norm(rhs), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("leading", [0.0, 1e-300])
def test_a_singular_block_is_told_by_the_residual(leading):
    """A matrix that is regular, and has no factorisation without pivoting."""
    size = 96
    coupling = symmetric(size, 10, definite=False)
    matrix = np.block([[leading * np.eye(size), coupling], [coupling, np.zeros((size, size))]])
    assert np.linalg.cond(matrix) < 11
    run = tf.function(lambda a, b: LDL().solve(a, b).residual)
    assert not float(run(tf.constant(matrix), tf.constant(vector(2 * size)))) < 0.1


def test_digits_lost_in_one_block_are_seen_and_refined():
    matrix, rhs = symmetric(192, 10, definite=False), vector(192)
    first = matrix[:96, :96]
    values, vectors = np.linalg.eigh(first)
    values[np.argmin(np.abs(values))] = 1e-5
    matrix[:96, :96] = (vectors * values) @ vectors.T
    matrix = (matrix + matrix.T) / 2
    plain, better = (LDL(refinements=n, tolerance=0).solve(matrix, rhs) for n in (0, 3))
    assert 1e-12 < plain.residual < 1e-4
    assert better.residual < plain.residual / 100
    assert relative_error(better.x, np.linalg.solve(matrix, rhs)) < 1e-9


def test_compiles_with_xla():
    matrix, rhs = symmetric(200, 10, definite=False), vector(200)
    run = tf.function(lambda a, b: LDL().solve(a, b).x, jit_compile=True)
    x = run(tf.constant(matrix), tf.constant(rhs))
    assert relative_error(x, np.linalg.solve(matrix, rhs)) < 1e-10


def test_a_size_that_is_not_known_when_tracing():
    run = tf.function(
        lambda a, b: LDL().solve(a, b).x,
        input_signature=[
            tf.TensorSpec([None, None], tf.float64),
            tf.TensorSpec([None], tf.float64),
        ],
    )
    for size in (3, 150):
        matrix, rhs = symmetric(size, 10, definite=False), vector(size)
        assert relative_error(run(matrix, rhs), np.linalg.solve(matrix, rhs)) < 1e-10


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"refinements": -1}, "`refinements` must be"), ({"tolerance": -1.0}, "`tolerance` must be")],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        LDL(**settings)
