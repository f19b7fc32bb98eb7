"""``backend="auto"``, the emulator, and life without TensorFlow Quantum."""

import dataclasses
import sys

import cirq
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from keras_qnewton.registry import register, registered
from keras_qnewton.scheduling import Scheduler
from keras_qnewton.solvers import QSVT
from keras_qnewton.solvers.quantum import backends
from keras_qnewton.solvers.quantum.backends import choice, load
from keras_qnewton.solvers.quantum.chebyshev import Polynomial
from keras_qnewton.solvers.quantum.encodings import ENCODINGS, BlockEncoding, Dilation
from keras_qnewton.solvers.quantum.gates import Gate
from keras_qnewton.solvers.quantum.transforms import Transform, inversion

from .systems import relative_error, symmetric, vector

TFQ_MODULE = f"{backends.__name__}.tfq"


class Padded(BlockEncoding):
    """A matrix of N = 2 with as many idle ancillas and pairs of idle gates as wanted."""

    name = "padded"

    def __init__(self, matrix, ancillas, pairs):
        super().__init__(matrix)
        self._inner = Dilation(self.matrix)
        self.alpha, self.angles, self.ancillas = self._inner.alpha, self._inner.angles, ancillas
        self.epsilon, self._pairs = self._inner.epsilon, pairs

    def gates(self):
        last = self.ancillas
        inner = [
            gate._replace(
                qubits=tuple(last if q == 1 else q for q in gate.qubits),
                controls=tuple(last if q == 1 else q for q in gate.controls),
            )
            for gate in self._inner.gates()
        ]
        return inner + 2 * self._pairs * [Gate("x", (1,))]


@pytest.fixture
def without_tfq(monkeypatch):
    """TensorFlow Quantum cannot be imported, and the backend that may have been is forgotten."""
    monkeypatch.setitem(sys.modules, "tensorflow_quantum", None)
    monkeypatch.delitem(sys.modules, TFQ_MODULE, raising=False)
    installed = registered("backend")["tfq"]
    register("backend", "tfq")(dataclasses.replace(installed))
    yield
    register("backend", "tfq")(installed)


@pytest.fixture
def patient(monkeypatch):
    """Simulators may take long, so that they are told apart."""
    monkeypatch.setattr(choice, "LONGEST_RUN", 20.0)


def test_default_is_auto_and_small_systems_go_to_cirq():
    matrix, rhs = symmetric(8, 10), vector(8)
    solution = QSVT().solve(matrix, rhs)
    assert solution.details["backend"] == "cirq"
    assert "5 qubits" in solution.details["backend_reason"]
    np.testing.assert_array_equal(solution.x, QSVT(backend="cirq").solve(matrix, rhs).x)


def test_circuits_that_take_long_go_to_the_emulator(monkeypatch):
    matrix, rhs = symmetric(8, 10), vector(8)
    monkeypatch.setattr(choice, "LONGEST_RUN", 1e-4)
    solver = QSVT()
    solution = solver.solve(matrix, rhs)
    assert solution.details["backend"] == "emulator"
    assert "would take" in solution.details["backend_reason"]
    assert relative_error(solution.x, scipy.linalg.solve(matrix, rhs)) <= 1e-10
    # It can be looked at all the same.
    assert isinstance(solver.circuit(matrix, rhs), cirq.Circuit)


@pytest.mark.parametrize(
    "encoding, degree, dtype, name",
    [
        # A matrix, whatever the size: gates would be slower.
        (Dilation(symmetric(64, 3)), 3001, "complex64", "cirq"),
        (Dilation(symmetric(1024, 3)), 3001, "complex64", "emulator"),
        # 12 qubits, 200 gates: one by one in Cirq 10 s and more, in TFQ less.
        (Padded(np.eye(2), 11, 100), 901, "complex64", "tfq"),
        (Padded(np.eye(2), 11, 100), 901, "complex128", "emulator"),
        (Padded(np.eye(2), 11, 10), 301, "complex128", "cirq"),
        (Padded(np.eye(2), 11, 2000), 901, "complex64", "emulator"),
        (Padded(np.eye(2), 30, 1), 5, "complex64", "emulator"),
    ],
)
@pytest.mark.usefixtures("patient")
def test_choice_by_qubits_gates_and_dtype(encoding, degree, dtype, name):
    found, reason = choice._fastest(encoding, degree, dtype)
    assert found == name
    assert f"{1 + encoding.qubits} qubits and {degree} calls" in reason and dtype in reason


