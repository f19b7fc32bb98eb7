"""QSVT circuits in Cirq, run by its state vector simulator."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_qnewton.solvers.quantum.backends import Outcome

try:
    import cirq
except ImportError as error:  # pragma: no cover - cirq-core is a dependency
    raise ImportError("The backend 'cirq' needs Cirq: run `pip install cirq-core`.") from error


class Backend:
    """One signal qubit, one block encoding ancilla, n system qubits; most significant first.

        signal  |0⟩ ─ H ─ ZZ(φ_d) ───── ZZ(φ_{d-1}) ── … ─ ZZ(φ_0) ─ H ─ ⟨0|
        ancilla |0⟩ ───── ZZ(φ_d) ─ U ─ ZZ(φ_{d-1}) ─ U … ─ ZZ(φ_0) ───── ⟨0|
        system  |0⟩ ─ B ─────────── U ─────────────── U … ─────────────── amplitudes

    B prepares the state. The signal qubit runs the sequence with φ and with -φ at once and
    adds them up, which leaves the real part (Gilyén et al. 2018, corollary 18; for a single
    ancilla the controlled projector phase is one ZZ rotation).
    """

    def circuit(self, encoding: Any, phases: np.ndarray, state: np.ndarray) -> cirq.Circuit:
        """The circuit on `cirq.LineQubit`s, without measurements."""
        signal, ancilla, *system = cirq.LineQubit.range(2 + encoding.system_qubits)
        prepare = cirq.MatrixGate(preparation(state), unitary_check=False).on(*system)
        encode = cirq.Moment(
            cirq.MatrixGate(encoding.unitary(), unitary_check=False).on(ancilla, *system)
        )
        exponents = -2 / np.pi * phases
        moments = [cirq.Moment(prepare, cirq.H(signal))]
        for k in range(len(phases) - 1, -1, -1):
            rotation = cirq.ZZPowGate(exponent=float(exponents[k]), global_shift=-0.5)
            moments.append(cirq.Moment(rotation.on(signal, ancilla)))
            if k:
                moments.append(encode)
        moments.append(cirq.Moment(cirq.H(signal)))
        return cirq.Circuit(moments)

    def run(self, encoding: Any, phases: np.ndarray, state: np.ndarray, dtype: str) -> Outcome:
        """Simulates the circuit from |0…0⟩ and reads the state vector, without shots."""
        circuit = self.circuit(encoding, phases, state)
        # All qubits are entangled from the first moments on: factoring the state is lost time.
        simulator = cirq.Simulator(dtype=np.dtype(dtype).type, split_untangled_states=False)
        qubits = cirq.LineQubit.range(2 + encoding.system_qubits)
        vector = simulator.simulate(circuit, qubit_order=qubits).final_state_vector
        kept = vector[: len(state)].astype(np.complex128)
        return Outcome(
            amplitudes=kept.real,
            success_probability=float(np.vdot(kept, kept).real),
            qubits=len(qubits),
            operations=sum(len(moment) for moment in circuit),
        )


def preparation(state: np.ndarray) -> np.ndarray:
    """An orthogonal matrix whose first column is the real unit vector `state`.

    A Householder reflection of the first basis vector to ``-sign(state[0]) · state``, negated
    where needed: that choice of sign never subtracts nearly equal numbers.
    """
    sign = 1.0 if state[0] >= 0 else -1.0
    v = np.array(state, np.float64)
    v[0] += sign
    reflection: np.ndarray = 2 * np.outer(v, v) / (v @ v) - np.eye(len(v))
    return sign * reflection
