"""A perfect circuit's amplitudes, at any N: the polynomial at the matrix's eigenvalues."""

from __future__ import annotations

import numpy as np

from keras_qnewton.solvers.quantum.backends import Circuit, Outcome
from keras_qnewton.solvers.quantum.backends.sampling import AmplitudeSampling
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.transforms import Transform


class Backend(AmplitudeSampling):
    """``sign · s · p(H/α) |ψ⟩`` by `BlockEncoding.transformed`: no circuit, no gates, no unitary.

    In double precision, whatever `dtype` says. `operations` counts the circuit's calls of the
    encoding.
    """

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
        found = encoding.transformed(transform.polynomial, state)
        amplitudes = transform.sign * transform.scale * found
        return Outcome(
            amplitudes=amplitudes,
            success_probability=float(amplitudes @ amplitudes),
            qubits=1 + encoding.qubits,
            operations=transform.degree,
        )