@pytest.mark.usefixtures("patient")
def test_auto_takes_tfq_where_it_is_faster():
    pytest.importorskip("tensorflow_quantum")

    class Wide(Padded):
        def __init__(self, matrix):
            super().__init__(matrix, 11, 100)

    solver = QSVT(encoding=Wide, max_refinements=1)
    solution = solver.solve(np.diag([1.0, 0.05]), np.array([1.0, 2.0]))
    assert solution.details["backend"] == "tfq"
    np.testing.assert_allclose(solution.x, [1.0, 40.0], rtol=1e-5)


@pytest.mark.parametrize("pairs, expected", [(100, "cirq"), (300, "emulator")])
@pytest.mark.usefixtures("patient")
def test_auto_without_tfq(without_tfq, pairs, expected):
    encoding = Padded(np.eye(2), 11, pairs)
    degree = 301 if expected == "cirq" else 1001
    assert choice._fastest(encoding, degree, "complex64")[0] == "tfq"
    name, reason = choice.choose(encoding, inversion_of(degree), "complex64")
    assert name == expected and "TensorFlow Quantum" in reason and "not installed" in reason


def test_training_does_not_wait_for_a_simulator():
    # A block of 27 weights: hundreds of milliseconds a run in Cirq, of which a step takes several.
    encoding = Dilation(symmetric(32, 3))
    assert choice._fastest(encoding, 587, "complex64")[0] == "cirq"
    name, reason = choice._fastest(encoding, 6000, "complex64")
    assert name == "emulator" and "the emulator 0.061 s" in reason


def inversion_of(degree):
    return Transform("inverse", 150.0, Polynomial.of(np.zeros(degree + 1)), 1.0)


def test_without_tfq_the_message_says_what_to_install(without_tfq):
    message = r"pip install '\.\[tfq\]'"
    solver = QSVT(backend="tfq")
    with pytest.raises(ImportError, match=message):
        solver.solve(symmetric(4), vector(4))
    # While a graph is traced, not once a step.
    with pytest.raises(ImportError, match=message):
        tf.function(lambda a, b: solver.solve(a, b).x, autograph=False)(symmetric(4), vector(4))


# --- the emulator -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ENCODINGS))
@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("definite", [True, False], ids=["definite", "indefinite"])
def test_emulator_equals_the_circuit(name, size, definite):
    encoding = ENCODINGS[name](symmetric(size, 10, definite))
    transform = inversion(12.0, 1e-3)
    state = vector(size) / np.linalg.norm(vector(size))
    emulated = load("emulator").run(encoding, transform, state, "complex128")
    circuit = load("cirq").run(encoding, transform, state, "complex128")
    np.testing.assert_allclose(emulated.amplitudes, circuit.amplitudes, atol=1e-10)
    np.testing.assert_allclose(
        emulated.success_probability, circuit.success_probability, atol=1e-10
    )
    assert emulated.qubits == circuit.qubits


@pytest.mark.parametrize("size", [3, 5, 13, 24])
@pytest.mark.parametrize("definite", [True, False], ids=["definite", "indefinite"])
def test_emulated_solution_equals_the_circuits(size, definite):
    matrix, rhs = symmetric(size, 20, definite), vector(size)
    arguments = {"dtype": "complex128", "max_refinements": 0}
    emulated = QSVT(backend="emulator", **arguments).solve(matrix, rhs)
    circuit = QSVT(backend="cirq", **arguments).solve(matrix, rhs)
    assert relative_error(emulated.x, circuit.x) <= 1e-10
    assert emulated.details["qubits"] == circuit.details["qubits"]
    assert emulated.details["backend"] == "emulator"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["emulator", "auto"])
def test_large_systems(backend):
    matrix, rhs = symmetric(1500, 50, definite=False), vector(1500)
    solution = QSVT(backend=backend, tolerance=1e-6).solve(matrix, rhs)
    assert solution.residual <= 1e-6
    assert relative_error(solution.x, scipy.linalg.solve(matrix, rhs)) <= 5e-5
    assert solution.details["backend"] == "emulator"
    assert solution.details["qubits"] == 13


def test_emulator_has_no_circuit():
    with pytest.raises(ValueError, match="no circuit"):
        QSVT(backend="emulator").circuit(symmetric(4), vector(4))


@pytest.mark.parametrize("backend", ["emulator", "auto", "cirq"])
def test_schedulers_limit_is_of_the_machine_that_is_imagined(backend):
    # However it is simulated: the width of the circuit that hardware would run.
    quantum = QSVT(backend=backend)
    narrow = Scheduler(quantum=quantum, gate_time=1e-18, max_qubits=21)
    wide = Scheduler(quantum=quantum, gate_time=1e-18, max_qubits=22)
    assert narrow.possible(1500) == ("lu",)
    assert wide.possible(1500) == ("lu", "qsvt")
    assert "22 qubits" in narrow.choose(1500, 50.0, 3).reason
    assert wide.choose(1500, 50.0, 3).route == "qsvt"
