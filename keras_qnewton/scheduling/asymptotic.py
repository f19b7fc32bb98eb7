"""The paper's cost model: the asymptotic gate count of a quantum linear solver."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.scheduling.cost import QuantumCost
from keras_qnewton.scheduling.numbers import float64, log2
from keras_qnewton.types import Scalar


@register("cost", "asymptotic")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class AsymptoticQLSA(QuantumCost):
    """seconds = gate_time · d · κ · log₂(N·κ/ε).

    The scaling of the best quantum linear system algorithms with every constant set to 1:
    an optimistic lower end, thousands of times below what `DetailedQLSA` counts. Neither is
    the cost of a circuit that a simulator runs here: that is `CircuitQLSA`.

    Args:
        epsilon: ε, accuracy of the solution, in (0, 1).
        readout: See `QuantumCost`. The paper leaves this out.
        preparation: See `QuantumCost`; κ log₂(1/ε) preparations, the scaling of Costa et al.
            2022 (PRX Quantum 3, 040303). The paper leaves this out, too.
        parallel: See `QuantumCost`.
        setup: See `QuantumCost`.

    Raises:
        ValueError: See `QuantumCost`.
    """

    def depth(self, size: Scalar, condition_number: Scalar, sparsity: Scalar) -> tf.Tensor:
        """d · κ · log₂(N·κ/ε) gates, one after the other; scalar float64."""
        n, kappa = float64(size), float64(condition_number)
        return float64(sparsity) * kappa * log2(n * kappa / float64(self.epsilon))

    def preparations(self, condition_number: Scalar) -> tf.Tensor:
        """κ log₂(1/ε), scalar float64."""
        return float64(condition_number) * log2(1 / float64(self.epsilon))
