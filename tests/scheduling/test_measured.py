"""What a matrix's encoding is measured to cost, against encodings and circuits that were built."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.conditioning import prune
from keras_qnewton.scheduling import (
    AsymptoticQLSA,
    CGTime,
    CircuitQLSA,
    DetailedQLSA,
    LUTime,
    Scheduler,
    SolverTime,
    SparseLUTime,
)
from keras_qnewton.solvers import QSVT
from keras_qnewton.solvers.quantum.encodings import ENCODINGS, pad
from keras_qnewton.solvers.quantum.gates import projector_phase
from keras_qnewton.solvers.quantum.measured import measured
from keras_qnewton.solvers.quantum.resources import count, depth

FAST = LUTime(coefficients=(1e-11, 0, 1e-6))


def hessian(size, limit=None, seed=0):
    """A Gauss-Newton block's kind: a few large eigenvalues, and a shift."""
    rng = np.random.default_rng([seed, size])
    rows = rng.normal(size=(3 * size, size)) * np.geomspace(1, 0.05, size)
    matrix = rows.T @ rows + 0.3 * np.eye(size)
    if limit is not None:
        matrix = prune(matrix, limit).matrix.numpy()
    return (matrix + matrix.T) / 2 + 0.3 * np.eye(size)


def found(name, matrix):
    magnitudes = np.abs(np.linalg.eigvalsh(matrix))
    norm, kappa = magnitudes.max(), magnitudes.max() / magnitudes.min()
    numbers = (tf.constant(value, tf.float64) for value in (matrix, norm, kappa))
    return measured(name, *numbers), norm, kappa


@settings(max_examples=8, deadline=None)
@given(
    size=st.integers(2, 16),
    limit=st.none() | st.integers(1, 12),
    seed=st.integers(0, 99),
    exponent=st.integers(-150, 150),
)
def test_alpha_and_layers_are_the_encodings(size, limit, seed, exponent):
    matrix = hessian(size, limit, seed)
    for name in ("dilation", "frobenius", "sparse", "fable"):
        encoding = ENCODINGS[name](pad(matrix))
        got, norm, _ = found(name, np.ldexp(matrix, exponent))
        assert float(got.alpha) == pytest.approx(encoding.alpha * 2.0**exponent / norm, rel=0.02)
        if name == "sparse":
            built = depth(encoding.gates())
            # The flag of a graph that pruning has left in larger parts is not counted.
            assert float(got.layers) == pytest.approx(built, rel=1e-12 if limit is None else 0.15)


@pytest.mark.parametrize("size", [9, 24, 60])
@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("name, factor", [("dilation", 1.2), ("frobenius", 1.2), ("sparse", 1.3)])
def test_the_price_is_the_circuits_depth(name, factor, size, limit):
    matrix = hessian(size, limit)
    solver = QSVT(encoding=name, backend="emulator", max_refinements=0)
    resources = solver.solve(matrix, np.ones(size)).details["resources"]
    got, _, kappa = found(name, matrix)
    given = {key: value for key, value in got._asdict().items() if value is not None}
    sparsity = int((matrix != 0).sum(1).max())
    price = CircuitQLSA(solver).seconds(size, kappa, sparsity, 1.0, **given)
    assert 1 / factor <= float(price) / resources.depth <= factor


def test_detailed_counts_queries_of_the_sparse_oracle():
    matrix = hessian(16)
    norm, kappa = np.linalg.norm(matrix, 2), np.linalg.cond(matrix)
    arguments = [tf.constant(value, tf.float64) for value in (matrix, norm, kappa, 16)]
    alpha = float(DetailedQLSA().measured(*arguments)["alpha"])
    assert alpha == pytest.approx(16 * np.abs(matrix).max() / norm)
    assert AsymptoticQLSA().measured(*arguments) == {}
    assert set(AsymptoticQLSA(readout=True).measured(*arguments)) == {"success"}


@pytest.mark.parametrize("name", list(ENCODINGS))
def test_qubits_count_work_qubits(name):
    for size in (2, 4, 8, 16):
        matrix = np.random.default_rng(size).normal(size=(size, size))
        encoding = ENCODINGS[name](matrix + matrix.T)
        gates = [*encoding.gates(), *projector_phase(encoding.ancillas, 1.0)]
        built = 1 + encoding.qubits + count(gates).work_qubits
        widest = QSVT(encoding=name).qubits(size)
        # "sparse" may have a flag, which takes a control and so a work qubit.
        assert built <= widest <= built + (2 if name == "sparse" else 0)


