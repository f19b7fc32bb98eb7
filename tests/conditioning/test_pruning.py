"""Pruning: the constraint, the symmetry, the quality and the norms; and regularisation."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import Pruning
from keras_qnewton.conditioning import prune, regularize
from keras_qnewton.conditioning.compensation import compensated
from keras_qnewton.conditioning.pruning import _edge_hash


def symmetric(n, seed=0, kind="normal", dtype="float64"):
    rng = np.random.default_rng(seed)
    if kind == "ties":
        matrix = rng.integers(-1, 2, size=(n, n)).astype(float)
    elif kind == "equal":
        matrix = np.ones((n, n))
    elif kind == "zero rows":
        matrix = rng.normal(size=(n, n))
        matrix[:, ::2] = matrix[::2, :] = 0.0
    elif kind == "ordered":
        matrix = 1.0 / (1 + np.add.outer(np.arange(n), np.arange(n)))
    else:
        matrix = rng.normal(size=(n, n))
    matrix = np.tril(matrix) + np.tril(matrix, -1).T
    return matrix.astype(dtype)


def greedy(matrix, d):
    """One pass over all pairs from the largest down: what rounds of dominance must equal."""
    n = len(matrix)
    kept, room = np.eye(n, dtype=bool), np.full(n, d - 1)
    pairs = [(i, j) for i in range(n) for j in range(i) if matrix[i, j] != 0]
    for i, j in sorted(pairs, key=lambda pair: -abs(matrix[pair])):
        if room[i] and room[j]:
            kept[i, j] = kept[j, i] = True
            room[[i, j]] -= 1
    return np.where(kept, matrix, 0)


KINDS = ["normal", "ties", "equal", "zero rows", "ordered"]


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 24),
    d=st.integers(1, 26),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_constraint_symmetry_and_norms(n, d, seed, kind, dtype):
    matrix = symmetric(n, seed, kind, dtype)
    result = prune(matrix, d)
    pruned = result.matrix.numpy()
    assert pruned.dtype == dtype and np.array_equal(pruned, pruned.T)
    assert np.array_equal(np.diag(pruned), np.diag(matrix))
    # The diagonal has its place in every row even where it is zero.
    off_diagonal = pruned - np.diag(np.diag(pruned))
    assert np.count_nonzero(off_diagonal, axis=1).max() <= d - 1
    assert np.all((pruned == matrix) | (pruned == 0))
    assert int(result.row_nonzeros) == np.count_nonzero(pruned, axis=1).max() <= d

    dropped = matrix.astype(float) - pruned
    assert float(result.delta_norm) == pytest.approx(np.linalg.norm(dropped), rel=1e-14)
    bound = float(result.spectral_bound)
    assert bound >= np.linalg.norm(dropped, 2) * (1 - 1e-14)
    assert bound <= np.linalg.norm(dropped) * (1 + 1e-13)
    if d >= n:
        assert np.array_equal(pruned, matrix) and bound == 0.0 == float(result.delta_norm)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 24), d=st.integers(1, 24), seed=st.integers(0, 10**6))
def test_keeps_what_a_greedy_pass_keeps(n, d, seed):
    matrix = symmetric(n, seed)
    np.testing.assert_array_equal(prune(matrix, d).matrix, greedy(matrix, d))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 20),
    d=st.integers(1, 20),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
)
def test_no_pair_could_be_added(n, d, seed, kind):
    """Maximal: every dropped non-zero has a full row at one end, ties or not."""
    matrix = symmetric(n, seed, kind)
    pruned = prune(matrix, d).matrix.numpy()
    off_diagonal = (pruned != 0) & ~np.eye(n, dtype=bool)
    full = off_diagonal.sum(axis=1) == d - 1
    i, j = np.nonzero((matrix != 0) & (pruned == 0))
    assert np.all(full[i] | full[j])


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 20), d=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_positive_definite_stays_so_after_the_shift(n, d, seed):
    factor = np.random.default_rng(seed).normal(size=(n, n))
    matrix = factor @ factor.T + 1e-3 * np.eye(n)
    result = prune(matrix, d)
    shifted = result.matrix.numpy() + float(result.spectral_bound) * np.eye(n)
    assert np.linalg.eigvalsh(shifted)[0] >= np.linalg.eigvalsh(matrix)[0] - 1e-12 * n


def test_pruning_alone_can_lose_definiteness():
    """Why the shift is there: the test above would fail without it."""
    lost = 0
    for seed in range(20):
        factor = np.random.default_rng(seed).normal(size=(12, 12))
        lost += np.linalg.eigvalsh(prune(factor @ factor.T, 4).matrix.numpy())[0] < 0
    assert lost > 0


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 24), d=st.integers(1, 26), seed=st.integers(0, 10**6))
def test_either_keeps_each_rows_largest_and_their_mirror_images(n, d, seed):
    matrix = symmetric(n, seed)
    off = np.where(np.eye(n, dtype=bool), 0, np.abs(matrix))
    least = np.sort(off, axis=1)[:, max(n - d + 1, 0)] if d > 1 and n > 1 else np.full(n, np.inf)
    largest = off >= least[:, None]
    kept = largest | largest.T | np.eye(n, dtype=bool)
    result = prune(matrix, d, keep="either")
    np.testing.assert_array_equal(result.matrix, np.where(kept, matrix, 0))
    assert int(result.row_nonzeros) == np.count_nonzero(kept, axis=1).max()
    assert float(result.delta_norm) <= float(prune(matrix, d).delta_norm) * (1 + 1e-12)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 20),
    d=st.integers(1, 20),
    seed=st.integers(0, 10**6),
    keep=st.sampled_from(["matching", "either"]),
)
def test_compensation_gives_back_what_pruning_took(n, d, seed, keep):
    """Semidefinite stays so, by NumPy's eigenvalues, whatever the rows' scales."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n, n // 2 + 1)) * 10 ** rng.uniform(-2, 2, size=(n, 1))
    matrix = factor @ factor.T
    pruned = prune(matrix, d, keep).matrix
    whole, lost = compensated(matrix, pruned)
    added = whole.numpy() - pruned.numpy()
    np.testing.assert_array_equal(added, np.diag(np.diag(added)))
    expected = np.diag(matrix) * float(lost)
    np.testing.assert_allclose(np.diag(added), expected, atol=2e-6 * np.trace(matrix), rtol=1e-9)
    roots = np.sqrt(np.diag(matrix))
    scaled = whole.numpy() / np.outer(roots, roots)
    assert np.linalg.eigvalsh(scaled)[0] >= -1e-9
    # And no more than that: the pruned matrix's own smallest eigenvalue, scaled.
    own = np.linalg.eigvalsh(pruned.numpy() / np.outer(roots, roots))[0]
    assert float(lost) <= max(0.0, -own) * (1 + 1e-6) + 1e-6


