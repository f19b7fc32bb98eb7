"""What published query counts are charged with here: the oracle of a d-sparse matrix."""

from __future__ import annotations

import abc
from typing import Any

import tensorflow as tf

from keras_qnewton.scheduling.cost import QuantumCost
from keras_qnewton.scheduling.numbers import float64, log2
from keras_qnewton.types import Scalar


class SparseOracleCost(QuantumCost):
    """seconds = gate_time · Q · d · log₂ N, Q the queries to a block encoding of A.

    A query is charged the gates of a d-sparse oracle up to a constant. Such an oracle encodes A at
    α = d max|a| (Gilyén et al. 2018, arXiv:1806.01838, lemma 48). The scheduler measures it. A
    system of one unknown is charged as one of two, and each query two preparations, those of a
    reflection about |b⟩. Arguments are `QuantumCost`'s.
    """

    @abc.abstractmethod
    def charged_queries(self, condition_number: Scalar) -> tf.Tensor:
        """Q, scalar float64; ακ for an encoding at another α than ‖A‖₂."""

    @property
    def encoding(self) -> str:
        """The sparse oracle's, of no circuit here."""
        return "sparse_oracle"

    def measured(
        self, matrix: tf.Tensor, norm: tf.Tensor, condition_number: tf.Tensor, sparsity: tf.Tensor
    ) -> dict[str, Any]:
        """See `QuantumCost.measured`: α = d max|a|/‖A‖₂, at least 1, too."""
        found = super().measured(matrix, norm, condition_number, sparsity)
        largest = tf.reduce_max(tf.abs(tf.cast(matrix, tf.float64)))
        alpha = float64(sparsity) * tf.math.divide_no_nan(largest, norm)
        return {**found, "alpha": tf.maximum(alpha, 1.0)}

    def depth(self, size: Scalar, condition_number: Scalar, sparsity: Scalar) -> tf.Tensor:
        """Q · d · log₂ N gates, one after the other; scalar float64."""
        return self._gates(size, sparsity, self.charged_queries(condition_number))

    def preparations(self, condition_number: Scalar) -> tf.Tensor:
        """2 Q, scalar float64."""
        return 2 * self.charged_queries(condition_number)

    def _gates(self, size: Scalar, sparsity: Scalar, queries: tf.Tensor) -> tf.Tensor:
        """Of so many queries, scalar float64."""
        return queries * float64(sparsity) * log2(tf.maximum(float64(size), 2.0))
