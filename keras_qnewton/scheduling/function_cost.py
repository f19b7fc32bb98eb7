"""Any callable as a cost model, and what a model is told of a matrix."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.registry import Policy
from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.types import Scalar

# From (size, condition_number, sparsity, gate_time), and maybe more by name, to seconds.
CostFunction = Callable[..., Scalar]
# What a matrix is measured for; see `CostModel.seconds`.
MEASURED = ("alpha", "success", "layers", "encoding", "rows")
# What Python and NumPy raise for a tensor that has no value while a graph is traced.
_NO_VALUE = (TypeError, NotImplementedError, AttributeError, ValueError)


@keras.saving.register_keras_serializable(package="keras_qnewton")
class FunctionCost(Policy):
    """A user's own model as a callable.

    Args:
        function: From (size, condition_number, sparsity, gate_time) to seconds, see
            `CostModel.seconds`. In TensorFlow operations, or arithmetic that tensors understand, it
            stays in the graph; one that needs numbers (`math`, NumPy, a table) is called on the
            host, and then the graph does not export. To be saved it must be registered with
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
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        gate_time: Scalar,
        **measured: Any,
    ) -> tf.Tensor:
        """The function's value, scalar float64; `measured` as far as it has such arguments."""
        given = (size, condition_number, sparsity, gate_time)
        wanted = completed(self.function, measured)
        try:
            seconds = self.function(*given, **wanted)
            if seconds is None:
                raise ValueError(
                    "Argument `cost` must return seconds, a number. "
                    f"Received: None from {self.function!r}"
                )
            return float64(seconds)
        except _NO_VALUE:
            if tf.executing_eagerly():
                raise
            return _on_host(self.function, given, wanted)

    def get_config(self) -> dict[str, Any]:
        return {"function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FunctionCost:
        return cls(keras.saving.deserialize_keras_object(config["function"]))


def accepted(
    function: Callable[..., Any], measured: Mapping[str, Any], positional: int = 4
) -> dict[str, Any]:
    """Those of `measured` that `function` has an argument for, beside the `positional` ones."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return dict(measured)
    # The first are positional, whatever they are called.
    names = {p.name for p in list(parameters)[positional:]}
    names |= {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return {name: value for name, value in measured.items() if name in names}


def completed(
    function: Callable[..., Any], measured: Mapping[str, Any], positional: int = 4
) -> dict[str, Any]:
    """`accepted`, and None for what `function` cannot do without and nobody measured."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    required = {
        p.name: None
        for k, p in enumerate(parameters)
        if p.default is p.empty and p.kind in kinds and (k >= positional or p.kind is kinds[1])
    }
    known = {name: None for name in required if name in (*MEASURED, "tolerance")}
    return {**known, **accepted(function, measured, positional)}


def _on_host(
    function: CostFunction, given: tuple[Scalar, ...], measured: Mapping[str, Any]
) -> tf.Tensor:
    """The function's value of numbers, by a host call."""
    texts = {k: value for k, value in measured.items() if value is None or isinstance(value, str)}
    names = [name for name in measured if name not in texts]

    def call(*numbers: np.ndarray) -> np.ndarray:
        size, *others = (value.item() for value in numbers)
        first, rest = others[: len(given) - 1], others[len(given) - 1 :]
        named = dict(zip(names, rest, strict=True))
        return np.asarray(function(int(size), *first, **named, **texts), np.float64)

    values = [float64(value) for value in (*given, *(measured[name] for name in names))]
    return tf.ensure_shape(tf.numpy_function(call, values, tf.float64), [])
