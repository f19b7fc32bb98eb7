"""Amplitudes from shots: error against SciPy, error bars against errors, and honest failure."""

import keras
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import tensorflow as tf

from keras_qnewton.solvers import QSVT, Exact, Shots
from keras_qnewton.solvers.quantum.backends import SamplingBackend, load
from keras_qnewton.solvers.quantum.backends.sampling import sampled
from keras_qnewton.solvers.quantum.encodings import Dilation
from keras_qnewton.solvers.quantum.tomography import tomography
from keras_qnewton.solvers.quantum.transforms import inversion

from .systems import relative_error, symmetric, vector

BACKENDS = pytest.mark.parametrize("backend", ["cirq", "emulator"])
SIGNS = pytest.mark.parametrize("definite", [True, False], ids=["definite", "indefinite"])


def solutions(size, shots, definite, count=24, **arguments):
    """Errors, their estimates, and which were trusted, of single runs."""
    rows = []
    for seed in range(count):
        matrix, rhs = symmetric(size, 10, definite, seed), vector(size, seed)
        solver = QSVT(
            backend="emulator", readout=Shots(shots, seed), max_refinements=0, **arguments
        )
        solution = solver.solve(matrix, rhs)
        error = relative_error(solution.x, scipy.linalg.solve(matrix, rhs))
        rows.append((error, solution.details["readout_error"], solution.details["confident"]))
    errors, estimates, trusted = (np.array(column) for column in zip(*rows, strict=True))
    return errors, estimates, trusted.astype(bool)


@SIGNS
@pytest.mark.parametrize("size, bar", [(4, 0.015), (8, 0.025), (16, 0.025)])
def test_a_million_shots(size, bar, definite):
    errors, estimates, trusted = solutions(size, 10**6, definite)
    assert np.median(errors) <= bar
    assert trusted.all()
    assert 0.5 <= np.median(estimates) / np.median(errors) <= 2
    assert errors.max() <= 5 * estimates.max()


@SIGNS
@pytest.mark.parametrize("size", [2, 4, 8, 16])
@pytest.mark.parametrize("shots", [10_000, 100_000])
def test_error_bars_are_the_errors(size, shots, definite):
    errors, estimates, trusted = solutions(size, shots, definite)
    assert 0.5 <= np.median(estimates / errors) <= 2
    assert np.all(errors[trusted] <= 4 * estimates[trusted])


def test_error_falls_with_the_root_of_shots():
    few, many = (np.median(solutions(8, shots, True)[0]) for shots in (20_000, 2_000_000))
    assert 5 <= few / many <= 20


@BACKENDS
@pytest.mark.parametrize("rotated", [None, 0, 2])
def test_counts_follow_the_circuit(backend, rotated):
    """Against the unitary of the circuit and a Kronecker product: a χ² test at 1e-4."""
    matrix, state = symmetric(8, 4.0, definite=False), vector(8) / np.linalg.norm(vector(8))
    encoding, transform = Dilation(matrix), inversion(4.0, 0.05)
    made = load(backend)
    assert isinstance(made, SamplingBackend)
    shots = 400_000
    counts = made.sample(encoding, transform, state, shots, rotated, np.random.default_rng(3))
    assert counts.shape == (8,) and counts.dtype == np.int64
    column = load("cirq").circuit(encoding, transform, state).unitary()[:8, 0]
    parts = [np.eye(2)] * 3
    if rotated is not None:
        parts[rotated] = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    wanted = np.abs(np.kron(np.kron(*parts[:2]), parts[2]) @ column) ** 2
    observed = [*counts, shots - counts.sum()]
    expected = shots * np.array([*wanted, 1 - wanted.sum()])
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-4


def test_one_simulation_serves_all_settings(monkeypatch):
    backend = load("cirq")
    runs = []
    run = type(backend).run
    monkeypatch.setattr(type(backend), "run", lambda self, *a: (runs.append(a), run(self, *a))[1])
    QSVT(readout=Shots(1000, 0), max_refinements=0).solve(symmetric(8), vector(8))
    assert len(runs) == 1


