"""A second opinion on `resources`: gates as Qualtran counts them (an optional extra)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cirq
import numpy as np

from keras_qnewton.solvers.quantum.backends.cirq import operations
from keras_qnewton.solvers.quantum.gates import Gate, cnot

try:
    from qualtran.cirq_interop import cirq_optree_to_cbloq
    from qualtran.resource_counting import QECGatesCost, get_cost_value
except ImportError as error:  # pragma: no cover - an extra
    raise ImportError(
        "This needs Qualtran: run `python -m pip install '.[resources]'` in the checkout."
    ) from error


def gate_counts(gates: Sequence[Gate], angles: np.ndarray) -> Any:
    """`qualtran.resource_counting.GateCounts` of the gates: t, toffoli, and_bloq, rotation, ...

    Qualtran 0.7 takes a controlled Ry for one rotation and ZZ for three. Ry is therefore given as
    Rz, which differs from it by Clifford gates, and ZZ as Rz between two CNOTs.
    """
    plain: list[Gate] = []
    for gate in gates:
        if gate.kind == "zz":
            first, second = gate.qubits
            turn = gate._replace(kind="rz", qubits=(second,))
            plain += [cnot(first, second), turn, cnot(first, second)]
        else:
            plain.append(gate._replace(kind="rz") if gate.kind == "ry" else gate)
    width = 1 + max(wire for gate in gates for wire in (*gate.qubits, *gate.controls))
    circuit = cirq.Circuit(operations(plain, cirq.LineQubit.range(width), angles))
    return get_cost_value(cirq_optree_to_cbloq(circuit), QECGatesCost())
