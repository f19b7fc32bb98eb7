"""A perfect circuit's amplitudes, at any N: the polynomial by products with the matrix."""

from __future__ import annotations

import numpy as np

from keras_qnewton.solvers.quantum.backends import Circuit, Outcome
from keras_qnewton.solvers.quantum.backends.sampling import AmplitudeSampling
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.polynomial import clenshaw
from keras_qnewton.solvers.quantum.transforms import Transform


class Backend(AmplitudeSampling):
    """``sign · s · p(H/α) |ψ⟩`` by Clenshaw's recurrence: degree products with H, no circuit.

    In double precision, whatever `dtype` says. `operations` counts products with H. Of the
    encoding it needs H and α alone, no gates and no unitary (but making a `Dilation` is an
    eigendecomposition).
    """

    def circuit(self, encoding: BlockEncoding, transform: Transform, state: np.ndarray) -> Circuit:
        """There is none.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "The backend 'emulator' has no circuit: it applies the circuit's polynomial by "
            "matrix products. Use backend='cirq'."
        )

    def run(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray, dtype: str
    ) -> Outcome:
        """The amplitudes of a circuit without errors."""
        del dtype
        scaled = encoding.matrix / encoding.alpha
        factor = transform.sign * transform.scale
        amplitudes = factor * clenshaw(transform.coefficients, lambda v: scaled @ v, state)
        return Outcome(
            amplitudes=amplitudes,
            success_probability=float(amplitudes @ amplitudes),
            qubits=1 + encoding.qubits,
            operations=transform.degree,
        )
