"""Even functions of a magnitude, which are smooth where it is zero.

    |x|² = x²,  (c |x|)² = (c x)²,  cos |x| = cos x,  |z|² = (Re z)² + (Im z)²

TensorFlow's derivative of |x| is zero at x = 0, and so would be the second one of |x|², which is 2.
So such a function is run again as one of x: the same value and the same first derivative.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.raw import here, raw_op

_EVEN = {"Cos", "Cosh", "L2Loss", "Square"}
# Odd in their first input, and in the second of a product.
_ODD = {"Identity", "Neg", "Mul", "RealDiv"}


def even_argument(op: tf.Operation) -> tf.Tensor | None:
    """The recorded tensor of which an operation is an even function alone; None if it is none."""
    if op.type in _EVEN or (op.type == "Mul" and _is_same(*op.inputs)):
        return op.inputs[0]
    if op.type == "Pow":
        exponent = tf.get_static_value(op.inputs[1])
        if exponent is None or np.iscomplexobj(exponent):
            return None
        return op.inputs[0] if np.all((exponent > 0) & (exponent % 2 == 0)) else None
    return None


def behind_magnitude(argument: tf.Tensor, moving: Collection[str]) -> tf.Tensor:
    """x of an even function's argument c |x|, of a c that does not move; else the argument.

    Args:
        argument: A recorded tensor.
        moving: Names of the tensors that depend on the weights.
    """
    tensor = argument
    while tensor.op.type in _ODD:
        inputs = [t for t in tensor.op.inputs if t.name in moving]
        if len(inputs) != 1 or inputs[0].name not in {t.name for t in _odd_inputs(tensor.op)}:
            return argument
        tensor = inputs[0]
    is_magnitude = tensor.op.type == "Abs" and tensor.op.inputs[0].name in moving
    return tensor.op.inputs[0] if is_magnitude else argument


def run(
    op: tf.Operation, inputs: list[Any], env: Mapping[str, Any], changed: Collection[str]
) -> list[Any] | None:
    """The outputs of an even function of a magnitude, without it; None of anything else.

    Args:
        op: The recorded operation.
        inputs: Its inputs' new values.
        env: By name of a recorded tensor that was run again, its new value.
        changed: Names of those whose value is not what their operation makes of its inputs.
    """
    argument = even_argument(op)
    if argument is None:
        return None
    magnitude = argument.op.type == "ComplexAbs" and argument.name not in changed
    if magnitude and argument.op.inputs[0].name in env:
        return _of_complex(op, inputs, env[argument.op.inputs[0].name])
    signed = _signed(argument, env, changed, {})
    if signed is None:
        return None
    return raw_op(op)([signed, signed] if op.type == "Mul" else [signed, *inputs[1:]])


def _is_same(a: tf.Tensor, b: tf.Tensor) -> bool:
    """Whether two recorded tensors are one, or magnitudes of one."""
    if a.op.type == b.op.type and a.op.type in ("Abs", "ComplexAbs"):
        a, b = a.op.inputs[0], b.op.inputs[0]
    return a.name == b.name


def _odd_inputs(op: tf.Operation) -> list[tf.Tensor]:
    return list(op.inputs[: 2 if op.type == "Mul" else 1])


def _of_complex(op: tf.Operation, inputs: list[Any], z: tf.Tensor) -> list[Any] | None:
    """Of an even function of |z|."""
    square = tf.square(tf.math.real(z)) + tf.square(tf.math.imag(z))
    if op.type in ("Square", "Mul"):
        return [square]
    if op.type == "L2Loss":
        return [tf.reduce_sum(square) / 2]
    exponent = tf.get_static_value(op.inputs[1]) if op.type == "Pow" else None
    if exponent is None:
        return None
    alone = np.ndim(exponent) == 0 and exponent == 2
    return [square] if alone else [tf.pow(square, inputs[1] / 2)]


def _signed(
    tensor: tf.Tensor,
    env: Mapping[str, Any],
    changed: Collection[str],
    known: dict[str, tf.Tensor | None],
) -> tf.Tensor | None:
    """The new value of a recorded tensor, but for the signs of its elements; None without |x|."""
    # Each tensor once: of products of products there are many ways to the same one.
    if tensor.name not in known:
        known[tensor.name] = _made_signed(tensor, env, changed, known)
    return known[tensor.name]


def _made_signed(
    tensor: tf.Tensor,
    env: Mapping[str, Any],
    changed: Collection[str],
    known: dict[str, tf.Tensor | None],
) -> tf.Tensor | None:
    op = tensor.op
    if tensor.name in changed:
        return None
    if op.type == "Abs":
        return env.get(op.inputs[0].name)
    if op.type not in _ODD or tensor.name not in env:
        return None
    parts = {t.name: _signed(t, env, changed, known) for t in _odd_inputs(op)}
    if all(part is None for part in parts.values()):
        return None
    values = [parts.get(t.name) for t in op.inputs]
    pairs = zip(op.inputs, values, strict=True)
    values = [here(env.get(t.name, t)) if value is None else value for t, value in pairs]
    found: tf.Tensor = raw_op(op)(values)[0]
    return found
