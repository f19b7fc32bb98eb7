"""The quasi-Newton benchmark: its problems, references and peers, and its smallest run."""

import json
import math
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from problems import PROBLEMS, Setup, equations, fits, fronts, spectral
from self_scaled import scaling, self_scaled_bfgs, updated
from turns import Turn

from keras_qnewton import QNewton, QuasiNewton

SMALL = {"width": 8, "points": 50, "dtype": "float64"}
CLOSED = {
    "convection20": (equations.convection(20), equations.convected(20)),
    "convection40": (equations.convection(40), equations.convected(40)),
    "reaction": (equations.reaction(5), equations.reacted(5)),
    "wave": (equations.wave(5), equations.standing(5)),
}


# --- the equations ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_solution_leaves_no_residual(name):
    equation, closed = CLOSED[name]
    points = equation.points(Setup(**SMALL))
    for residual in equation.residuals(closed, points).values():
        # Second derivatives of the wave are some 250.
        np.testing.assert_allclose(residual, np.zeros_like(residual), atol=1e-11)


@pytest.mark.parametrize("name", CLOSED)
def test_what_is_not_a_solution_leaves_some_of_every_residual(name):
    equation, closed = CLOSED[name]
    points = equation.points(Setup(**SMALL))

    def wrong(x):
        place, time = x[:, :1], x[:, 1:]
        return closed(x) + 0.1 * (place + place * time + place**2 * time)

    residuals = equation.residuals(wrong, points)
    sizes = {name: float(tf.norm(residual)) for name, residual in residuals.items()}
    # What is added is zero at the left end.
    assert all(size > 1e-3 for key, size in sizes.items() if key != "left")


def test_errors_are_taken_against_closed_solutions():
    x, u = CLOSED["wave"][0].solution()
    expected = np.sin(np.pi * x[:, 0]) * np.cos(2 * np.pi * x[:, 1])
    expected += 0.5 * np.sin(5 * np.pi * x[:, 0]) * np.cos(10 * np.pi * x[:, 1])
    np.testing.assert_allclose(u, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["burgers", "allen_cahn"])
def test_residuals_of_a_field_by_hand(name):
    """u = x² t + x: u_t = x², u_x = 2xt + 1, u_xx = 2t."""
    equation = {"burgers": fronts.burgers, "allen_cahn": fronts.allen_cahn}[name]()
    points = equation.points(Setup(**SMALL))
    got = equation.residuals(lambda x: x[:, :1] ** 2 * x[:, 1:] + x[:, :1], points)["equation"]
    x, t = points.inside.numpy().T
    u = x**2 * t + x
    if name == "burgers":
        expected = x**2 + u * (2 * x * t + 1) - 0.01 / np.pi * 2 * t
    else:
        expected = x**2 - 1e-4 * 2 * t - 5 * (u - u**3)
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize(("name", "factor"), [("burgers", 1), ("allen_cahn", 100)])
def test_initial_conditions_have_their_weight(name, factor):
    """Zero satisfies everything but the start, whose mean square is computed here."""
    equation = {"burgers": fronts.burgers, "allen_cahn": fronts.allen_cahn}[name]()
    points = equation.points(Setup(**SMALL))
    x = points.initial.numpy()[:, 0]
    start = -np.sin(np.pi * x) if name == "burgers" else x**2 * np.cos(np.pi * x)
    loss = equation.loss(lambda x: 0 * x[:, :1] * x[:, 1:], points)
    assert float(loss) == pytest.approx(factor * np.mean(start**2), rel=1e-12)


# --- spectral references ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "finer"), [(spectral.burgers, (4096, 80)), (spectral.allen_cahn, (4096, 20))]
)
def test_reference_has_converged(reference, finer):
    x, u = reference()
    points, v = reference(*finer)
    np.testing.assert_array_equal(x, points)
    np.testing.assert_allclose(u, v, atol=5e-9)


def test_burgers_reference_is_that_of_cole_and_hopf():
    """u = -∫ sin π(x - η) w dη / ∫ w dη, w = exp(-cos π(x - η)/2πν - η²/4νt), by quadrature."""
    x, u = spectral.burgers()
    some = np.random.default_rng(0).choice(np.flatnonzero(x[:, 1] > 0), 300)
    place, time = x[some, :1], x[some, 1:]
    nu = 0.01 / np.pi
    z = np.linspace(-14, 14, 1401)
    argument = np.pi * (place - np.sqrt(4 * nu * time) * z)
    exponent = -np.cos(argument) / (2 * np.pi * nu) - z**2
    weight = np.exp(exponent - exponent.max(1, keepdims=True))
    expected = -(np.sin(argument) * weight).sum(1) / weight.sum(1)
    np.testing.assert_allclose(u[some], expected, atol=5e-9)


