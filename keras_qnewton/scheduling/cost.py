"""What a cost model is, and the term all quantum ones share.

Cost models are written in TensorFlow ops on float64, so that a choice made inside a training
graph, where κ and d are tensors, is the one that the same numbers give eagerly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import keras
import tensorflow as tf

from keras_qnewton.registry import Policy


@runtime_checkable
class CostModel(Protocol):
    """Predicts how long one solve of an `[N, N]` symmetric system takes."""

    def seconds(self, size: Any, condition_number: Any, sparsity: Any, gate_time: Any) -> tf.Tensor:
        """Predicted seconds, scalar float64.

        Args:
            size: N, an int or a scalar tensor.
            condition_number: κ₂, a float or a scalar tensor; a model may ignore it.
            sparsity: d, the largest number of non-zeros in a row; int or scalar tensor.
            gate_time: Seconds a quantum gate takes; classical models ignore it.
        """
        ...


@keras.saving.register_keras_serializable(package="keras_qnewton")
class FunctionCost(Policy):
    """A user's own model as a function.

    Args:
        function: From (size, condition_number, sparsity, gate_time) to seconds, see
            `CostModel.seconds`; written in TensorFlow operations, or at least in arithmetic
            that tensors understand. To be saved it must be registered with
            `keras.saving.register_keras_serializable`.

    Raises:
        ValueError: If it cannot be called.
    """

    def __init__(self, function: Callable[[Any, Any, Any, Any], Any]) -> None:
        if not callable(function):
            raise ValueError(
                f"Argument `function` must be callable. Received: function={function!r}"
            )
        self.function = function

    def seconds(self, size: Any, condition_number: Any, sparsity: Any, gate_time: Any) -> tf.Tensor:
        """What the function gives, scalar float64."""
        return float64(self.function(size, condition_number, sparsity, gate_time))

    def get_config(self) -> dict[str, Any]:
        return {"function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FunctionCost:
        return cls(keras.saving.deserialize_keras_object(config["function"]))


def float64(value: Any) -> tf.Tensor:
    """`value` as a float64 tensor, whatever number or tensor it was."""
    if tf.is_tensor(value):
        return tf.cast(value, tf.float64)
    # `tf.cast` would make a float32 of a Python float first.
    return tf.constant(float(value), tf.float64)


def log2(value: tf.Tensor) -> tf.Tensor:
    """Binary logarithm."""
    return tf.math.log(value) / tf.math.log(tf.constant(2.0, tf.float64))


def readout_repetitions(size: Any, epsilon: float) -> tf.Tensor:
    """N/ε²: how often the state must be prepared to read all N amplitudes to ε.

    Each run of the circuit ends in one sample of one basis state; estimating N amplitudes to
    an ℓ₂ error ε from samples takes of the order of N/ε² of them.
    """
    return float64(size) / epsilon**2


def check_epsilon(epsilon: float) -> float:
    """`epsilon` as a float in (0, 1).

    Raises:
        ValueError: If it is not.
    """
    if isinstance(epsilon, bool) or not 0 < epsilon < 1:
        raise ValueError(
            f"Argument `epsilon` must be an accuracy between 0 and 1. Received: epsilon={epsilon}"
        )
    return float(epsilon)