def test_nothing_lost_is_nothing_added():
    matrix = np.diag([3.0, 1.0, 0.0]) + 0.1
    whole, lost = compensated(tf.constant(matrix), tf.constant(matrix))
    assert float(lost) <= 1e-12
    np.testing.assert_allclose(whole, matrix, rtol=1e-12)
    zero = tf.zeros([3, 3])
    assert np.array_equal(compensated(zero, zero)[0], zero)


def test_compensation_leaves_an_indefinite_matrix_its_own_negative_curvature():
    matrix = symmetric(16, seed=3)
    pruned = prune(matrix, 4).matrix
    whole, lost = compensated(matrix, pruned)
    roots = np.sqrt(np.maximum(np.abs(np.diag(matrix)), 1e-6 * np.abs(np.diag(matrix)).max()))
    floor, before, after = (
        np.linalg.eigvalsh(a / np.outer(roots, roots))[0] for a in (matrix, pruned.numpy(), whole)
    )
    assert floor < 0
    assert float(lost) == pytest.approx(max(0.0, floor - before), rel=1e-6, abs=1e-9)
    assert after >= min(floor, before) - 1e-9


@pytest.mark.parametrize("pruning", [Pruning(0.25, compensate=True), Pruning(3, "either")])
def test_policy(pruning):
    matrix = symmetric(12) @ symmetric(12)
    again = Pruning.from_config(pruning.get_config())
    assert again.get_config() == pruning.get_config() and again.row_limit(12) == 3
    result = again(tf.constant(matrix))
    expected = prune(matrix, 3, pruning.keep)
    assert result[1:] == expected[1:] and int(result.row_nonzeros) == int(expected.row_nonzeros)
    definite = np.linalg.eigvalsh(result.matrix.numpy())[0] >= -1e-9
    lost = np.linalg.eigvalsh(expected.matrix.numpy())[0] < -1e-9
    assert definite == (pruning.compensate or not lost)


