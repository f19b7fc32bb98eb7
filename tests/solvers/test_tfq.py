"""QSVT on TensorFlow Quantum: against Cirq's double precision circuits, and SciPy's solutions."""

import cirq
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from keras_qnewton.solvers import QSVT
from keras_qnewton.solvers.quantum.backends import load
from keras_qnewton.solvers.quantum.encodings import ENCODINGS, BlockEncoding, Dilation
from keras_qnewton.solvers.quantum.gates import Gate, cnot, multiplexed_ry
from keras_qnewton.solvers.quantum.transforms import inversion

from .systems import relative_error, symmetric, vector

tfq = pytest.importorskip("tensorflow_quantum")


class EveryGate(BlockEncoding):
    """Every kind of gate, control and angle, on two ancillas; encodes nothing of use."""

    name = "every_gate"
    ancillas, alpha, epsilon = 2, 1.0, 1.0

    def __init__(self, angles):
        super().__init__(np.eye(4))
        self.angles = np.asarray(angles)

    def gates(self):
        return [
            *multiplexed_ry((2, 3), 0, 0, factor=-1.0),
            Gate("h", (1,), controls=(2,), values=(0,)),
            Gate("x", (0,), controls=(1, 2, 3), values=(1, 0, 1)),
            Gate("rz", (2,), 1.2345678),
            Gate("rz", (2,), -0.7654321, symbol=1, controls=(0,), values=(1,)),
            Gate("zz", (1, 3), 2.0, symbol=4),
            Gate("ry", (3,), -2.3456789, controls=(0, 1), values=(0, 0)),
            Gate("swap", (0, 2), controls=(1,), values=(1,)),
            Gate("swap", (1, 3)),
            Gate("z", (1,), controls=(0, 3), values=(1, 1)),
            Gate("x", (3,)),
            cnot(3, 2),
        ]


def cases():
    for name in ENCODINGS:
        for size in (2, 4, 8):
            yield pytest.param(name, size, id=f"{name}-{size}")
    yield pytest.param("every_gate", 4, id="every_gate")


@pytest.mark.parametrize("name, size", list(cases()))
@pytest.mark.parametrize("definite", [True, False], ids=["definite", "indefinite"])
def test_amplitudes_are_those_of_cirq_in_double_precision(name, size, definite):
    if name == "every_gate":
        encoding = EveryGate(np.linspace(-3, 3, 5) * (1 if definite else 0.3))
    else:
        encoding = ENCODINGS[name](symmetric(size, 4, definite))
    plan = inversion(5.0, 1e-2)
    state = vector(size) / np.linalg.norm(vector(size))
    outcome = load("tfq").run(encoding, plan, state, "complex64")
    expected = load("cirq").run(encoding, plan, state, "complex128")
    # Single precision rounds the state at every gate, alike where a gate comes again and again.
    rounding = 2e-6 + 4e-9 * plan.degree * len(encoding.gates())
    np.testing.assert_allclose(outcome.amplitudes, expected.amplitudes, atol=rounding)
    np.testing.assert_allclose(
        outcome.success_probability, expected.success_probability, atol=2 * rounding
    )
    assert outcome.qubits == expected.qubits == 1 + encoding.qubits


# The bars of a single run at ε = 1e-4: encoding, N, κ, largest relative error.
SINGLE = [
    ("frobenius", 8, 10, 2e-4),
    ("frobenius", 16, 10, 3e-4),
    ("dilation", 8, 10, 2e-4),
    ("dilation", 16, 10, 3e-4),
    ("dilation", 16, 50, 3e-4),
]
# After two refinements.
REFINED = [
    ("frobenius", 8, 10, 1e-9),
    ("dilation", 16, 50, 1e-9),
    ("dilation", 8, 200, 1e-9),
    ("dilation", 16, 200, 1e-9),
]


def seeded(bars):
    """Two systems of each cell, and twenty more among the slow tests."""
    for bar in bars:
        if bar[0] in ENCODINGS:
            yield pytest.param(*bar, range(2))
            yield pytest.param(*bar, range(2, 22), marks=pytest.mark.slow)


@pytest.mark.parametrize("encoding, size, condition_number, bar, seeds", list(seeded(SINGLE)))
def test_single_run(encoding, size, condition_number, bar, seeds):
    solver = QSVT(backend="tfq", encoding=encoding, epsilon=1e-4, max_refinements=0)
    for seed in seeds:
        matrix = symmetric(size, condition_number, definite=seed % 2 == 0, seed=seed)
        rhs = vector(size, seed)
        solution = solver.solve(matrix, rhs)
        assert relative_error(solution.x, scipy.linalg.solve(matrix, rhs)) <= bar, seed


@pytest.mark.parametrize("encoding, size, condition_number, bar, seeds", list(seeded(REFINED)))
def test_two_refinements(encoding, size, condition_number, bar, seeds):
    solver = QSVT(backend="tfq", encoding=encoding, tolerance=0.0, max_refinements=2)
    for seed in seeds:
        matrix = symmetric(size, condition_number, definite=seed % 2 == 0, seed=seed)
        rhs = vector(size, seed)
        solution = solver.solve(matrix, rhs)
        assert relative_error(solution.x, scipy.linalg.solve(matrix, rhs)) <= bar, seed
        assert solution.details["refinements"] == 2


