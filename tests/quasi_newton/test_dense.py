"""Dense inverse Hessians against NumPy's inverse of the direct formulas, and SciPy's BFGS."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.quasi_newton.dense import PENDING, DenseInverse
from keras_qnewton.quasi_newton.updates import RULES
from tests.quasi_newton.variables import add_variable

SIZE = 6


def dense(inverse: DenseInverse, size: int = SIZE) -> np.ndarray:
    """H, a column a product."""
    columns = [inverse.product(e).numpy() for e in tf.unstack(tf.eye(size, dtype=tf.float64))]
    return np.stack(columns, 1)


class Quadratic:
    """Steps along -H g with lengths drawn, on a random convex quadratic."""

    def __init__(self, seed: int, size: int = SIZE):
        self.rng = np.random.default_rng(seed)
        root = self.rng.normal(size=(size, size))
        self.matrix = root @ root.T + 0.1 * np.eye(size)
        self.gradient = self.rng.normal(size=size)

    def pair(self, H: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """s, y, the gradient before, and sᵀBs."""
        before = self.gradient
        length = self.rng.uniform(0.3, 1.6)
        s = -length * H @ before
        y = self.matrix @ s
        self.gradient = before + y
        return s, y, before, float(-length * before @ s)


def learn(inverse: DenseInverse, problem: Quadratic, pairs: int) -> list[tuple[np.ndarray, ...]]:
    """Has `inverse` learn pairs; of each: H before and after, s, y, g', what `learned` gave."""
    out = []
    for _ in range(pairs):
        H = dense(inverse)
        s, y, before, sbs = problem.pair(H)
        vectors = (tf.constant(v) for v in (s, y, problem.gradient, H @ before))
        found = inverse.learned(inverse.prepared(*vectors, tf.constant(sbs, tf.float64)))
        out.append((H, dense(inverse), s, y, problem.gradient, found.numpy()))
    return out


def directly(rule: str, H: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    """H' as the inverse of B' = τ (B - B s sᵀB/sᵀBs + θ w wᵀ) + y yᵀ/yᵀs."""
    B = np.linalg.inv(H)
    ys, sbs = y @ s, s @ B @ s
    tau = theta = None
    if rule == "bfgs":
        tau, theta = 1.0, 0.0
    elif rule == "ssbfgs":
        tau, theta = min(1.0, ys / sbs), 0.0
    else:
        b, h = sbs / ys, y @ H @ y / ys
        a = b * h - 1
        lower = min(1.0, h * (1 - np.sqrt(a / (1 + a))))
        theta = max((lower - 1) / a, min(1 / lower, (1 - b) / b))
        sigma = 1 + theta * a
        spread = sigma ** (-1 / (len(s) - 1))
        tau = min(1.0, 1 / b)
        tau = tau * min(spread, 1 / theta) if theta > 0 else min(tau * spread, sigma)
    w = np.sqrt(sbs) * (y / ys - B @ s / sbs)
    inner = B - np.outer(B @ s, B @ s) / sbs + theta * np.outer(w, w)
    return np.linalg.inv(tau * inner + np.outer(y, y) / ys)


@pytest.mark.parametrize("rule", sorted(RULES))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_updates_are_inverses_of_the_direct_formula(rule: str, seed: int) -> None:
    inverse = DenseInverse(rule, SIZE, add_variable)
    for before, after, s, y, _, _ in learn(inverse, Quadratic(seed), 4):
        expected = directly(rule, before, s, y)
        np.testing.assert_allclose(after, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("rule", sorted(RULES))
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), pairs=st.integers(1, 2 * PENDING + 3))
def test_inverse_stays_positive_definite_and_meets_the_secant_equation(
    rule: str, seed: int, pairs: int
) -> None:
    inverse = DenseInverse(rule, SIZE, add_variable)
    history = learn(inverse, Quadratic(seed), pairs)
    _, H, s, y, _, _ = history[-1]
    np.testing.assert_allclose(H, H.T, rtol=0, atol=1e-10 * np.abs(H).max())
    assert np.linalg.eigvalsh((H + H.T) / 2)[0] > 0
    scale = np.abs(H).max() * np.linalg.norm(y) + np.linalg.norm(s)
    np.testing.assert_allclose(H @ y, s, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_learning_returns_the_new_inverse_times_the_gradient(rule: str) -> None:
    inverse = DenseInverse(rule, SIZE, add_variable)
    for _, H, _, _, gradient, found in learn(inverse, Quadratic(3), PENDING + 2):
        scale = np.abs(H).max() * np.linalg.norm(gradient)
        np.testing.assert_allclose(found, H @ gradient, rtol=0, atol=1e-11 * scale)


def test_bfgs_is_scipys() -> None:
    inverse = DenseInverse("bfgs", SIZE, add_variable)
    reference = scipy.optimize.BFGS(init_scale=1.0)
    reference.initialize(SIZE, "inv_hess")
    for _, H, s, y, _, _ in learn(inverse, Quadratic(5), PENDING + 4):
        reference.update(s, y)
        expected = reference.get_matrix()
        np.testing.assert_allclose(H, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_merging_pending_pairs_changes_nothing() -> None:
    inverse = DenseInverse("ssbfgs", SIZE, add_variable)
    *_, (_, before, *_) = learn(inverse, Quadratic(7), PENDING - 1)
    (merged,) = learn(inverse, Quadratic(8), 1)
    assert int(inverse.pending.numpy()) == 0
    np.testing.assert_allclose(merged[0], before, rtol=1e-12)
    np.testing.assert_allclose(inverse.panels[0].numpy(), merged[1], rtol=1e-12)


@pytest.mark.slow
def test_panels_of_a_matrix_larger_than_one_are_all_merged() -> None:
    size = 257
    inverse, problem = DenseInverse("bfgs", size, add_variable), Quadratic(0, size)
    learned = tf.function(lambda *pair: inverse.learned(inverse.prepared(*pair)))
    H = np.eye(size)
    for _ in range(PENDING):
        s, y, before, sbs = problem.pair(H)
        learned(*(tf.constant(v) for v in (s, y, problem.gradient, H @ before)), sbs)
        u = H @ y
        H = H - (np.outer(s, u) + np.outer(u, s)) / (y @ s)
        H += (1 + y @ u / (y @ s)) / (y @ s) * np.outer(s, s)
    np.testing.assert_allclose(
        np.concatenate([panel.numpy() for panel in inverse.panels]),
        H,
        rtol=0,
        atol=1e-9 * np.abs(H).max(),
    )


def test_reset_is_the_identity() -> None:
    inverse = DenseInverse("ssbroyden", SIZE, add_variable)
    learn(inverse, Quadratic(1), PENDING + 1)
    inverse.reset()
    np.testing.assert_array_equal(dense(inverse), np.eye(SIZE))
