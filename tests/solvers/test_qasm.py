"""Circuits as OpenQASM 3, run by the definitions of its standard gates."""

import cmath
import math
import re

import cirq
import numpy as np
import pytest

from keras_qnewton.solvers import QSVT, Shortcut

MATRIX = np.array([[2.0, 0.5], [0.5, -1.0]])
RHS = np.array([1.0, 3.0])


def u3(theta, phi, lam):
    """The specification's, U up to a phase."""
    c, s = math.cos(theta / 2), math.sin(theta / 2)
    return np.array(
        [[c, -cmath.exp(1j * lam) * s], [cmath.exp(1j * phi) * s, cmath.exp(1j * (phi + lam)) * c]]
    )


GATES = {
    "u3": u3,
    "u2": lambda phi, lam: u3(math.pi / 2, phi, lam),
    "rx": lambda a: u3(a, -math.pi / 2, math.pi / 2),
    "ry": lambda a: u3(a, 0, 0),
    "rz": lambda a: np.diag([cmath.exp(-0.5j * a), cmath.exp(0.5j * a)]),
    "x": lambda: u3(math.pi, 0, math.pi),
    "h": lambda: u3(math.pi / 2, 0, math.pi),
    "z": lambda: np.diag([1, -1]),
    "s": lambda: np.diag([1, 1j]),
    "sdg": lambda: np.diag([1, -1j]),
    "t": lambda: np.diag([1, cmath.exp(0.25j * math.pi)]),
    "tdg": lambda: np.diag([1, cmath.exp(-0.25j * math.pi)]),
    "sx": lambda: np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2,
    "sxdg": lambda: np.array([[1 - 1j, 1 + 1j], [1 + 1j, 1 - 1j]]) / 2,
    "cx": lambda: np.kron(np.diag([1, 0]), np.eye(2)) + np.kron(np.diag([0, 1]), GATES["x"]()),
    "cz": lambda: np.diag([1, 1, 1, -1]),
    "swap": lambda: np.eye(4)[[0, 2, 1, 3]],
    "ccx": lambda: np.eye(8)[[0, 1, 2, 3, 4, 5, 7, 6]],
    "ccz": lambda: np.diag([1, 1, 1, 1, 1, 1, 1, -1]),
}


def run(text):
    """The state that a program leads to from zeros; the first qubit is the most significant."""
    count = int(re.search(r"qubit\[(\d+)\] q;", text).group(1))
    state = np.zeros((2,) * count, complex)
    state.flat[0] = 1
    for name, angles, wires in re.findall(r"^(\w+)(?:\((.*)\))? (q\[.*\]);$", text, re.M):
        numbers = [float(n) * (math.pi if pi else 1) for pi, n in _angles(angles)]
        at = [int(n) for n in re.findall(r"q\[(\d+)\]", wires)]
        gate = np.reshape(GATES[name](*numbers), (2,) * 2 * len(at))
        moved = np.tensordot(gate, state, (range(len(at), 2 * len(at)), at))
        state = np.moveaxis(moved, range(len(at)), at)
    return state.ravel()


def _angles(text):
    return re.findall(r"(pi\*)?(-?[\d.]+(?:e-?\d+)?)", text)


@pytest.mark.parametrize("kind", [QSVT, Shortcut])
@pytest.mark.parametrize("encoding", ["dilation", "frobenius", "sparse", "pauli_lcu", "fable"])
def test_text_is_the_circuit(encoding, kind):
    solver = kind(epsilon=0.3, encoding=encoding, backend="cirq")
    text = solver.qasm(MATRIX, RHS)
    circuit = solver.circuit(MATRIX, RHS)
    expected = cirq.final_state_vector(circuit, dtype=np.complex128)
    assert abs(np.vdot(expected, run(text))) == pytest.approx(1, abs=1e-7)


def test_a_dense_encoding_of_several_qubits_is_written_in_gates():
    matrix, rhs = np.diag([2.0, -1.0, 1.5, 1.0]) + 0.2, np.arange(1.0, 5.0)
    solver = QSVT(epsilon=0.3, backend="cirq")
    expected = cirq.final_state_vector(solver.circuit(matrix, rhs), dtype=np.complex128)
    assert abs(np.vdot(expected, run(solver.qasm(matrix, rhs)))) == pytest.approx(1, abs=1e-7)


def test_gates_beside_the_standard_ones_are_defined():
    text = QSVT(epsilon=0.3, backend="cirq").qasm(MATRIX, RHS)
    head, *_ = text.split("qubit[")
    assert head.count("OPENQASM 3.0;") == 1
    (body,) = re.findall(r"gate sxdg a \{(.*)\}", head)
    product = np.eye(2)
    for name in re.findall(r"(\w+) a;", body):
        product = GATES[name]() @ product
    np.testing.assert_allclose(product, GATES["sxdg"](), atol=1e-15)


def test_a_backend_without_circuits_is_named():
    with pytest.raises(ValueError, match="'emulator' has no circuit"):
        QSVT(epsilon=0.3, backend="emulator").qasm(MATRIX, RHS)
