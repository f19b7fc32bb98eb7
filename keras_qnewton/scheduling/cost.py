"""The interface of cost models, and the terms that all quantum ones share.

Cost models are written in TensorFlow ops on float64, so that a choice made inside a training
graph, where κ and d are tensors, is the one that the same numbers give eagerly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_count
from keras_qnewton.registry import Policy
from keras_qnewton.types import Scalar

# From (size, condition_number, sparsity, gate_time) to seconds.
CostFunction = Callable[[Scalar, Scalar, Scalar, Scalar], Scalar]


@runtime_checkable
class CostModel(Protocol):
    """Predicts how long one solve of an `[N, N]` symmetric system takes."""

    def seconds(
        self, size: Scalar, condition_number: Scalar, sparsity: Scalar, gate_time: Scalar
    ) -> tf.Tensor:
        """Predicted seconds, scalar float64.

        Args:
            size: N, an int or a scalar tensor.
            condition_number: κ₂, a float or a scalar tensor; a model may ignore it.
            sparsity: d, the largest number of non-zeros in a row; int or scalar tensor.
            gate_time: Seconds a quantum gate takes; classical models ignore it.
        """
        ...


class QuantumCost(Policy):
    """Base of the quantum cost models, with the switches for the work around the solve.

        seconds = gate_time · (G + P · S) · max(1, R / parallel)

        G   layers of gates of one state |x⟩, by `depth`
        S   layers of one preparation of |b⟩, `preparation_depth`; 0 without `preparation`
        P   preparations for one state |x⟩, by `preparations`
        R   states |x⟩ that are needed: `readout_repetitions` with `readout`, else 1

    Args:
        epsilon: ε, accuracy of the solution, in (0, 1).
        readout: Whether to charge for reading all N amplitudes.
        preparation: Whether to charge for preparing |b⟩.
        parallel: How many circuits run, and query the matrix, at the same time. The queries of
            one circuit wait for each other; only those of different shots can be made in
            parallel, so that this matters with `readout` alone.

    Raises:
        ValueError: If `epsilon` is not between 0 and 1, or `parallel` not a positive integer.
    """

    def __init__(
        self,
        epsilon: float = 1e-4,
        readout: bool = False,
        preparation: bool = False,
        parallel: int = 1,
    ) -> None:
        self._epsilon = check_epsilon(epsilon)
        self._set_switches(readout, preparation, parallel)

    def _set_switches(self, readout: bool, preparation: bool, parallel: int) -> None:
        self.readout = bool(readout)
        self.preparation = bool(preparation)
        self.parallel = check_count("parallel", parallel)

    @property
    def epsilon(self) -> float:
        """ε."""
        return self._epsilon

    def depth(self, size: Scalar, condition_number: Scalar, sparsity: Scalar) -> tf.Tensor:
        """G, scalar float64; arguments as in `CostModel.seconds`."""
        raise NotImplementedError

    def preparations(self, condition_number: Scalar) -> tf.Tensor:
        """P, scalar float64."""
        raise NotImplementedError

    def seconds(
        self, size: Scalar, condition_number: Scalar, sparsity: Scalar, gate_time: Scalar
    ) -> tf.Tensor:
        """Predicted seconds of one solve, scalar float64; see `CostModel.seconds`."""
        layers = self.depth(size, condition_number, sparsity)
        if self.preparation:
            layers += self.preparations(condition_number) * preparation_depth(size)
        once = float64(gate_time) * layers
        if not self.readout:
            return once
        return once * tf.maximum(readout_repetitions(size, self.epsilon) / self.parallel, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {
            "epsilon": self.epsilon,
            "readout": self.readout,
            "preparation": self.preparation,
            "parallel": self.parallel,
        }


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

    def __init__(self, function: CostFunction) -> None:
        if not callable(function):
            raise ValueError(
                f"Argument `function` must be callable. Received: function={function!r}"
            )
        self.function = function

    def seconds(
        self, size: Scalar, condition_number: Scalar, sparsity: Scalar, gate_time: Scalar
    ) -> tf.Tensor:
        """The function's value, scalar float64."""
        return float64(self.function(size, condition_number, sparsity, gate_time))

    def get_config(self) -> dict[str, Any]:
        return {"function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FunctionCost:
        return cls(keras.saving.deserialize_keras_object(config["function"]))


def float64(value: Scalar) -> tf.Tensor:
    """`value` as a float64 tensor, whatever number or tensor it was."""
    if tf.is_tensor(value):
        return tf.cast(value, tf.float64)
    # `tf.cast` would make a float32 of a Python float first.
    return tf.constant(float(value), tf.float64)


def log2(value: tf.Tensor) -> tf.Tensor:
    """Binary logarithm."""
    return tf.math.log(value) / tf.math.log(tf.constant(2.0, tf.float64))


def readout_repetitions(size: Scalar, epsilon: float) -> tf.Tensor:
    """N/ε²: how often the state must be prepared to read all N amplitudes to ε.

    Each run of the circuit ends in one sample of one basis state; estimating N amplitudes to
    an ℓ₂ error ε from samples takes of the order of N/ε² of them.
    """
    return float64(size) / epsilon**2


def qubits(size: Scalar) -> tf.Tensor:
    """n = ⌈log₂ N⌉, at least 1, scalar float64."""
    # log₂ of a power of two must not be rounded up.
    return tf.maximum(tf.math.ceil(log2(float64(size)) - 1e-9), 1.0)


def preparation_depth(size: Scalar) -> tf.Tensor:
    """2^(n+1) - n - 2 layers of gates, scalar float64: |b⟩ from N numbers.

    The tree of multiplexed rotations that our circuits begin with (Möttönen et al. 2004,
    arXiv:quant-ph/0407010), each rotation and CNOT a layer. A state without structure takes of
    the order of N layers without ancillas.
    """
    n = qubits(size)
    return tf.pow(tf.constant(2.0, tf.float64), n + 1) - n - 2


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
