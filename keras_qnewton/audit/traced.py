"""The functions that are compared: the model's own loss and gradient, and the package's H v."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature import Blocks, ExactHessian
from keras_qnewton.loss import record

# A tensor, an array, or a structure of them as Keras models take and return it.
Data: TypeAlias = Any
# A Keras loss, or a function of (y, y_pred).
LossFunction: TypeAlias = keras.losses.Loss | Callable[[Data, Data], tf.Tensor]
Loss: TypeAlias = str | LossFunction


def loss_of(
    model: keras.Model,
    x: Data,
    y: Data,
    sample_weight: Data | None,
    loss: Loss | None,
    training: bool,
) -> Callable[[], tf.Tensor]:
    takes_training = "training" in inspect.signature(model.call).parameters
    options = {"training": training} if takes_training else {}
    function = keras.losses.get(loss) if isinstance(loss, str) else loss

    def loss_fn() -> tf.Tensor:
        predictions = model(x, **options)
        if function is None:
            return model.compute_loss(
                x=x, y=y, y_pred=predictions, sample_weight=sample_weight, training=training
            )
        value = tf.reduce_mean(_weighted(function, y, predictions, sample_weight))
        return value + sum(tf.cast(v, value.dtype) for v in model.losses)

    return loss_fn


def _weighted(
    function: LossFunction, y: Data, predictions: Data, sample_weight: Data | None
) -> tf.Tensor:
    if sample_weight is None:
        return function(y, predictions)
    if not isinstance(function, keras.losses.Loss):
        function = _FunctionLoss(function, predictions.dtype.name)
    return function(y, predictions, sample_weight=sample_weight)


class _FunctionLoss(keras.losses.Loss):
    """A function of (y, y_pred) as a loss that takes sample weights."""

    def __init__(self, function: LossFunction, dtype: str):
        super().__init__(name="weighted", dtype=dtype)
        self._function = function

    def call(self, y_true: Data, y_pred: Data) -> tf.Tensor:
        return self._function(y_true, y_pred)


def traced_values(
    loss_fn: Callable[[], tf.Tensor], variables: Sequence[tf.Variable]
) -> tf.types.experimental.ConcreteFunction:
    """A function without arguments: the loss and its gradient, by the model's own operations."""

    @tf.function(autograph=False)
    def values() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss = loss_fn()
        return loss, tape.gradient(loss, variables, unconnected_gradients="zero")

    return values.get_concrete_function()


def traced_product(
    loss_fn: Callable[[], tf.Tensor], variables: Sequence[tf.Variable]
) -> tf.types.experimental.ConcreteFunction:
    """H v as the package computes it."""

    @tf.function(autograph=False)
    def product(*vectors: tf.Tensor) -> list[tf.Tensor]:
        loss = record(loss_fn, variables)
        at = ExactHessian().at(loss, loss.at_variables(), Blocks("full").split(variables))
        return at.unflatten(at.product(at.flatten(vectors)))

    return product.get_concrete_function(*[tf.TensorSpec(v.shape, v.dtype) for v in variables])
