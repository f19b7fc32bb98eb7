"""From a user's own `loss_fn`, which takes no argument and reads the variables, to a loss
that is a function of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.in_line import with_calls_in_line
from keras_qnewton.loss.recorded import RecordedLoss


def as_tensors(variables: Sequence[tf.Variable | keras.Variable]) -> list[tf.Variable]:
    """The `tf.Variable`s behind Keras variables; TensorFlow's own are returned as they are.

    Raises:
        ValueError: If `variables` is empty or holds something that is not a variable.
    """
    if isinstance(variables, (tf.Variable, str)) or not isinstance(variables, Sequence):
        variables = [variables]
    out = []
    for v in variables:
        inner = v.value if not isinstance(v, tf.Variable) and hasattr(v, "value") else v
        if not isinstance(inner, tf.Variable):
            raise ValueError(
                "Argument `variables` must be a list of `tf.Variable` or `keras.Variable`. "
                f"Received: variables holding {v!r}"
            )
        out.append(inner)
    if len({id(v) for v in out}) < len(out):
        raise ValueError(
            "Argument `variables` must not hold a variable twice. "
            f"Received: variables={variables!r}"
        )
    if not out:
        raise ValueError("Argument `variables` must not be empty. Received: variables=[]")
    return out


def check_real(variables: Sequence[tf.Variable | keras.Variable]) -> None:
    """Refuses variables that no step can be made of.

    Raises:
        ValueError: If some are not of a floating-point dtype, or have a length that may change, or
            none has any elements; it names them all.
    """
    without_size = [v for v in variables if not tf.TensorShape(v.shape).is_fully_defined()]
    if without_size:
        received = ", ".join(f"{v.name!r} of shape {v.shape}" for v in without_size)
        raise ValueError(
            "Argument `variables` must hold variables of known shapes: the optimizer's state has "
            f"one number or more for each of theirs. Received: {received}"
        )
    if variables and not any(tf.TensorShape(v.shape).num_elements() for v in variables):
        received = ", ".join(f"{v.name!r} of shape {v.shape}" for v in variables)
        raise ValueError(
            "Argument `variables` must hold a variable with elements: there is nothing to train in "
            f"a shape with a length of 0. Received: {received}"
        )
    others = [v for v in variables if not tf.as_dtype(v.dtype).is_floating]
    if not others:
        return
    received = ", ".join(f"{v.name!r} of {tf.as_dtype(v.dtype).name}" for v in others)
    raise ValueError(
        "Argument `variables` must hold real variables, of a floating-point dtype. Make integers "
        "and booleans `trainable=False`, and a complex variable of two real ones, "
        f"`tf.complex(real, imaginary)`. Received: {received}"
    )


def record(loss_fn: Callable[[], tf.Tensor], variables: Sequence[tf.Variable]) -> RecordedLoss:
    """Traces `loss_fn` into the graph being built and records its loss.

    Args:
        loss_fn: Takes no argument, returns a scalar. A `tf.function` is traced in line, so
            that its random operations are drawn once.
        variables: `tf.Variable`s that the loss depends on.

    Raises:
        ValueError: If `loss_fn` is not callable, or a variable not real.
        LossNotReplayableError: See `RecordedLoss`.
    """
    check_real(variables)
    return with_calls_in_line(RecordedLoss(called(loss_fn), variables))


def called(loss_fn: Callable[[], tf.Tensor]) -> tf.Tensor:
    """The loss that `loss_fn()` computes in the graph being built.

    Raises:
        ValueError: If `loss_fn` is not callable without arguments, or does not return one
            tensor of the graph.
    """
    if not callable(loss_fn):
        raise ValueError(
            "Argument `loss_fn` must be a function that takes no argument and returns the loss. "
            f"Received: loss_fn={loss_fn!r}"
        )
    loss = getattr(loss_fn, "python_function", loss_fn)()
    if not tf.is_tensor(loss):
        raise ValueError(
            "Argument `loss_fn` must return the loss as one tensor. "
            f"Received: loss_fn returning {loss!r}"
        )
    return loss


def with_gradients(
    loss_fn: Callable[[], tf.Tensor],
    variables: Sequence[tf.Variable],
    scale: Callable[[tf.Tensor], tf.Tensor],
) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
    """The loss that `loss_fn()` computes, and the gradients of what `scale` makes of it.

    Raises:
        ValueError: See `called`; or if the loss depends on none of the variables.
    """
    with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        loss = called(loss_fn)
        scaled = scale(loss)
    gradients = tape.gradient(scaled, variables)
    if all(g is None for g in gradients):
        raise ValueError(
            "The loss does not depend on any of `variables`. Received: variables="
            f"{[v.name for v in variables]}"
        )
    return loss, gradients
