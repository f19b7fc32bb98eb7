"""A cost model with all constants: the query count of a concrete algorithm."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.scheduling.sparse_oracle import SparseOracleCost
from keras_qnewton.types import Scalar


@register("cost", "detailed")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class DetailedQLSA(SparseOracleCost):
    """seconds = gate_time · E[Q] · d · log₂ N, Q the queries to a block encoding of A.

    Q is the closed upper bound of D. Jennings, M. Lostaglio, S. Pallister, A. Sornborger and
    Y. Subaşı, "Efficient quantum linear solver algorithm with detailed running costs" (2023),
    arXiv:2305.11352. One query is charged d·log₂ N gates, those of a d-sparse oracle up to
    a constant. Such an oracle encodes A at α = d max|a| (Gilyén et al. 2018, arXiv:1806.01838,
    lemma 48), 60 to 90 times ‖A‖₂ for blocks from training. The scheduler measures it, and ακ is
    put for κ. Without it the price is of α = ‖A‖₂, the least there is. A system of one unknown is
    charged as one of two.

    Args:
        epsilon: ε, accuracy of the solution, in (0, 1).
        readout: See `QuantumCost`.
        preparation: See `QuantumCost`; two preparations a query.
        parallel: See `QuantumCost`.
        setup: See `QuantumCost`.

    Raises:
        ValueError: See `QuantumCost`.
    """

    def to(self, tolerance: Scalar) -> DetailedQLSA:
        """See `QuantumCost.to`; at most 0.01, since from there on the bound grows with ε."""
        return super().to(tf.minimum(float64(tolerance), 1e-2))

    def queries(self, condition_number: Scalar, alpha: Scalar = 1.0) -> tf.Tensor:
        """Q*, queries of one run, which succeeds with probability 0.39 - 0.204ε at least.

        Args:
            condition_number: κ, or α/σ_min for an encoding of A/α; at least 1.
            alpha: Normalisation of the block encoding of the matrix scaled to ‖A‖₂ = 1, as the
                source has it. Prices put ακ for κ, as all models here do: that is more by a
                factor of at most log(2ακ + 3)/log(2κ + 3).

        Returns:
            Scalar float64.
        """
        kappa, alpha = float64(condition_number), float64(alpha)
        epsilon = float64(self.epsilon)
        log_kappa = tf.math.log(2 * kappa + 3)
        adiabatic = (
            (1741 * math.e / 500)
            * alpha
            * tf.sqrt(kappa**2 + 1)
            * ((133 / 125 + 4 / (25 * tf.pow(kappa, 1 / 3))) * math.pi * log_kappa + 1)
        )
        phases = 351 / 50 * log_kappa**2
        phases *= tf.math.log(451 * log_kappa**2 / epsilon) + 1
        projection = alpha * kappa * tf.math.log(32 / epsilon)
        return adiabatic + phases + projection

    def expected_queries(self, condition_number: Scalar, alpha: Scalar = 1.0) -> tf.Tensor:
        """Q*/(0.39 - 0.204ε): queries until success, on average; scalar float64."""
        return self.queries(condition_number, alpha) / (0.39 - 0.204 * float64(self.epsilon))

    def charged_queries(self, condition_number: Scalar) -> tf.Tensor:
        """E[Q], those until success; scalar float64."""
        return self.expected_queries(condition_number)
