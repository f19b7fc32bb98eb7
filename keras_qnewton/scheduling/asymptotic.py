"""The paper's cost model: the asymptotic gate count of a quantum linear solver."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.registry import Policy, register
from keras_qnewton.scheduling.cost import check_epsilon, float64, log2, readout_repetitions


@register("cost", "asymptotic")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class AsymptoticQLSA(Policy):
    """seconds = gate_time · d · κ · log₂(N·κ/ε).

    The scaling of the best quantum linear system algorithms with every constant set to 1:
    an optimistic lower end, thousands of times below what `DetailedQLSA` counts. Neither is
    the cost of a circuit that a simulator runs here.

    Args:
        epsilon: ε, accuracy of the solution, in (0, 1).
        readout: Whether to charge for reading the solution out: time × N/ε² repetitions.
            The paper leaves this out.

    Raises:
        ValueError: If `epsilon` is not between 0 and 1.
    """

    def __init__(self, epsilon: float = 1e-4, readout: bool = False) -> None:
        self.epsilon = check_epsilon(epsilon)
        self.readout = bool(readout)

    def seconds(self, size: Any, condition_number: Any, sparsity: Any, gate_time: Any) -> tf.Tensor:
        """Predicted seconds of one solve, scalar float64; see `CostModel.seconds`."""
        n, kappa = float64(size), float64(condition_number)
        gates = float64(sparsity) * kappa * log2(n * kappa / self.epsilon)
        once = float64(gate_time) * gates
        return once * readout_repetitions(size, self.epsilon) if self.readout else once

    def get_config(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon, "readout": self.readout}
