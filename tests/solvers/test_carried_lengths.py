"""Lengths of solutions that the shortcut is told: by hand, between dampings, from step to step."""

import math

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import QNewton, Scheduler
from keras_qnewton.directions.lengths import at_shift
from keras_qnewton.solvers import Shortcut

from .systems import relative_error, symmetric, vector


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("exponent", [-300, 0, 250])
def test_lengths_that_are_handed_on_spare_the_search(graph, exponent):
    matrix = np.ldexp(symmetric(6, 30.0, definite=False), exponent)
    rhs = np.ldexp(vector(6), exponent // 3)
    solver = Shortcut("emulator")
    x = scipy.linalg.solve(matrix, rhs)

    def solve(lengths):
        solution, left = solver.solve_from(tf.constant(matrix), tf.constant(rhs), lengths, 1e-9)
        return solution.x, solution.residual, left

    run = tf.function(solve) if graph else solve
    found, residual, left = run(tf.zeros([2], tf.float64))
    assert relative_error(found, x) <= 1e-7 and float(residual) <= 1e-9
    own = np.linalg.norm(np.ldexp(x, exponent - exponent // 3))
    own /= np.linalg.norm(np.ldexp(rhs, -(exponent // 3)))
    assert np.ldexp(left.numpy()[0], exponent) == pytest.approx(own, rel=0.01)
    assert left.numpy()[1] > 0
    again = run(left)
    assert relative_error(again[0], x) <= 1e-7
    np.testing.assert_allclose(again[2], left, rtol=0.3)
    if not graph:
        details = solver.solve_from(matrix, rhs, left, 1e-9)[0].details
        searched = solver.solve_from(matrix, rhs, np.zeros(2), 1e-9)[0].details
        assert details["probes"] == 0 < searched["probes"]
        assert details["queries"] < searched["queries"]
        assert details["norm_ratio"] == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("factor", [1.0, 2.0, 5.0, 1e3, 1e-3])
def test_a_wrong_length_costs_what_it_should_and_no_digit(factor):
    matrix, rhs = symmetric(8, 40.0), vector(8)
    x = scipy.linalg.solve(matrix, rhs)
    true = np.linalg.norm(x) / np.linalg.norm(rhs)
    solver = Shortcut("emulator", tolerance=1e-9)
    lengths = np.array([true * factor, 0.0])
    details = solver.solve_from(matrix, rhs, lengths)[0].details
    assert relative_error(solver.solve_from(matrix, rhs, lengths)[0].x, x) <= 1e-7
    ratio = details["norm_ratio"]
    # (1 + r²)²/4r² runs to a state, in the place of one. What is too far off is searched for.
    expected = 4 * ratio**2 / (1 + ratio**2) ** 2
    assert details["success_probability"] == pytest.approx(expected, rel=0.05)
    if factor in (1.0, 2.0):
        assert ratio == pytest.approx(1 / factor, rel=0.02)
    assert details["success_probability"] > 0.05
    # A search that begins there finds what it would find from the middle.
    near = solver.solve_from(matrix, rhs, -lengths)[0].details
    assert near["norm_ratio"] == pytest.approx(1.0, rel=0.2)
    if factor in (1.0, 2.0):
        assert near["probes"] <= solver.solve(matrix, rhs).details["probes"]


def test_lengths_that_are_no_numbers_are_not_known():
    matrix, rhs = symmetric(5, 10.0), vector(5)
    for lengths in ([math.nan, math.nan], [math.inf, 1.0], [-1.0, 0.0], [0.0, math.inf]):
        solution, left = Shortcut("emulator").solve_from(matrix, rhs, np.array(lengths))
        assert relative_error(solution.x, scipy.linalg.solve(matrix, rhs)) <= 1e-9
        assert np.all(np.isfinite(left)) and solution.details["probes"] > 0
    # Nothing to solve leaves what there was.
    solution, left = Shortcut("emulator").solve_from(matrix, np.zeros(5), np.array([1.0, 2.0]))
    assert not np.any(solution.x) and left.numpy().tolist() == [1.0, 2.0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    shift=st.floats(1e-3, 10),
    factor=st.sampled_from([1 / 3, 1 / 64, 1, 8, 512]),
)
def test_length_at_another_shift_is_between_its_bounds(seed, shift, factor):
    rng = np.random.default_rng(seed)
    values, g = np.abs(rng.normal(size=9)) * rng.integers(0, 2, 9), rng.normal(size=9)

    def length(s):
        return np.linalg.norm(g / (values + s)) / np.linalg.norm(g)

    last = tf.constant([length(shift), 0.0, shift], tf.float64)
    guessed = at_shift(last, tf.constant(factor * shift, tf.float64)).numpy()
    curvature = 1 / length(shift) - shift
    bounds = sorted([1 / (curvature + factor * shift), length(shift) / factor])
    true = length(factor * shift)
    assert bounds[0] * (1 - 1e-9) <= true <= bounds[1] * (1 + 1e-9)
    assert guessed[0] == pytest.approx(math.sqrt(bounds[0] * bounds[1]))
    assert guessed[1] == 0
    assert max(true / guessed[0], guessed[0] / true) <= math.sqrt(bounds[1] / bounds[0]) * 1.01


def trained(kind, steps, path=None):
    """A model of two layers after some steps, saved and loaded half way if there is a path."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype("float32")
    y = np.sin(x.sum(1, keepdims=True))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(3, activation="tanh"),
            keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(1e-3)),
        ]
    )
    scheduler = Scheduler(quantum=kind("emulator", max_degree=10**6), gate_time=1e-30)
    model.compile(QNewton(blocks="layer", scheduler=scheduler), "mean_squared_error")
    for step in range(steps):
        if path is not None and step == steps // 2:
            model.save(path)
            model = keras.models.load_model(path)
        model.train_on_batch(x, y)
    return model


class Counting(Shortcut):
    probes = 0

    def _refine(self, *given):
        x, details = super()._refine(*given)
        Counting.probes += details["probes"]
        return x, details


class CountingSearches(Counting):
    carries = False


def test_training_carries_lengths_from_step_to_step():
    Counting.probes = 0
    model = trained(Counting, 5)
    kept = [v.numpy() for v in model.optimizer.variables if v.path.endswith("lengths")]
    # Of another gradient than the next step's: where a search begins.
    assert len(kept) == 2 and np.all(np.array(kept)[:, :2] < 0) and np.all(np.array(kept)[:, 2] > 0)
    carried = Counting.probes
    Counting.probes = 0
    other = trained(CountingSearches, 5)
    # Of so small systems a search is mostly one probe.
    assert 0 < carried < Counting.probes
    assert not any("lengths" in v.path for v in other.optimizer.variables)
    losses = [[d.loss for d in m.optimizer.decisions] for m in (model, other)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert all(d.solved_by == "shortcut" for d in model.optimizer.decisions)


def test_carried_lengths_are_saved(tmp_path):
    unbroken, broken = trained(Shortcut, 4), trained(Shortcut, 4, tmp_path / "model.keras")
    for a, b in zip(unbroken.optimizer.variables, broken.optimizer.variables, strict=True):
        if "lengths" in a.path or "damping" in a.path:
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    for a, b in zip(unbroken.get_weights(), broken.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("curvature", ["auto", "gauss_newton"])
def test_the_state_of_a_file_without_lengths_is_loaded(curvature):
    def built():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        optimizer = QNewton(curvature=curvature, scheduler=Scheduler(quantum="shortcut"))
        optimizer.build(model.trainable_variables)
        return optimizer

    newer, older = built(), built()
    lengths = {id(v) for v in newer.variables if "lengths" in v.path}
    assert lengths
    kept = [v for v in newer.variables if id(v) not in lengths]
    for k, variable in enumerate(kept):
        variable.assign(tf.ones_like(variable) * (k + 1))
    older.load_own_variables({str(k): v.numpy() for k, v in enumerate(kept)})
    for one, other in zip(newer.variables, older.variables, strict=True):
        np.testing.assert_array_equal(one, other)
