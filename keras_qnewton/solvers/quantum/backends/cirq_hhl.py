"""The circuit of Harrow, Hassidim and Lloyd in Cirq, run by its state vector simulator."""

from __future__ import annotations

import numpy as np

from keras_qnewton.solvers.quantum.backends.cirq import cirq, first_column, operations
from keras_qnewton.solvers.quantum.gates import multiplexed_angles, multiplexed_ry


def circuit(evolutions: list[np.ndarray], rotations: np.ndarray, state: np.ndarray) -> cirq.Circuit:
    """The circuit on `cirq.LineQubit`s, without measurements: ancilla, clock, system.

        ancilla |0⟩ ───────────────────────────── Ry(θ_j) ───────────────────── ⟨1|
        clock   |0⟩ ─ H ─ ctrl e^(iHt 2^k) ─ QFT† ── j ──── QFT ─ ctrl e^(-iHt 2^k) ─ H ─ ⟨0|
        system  |0⟩ ─ B ────────┘                                       └─ amplitudes

    B prepares the state.

    Args:
        evolutions: ``e^(iHt 2^k)`` `[2^n, 2^n]`, one a clock qubit, the highest power first.
        rotations: θ_j `[2^m]` in radians, j the clock's number.
        state: Real unit vector `[2^n]`.
    """
    count = len(evolutions)
    size = len(state).bit_length() - 1
    ancilla, *rest = cirq.LineQubit.range(1 + count + size)
    clock, system = rest[:count], rest[count:]
    estimate = cirq.Circuit(cirq.H.on_each(*clock))
    for qubit, matrix in zip(clock, evolutions, strict=True):
        gate = cirq.MatrixGate(matrix, unitary_check=False)
        estimate.append(gate.on(*system).controlled_by(qubit))
    estimate.append(cirq.qft(*clock, inverse=True))
    invert = operations(
        multiplexed_ry(range(count), count, 0), [*clock, ancilla], multiplexed_angles(rotations)
    )
    prepare = cirq.MatrixGate(first_column(state), unitary_check=False).on(*system)
    return cirq.Circuit(prepare) + estimate + cirq.Circuit(invert) + cirq.inverse(estimate)


def run(
    evolutions: list[np.ndarray], rotations: np.ndarray, state: np.ndarray, dtype: str
) -> tuple[np.ndarray, float]:
    """Simulates the circuit without shots.

    Returns:
        The system's complex amplitudes `[2^n]` where the ancilla is 1 and the clock back at 0,
        not normalised; and the probability of that outcome.
    """
    simulator = cirq.Simulator(dtype=np.dtype(dtype).type, split_untangled_states=False)
    made = circuit(evolutions, rotations, state)
    qubits = cirq.LineQubit.range(len(evolutions) + len(state).bit_length())
    vector = simulator.simulate(made, qubit_order=qubits).final_state_vector
    success = vector.reshape(2, 1 << len(evolutions), len(state))[1, 0].astype(np.complex128)
    return success, float(np.vdot(success, success).real)
