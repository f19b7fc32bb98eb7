"""The table of forms, and what makes one of an operation that is linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.raw import here

# From an operation and its inputs' new values to its outputs'.
Form: TypeAlias = Callable[[tf.Operation, list[Any]], list[Any]]
# By type of the operation.
FORMS: dict[str, Form] = {}

_Function: TypeAlias = Callable[..., tf.Tensor]


def form(*types: str) -> Callable[[Form], Form]:
    """Decorator: operations of these types are run again by this function."""

    def add(function: Form) -> Form:
        def run(op: tf.Operation, inputs: list[Any]) -> list[Any]:
            return function(op, [here(t) for t in inputs])

        FORMS.update(dict.fromkeys(types, run))
        return function

    return add


def adjoint_pair(
    forward: _Function, adjoint: _Function, constants: Sequence[tf.Tensor] = ()
) -> tuple[_Function, _Function]:
    """A linear function A and its transpose, each the derivative of the other.

    Args:
        forward: A x of `(x, *constants)`.
        adjoint: Aᵀ u of `(u, x, *constants)`; of x the shape and dtype count.
        constants: What the two take besides.

    Returns:
        A x of x, and Aᵀ u of `(u, x)`, differentiable any number of times in x and in u.
    """
    # Values that are known are no tensors: in a condition, TensorFlow's gradients of gradients do
    # not see those of the branch.
    known = [tf.get_static_value(t) for t in constants]
    free = [t for t, value in zip(constants, known, strict=True) if value is None]

    def all_of(tensors: Sequence[tf.Tensor]) -> list[Any]:
        remaining = iter(tensors)
        return [next(remaining) if value is None else value for value in known]

    @_tf_private.custom_gradient
    def apply(x: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, Any]:
        nothing = [None] * len(others)
        return forward(x, *all_of(others)), lambda u: [transposed(u, x, *others), *nothing]

    @_tf_private.custom_gradient
    def transposed(u: tf.Tensor, x: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, Any]:
        nothing = [None] * (1 + len(others))
        return adjoint(u, x, *all_of(others)), lambda v: [apply(v, *others), *nothing]

    return lambda x: apply(x, *free), lambda u, x: transposed(u, x, *free)
