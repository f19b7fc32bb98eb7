"""A perfect circuit's amplitudes, at any N: the polynomial at the matrix's eigenvalues."""

from __future__ import annotations

import numpy as np

from keras_qnewton.solvers.quantum.backends import Circuit, Outcome
from keras_qnewton.solvers.quantum.backends.sampling import AmplitudeSampling
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.polynomial import clenshaw
from keras_qnewton.solvers.quantum.transforms import Transform


class Backend(AmplitudeSampling):
    """``sign · s · p(H/α) |ψ⟩`` by H's eigenvectors, and p by Clenshaw's recurrence: no circuit.

    In double precision, whatever `dtype` says. `operations` counts the circuit's calls of the
    encoding. Of that it needs H, its spectrum and α alone, no gates and no unitary.
    """

    _evaluated: tuple[BlockEncoding, Transform, np.ndarray] | None = None

    def circuit(self, encoding: BlockEncoding, transform: Transform, state: np.ndarray) -> Circuit:
        """There is none.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "The backend 'emulator' has no circuit: it applies the circuit's polynomial to "
            "eigenvalues. Use backend='cirq'."
        )

    def run(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray, dtype: str
    ) -> Outcome:
        """The amplitudes of a circuit without errors."""
        del dtype
        numbers = self._numbers(encoding, transform)
        amplitudes = encoding.spectrum.applied(numbers, state)
        return Outcome(
            amplitudes=amplitudes,
            success_probability=float(amplitudes @ amplitudes),
            qubits=1 + encoding.qubits,
            operations=transform.degree,
        )

    def _numbers(self, encoding: BlockEncoding, transform: Transform) -> np.ndarray:
        """``sign · s · p`` at the eigenvalues of H/α, which all runs of a refinement share."""
        known = self._evaluated
        if known is None or known[0] is not encoding or known[1] is not transform:
            at = encoding.spectrum.values / encoding.alpha
            found = clenshaw(transform.coefficients, lambda v: at * v, np.ones_like(at))
            known = encoding, transform, transform.sign * transform.scale * found
            self._evaluated = known
        return known[2]
