"""(UᵀU + D + sI)^(-1) g in as many dimensions as U has rows, against NumPy and SciPy."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.curvature.low_rank import FormedRows, LowRank, OuterRows, RowFactors
from keras_qnewton.directions import BlockProblem, direction, woodbury
from tests.blocks import settings_of

FLOAT = tf.float64
# A layer 3-2 and its bias, and four weights whose rows are formed.
KERNEL, BIAS, OTHERS = 6, 2, 4
SIZES = (KERNEL, BIAS, OTHERS)
N, MOST = sum(SIZES), 40
PENALISED = (True, False, True)


def solved(rows, gradient, damping):
    identity = tf.eye(N, dtype=FLOAT)
    problem = BlockProblem.of_matrix(identity, gradient, semidefinite=True)
    problem = dataclasses.replace(problem, low_rank=rows)
    by_rows = direction(problem, settings_of())
    assert isinstance(by_rows, woodbury.Woodbury)
    state = by_rows.init(problem)
    step = by_rows.solve(problem, state, damping)
    return step.x, step.residual, state.scale


@tf.function(
    input_signature=[
        tf.TensorSpec([None, N], FLOAT),
        tf.TensorSpec([N], FLOAT),
        tf.TensorSpec([], FLOAT),
    ]
)
def by_rows_alone(rows, gradient, damping):
    factors = RowFactors(
        tf.constant(True), lambda: LowRank([[FormedRows(rows[:, None])]], [N]), MOST
    )
    return solved(factors, gradient, damping)


@tf.function(
    input_signature=[
        tf.TensorSpec([None, 3], FLOAT),
        tf.TensorSpec([None, 2, 2], FLOAT),
        tf.TensorSpec([None, 3], FLOAT),
        tf.TensorSpec([None, 1, 2], FLOAT),
        tf.TensorSpec([None, 1, OTHERS], FLOAT),
        tf.TensorSpec([N], FLOAT),
        tf.TensorSpec([N], FLOAT),
        tf.TensorSpec([], FLOAT),
    ]
)
def by_two_outputs(a, d, other_a, other_d, formed, diagonal, gradient, damping):
    """Two roots an example of the first output, which does not depend on the last weights."""

    def make():
        first = [OuterRows(a, d), OuterRows(None, d), None]
        second = [OuterRows(other_a, other_d), None, FormedRows(formed)]
        return LowRank([first, second], SIZES)

    return solved(RowFactors(tf.constant(True), make, MOST, diagonal, PENALISED), gradient, damping)


def rows_of(a, d, other_a, other_d, formed):
    """U, written out."""
    first = [
        np.concatenate([np.outer(a[b], d[b, c]).ravel(), d[b, c], np.zeros(OTHERS)])
        for b in range(len(a))
        for c in range(2)
    ]
    second = [
        np.concatenate([np.outer(other_a[b], other_d[b, 0]).ravel(), np.zeros(BIAS), formed[b, 0]])
        for b in range(len(other_a))
    ]
    return np.array(first + second).reshape(-1, N)


def diagonal_of(kind, rng):
    """D with one number, one a weight's piece, or any numbers, where there is a penalty."""
    numbers = {
        "one": np.ones(N),
        "by piece": np.repeat(rng.uniform(0.1, 1, len(SIZES)), SIZES),
        "any": rng.uniform(0, 1, N),
        "some": rng.uniform(0, 1, N) * rng.integers(0, 2, N),
        "none": np.zeros(N),
    }[kind]
    return np.repeat(PENALISED, SIZES) * numbers


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(0, 2**20),
    st.floats(-6, 1),
    st.sampled_from([0.0, 1e-12, 1.0]),
    st.floats(-8, 8),
)
def test_solution_against_scipy(count, rank, seed, log_damping, beside, log_scale):
    """Rows of any rank, a gradient that is their sum, or nearly, or not at all."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, rank)) @ rng.normal(size=(rank, N)) * 10**log_scale
    gradient = rng.normal(size=count) @ rows
    gradient += beside * np.linalg.norm(gradient) * rng.normal(size=N)
    matrix = rows.T @ rows
    shift = 10**log_damping * np.linalg.norm(matrix, 2)
    found = by_rows_alone(rows, gradient, tf.constant(shift, FLOAT))[0].numpy()
    exact = scipy.linalg.solve(matrix + shift * np.eye(N), gradient, assume_a="pos")
    # What is no more than rounding of the gradient is left out, and had been divided by the shift.
    error = np.linalg.norm(found - exact) - 1e-13 * np.linalg.norm(gradient) / shift
    assert error <= (1e-6 if beside == 1e-12 else 1e-8) * np.linalg.norm(exact)


@pytest.mark.parametrize("kind", ["one", "by piece", "any", "some", "none"])
@settings(max_examples=25, deadline=None)
@given(
    examples=st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(any),
    seed=st.integers(0, 2**20),
    log_damping=st.floats(-6, 1),
    log_penalty=st.floats(-8, 4),
    log_scale=st.floats(-6, 6),
    beside=st.sampled_from([0.0, 1.0]),
)
def test_solution_with_a_diagonal(
    kind, examples, seed, log_damping, log_penalty, log_scale, beside
):
    """Two outputs with batches of their own, one of which may be empty; in relative terms."""
    rng = np.random.default_rng(seed)
    first, second = examples
    shapes = [(first, 3), (first, 2, 2), (second, 3), (second, 1, 2), (second, 1, OTHERS)]
    arrays = [rng.normal(size=shape) for shape in shapes]
    for k in (1, 3, 4):
        arrays[k] *= 10**log_scale
    rows = rows_of(*arrays)
    size = np.linalg.norm(rows, 2) ** 2
    diagonal = 10**log_penalty * size * diagonal_of(kind, rng)
    gradient = rng.normal(size=len(rows)) @ rows + diagonal * rng.normal(size=N) / np.sqrt(size)
    gradient += beside * np.linalg.norm(gradient) * rng.normal(size=N)
    matrix = rows.T @ rows + np.diag(diagonal)
    largest = np.linalg.eigvalsh(matrix)[-1]
    shift = 10**log_damping * largest
    arguments = [tf.constant(v) for v in (*arrays, diagonal, gradient, shift)]
    x, residual, scale = (t.numpy() for t in by_two_outputs(*arguments))
    exact = np.linalg.solve(matrix + shift * np.eye(N), gradient)
    error = np.linalg.norm(x - exact) - 1e-13 * np.linalg.norm(gradient) / shift
    assert error <= 1e-8 * np.linalg.norm(exact)
    assert residual <= 1e-8
    assert 0.9 * largest <= scale <= 1.1 * largest


@pytest.mark.parametrize("varied", [False, True])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_weighted_gram_matrix(varied, seed):
    """U diag(v) Uᵀ over some of the weights, v of one number a piece or of any numbers."""
    rng = np.random.default_rng(seed)
    shapes = [(5, 3), (5, 2, 2), (4, 3), (4, 1, 2), (4, 1, OTHERS)]
    arrays = [rng.normal(size=shape) for shape in shapes]
    a, d, other_a, other_d, formed = (tf.constant(v) for v in arrays)
    first = [OuterRows(a, d), OuterRows(None, d), None]
    second = [OuterRows(other_a, other_d), None, FormedRows(formed)]
    factors, rows = LowRank([first, second], SIZES), rows_of(*arrays)
    weights = rng.normal(size=N) if varied else np.repeat(rng.normal(size=3), SIZES)
    expected = (rows * weights) @ rows.T
    np.testing.assert_allclose(factors.gram(tf.constant(weights)), expected, atol=1e-12)
    of = np.repeat(PENALISED, SIZES)
    np.testing.assert_allclose(factors.gram(of=PENALISED), (rows * of) @ rows.T, atol=1e-12)
    assert int(factors.rank) == len(rows) == 14
