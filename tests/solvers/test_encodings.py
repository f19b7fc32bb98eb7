"""Every block encoding against its defining inequality, by Cirq's unitary of its gates."""

import cirq
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.solvers.quantum.backends.cirq import operations
from keras_qnewton.solvers.quantum.encodings import ENCODINGS

from .systems import symmetric

EVERY = pytest.mark.parametrize("name", list(ENCODINGS))


def gate_unitary(encoding):
    wires = cirq.LineQubit.range(encoding.qubits)
    circuit = cirq.Circuit(operations(encoding.gates(), wires, encoding.angles))
    return circuit.unitary(qubit_order=wires, qubits_that_should_be_present=wires)


@EVERY
@settings(deadline=None, max_examples=20)
@given(
    qubits=st.integers(1, 3),
    condition_number=st.sampled_from([1.5, 30.0, 1e4]),
    definite=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_corner_of_its_circuit(name, qubits, condition_number, definite, seed):
    matrix = symmetric(1 << qubits, condition_number, definite, seed)
    encoding = ENCODINGS[name](matrix)
    u = gate_unitary(encoding)
    size = len(matrix)
    np.testing.assert_allclose(u @ u.conj().T, np.eye(len(u)), atol=1e-12)
    assert np.linalg.norm(u[:size, :size] - matrix / encoding.alpha, 2) <= 1e-12
    assert encoding.epsilon <= 1e-11 * encoding.alpha
    assert encoding.alpha >= np.linalg.norm(matrix, 2) * (1 - 1e-12)
    assert 1 <= encoding.ancillas <= encoding.max_ancillas(qubits)
    if encoding.hermitian:
        np.testing.assert_allclose(u @ u, np.eye(len(u)), atol=1e-12)
    np.testing.assert_allclose(encoding.unitary()[:size, :size], u[:size, :size], atol=1e-12)
    np.testing.assert_allclose(
        encoding.effective_condition_number,
        encoding.alpha / np.linalg.norm(matrix, -2),
        rtol=1e-6,
    )


@EVERY
def test_equal_signatures_have_equal_gates(name):
    first, second = (ENCODINGS[name](symmetric(8, 10.0, seed=s)) for s in (1, 2))
    if first.signature == second.signature:
        assert first.gates() == second.gates()
        assert not np.array_equal(first.angles, second.angles)


@EVERY
@pytest.mark.parametrize(
    "matrix, message",
    [
        (np.eye(3), "power of two"),
        (np.eye(1), "power of two"),
        (np.zeros((2, 2)), "must not be zero"),
        (np.diag([1.0, np.nan]), "must be finite"),
    ],
)
def test_refuses_what_it_cannot_encode(name, matrix, message):
    with pytest.raises(ValueError, match=message):
        ENCODINGS[name](matrix)


@EVERY
def test_singular_matrix_is_known_as_one(name):
    assert ENCODINGS[name](np.diag([1.0, 0.0])).effective_condition_number == np.inf
