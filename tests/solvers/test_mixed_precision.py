"""Float32 factors refined with float64 residuals: as accurate as a float64 solve, or refused."""

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Constant, Scheduler
from keras_qnewton.directions import scheduled, traits
from keras_qnewton.solvers import mixed_precision
from keras_qnewton.solvers.blocked_cholesky import blocked_cholesky
from keras_qnewton.solvers.mixed_precision import mixed_cholesky
from tests.blocks import ScheduledBlock


def semidefinite(size, smallest, seed=0):
    """A float32 matrix with eigenvalues from `smallest` to 1, and a right-hand side."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = (q * np.geomspace(smallest, 1, size)) @ q.T
    return ((matrix + matrix.T) / 2).astype(np.float32), rng.normal(size=size)


@pytest.mark.parametrize("size", [5, 256, 300, 600])
@pytest.mark.parametrize("scale", [1e-30, 1.0])
def test_solution_is_that_of_double_precision(size, scale):
    matrix, rhs = semidefinite(size, 1e-6)
    shift, rhs = 1e-3, scale * rhs
    x, residual = tf.function(mixed_cholesky)(
        tf.constant(matrix), tf.constant(shift, tf.float64), tf.constant(rhs), 1e-12
    )
    system = matrix.astype(np.float64) + shift * np.eye(size)
    assert float(residual) <= 1e-12
    assert np.linalg.norm(system @ x.numpy() - rhs) <= 2e-12 * np.linalg.norm(rhs)
    expected = np.linalg.solve(system, rhs)
    assert np.linalg.norm(x.numpy() - expected) <= 1e-9 * np.linalg.norm(expected)


SIZE, SHIFT = 300, 1e-3
some_zeros = pytest.mark.parametrize("zeros", [0, 70, 150, 290, 300])


def with_zeros(zeros):
    """A matrix with rows of zeros anywhere, and a right-hand side."""
    rng = np.random.default_rng(zeros)
    live = np.sort(rng.permutation(SIZE)[zeros:])
    matrix = np.zeros((SIZE, SIZE), np.float32)
    if len(live):
        matrix[np.ix_(live, live)] = semidefinite(len(live), 1e-6)[0]
    return matrix, rng.normal(size=SIZE)


def solved_as_large(matrix, rhs):
    shift = tf.constant(SHIFT, tf.float64)
    return mixed_cholesky(tf.constant(matrix), shift, tf.constant(rhs), 1e-12, large=257)


@some_zeros
def test_a_large_matrix_is_solved_whatever_rows_are_zeros(zeros):
    matrix, rhs = with_zeros(zeros)
    x, residual = solved_as_large(matrix, rhs)
    expected = np.linalg.solve(matrix.astype(np.float64) + SHIFT * np.eye(SIZE), rhs)
    assert float(residual) <= 1e-12
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@some_zeros
def test_rows_of_zeros_are_not_factorised(monkeypatch, zeros):
    factorised = []

    def counting(system, shift, live=None):
        factorised.append(len(system if live is None else live))
        return blocked_cholesky(system, shift, live)

    monkeypatch.setattr(mixed_precision, "blocked_cholesky", counting)
    solved_as_large(*with_zeros(zeros))
    # Eagerly one branch alone runs: the smallest that has all other rows.
    (found,) = factorised
    assert SIZE - zeros <= found <= max(1.3 * (SIZE - zeros), 188)


@pytest.mark.parametrize(("smallest", "shift"), [(1e-12, 1e-12), (1e-3, -0.5), (1.0, np.nan)])
def test_what_float32_cannot_factorise_does_not_pass(smallest, shift):
    matrix, rhs = semidefinite(64, smallest)
    _, residual = mixed_cholesky(
        tf.constant(matrix), tf.constant(shift, tf.float64), tf.constant(rhs), 1e-10
    )
    assert not float(residual) <= 1e-10


@pytest.mark.parametrize("failing", ["nothing", "condition", "residual"])
def test_large_blocks_are_solved_as_small_ones(monkeypatch, failing):
    """Also where float32 factors never do, and float64 takes over."""
    matrix, rhs = semidefinite(400, 1e-4)

    def solve():
        scheduler = Scheduler(classical="cholesky", quantum=None)
        gradient = tf.constant(rhs, tf.float32)
        block = ScheduledBlock(
            tf.constant(matrix), gradient, semidefinite=True, scheduler=scheduler
        )
        return block, block.solve(tf.constant(1e-3, tf.float64))

    small, expected = solve()
    monkeypatch.setattr(traits, "LARGE", 100)
    if failing == "condition":
        monkeypatch.setattr(scheduled, "_MIXED_CONDITION", 10.0)
    if failing == "residual":
        monkeypatch.setattr(scheduled, "target", lambda *_: -1.0)
    large, found = solve()
    assert small.state.matrix.dtype == tf.float64 and large.state.matrix.dtype == tf.float32
    assert float(found.residual) <= (1e-8 if failing == "nothing" else 1e-12)
    for name in ("condition_number", "sparsity", "route", "solved_by", "rule"):
        assert float(getattr(found, name)) == float(getattr(expected, name))
    # κ is 1e3, the residual 1e-8.
    assert np.linalg.norm(found.x - expected.x) <= 1e-5 * np.linalg.norm(expected.x)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logged_condition_number_with_the_papers_shift(sign):
    """By Ritz values where the shift is known to suffice, by a factorisation else."""
    matrix, rhs = semidefinite(120, 1e-4)
    matrix = (sign * matrix).astype(np.float32)
    scheduler = Scheduler(classical="cholesky", quantum=None)
    gradient, damping = tf.constant(rhs, tf.float32), Constant(0.05)
    block = ScheduledBlock(tf.constant(matrix), gradient, damping=damping, scheduler=scheduler)
    kappa = float(block.solve(tf.constant(0.0, tf.float64)).condition_number)
    shift = 0.05 * np.abs(matrix).max()
    magnitudes = np.abs(np.linalg.eigvalsh(matrix.astype(np.float64)) + shift)
    exact = magnitudes.max() / magnitudes.min()
    if sign > 0:
        assert 0.9 * exact <= kappa <= exact * (1 + 1e-9)
    else:
        np.testing.assert_allclose(kappa, exact, rtol=0.05)