def test_allen_cahn_reference_solves_the_equation():
    """By central differences, where these see it: away from the fronts."""
    _, u = spectral.allen_cahn(places=512)
    u = u.reshape(spectral.TIMES, 512)
    in_time = (u[2:] - u[:-2]) / 0.02
    in_place = (np.roll(u, 1, 1) - 2 * u + np.roll(u, -1, 1))[1:-1] * 256**2
    at = u[1:-1]
    residual = in_time - 1e-4 * in_place - 5 * (at - at**3)
    assert np.median(np.abs(residual[10:])) < 1e-3 * np.abs(in_time).max()


# --- problems as the benchmark takes them -----------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_starts_the_same_for_the_same_seed(name):
    setup = Setup(**SMALL)
    one, same = (PROBLEMS[name].start(setup) for _ in range(2))
    assert one.size == same.size > 0
    assert math.isfinite(float(one.loss())) and float(one.loss()) == float(same.loss())


def test_rosenbrock_is_scipys():
    task = PROBLEMS["rosenbrock"].start(Setup(**SMALL))
    x = task.variables[0].numpy()
    assert float(task.loss()) == pytest.approx(scipy.optimize.rosen(x), rel=1e-12)


def test_friedmans_function_is_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.make_friedman1(100, 10, noise=0.0, random_state=0)
    np.testing.assert_allclose(4.9 * fits.friedman(x)[:, 0] + 14.4, y, rtol=1e-12)


# --- self-scaled BFGS by BLAS -----------------------------------------------------------------


