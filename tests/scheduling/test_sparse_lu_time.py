"""The price of the sparse LU route, and when it is taken."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.conditioning import prune
from keras_qnewton.scheduling import LUTime, Scheduler, SparseLUTime, calibration, sparse_lu_time
from keras_qnewton.solvers import SparseLU

TRUTH = (5e-9, 1e-4, -25.0, 2.2, 3.0, -0.25)


def truth(n, d):
    s, c, f0, f1, f2, f3 = TRUTH
    log_d = min(np.log(d), -f2 / (2 * f3))
    return s * n**2 + c + np.exp(f0 + f1 * np.log(n) + f2 * log_d + f3 * log_d**2)


def test_price_is_the_formula_and_never_falls():
    model = SparseLUTime(TRUTH)
    for n in (50, 700):
        prices = [float(model.seconds(n, None, d)) for d in (1, 2, 9, 40, 400, n * 10)]
        assert prices == sorted(prices)
        assert prices[2] == pytest.approx(truth(n, 9), rel=1e-12)
    traced = tf.function(lambda d: model.seconds(700, None, d))
    assert float(traced(tf.constant(9))) == pytest.approx(truth(700, 9), rel=1e-12)


def test_fit_recovers_a_law():
    cases = [(n, d) for n in (128, 512, 1024) for d in (1, 3, 8, 32)]
    # d = 1 is the scan alone.
    times = {(n, d): 5e-9 * n**2 + 1e-4 if d == 1 else truth(n, d) for n, d in cases}
    assert sparse_lu_time.fit(times) == pytest.approx(TRUTH, rel=1e-6)


def test_measured_by_size_and_non_zeros_and_fitted():
    ticks = itertools.count()
    sizes, row_nonzeros = (16, 24), (1, 2, 3, 4)
    seconds = sparse_lu_time.measure(sizes, row_nonzeros, clock=lambda: float(next(ticks)))
    assert set(seconds) == {(n, d) for n in sizes for d in row_nonzeros}
    assert set(seconds.values()) == {1 / 200}  # a second a reading, of 200 solves
    model = SparseLUTime(sparse_lu_time.fit(seconds))
    assert float(model.seconds(16, None, 3)) == pytest.approx(1 / 200, rel=0.1)


def test_measured_once_and_remembered_beside_the_others(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cases = [(n, d) for n in (128, 512, 1024) for d in (1, 3, 8, 32)]
    measured = []

    def measure():
        measured.append("sparse_lu")
        return {(n, d): truth(n, d) for n, d in cases}

    monkeypatch.setattr(sparse_lu_time, "measure", measure)
    first = SparseLUTime().coefficients
    monkeypatch.setattr(calibration, "measure", lambda *_: {16: 1e-4, 24: 2e-4, 32: 3e-4})
    assert calibration.coefficients("lu")[0] > 0
    (tmp_path / "cache").rename(tmp_path / "moved")  # the process remembers nothing of it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "moved"))
    assert SparseLUTime().coefficients == first
    assert measured == ["sparse_lu"]


def test_taken_for_pruned_systems():
    chooser = Scheduler(
        classical=("sparse_lu", "lu"),
        quantum=None,
        classical_cost={
            "sparse_lu": SparseLUTime(TRUTH),
            "lu": LUTime(coefficients=(3e-11, 3e-9, 1e-5)),
        },
    )
    run = tf.function(lambda d: chooser.choose_index(1024, 10.0, d)[0])
    assert [chooser.routes[int(run(tf.constant(d)))] for d in (3, 1024)] == ["sparse_lu", "lu"]
    assert chooser.choose(1024, 10.0, 3).route == "sparse_lu"
    # Without a price of one's own it is the measured one.
    assert isinstance(Scheduler("sparse_lu", None).classical_cost[0], SparseLUTime)


def test_solves_a_pruned_system():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(200, 200))
    pruned = prune(matrix + matrix.T, 6).matrix.numpy() + 9 * np.eye(200)
    rhs = rng.normal(size=200)
    solution = SparseLU().solve(pruned, rhs)
    np.testing.assert_allclose(solution.x, np.linalg.solve(pruned, rhs), rtol=1e-9)
    assert solution.residual < 1e-12


@pytest.mark.parametrize("bad", [(1, 2), (1, 2, 3, 4, 5, np.nan), (-1, 1, 1, 1, 1, 1), 3])
def test_bad_coefficients(bad):
    with pytest.raises(ValueError, match=r"Argument `coefficients` must be six.*Received"):
        SparseLUTime(bad)