# --- what is handed over --------------------------------------------------------------------


def handed_over(cost, matrix, **settings_of):
    chooser = Scheduler(cost=cost, classical_cost=FAST, **settings_of)
    if not chooser.measures(len(matrix)):
        return chooser, None
    norm, kappa = np.linalg.norm(matrix, 2), np.linalg.cond(matrix)
    given = [tf.constant(value, tf.float64) for value in (matrix, norm, kappa, len(matrix))]
    return chooser, chooser.quantum_price.measure(*given)


def test_any_callable_is_told_what_it_has_arguments_for():
    matrix, seen = hessian(12), {}

    def with_alpha(size, kappa, d, gate_time, alpha=None, encoding=None):
        seen.update(alpha=alpha, encoding=encoding)
        return gate_time * kappa * alpha

    chooser, told = handed_over(with_alpha, matrix, quantum=QSVT(encoding="frobenius"))
    chooser.predict(12, 9.0, 12, measured=told)
    assert seen["encoding"] == chooser.quantum_price.encoding == "frobenius"
    assert float(seen["alpha"]) == pytest.approx(
        np.linalg.norm(pad(matrix)) / np.linalg.norm(matrix, 2)
    )


class NeedsAll:
    def seconds(self, size, condition_number, sparsity, gate_time, alpha, encoding):
        return gate_time * condition_number * (1.0 if alpha is None else alpha)


@pytest.mark.parametrize(
    "cost",
    [
        NeedsAll(),
        lambda n, kappa, d, seconds, alpha, encoding: seconds * kappa * (alpha or 1.0),
        lambda n, kappa, d, seconds, *, success, tolerance: seconds * kappa,
    ],
    ids=["a class", "six arguments", "keywords"],
)
def test_what_nobody_measured_is_none(cost):
    """Arguments without a default, before any matrix is there."""
    chooser, told = handed_over(cost, hessian(12), quantum=QSVT(encoding="frobenius"))
    assert float(chooser.predict(12, 9.0, 12)[-1]) == pytest.approx(9e-9)
    measured = float(chooser.predict(12, 9.0, 12, measured=told)[-1])
    alpha = 1.0 if "alpha" not in told else float(told["alpha"])
    assert measured == pytest.approx(9e-9 * alpha)


def test_a_price_that_is_none_is_an_error():
    chooser, _ = handed_over(lambda n, kappa, d, seconds: None, hessian(12))
    with pytest.raises(ValueError, match="Argument `cost` must return seconds"):
        chooser.predict(12, 9.0, 12)


class Callable:
    def __call__(self, n, kappa, d, gate_time):
        return gate_time * d * math.log2(n) * np.sqrt(kappa)


@pytest.mark.parametrize(
    "cost", [Callable(), lambda n, k, d, g: g * d * np.log2(n) * math.sqrt(k)], ids=["object", "λ"]
)
def test_four_arguments_and_numbers_are_enough(cost):
    chooser, told = handed_over(cost, hessian(12))
    assert told is None
    expected = 1e-9 * 5 * math.log2(12) * 3
    assert chooser.choose(12, 9.0, 5).predicted["qsvt"] == pytest.approx(expected)
    graph = tf.function(lambda kappa: chooser.predict(12, kappa, 5))
    assert float(graph(tf.constant(9.0, tf.float64))[-1]) == pytest.approx(expected)


@pytest.mark.parametrize("cost", ["asymptotic", "detailed", "circuit"])
def test_nothing_is_measured_where_no_circuit_is_possible(cost):
    assert not Scheduler(cost=cost, quantum=None, classical_cost=FAST).measures(8)
    assert not Scheduler(cost=cost, classical_cost=FAST).measures(1)
    assert not Scheduler(cost=cost, classical_cost=FAST, max_qubits=3).measures(64)
    assert Scheduler(cost=cost, classical_cost=FAST).measures(64) == (cost != "asymptotic")


@pytest.mark.parametrize("cost", [FAST, SolverTime("lu"), CGTime(), SparseLUTime(), "lu_time"])
def test_a_classical_model_for_circuits_is_refused(cost):
    with pytest.raises(ValueError, match=r"`cost` must price a quantum solver.*Received"):
        Scheduler(cost=cost)
