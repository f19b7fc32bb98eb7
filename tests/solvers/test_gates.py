"""Circuits as data: our own arithmetic against Cirq's unitaries, and what they should do."""

import cirq
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.solvers.quantum.backends.cirq import operations
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    applied,
    inverse,
    moved,
    multiplexed_angles,
    multiplexed_ry,
    preparation,
    preparation_angles,
    projector_phase,
)


def by_cirq(gates, width, angles=()):
    qubits = cirq.LineQubit.range(width)
    circuit = cirq.Circuit(operations(gates, qubits, np.asarray(angles)))
    return circuit.unitary(qubit_order=qubits, qubits_that_should_be_present=qubits)


@st.composite
def circuits(draw):
    width = draw(st.integers(2, 4))
    gates = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["ry", "rz", "zz", "h", "x", "z", "swap"]))
        wires = draw(st.permutations(range(width)))
        count = 2 if kind in ("zz", "swap") else 1
        controls = tuple(wires[count : count + draw(st.integers(0, width - count))])
        values = tuple(draw(st.integers(0, 1)) for _ in controls)
        symbol = draw(st.sampled_from([None, 0, 1]))
        angle = draw(st.floats(-7, 7))
        gates.append(Gate(kind, tuple(wires[:count]), angle, symbol, controls, values))
    return width, gates


@settings(deadline=None, max_examples=60)
@given(circuits())
def test_unitary_is_cirqs(drawn):
    width, gates = drawn
    angles = np.array([0.7, -1.3])
    ours = applied(gates, np.eye(1 << width), angles)
    np.testing.assert_allclose(ours, by_cirq(gates, width, angles), atol=1e-12)
    undone = applied(inverse(gates), ours, angles)
    np.testing.assert_allclose(undone, np.eye(1 << width), atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(controls=st.integers(0, 4), seed=st.integers(0, 10**6))
def test_multiplexed_rotation(controls, seed):
    wanted = np.random.default_rng(seed).uniform(-7, 7, 1 << controls)
    gates = multiplexed_ry(range(controls), controls, 0)
    unitary = by_cirq(gates, controls + 1, multiplexed_angles(wanted))
    expected = np.zeros_like(unitary)
    for i, angle in enumerate(wanted):
        expected[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = cirq.unitary(cirq.ry(angle))
    np.testing.assert_allclose(unitary, expected, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(wires=st.integers(1, 5), seed=st.integers(0, 10**6), zeros=st.booleans())
def test_preparation_of_a_real_state(wires, seed, zeros):
    rng = np.random.default_rng(seed)
    state = rng.normal(size=1 << wires)
    if zeros:
        state[rng.permutation(len(state))[: len(state) // 2]] = 0
    state /= np.linalg.norm(state)
    column = by_cirq(preparation(range(wires)), wires, preparation_angles(state))[:, 0]
    np.testing.assert_allclose(column, state, atol=1e-13)


@pytest.mark.parametrize("ancillas", [1, 2, 3])
def test_projector_phase_is_its_definition(ancillas):
    phase = 0.37
    zero = np.zeros(1 << ancillas)
    zero[0] = 1
    diagonal = np.kron([1, -1], 2 * zero - 1)
    expected = np.diag(np.exp(1j * phase * diagonal))
    np.testing.assert_allclose(
        by_cirq(projector_phase(ancillas, phase), 1 + ancillas), expected, atol=1e-13
    )


def test_moved_gates_act_elsewhere():
    gates = multiplexed_ry([0], 1, 0)
    there = moved(gates, [2, 0], first_symbol=3)
    angles = multiplexed_angles(np.array([0.4, 1.1]))
    padded = np.concatenate([np.zeros(3), angles])
    expected = by_cirq(multiplexed_ry([2], 0, 0), 3, angles)
    np.testing.assert_allclose(applied(there, np.eye(8), padded), expected, atol=1e-13)
