"""QSVT circuits in Cirq, run by its state vector simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_qnewton.solvers.quantum.backends import Outcome
from keras_qnewton.solvers.quantum.backends.choice import FUSED_QUBITS
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    angle_of,
    inverse,
    preparation,
    preparation_angles,
    projector_phase,
)

try:
    import cirq
except ImportError as error:  # pragma: no cover - cirq-core is a dependency
    raise ImportError("The backend 'cirq' needs Cirq: run `pip install cirq-core`.") from error


class Backend:
    """One signal qubit, a block encoding ancillas, n system qubits; most significant first.

        signal   |0⟩ ─ H ─ ┌ φ_d ┐ ─────── ┌ φ_{d-1} ┐ ──────── … ─ ┌ φ_0 ┐ ─ H ─ ⟨0|
        ancillas |0⟩ ───── └─────┘ ─ U ─── └─────────┘ ── U† ── … ─ └─────┘ ───── ⟨0|
        system   |0⟩ ─ B ─────────── U ────────────────── U† ── … ─────────────── amplitudes

    B prepares the state. U and U† take turns; for a reflection they are the same. The signal
    qubit runs the sequence with φ and with -φ at once and adds them up, which leaves the real
    part (Gilyén et al. 2018, corollary 18).
    """

    def circuit(self, encoding: Any, transform: Any, state: np.ndarray) -> cirq.Circuit:
        """The circuit on `cirq.LineQubit`s, without measurements."""
        return self._circuit(encoding, transform, state, fused=encoding.dense)

    def run(self, encoding: Any, transform: Any, state: np.ndarray, dtype: str) -> Outcome:
        """Simulates the circuit from |0…0⟩ and reads the state vector, without shots."""
        fused = encoding.dense or encoding.qubits <= FUSED_QUBITS
        circuit = self._circuit(encoding, transform, state, fused)
        # All qubits are entangled from the first moments on: factoring the state is lost time.
        simulator = cirq.Simulator(dtype=np.dtype(dtype).type, split_untangled_states=False)
        qubits = cirq.LineQubit.range(1 + encoding.qubits)
        vector = simulator.simulate(circuit, qubit_order=qubits).final_state_vector
        kept = vector[: len(state)].astype(np.complex128)
        return Outcome(
            amplitudes=kept.real,
            success_probability=float(np.vdot(kept, kept).real),
            qubits=len(qubits),
            operations=sum(len(moment) for moment in circuit),
        )

    def _circuit(
        self, encoding: Any, transform: Any, state: np.ndarray, fused: bool
    ) -> cirq.Circuit:
        signal, *wires = cirq.LineQubit.range(1 + encoding.qubits)
        ancillas, system = wires[: encoding.ancillas], wires[encoding.ancillas :]
        if fused:
            matrix = encoding.unitary()
            prepare = _matrix(first_column(state), system)
            encode = _matrix(matrix, wires)
            decode = encode if encoding.hermitian else _matrix(matrix.conj().T, wires)
        else:
            gates = encoding.gates()
            prepare = operations(preparation(range(len(system))), system, preparation_angles(state))
            encode = operations(gates, wires, encoding.angles)
            decode = (
                encode if encoding.hermitian else operations(inverse(gates), wires, encoding.angles)
            )
        moments = [*cirq.Circuit(prepare), cirq.Moment(cirq.H(signal))]
        encode, decode = list(cirq.Circuit(encode)), list(cirq.Circuit(decode))
        phases = transform.phases
        for k in range(len(phases) - 1, -1, -1):
            rotation = operations(
                projector_phase(encoding.ancillas, phases[k]), [signal, *ancillas], phases
            )
            moments += [cirq.Moment(op) for op in rotation]
            if k:
                moments += encode if (len(phases) - 1 - k) % 2 == 0 else decode
        moments.append(cirq.Moment(cirq.H(signal)))
        return cirq.Circuit(moments)


def operations(
    gates: Sequence[Gate], wires: Sequence[cirq.Qid], angles: np.ndarray
) -> list[cirq.Operation]:
    """Gates as Cirq's operations, wire w at ``wires[w]``."""
    return [_operation(gate, wires, angle_of(gate, angles)) for gate in gates]


def _operation(gate: Gate, wires: Sequence[cirq.Qid], angle: float) -> cirq.Operation:
    if gate.kind == "zz":
        made: cirq.Gate = cirq.ZZPowGate(exponent=angle / np.pi, global_shift=-0.5)
    elif gate.kind in ("ry", "rz"):
        made = {"ry": cirq.ry, "rz": cirq.rz}[gate.kind](angle)
    else:
        made = {"h": cirq.H, "x": cirq.X, "z": cirq.Z, "swap": cirq.SWAP}[gate.kind]
    operation = made.on(*(wires[q] for q in gate.qubits))
    if not gate.controls:
        return operation
    controls = [wires[q] for q in gate.controls]
    return operation.controlled_by(*controls, control_values=gate.values)


def _matrix(matrix: np.ndarray, wires: Sequence[cirq.Qid]) -> cirq.Operation:
    return cirq.MatrixGate(matrix, unitary_check=False).on(*wires)


def first_column(state: np.ndarray) -> np.ndarray:
    """An orthogonal matrix whose first column is the real unit vector `state`.

    A Householder reflection of the first basis vector to ``-sign(state[0]) · state``, negated
    where needed: that choice of sign never subtracts nearly equal numbers.
    """
    sign = 1.0 if state[0] >= 0 else -1.0
    v = np.array(state, np.float64)
    v[0] += sign
    reflection: np.ndarray = 2 * np.outer(v, v) / (v @ v) - np.eye(len(v))
    return sign * reflection
