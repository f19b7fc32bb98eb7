"""Block encodings, one a file: matrices as corners of unitaries.

Each carries α, its ancillas and ε, with the defining inequality and a source in its docstring.
A new one is a subclass of `BlockEncoding` in a file of its own, and a line in `ENCODINGS`.
"""

from __future__ import annotations

from keras_qnewton.solvers.quantum.encodings.base import BlockEncoding, pad, padded_qubits
from keras_qnewton.solvers.quantum.encodings.dilation import Dilation
from keras_qnewton.solvers.quantum.encodings.fable import Fable
from keras_qnewton.solvers.quantum.encodings.frobenius import Frobenius
from keras_qnewton.solvers.quantum.encodings.pauli_lcu import PauliLCU
from keras_qnewton.solvers.quantum.encodings.sparse import Sparse

_BUILT_IN: tuple[type[BlockEncoding], ...] = (
    Dilation,
    Frobenius,
    Sparse,
    PauliLCU,
    Fable,
)
ENCODINGS: dict[str, type[BlockEncoding]] = {cls.name: cls for cls in _BUILT_IN}

__all__ = [
    "ENCODINGS",
    "BlockEncoding",
    "Dilation",
    "Fable",
    "Frobenius",
    "PauliLCU",
    "Sparse",
    "pad",
    "padded_qubits",
]
