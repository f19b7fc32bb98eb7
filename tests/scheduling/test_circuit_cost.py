"""The circuit's depth as a price: formulas against the gates of circuits that were built."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import registry
from keras_qnewton.conditioning import prune
from keras_qnewton.scheduling import AsymptoticQLSA, CircuitQLSA, DetailedQLSA, LUTime, Scheduler
from keras_qnewton.scheduling.cost import preparation_depth
from keras_qnewton.scheduling.reading import repetitions, success_of_noise
from keras_qnewton.solvers import QSVT
from keras_qnewton.solvers.quantum.circuit_depth import _sparse, circuit_depth, inverse_degree
from keras_qnewton.solvers.quantum.encodings import ENCODINGS, pad
from keras_qnewton.solvers.quantum.gates import preparation
from keras_qnewton.solvers.quantum.inverse_polynomial import inverse_degree as polynomials_degree
from keras_qnewton.solvers.quantum.resources import Resources, depth
from keras_qnewton.solvers.quantum.transforms import bucket, inversion


def symmetric(size, condition_number, seed=0):
    rng = np.random.default_rng([seed, size])
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    values = np.geomspace(1 / condition_number, 1, size) * rng.choice([-1, 1], size=size)
    return 2.5 * (vectors * values) @ vectors.T


@pytest.mark.parametrize("size, kappa", [(2, 3.0), (3, 5.0), (4, 10.0), (8, 7.0), (13, 20.0)])
def test_price_of_the_circuit_that_qsvt_ran(size, kappa):
    """Dilation: κ is all that the degree depends on."""
    matrix, rhs = symmetric(size, kappa), np.arange(1.0, size + 1)
    solver = QSVT(backend="cirq")
    solution = solver.solve((matrix + matrix.T) / 2, rhs)
    counted = solution.details["resources"].depth
    kappa = solution.details["condition_number"]
    seconds = float(CircuitQLSA(solver).seconds(size, kappa, size, 1e-9))
    assert seconds == pytest.approx(1e-9 * counted, rel=1e-9)
    assert solution.details["degree"] == int(inverse_degree(kappa, solver.epsilon))


@pytest.mark.parametrize("qubits", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["dilation", "frobenius", "sparse"])
def test_depth_of_built_circuits(name, qubits):
    size = 1 << qubits
    matrix = np.random.default_rng(qubits).normal(size=(size, size))
    encoding = ENCODINGS[name](matrix + matrix.T)
    largest = {"dilation": 1.0, "frobenius": np.sqrt(size), "sparse": np.sqrt(size)}[name]
    # The bound on α is not reached: κ such that the degree is the circuit's.
    kappa = encoding.effective_condition_number / largest
    resources = Resources(encoding, inversion(bucket(kappa * largest), 1e-3))
    built = resources.depth - float(preparation_depth(size))
    predicted = float(circuit_depth(name, size, kappa, size, 1e-3))
    assert predicted == pytest.approx(built, rel=1e-12)
    assert encoding.alpha <= largest * np.linalg.norm(encoding.matrix, 2) * (1 + 1e-12)


@pytest.mark.parametrize("qubits", [4, 5, 6, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("d", [1, 2, 4, 8])
def test_depth_of_pruned_matrices(qubits, d):
    size = 1 << qubits
    matrix = np.random.default_rng([d, qubits]).normal(size=(size, size))
    encoding = ENCODINGS["sparse"](prune(matrix + matrix.T + 5 * np.eye(size), d).matrix.numpy())
    rows, n = tf.constant(float(size), tf.float64), tf.constant(float(qubits), tf.float64)
    predicted = float(_sparse(rows, n, rows, tf.constant(float(d), tf.float64)))
    assert predicted == pytest.approx(depth(encoding.gates()), rel=0.1)
    assert encoding.alpha <= np.sqrt(d) * np.linalg.norm(encoding.matrix, 2) * (1 + 1e-12)


@pytest.mark.parametrize("size", [5, 9, 12, 17, 24, 33, 60])
@pytest.mark.parametrize("d", [2, 4, None])
def test_depth_of_padded_matrices(size, d):
    """Rows of padding have one entry, so that a call of the encoding has fewer layers."""
    matrix = np.random.default_rng(size).normal(size=(size, size))
    matrix = matrix + matrix.T + 5 * np.eye(size)
    if d is not None:
        matrix = prune(matrix, d).matrix.numpy()
    encoding = ENCODINGS["sparse"](pad(matrix))
    n = encoding.system_qubits
    given = [float(v) for v in (size, n, 1 << n, (matrix != 0).sum(1).max())]
    predicted = float(_sparse(*(tf.constant(v, tf.float64) for v in given)))
    assert 1 / 1.3 <= predicted / depth(encoding.gates()) <= 1.3


@pytest.mark.parametrize("qubits", [6, pytest.param(7, marks=pytest.mark.slow)])
def test_depth_of_dilation_at_more_qubits(qubits):
    matrix = np.eye(1 << qubits) + np.diag(np.linspace(0, 1, 1 << qubits))
    query = depth(ENCODINGS["dilation"](matrix).gates())
    degree = float(inverse_degree(2.0, 1e-3))
    predicted = float(circuit_depth("dilation", 1 << qubits, 2.0, 1, 1e-3))
    assert (predicted - 2 - 3 * (degree + 1)) / degree == pytest.approx(query, rel=1e-12)


def test_preparation_is_the_circuits():
    for qubits in range(1, 8):
        for size in {(1 << qubits - 1) + 1, 1 << qubits}:
            assert float(preparation_depth(size)) == depth(preparation(range(qubits)))


def test_degree_in_a_graph_is_the_polynomials():
    kappas = np.geomspace(1.01, 5000, 60)
    got = tf.map_fn(lambda k: inverse_degree(k, 1e-3), tf.constant(kappas))
    assert got.numpy().tolist() == [polynomials_degree(bucket(k), 1e-3) for k in kappas]


def test_the_schedulers_own_solver_is_priced():
    table = LUTime(table={1: 1.0})
    coarse, fine = QSVT(epsilon=1e-2), QSVT(epsilon=1e-6, encoding="frobenius")
    for solver in (coarse, fine):
        chooser = Scheduler(quantum=solver, cost="circuit", classical_cost=table)
        price = chooser.choose(16, 9.0, 4).predicted["qsvt"]
        assert price == float(CircuitQLSA(solver).seconds(16, 9.0, 4, chooser.gate_time))
        assert chooser.cost.epsilon == solver.epsilon
    own = CircuitQLSA(coarse)
    assert Scheduler(quantum=fine, cost=own, classical_cost=table).cost is own
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(own)))
    assert keras.saving.deserialize_keras_object(saved).epsilon == 1e-2
    assert type(registry.resolve("cost", "circuit", "cost")) is CircuitQLSA


@pytest.mark.parametrize("model", [AsymptoticQLSA, DetailedQLSA, CircuitQLSA])
def test_switches(model):
    arguments = (64, 30.0, 4, 1e-9)

    def price(**switches):
        return float(model(**switches).seconds(*arguments))

    bare, prepared = price(preparation=False), price(preparation=True)
    assert prepared - bare == pytest.approx(
        1e-9 * float(model().preparations(30.0)) * float(preparation_depth(64)), rel=1e-9
    )
    epsilon = model(readout=True).reading_epsilon
    shots = float(repetitions(64, epsilon, success_of_noise(30.0)))
    for parallel in (1, 100, 10**12):
        reading = price(preparation=False, readout=True, parallel=parallel)
        assert reading == pytest.approx(bare * max(1, shots / parallel), rel=1e-12)
    assert price(preparation=False, parallel=7) == bare  # one state: nothing to share
    with pytest.raises(ValueError, match="Argument `parallel` must be a positive integer"):
        model(parallel=0)


def test_success_probability_is_charged():
    once, often = CircuitQLSA(), CircuitQLSA(success_probability=0.05)
    assert float(often.seconds(32, 9.0, 4, 1e-9)) == pytest.approx(
        20 * float(once.seconds(32, 9.0, 4, 1e-9)), rel=1e-12
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"solver": 3}, "`solver` must be a quantum solver"),
        ({"success_probability": 0.0}, "`success_probability` must be above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"Argument {message}.*Received"):
        CircuitQLSA(**arguments)
    with pytest.raises(ValueError, match=r"Argument `encoding` must be one of.*Received"):
        CircuitQLSA(QSVT(encoding="fable")).seconds(8, 3.0, 2, 1e-9)