@pytest.mark.parametrize("name", [name for name in ENCODINGS if name in ("dilation", "frobenius")])
def test_a_second_solve_serialises_nothing(name):
    backend = load("tfq")
    solver = QSVT(backend="tfq", encoding=name, epsilon=0.03)
    solver.solve(symmetric(4, 5), vector(4))
    before = backend.serializations
    assert before >= 4
    # Other values, another degree, a smaller system padded to the same size; in a graph, too.
    solver.solve(symmetric(4, 5, seed=1), vector(4, 1))
    solver.solve(symmetric(4, 20, definite=False, seed=2), vector(4, 2))
    solver.solve(symmetric(3, 2), vector(3))
    tf.function(lambda a, b: solver.solve(a, b).x)(symmetric(4, 3), vector(4))
    assert backend.serializations == before
    solver.solve(symmetric(32, 1.5), vector(32))
    assert backend.serializations > before


def test_segments_are_kept_within_bounds():
    from keras_qnewton.solvers.quantum.backends import tfq as module

    backend = module.Backend(max_segments=7)
    plan, state = inversion(2.0, 0.1), {n: np.eye(n)[0] for n in (2, 4)}
    two, four = Dilation(symmetric(2, 2)), Dilation(symmetric(4, 2))
    for encoding in (two, four, four, two):
        n = len(encoding.matrix)
        outcome = backend.run(encoding, plan, state[n], "complex64")
        expected = load("cirq").run(encoding, plan, state[n], "complex128")
        np.testing.assert_allclose(outcome.amplitudes, expected.amplitudes, atol=1e-6)
    assert backend.segments == 7
    # 6 for two unknowns, 4 more for four, none, and again 4 that had to make room.
    assert backend.serializations > 10


def test_its_op_runs_in_a_graph():
    encoding, plan = Dilation(symmetric(4, 4)), inversion(5.0, 1e-2)
    state = vector(4) / np.linalg.norm(vector(4))
    op, backend, traces = tfq.get_state_op(), load("tfq"), []

    @tf.function
    def amplitudes(circuit, names, values):
        traces.append(1)
        return tf.math.real(op(circuit, names, values).to_tensor()[0, :4])

    for start in (state, np.roll(state, 1)):
        program = backend.program(encoding, plan, start)
        found = amplitudes(program.circuit, program.names, program.values)
        expected = load("cirq").run(encoding, plan, start, "complex128").amplitudes
        np.testing.assert_allclose(found, expected, atol=5e-6)
    assert len(traces) == 1


def test_circuit_is_the_one_that_is_run():
    matrix, rhs = symmetric(4, 3), vector(4)
    solver = QSVT(backend="tfq", max_refinements=0)
    circuit = solver.circuit(matrix, rhs)
    assert isinstance(circuit, cirq.Circuit) and not cirq.is_parameterized(circuit)
    solution = solver.solve(matrix, rhs)
    assert sum(1 for _ in circuit.all_operations()) == solution.details["operations"]
    assert len(circuit.all_qubits()) == solution.details["qubits"] == solver.qubits(4)
    state = solver.init(matrix)
    amplitudes = circuit.final_state_vector()[:4].real
    factor = state.prepared.transform.sign * np.linalg.norm(rhs)
    by_hand = factor * amplitudes / (state.prepared.transform.scale * state.prepared.encoding.alpha)
    np.testing.assert_allclose(solution.x, by_hand, rtol=1e-4)
    assert (solution.details["backend"], solution.details["backend_reason"]) == ("tfq", "as asked")


def test_conjugation_is_taken_off_between_calls():
    encoding, plan = Dilation(symmetric(16, 3)), inversion(5.0, 1e-2)
    operations = load("tfq").program(encoding, plan, np.eye(16)[0]).operations
    outer, inner = encoding.conjugated()
    # Two H and the preparation of 16 amplitudes (1 + 4 + 8 + 16 gates) besides.
    fixed = 2 + 1 + 4 + 8 + 16
    flips = operations - (fixed + 2 * len(outer) + plan.degree * (len(inner) + 1) + 1)
    # One Z on the ancilla a phase, in pairs.
    assert plan.degree - 1 <= flips <= plan.degree + 1 and flips % 2 == 0
    assert len(encoding.gates()) > 8 * len(inner)


def test_graph_and_eager_agree():
    matrix, rhs = symmetric(5, definite=False), vector(5)
    solver = QSVT(backend="tfq")
    x = tf.function(lambda a, b: solver.solve(a, b).x)(matrix, rhs)
    np.testing.assert_allclose(x, scipy.linalg.solve(matrix, rhs), rtol=1e-9)
    np.testing.assert_allclose(x, solver.solve(matrix, rhs).x, rtol=1e-9)


def test_only_single_precision():
    with pytest.raises(ValueError, match=r"Argument `dtype` must be 'complex64'.*complex128"):
        QSVT(backend="tfq", dtype="complex128")
    with pytest.raises(ValueError, match="Argument `dtype`"):
        load("tfq").run(Dilation(np.eye(2)), inversion(2.0, 0.1), np.eye(2)[0], "complex128")
