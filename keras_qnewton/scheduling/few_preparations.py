"""A cost model for right-hand sides that are dear to prepare: Low & Su's joint rate."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_number
from keras_qnewton.registry import register
from keras_qnewton.scheduling.cost import CostModel
from keras_qnewton.scheduling.numbers import float64, log2
from keras_qnewton.scheduling.sparse_oracle import SparseOracleCost
from keras_qnewton.types import Scalar


@register("cost", "few_preparations")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class FewPreparationsQLSA(SparseOracleCost):
    """seconds = gate_time · (Q · d · log₂ N + P · S), S the layers of one preparation of |b⟩.

        Q = κ L (log₂ L + log₂(1/ε)),    L = log₂(1/p)          queries to a block encoding of A
        P = 1/√p                                                preparations of |b⟩

    √p = ‖A⁻¹b‖ / (‖A⁻¹‖ ‖b‖) is between 1/κ and 1. Other algorithms prepare |b⟩ with each of their
    queries. This one has the fewest preparations that there can be, for queries that are more by
    two logarithms.

    G. H. Low and Y. Su, "Quantum linear system algorithm with optimal queries to initial state
    preparation" (2024), arXiv:2410.18178. It is asymptotic: Θ and O with every constant set to 1,
    logarithms to base 2, and p at most 1/2. So it compares with `AsymptoticQLSA`, whose
    preparations are those of Costa et al., and not with models that count constants.

    Args:
        epsilon: ε, accuracy of the solution, in (0, 1).
        success_probability: p, in (0, 1]; None for the least that there is, 1/κ².
        readout: See `QuantumCost`.
        preparation: See `QuantumCost`; True here.
        parallel: See `QuantumCost`.
        setup: See `QuantumCost`.

    Raises:
        ValueError: See `QuantumCost`, and if `success_probability` is not as described.
    """

    def __init__(
        self,
        epsilon: float = 1e-4,
        success_probability: float | None = None,
        readout: bool = False,
        preparation: bool = True,
        parallel: int = 1,
        setup: bool | CostModel = False,
    ) -> None:
        super().__init__(epsilon, readout, preparation, parallel, setup)
        wanted = "None, or a number above 0 and at most 1"
        self.success_probability = (
            None
            if success_probability is None
            else check_number("success_probability", success_probability, wanted, most=1.0)
        )

    def charged_queries(self, condition_number: Scalar) -> tf.Tensor:
        """Q, scalar float64; of an encoding at α = ‖A‖₂."""
        return self._queries(condition_number, self._probability(condition_number))

    def preparations(self, condition_number: Scalar) -> tf.Tensor:
        """P, scalar float64; κ without α."""
        return 1 / tf.sqrt(self._probability(condition_number))

    def state_layers(
        self, size: Scalar, condition_number: Scalar, sparsity: Scalar, resolved: Scalar
    ) -> tf.Tensor:
        """See `QuantumCost`; p is of κ itself, since no α makes the solution shorter."""
        queries = self._queries(resolved, self._probability(condition_number))
        depth = self._gates(size, sparsity, queries)
        return self._layers(size, depth, self.preparations(condition_number))

    def _queries(self, resolved: Scalar, p: tf.Tensor) -> tf.Tensor:
        """Q at ακ, scalar float64."""
        long = log2(1 / p)
        return float64(resolved) * long * (log2(long) + log2(1 / float64(self.epsilon)))

    def _probability(self, condition_number: Scalar) -> tf.Tensor:
        """p, at most 1/2."""
        known = self.success_probability
        p = 1 / tf.square(float64(condition_number)) if known is None else float64(known)
        return tf.minimum(p, 0.5)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "success_probability": self.success_probability}