def counts_of(x, shots, seed=0):
    n = len(x).bit_length() - 1
    rng = np.random.default_rng(seed)
    each = np.full(n + 1, shots // (n + 1))
    rows = [sampled(x, m, k, rng) for m, k in zip(each, [None, *range(n)], strict=True)]
    return np.array(rows), each


@pytest.mark.parametrize("norm", [1.0, 0.2])
def test_tomography_of_random_vectors(norm):
    for seed in range(30):
        x = np.random.default_rng(seed).normal(size=16)
        x *= norm / np.linalg.norm(x)
        reading = tomography(*counts_of(x, 400_000, seed))
        sign = np.sign(reading.amplitudes @ x)
        error = np.linalg.norm(sign * reading.amplitudes - x) / norm
        assert reading.confident and error <= 3 * reading.error
        np.testing.assert_allclose(reading.error, np.sqrt(16 / (4 * 4e5)) / norm, rtol=0.5)
        np.testing.assert_allclose(reading.success_probability, norm**2, rtol=0.05)


def test_parts_without_a_link_are_not_trusted():
    # 000 and 111 are no neighbours, nor is there a chain of others between them.
    x = np.zeros(8)
    x[0], x[7] = 0.6, -0.8
    reading = tomography(*counts_of(x, 10**6))
    assert not reading.confident and reading.error > 0.5
    np.testing.assert_allclose(np.abs(reading.amplitudes), np.abs(x), atol=0.01)
    linked = np.array([0.6, 0.0, 0.0, 0.0, -0.8, 0.0, 0.0, 0.0])
    reading = tomography(*counts_of(linked, 10**6))
    assert reading.confident
    np.testing.assert_allclose(reading.amplitudes * -1.0, linked, atol=0.01)


def test_noise_that_no_vector_explains_widens_the_error():
    x = np.full(4, 0.4)
    counts, shots = counts_of(x, 10**5)
    clean = tomography(counts, shots)
    noise = np.random.default_rng(1).multinomial(8000, np.full(4, 0.25), size=len(shots))
    noisy = tomography(counts + noise, shots)
    assert noisy.error > 3 * clean.error


@pytest.mark.parametrize("shots", [1, 3, 40])
def test_too_few_successes_are_nothing(shots):
    with pytest.warns(RuntimeWarning, match="`shots` is too small"):
        solution = QSVT(readout=Shots(shots, 0)).solve(symmetric(8), vector(8))
    assert solution.details["confident"] is False
    assert np.isnan(solution.residual) or solution.residual > 0.1


@SIGNS
@BACKENDS
def test_refinement_gains_digits_from_shots(backend, definite):
    matrix, rhs = symmetric(4, 5, definite), vector(4)
    readout = Shots(100_000, seed=2)
    single = QSVT(backend=backend, readout=readout, max_refinements=0).solve(matrix, rhs)
    once = QSVT(backend=backend, readout=readout, max_refinements=1).solve(matrix, rhs)
    refined = QSVT(backend=backend, readout=readout).solve(matrix, rhs)
    assert 1e-4 < single.residual < 0.2
    assert once.details["refinements"] == 1 and once.residual < 0.3 * single.residual
    assert refined.residual <= 1e-11
    assert relative_error(refined.x, scipy.linalg.solve(matrix, rhs)) <= 1e-10
    details = refined.details
    assert details["shots"] == 100_000 * (1 + details["refinements"])
    assert details["queries"] == details["shots"] * details["degree"]


def test_padded_system():
    matrix, rhs = symmetric(5, 5, definite=False), vector(5)
    solution = QSVT(readout=Shots(200_000, seed=0)).solve(matrix, rhs)
    assert solution.residual <= 1e-11


def test_seed_repeats_in_graph_and_eagerly():
    matrix, rhs = symmetric(4), vector(4)
    solver = QSVT(readout=Shots(10_000, seed=5), max_refinements=0)
    first, again = solver.solve(matrix, rhs).x, solver.solve(matrix, rhs).x
    traced = tf.function(lambda a, b: solver.solve(a, b).x)(tf.constant(matrix), tf.constant(rhs))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, traced)
    other = QSVT(readout=Shots(10_000, seed=6), max_refinements=0).solve(matrix, rhs).x
    assert not np.array_equal(first, other)
    free = QSVT(readout="shots", max_refinements=0)
    assert not np.array_equal(free.solve(matrix, rhs).x, free.solve(matrix, rhs).x)


@pytest.mark.parametrize("readout", ["exact", "shots", Exact(), Shots(1234, seed=7)])
def test_serialisation(readout):
    config = keras.saving.serialize_keras_object(QSVT(readout=readout))
    again = keras.saving.deserialize_keras_object(config).readout
    assert again == readout or again.get_config() == readout.get_config()
    assert type(again) is type(readout)


class RunsOnly:
    """A backend that knows amplitudes and cannot be measured."""

    def circuit(self, *arguments):
        raise NotImplementedError

    def run(self, *arguments):
        raise NotImplementedError


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Shots(0), "Argument `shots` must be .* Received: shots=0"),
        (lambda: Shots(1.5), "Argument `shots` must be .* Received: shots=1.5"),
        (lambda: QSVT(readout="guess"), "Argument `readout` must be one of 'exact', 'shots'"),
        (lambda: QSVT(readout=object()), "Argument `readout` must be .* `read`"),
        (
            lambda: QSVT(backend=RunsOnly(), readout=Shots()),
            "Argument `backend` must have a method `sample` to be read by Shots",
        ),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
