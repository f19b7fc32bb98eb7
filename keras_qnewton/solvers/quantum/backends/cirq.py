"""QSVT circuits in Cirq: simulated exactly, with noise, or run by any `cirq.Sampler`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_qnewton.solvers.quantum.backends import Outcome
from keras_qnewton.solvers.quantum.backends.choice import FUSED_QUBITS
from keras_qnewton.solvers.quantum.backends.sampling import AmplitudeSampling
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    angle_of,
    inverse,
    preparation,
    preparation_angles,
    projector_phase,
)
from keras_qnewton.solvers.quantum.transforms import Transform

try:
    import cirq
except ImportError as error:  # pragma: no cover - cirq-core is a dependency
    raise ImportError("The backend 'cirq' needs Cirq: run `pip install cirq-core`.") from error

# Qubits up to which a density matrix fits (16 MiB at 10).
_DENSITY_QUBITS = 10
_KEY = "result"


@keras.saving.register_keras_serializable(package="keras_qnewton", name="CirqBackend")
class Backend(AmplitudeSampling):
    """One signal qubit, a block encoding ancillas, n system qubits; most significant first.

        signal   |0⟩ ─ H ─ ┌ φ_d ┐ ─────── ┌ φ_{d-1} ┐ ──────── … ─ ┌ φ_0 ┐ ─ H ─ ⟨0|
        ancillas |0⟩ ───── └─────┘ ─ U ─── └─────────┘ ── U† ── … ─ └─────┘ ───── ⟨0|
        system   |0⟩ ─ B ─────────── U ────────────────── U† ── … ─────────────── amplitudes

    B prepares the state. U and U† take turns; for a reflection they are the same. The signal
    qubit runs the sequence with φ and with -φ at once and adds them up, which leaves the real
    part (Gilyén et al. 2018, corollary 18).

    With `noise` or a `sampler`, the circuit is measured: it has gates on one and two qubits, none
    fused to a matrix, and `QSVT` needs ``readout=Shots(...)``.

    Args:
        noise: A `cirq.NoiseModel`, or a gate such as ``cirq.depolarize(1e-3)`` to follow every
            moment on every qubit. Simulated by density matrix, up to 10 qubits.
        sampler: A `cirq.Sampler` that runs the circuits: a simulator, or hardware's engine. With
            `noise` too, it is given noisy circuits.
    """

    def __init__(self, noise: cirq.NOISE_MODEL_LIKE = None, sampler: cirq.Sampler | None = None):
        self.noise = None if noise is None else cirq.NoiseModel.from_noise_model_like(noise)
        if not (sampler is None or isinstance(sampler, cirq.Sampler)):
            raise ValueError(
                f"Argument `sampler` must be a cirq.Sampler. Received: sampler={sampler!r}"
            )
        self.sampler = sampler

    @property
    def exact(self) -> bool:
        """Whether amplitudes are to be had: without noise and sampler."""
        return self.noise is None and self.sampler is None

    def circuit(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray
    ) -> cirq.Circuit:
        """The circuit on `cirq.LineQubit`s, without measurements and noise."""
        return self._circuit(encoding, transform, state, fused=self.exact and encoding.dense)

    def in_gates(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray
    ) -> cirq.Circuit:
        """`circuit` without a matrix: a dense encoding by its gates, too."""
        return self._circuit(encoding, transform, state, fused=False)

    def run(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray, dtype: str
    ) -> Outcome:
        """Simulates the circuit from |0…0⟩ and reads the state vector, without shots."""
        if not self.exact:
            raise ValueError(
                "Argument `readout` must be Shots(...) for a backend with noise or a sampler: "
                "it has counts, no amplitudes. Received: readout='exact'"
            )
        fused = encoding.dense or encoding.qubits <= FUSED_QUBITS
        circuit = self._circuit(encoding, transform, state, fused)
        # All qubits are entangled from the first moments on: factoring the state is lost time.
        simulator = cirq.Simulator(dtype=np.dtype(dtype).type, split_untangled_states=False)
        qubits = cirq.LineQubit.range(1 + encoding.qubits)
        vector = simulator.simulate(circuit, qubit_order=qubits).final_state_vector
        success = vector[: len(state)].astype(np.complex128)
        return Outcome(
            amplitudes=success.real,
            success_probability=float(np.vdot(success, success).real),
            qubits=len(qubits),
            operations=sum(len(moment) for moment in circuit),
        )

    def sample(
        self,
        encoding: BlockEncoding,
        transform: Transform,
        state: np.ndarray,
        shots: int,
        rotated: int | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """See `backends.SamplingBackend`."""
        if self.exact:
            return super().sample(encoding, transform, state, shots, rotated, rng)
        qubits = cirq.LineQubit.range(1 + encoding.qubits)
        last = cirq.Circuit(cirq.measure(*qubits, key=_KEY))
        if rotated is not None:
            turn = cirq.H(qubits[1 + encoding.ancillas + rotated])
            last = cirq.Circuit(turn) + last
        if self.sampler is None:
            return self._drawn(encoding, transform, state, last, shots, rng)
        whole = self._circuit(encoding, transform, state, fused=False) + last
        if self.noise is not None:
            whole = _until_measured(whole.with_noise(self.noise))
        bits = self.sampler.run(whole, repetitions=shots).measurements[_KEY]
        ancillas, system = np.split(bits, [1 + encoding.ancillas], axis=1)
        success = system[~ancillas.any(axis=1)]
        index = success.astype(np.int64) @ (1 << np.arange(encoding.system_qubits)[::-1])
        return np.bincount(index, minlength=len(state))

    def _drawn(
        self,
        encoding: BlockEncoding,
        transform: Transform,
        state: np.ndarray,
        last: cirq.Circuit,
        shots: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Counts from the density matrix, with `last` after the circuit."""
        qubits = cirq.LineQubit.range(1 + encoding.qubits)
        if len(qubits) > _DENSITY_QUBITS:
            raise ValueError(
                f"Argument `sampler` must be given for noise on more than {_DENSITY_QUBITS} "
                f"qubits. Received: sampler=None for a circuit of {len(qubits)} qubits"
            )
        simulator = cirq.DensityMatrixSimulator(dtype=np.complex128)

        def simulate() -> np.ndarray:
            noisy = self._circuit(encoding, transform, state, fused=False).with_noise(self.noise)
            matrix = simulator.simulate(noisy, qubit_order=qubits).final_density_matrix
            # Thousands of channels leave rounding that the simulator would not take back.
            matrix = (matrix + matrix.conj().T) / 2
            return np.asarray(matrix / np.trace(matrix).real)

        before = self._remembered(encoding, transform, state, simulate)
        # Readout noise: gates that the model puts before the measurement.
        *noisy, measured = _until_measured(last.with_noise(self.noise))
        *_, step = simulator.simulate_moment_steps(
            cirq.Circuit(noisy, cirq.identity_each(*qubits)),
            qubit_order=qubits,
            initial_state=before,
        )
        if any(getattr(op.gate, "confusion_map", None) for op in measured):
            raise ValueError(
                "Argument `sampler` must be given for noise with a confusion map, for example "
                "cirq.DensityMatrixSimulator(). Received: sampler=None"
            )
        # A multinomial draw: Cirq's own takes microseconds of Python for each shot.
        probabilities = np.clip(np.diag(step.density_matrix(copy=False)).real, 0, None)
        drawn = rng.multinomial(shots, probabilities / probabilities.sum())
        return drawn[: len(state)]

    def get_config(self) -> dict[str, Any]:
        """JSON of the noise.

        Raises:
            ValueError: With a sampler, a connection that no file can hold.
        """
        if self.sampler is not None:
            raise ValueError(
                "Argument `sampler` must be None for the backend to be saved. "
                f"Received: sampler={self.sampler!r}"
            )
        return {"noise": None if self.noise is None else cirq.to_json(self.noise, indent=None)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Backend:
        noise = config.get("noise")
        return cls(None if noise is None else cirq.read_json(json_text=noise))

    def _circuit(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray, fused: bool
    ) -> cirq.Circuit:
        signal, *wires = cirq.LineQubit.range(1 + encoding.qubits)
        ancillas, system = wires[: encoding.ancillas], wires[encoding.ancillas :]
        if fused:
            matrix = encoding.unitary()
            prepare = _matrix(first_column(state), system, "B")
            encode = _matrix(matrix, wires, "U")
            decode = encode if encoding.hermitian else _matrix(matrix.conj().T, wires, "U†")
        else:
            gates = encoding.gates()
            prepare = operations(preparation(range(len(system))), system, preparation_angles(state))
            encode = operations(gates, wires, encoding.angles)
            decode = (
                encode if encoding.hermitian else operations(inverse(gates), wires, encoding.angles)
            )
        small = not self.exact
        around = [cirq.Moment(cirq.H(signal))]
        moments = [*_moments(prepare, small), *around]
        encode, decode = _moments(encode, small), _moments(decode, small)
        phases = transform.phases
        for k in range(len(phases) - 1, -1, -1):
            rotation = operations(
                projector_phase(encoding.ancillas, phases[k]), [signal, *ancillas], phases
            )
            for op in rotation:
                moments += _moments(op, small)
            if k:
                moments += encode if (len(phases) - 1 - k) % 2 == 0 else decode
        return cirq.Circuit(moments + around)


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


def _until_measured(circuit: cirq.Circuit) -> cirq.Circuit:
    """The circuit up to its measurement: simulators refuse the noise after that."""
    end = next(k for k, moment in enumerate(circuit) if cirq.is_measurement(moment))
    return circuit[: end + 1]


def _moments(made: cirq.OP_TREE, small: bool) -> list[cirq.Moment]:
    """Moments of the operations, if `small` decomposed to one and two qubits each."""
    if small:
        made = cirq.decompose(made, keep=lambda op: cirq.num_qubits(op) <= 2)
    return list(cirq.Circuit(made))


def _matrix(matrix: np.ndarray, wires: Sequence[cirq.Qid], name: str) -> cirq.Operation:
    return cirq.MatrixGate(matrix, name=name, unitary_check=False).on(*wires)


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
