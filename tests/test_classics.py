"""The problems of Moré, Garbow & Hillstrom, as benchmarks have them, and the paper's numbers."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from classic_problems import PROBLEMS
from classics import with_earlier

# m, and f as ACM TOMS 7(1) lists it, where Levenberg-Marquardt ends from the standard start.
LISTED = {
    1: (2, 0), 2: (2, 48.9842), 3: (2, 0), 4: (3, 0), 5: (3, 0), 6: (10, 124.362), 7: (3, 0),
    8: (15, 8.21487e-3), 9: (15, 1.12793e-8), 10: (16, 87.9458), 11: (99, 0), 12: (10, 0),
    13: (4, 0), 14: (6, 0), 15: (11, 3.07505e-4), 16: (20, 85822.2), 17: (33, 5.46489e-5),
    18: (13, 0), 19: (65, 4.01377e-2), 20: (31, 1.39976e-6), 21: (10, 0), 22: (12, 0),
    23: (11, 7.08765e-5), 24: (20, 2.93660e-4), 25: (12, 0), 26: (10, 2.79506e-5), 27: (10, 0),
    28: (10, 0), 29: (10, 0), 30: (10, 0), 31: (10, 0), 32: (20, 10), 33: (20, 380 / 82),
    34: (20, 454 / 74), 35: (8, 3.51687e-3),
}  # fmt: skip
# ‖r‖ at the standard start, from MINPACK's own tests.
AT_START = {
    1: 4.919350, 2: 20.01250, 7: 50.0, 10: 41153.47, 12: 32.11158, 13: 14.66288, 15: 0.07289151,
    16: 2815.438, 17: 0.9375640, 20: 5.477226, 27: 16.53022,
}  # fmt: skip


@pytest.fixture(params=PROBLEMS, ids=lambda p: p.name)
def problem(request):
    return request.param


def linearized(problem):
    """From x to r(x) and its Jacobian, as arrays."""

    def at(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            residuals = problem.residuals(x)
        return residuals, tape.jacobian(residuals, x)

    signature = [tf.TensorSpec([len(problem.start)], tf.float64)]
    traced = tf.function(at, signature, autograph=False)
    return lambda x: [t.numpy() for t in traced(tf.constant(x))]


def test_the_listed_minimum_is_one(problem):
    at, start = linearized(problem), problem.start_times(1)
    found = scipy.optimize.least_squares(
        lambda x: at(x)[0],
        start,
        lambda x: at(x)[1],
        method="lm",
        **dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15),
    )
    rows, listed = LISTED[problem.number]
    assert found.fun.shape == (rows,)
    assert 2 * found.cost == pytest.approx(listed, rel=5e-6, abs=1e-20)
    values = [*problem.minima, *problem.local]
    assert any(2 * found.cost == pytest.approx(v, rel=1e-6, abs=1e-20) for v in values)


def test_the_jacobian_is_that_of_differences(problem):
    at = linearized(problem)
    x = problem.start_times(1) * (1 + 0.01 * np.cos(np.arange(len(problem.start)))) + 1e-3
    found = at(x)[1]
    for j in range(len(x)):
        step = np.zeros_like(x)
        step[j] = 6e-6 * max(1.0, abs(x[j]))
        expected = (at(x + step)[0] - at(x - step)[0]) / (2 * step[j])
        scale = np.abs(expected).max() + np.abs(at(x)[0]).max()
        np.testing.assert_allclose(found[:, j], expected, rtol=1e-6, atol=1e-8 * scale)


@pytest.mark.parametrize("number", AT_START)
def test_residuals_at_the_start_are_minpacks(number):
    (problem,) = (p for p in PROBLEMS if p.number == number)
    norm = np.linalg.norm(problem.residuals(tf.constant(problem.start_times(1))))
    assert norm == pytest.approx(AT_START[number], rel=4e-7)


def test_a_start_of_zeros_is_moved_as_minpack_does():
    (watson,) = (p for p in PROBLEMS if p.name == "Watson")
    np.testing.assert_array_equal(watson.start_times(10), [10.0] * 9)


def test_appended_rows_take_the_place_of_those_of_the_same_run():
    def row(number, method, value):
        return {"number": number, "method": method, "start": 1.0, "value": value}

    earlier = [row(1, "lm", 1), row(1, "hidden auto", 2), row(2, "lm", 3), row(2, "hidden auto", 4)]
    found = with_earlier([row(2, "hidden auto", 5)], earlier)
    assert [r["value"] for r in found] == [1, 2, 3, 5]


@pytest.mark.slow
def test_the_benchmark_solves_powells_problem(tmp_path):
    path = tmp_path / "classics.json"
    arguments = ["--problems", "3", "--starts", "1", "--json", str(path)]
    result = subprocess.run(
        [sys.executable, str(BENCHMARKS / "classics.py"), *arguments],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = {row["method"]: row for row in json.loads(path.read_text())["runs"]}
    for method in ("residuals auto", "hidden auto"):
        assert rows[method]["ended"] == "solved" and rows[method]["value"] <= 1e-10
    assert "best of SciPy's" in result.stdout
