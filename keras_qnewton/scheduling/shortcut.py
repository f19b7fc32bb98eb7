"""A cost model of the shortcut to a quantum linear solver: kernel reflection."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_number, check_switch
from keras_qnewton.registry import register
from keras_qnewton.scheduling.cost import CostModel
from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.scheduling.sparse_oracle import SparseOracleCost
from keras_qnewton.types import Scalar


@register("cost", "shortcut")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class ShortcutQLSA(SparseOracleCost):
    """seconds = gate_time · Q · d · log₂ N, Q the queries to a block encoding of A.

        norm known      Q = κ ln(2√2/ε) · (1 + r²)² / 4r²
        unknown         Q = 56 κ + 1.05 κ ln(√(1 - ε²)/ε)

    A. M. Dalzell, "A shortcut to an optimal quantum linear system solver" (2024), arXiv:2406.12086:
    leading terms of its proven bounds, o(κ) left out. The known norm is an estimate t of ‖x‖, in
    training that of the last step's solution; r is ‖x‖/t, and a wrong t lowers the success
    probability. A query is charged as `DetailedQLSA` charges it, α = d max|a| included. The
    circuit is `solvers.Shortcut`, whose run with a known norm makes these queries within two;
    `CircuitQLSA` has the price of its layers.

    Args:
        epsilon: ε, accuracy of the solution, in (0, 1).
        known_norm: Whether t is at hand.
        norm_ratio: r, a positive number; not used if the norm is unknown.
        readout: See `QuantumCost`.
        preparation: See `QuantumCost`; two preparations a query, of a reflection about |b⟩.
        parallel: See `QuantumCost`.
        setup: See `QuantumCost`.

    Raises:
        ValueError: If an argument is not as described.
    """

    def __init__(
        self,
        epsilon: float = 1e-4,
        known_norm: bool = True,
        norm_ratio: float = 1.0,
        readout: bool = False,
        preparation: bool = False,
        parallel: int = 1,
        setup: bool | CostModel = False,
    ) -> None:
        super().__init__(epsilon, readout, preparation, parallel, setup)
        self.known_norm = check_switch("known_norm", known_norm)
        self.norm_ratio = check_number("norm_ratio", norm_ratio, "a positive number")

    def queries(self, condition_number: Scalar) -> tf.Tensor:
        """Q, scalar float64; ακ for an encoding at another α than ‖A‖₂."""
        kappa, epsilon = float64(condition_number), float64(self.epsilon)
        if self.known_norm:
            square = self.norm_ratio**2
            wrong = (1 + square) ** 2 / (4 * square)
            return kappa * tf.math.log(2 * math.sqrt(2) / epsilon) * wrong
        root = tf.sqrt(1 - epsilon**2)
        return kappa * (56 + 1.05 * tf.math.log(root / epsilon))

    def charged_queries(self, condition_number: Scalar) -> tf.Tensor:
        """Q, of `queries`; scalar float64."""
        return self.queries(condition_number)

    def get_config(self) -> dict[str, Any]:
        own = {"known_norm": self.known_norm, "norm_ratio": self.norm_ratio}
        return {**super().get_config(), **own}