def test_a_self_scaled_update_by_its_dense_formula():
    """H' = (I - sy'/y's) H/τ (I - ys'/y's) + ss'/y's."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    inverse = root @ root.T + np.eye(6)
    s = rng.normal(size=6)
    y = s + 0.1 * rng.normal(size=6)
    tau = 0.3
    curvature = y @ s
    left = np.eye(6) - np.outer(s, y) / curvature
    expected = left @ (inverse / tau) @ left.T + np.outer(s, s) / curvature
    got = updated(np.asfortranarray(inverse), s, y, tau)
    np.testing.assert_allclose(np.triu(got), np.triu(expected), rtol=1e-10, atol=1e-12)


def test_the_scale_is_the_ratio_of_curvatures():
    """sᵀBs by B itself, for a step s = -α H g."""
    rng = np.random.default_rng(1)
    root = rng.normal(size=(5, 5))
    model = root @ root.T + np.eye(5)
    gradient, length = rng.normal(size=5), 0.7
    s = -length * np.linalg.solve(model, gradient)
    assert scaling(s, 0.25 * model @ s, gradient, length) == pytest.approx(0.25)
    assert scaling(s, 2 * model @ s, gradient, length) == 1


@pytest.mark.filterwarnings("ignore:The line search algorithm")
def test_self_scaled_bfgs_finds_rosenbrocks_minimum():
    def evaluate(x):
        return scipy.optimize.rosen(x), scipy.optimize.rosen_der(x)

    lowest = []

    def noted(x):
        lowest.append(evaluate(x)[0])
        return evaluate(x)

    # From (-1.2, 1, ...) ten variables come to another minimum.
    self_scaled_bfgs(noted, np.zeros(10))
    assert min(lowest) < 1e-12


# --- turns ------------------------------------------------------------------------------------


class Counting:
    """Counts, and notes its name at each tick; ends or fails after so many."""

    def __init__(self, name, notes, number=10**9, error=None):
        self.name, self.notes, self.number, self.error, self.count = name, notes, number, error, 0

    def run(self, tick):
        while self.count < self.number:
            self.count += 1
            self.notes.append(self.name)
            tick()
        if self.error is not None:
            raise self.error
        return "counted"

    def mark(self):
        return self.count

    def evaluations(self, mark):
        return 2 * mark

    def weights(self):
        return self.count


def take_all(turns):
    while turns:
        turns = [turn for turn in turns if turn.take()]


def looked(weights):
    return -float(weights), math.nan


def test_methods_alternate():
    notes = []
    # A turn without length ends at the first tick.
    turns = [Turn(lambda n=n: Counting(n, notes, 5), looked, 1e9, 0.0) for n in "ab"]
    take_all(turns)
    assert notes == ["a", "b"] * 5
    assert [turn.track.ended for turn in turns] == ["counted"] * 2
    assert all(turn.track.looks[-1][1:3] == (10, -5.0) for turn in turns)


def test_a_method_stops_when_its_seconds_are_used_up():
    turn = Turn(lambda: Counting("a", []), looked, 0.01, 1.0)
    take_all([turn])
    assert turn.track.ended == "" and turn.track.seconds >= 0.01
    assert turn.track.looks[-1].evaluations == turn.track.evaluations > 0


def test_a_method_that_fails_does_not_stop_the_others():
    notes = []
    fails = Turn(lambda: Counting("a", notes, 2, ValueError("no step")), looked, 1e9, 0.0)
    goes_on = Turn(lambda: Counting("b", notes, 4), looked, 1e9, 0.0)
    take_all([fails, goes_on])
    assert "ValueError: no step" in fails.track.error
    assert notes == ["a", "b", "a", "b", "b", "b"] and goes_on.track.ended == "counted"


# --- the benchmark ----------------------------------------------------------------------------


def run(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    environment = dict(os.environ, OPENBLAS_NUM_THREADS="1")
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def flat(variables):
    return np.concatenate([v.numpy().ravel() for v in variables])


@pytest.mark.parametrize("name", ["ssbroyden", "adam"])
def test_steps_that_compile_a_method_are_taken_back(name):
    from quasi_newton_methods import make

    problem = PROBLEMS["rosenbrock"]
    method, task = make(name, problem.start(Setup()), 1.0), problem.start(Setup())
    np.testing.assert_array_equal(method.weights(), flat(task.variables))
    assert method.evaluations(method.mark()) <= 1
    # One that never took a step goes the same way.
    variables = list(task.variables)
    adam, learned = keras.optimizers.Adam(), QNewton(curvature=QuasiNewton("ssbroyden"))
    for _ in range(3):
        method.step()
        if name == "ssbroyden":
            learned.minimize(task.loss, variables)
            continue
        with tf.GradientTape() as tape:
            loss = task.loss()
        gradients = tape.gradient(loss, [v.value for v in variables])
        adam.apply_gradients(zip(gradients, variables, strict=True))
    np.testing.assert_allclose(method.weights(), flat(variables), rtol=1e-12)


def test_an_epoch_that_compiles_fit_is_taken_back():
    from quasi_newton_methods import make

    problem = PROBLEMS["rosenbrock"]
    method = make("fit", problem.start(Setup()), 1.0)
    np.testing.assert_array_equal(method.weights(), flat(problem.start(Setup()).variables))
    assert method.evaluations(method.mark()) == 1


@pytest.mark.slow
def test_smallest_run_has_a_row_of_every_method(tmp_path):
    from quasi_newton_methods import METHODS

    path = tmp_path / "rows.jsonl"
    options = ["--problems", "poisson2d", "--seconds", "2", "--json", str(path)]
    out = run("quasi_newton.py", *options, "--figures", str(tmp_path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["method"] for row in rows] == list(METHODS)
    assert all(not row["error"] for row in rows), out
    for row in rows:
        assert row["label"] in out
        if row["skipped"]:
            assert row["skipped"] in out
            continue
        seconds, evaluations, loss, error = row["looks"][-1]
        assert row["final_loss"] == loss < row["looks"][0][2]
        assert row["final_l2"] == error > 0
        assert (evaluations > 1 and seconds >= 2) or row["ended"]
    assert (tmp_path / "quasi_newton_poisson2d.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_smallest_run_of_costs(tmp_path):
    path = tmp_path / "rows.json"
    options = ["--cases", "257", "--steps", "3", "--repeats", "2", "--json", str(path)]
    run("quasi_newton_cost.py", *options)
    (row,) = json.loads(path.read_text())["runs"]
    assert row["size"] == 257 and row["looks"] >= 1
    assert row["ratio"] == pytest.approx(row["ours_ms"] / (row["gradient_ms"] + row["passes_ms"]))