@pytest.mark.parametrize("arguments", [(0.5, "both"), (0,), (1.5,), (True,), ("half",)])
def test_bad_policy(arguments):
    with pytest.raises(ValueError, match=r"Argument `(keep|sparsity)` must be"):
        Pruning(*arguments)


@pytest.mark.parametrize("kind", ["normal", "equal"])
@pytest.mark.parametrize("d", [3, 30])
def test_rows_are_filled_within_the_round_limit(kind, d):
    result = prune(symmetric(300, kind=kind), d)
    assert np.count_nonzero(result.matrix) >= 0.99 * 300 * d


def test_round_limit_costs_entries_and_nothing_else():
    matrix = symmetric(400, kind="ordered")
    pruned = prune(matrix, 2).matrix.numpy()
    assert np.array_equal(pruned, pruned.T)
    assert np.count_nonzero(pruned, axis=1).max() == 2
    assert np.array_equal(np.diag(pruned), np.diag(matrix))


@pytest.mark.parametrize("n", [2, 37, 300])
def test_every_pair_has_its_own_hash(n):
    hashes = _edge_hash(tf.constant(n)).numpy()
    assert np.array_equal(hashes, hashes.T) and hashes.min() >= 0
    assert len(np.unique(hashes[np.tril_indices(n)])) == n * (n + 1) // 2


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e300])
def test_norms_of_extreme_scales(scale):
    matrix = symmetric(8) / 10
    expected = float(prune(matrix, 3).delta_norm)
    result = prune(matrix * scale, 3)
    assert float(result.delta_norm) == pytest.approx(expected * scale, rel=1e-12)


def test_slightly_asymmetric_input_is_symmetrised():
    matrix = symmetric(10, dtype="float32")
    noisy = matrix.copy()
    noisy[3, 5] *= 1 + 3e-7
    pruned = prune(noisy, 10).matrix.numpy()
    assert np.array_equal(pruned, pruned.T)
    np.testing.assert_allclose(pruned, matrix, rtol=1e-6)


def test_in_a_graph_with_a_tensor_for_d():
    matrix = symmetric(15)
    run = tf.function(prune)
    for d in (1, 4, 15):
        expected = prune(matrix, d)
        for ours, theirs in zip(run(matrix, tf.constant(d)), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_same_shapes_do_not_trace_again():
    from keras_qnewton.conditioning.pruning import _prune

    for n, d in ((5, 2), (6, 3), (7, 3)):
        prune(symmetric(n), d)
    traced = _prune.experimental_get_tracing_count()
    for n, d in ((8, 1), (9, 5), (5, 4)):
        prune(symmetric(n), d)
    assert _prune.experimental_get_tracing_count() == traced


def test_compiles():
    matrix = tf.constant(symmetric(10))
    compiled = tf.function(lambda a: prune(a, 4), jit_compile=True)
    np.testing.assert_array_equal(compiled(matrix).matrix, prune(matrix, 4).matrix)


@pytest.mark.parametrize("d", [0, -3, 2.5])
def test_bad_d(d):
    with pytest.raises(ValueError, match=rf"`max_row_nonzeros` must be a positive.*{d}"):
        prune(np.eye(3), d)


def test_bad_matrix():
    with pytest.raises(ValueError, match="Argument `matrix` must be symmetric"):
        prune(np.array([[1.0, 2.0], [3.0, 1.0]]), 2)
    with pytest.raises(ValueError, match="Argument `matrix` must be square"):
        tf.function(prune)(tf.zeros([2, 3]), 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_regularize_is_the_papers_shift(dtype):
    matrix = symmetric(6, dtype=dtype)
    expected = matrix + 5e-3 * np.abs(matrix).max() * np.eye(6)
    for run in (regularize, tf.function(regularize)):
        result = run(matrix)
        assert result.dtype == dtype
        np.testing.assert_allclose(result, expected, rtol=1e-6 if dtype == "float32" else 1e-15)
    off = ~np.eye(6, dtype=bool)
    assert np.array_equal(regularize(matrix, 0.5).numpy()[off], matrix[off])
    np.testing.assert_array_equal(regularize(matrix, 0.0), matrix)
    np.testing.assert_allclose(
        regularize(matrix, tf.constant(0.5)), regularize(matrix, 0.5), rtol=1e-6
    )


@pytest.mark.parametrize("epsilon", [-1e-3, float("nan"), float("inf")])
def test_bad_epsilon(epsilon):
    with pytest.raises(ValueError, match="Argument `epsilon` must be a finite number, at least 0"):
        regularize(np.eye(2), epsilon)
