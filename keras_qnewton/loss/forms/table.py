"""The table of forms, and what makes one of an operation that is linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

# From an operation and its inputs' new values to its outputs'.
Form: TypeAlias = Callable[[tf.Operation, list[Any]], list[Any]]
# By type of the operation.
FORMS: dict[str, Form] = {}

_Function: TypeAlias = Callable[..., tf.Tensor]


def form(*types: str) -> Callable[[Form], Form]:
    """Decorator: operations of these types are run again by this function."""

    def add(function: Form) -> Form:
        FORMS.update(dict.fromkeys(types, function))
        return function

    return add


def adjoint_pair(forward: _Function, adjoint: _Function) -> tuple[_Function, _Function]:
    """A linear function A and its transpose, each the derivative of the other.

    Args:
        forward: A x of `(x, *constants)`.
        adjoint: Aᵀ u of `(u, x, *constants)`; of x the shape and dtype count.

    Returns:
        The same two functions, differentiable any number of times in x and in u.
    """

    @tf.custom_gradient
    def apply(x: tf.Tensor, *constants: tf.Tensor) -> tuple[tf.Tensor, Any]:
        nothing = [None] * len(constants)
        return forward(x, *constants), lambda u: [transposed(u, x, *constants), *nothing]

    @tf.custom_gradient
    def transposed(u: tf.Tensor, x: tf.Tensor, *constants: tf.Tensor) -> tuple[tf.Tensor, Any]:
        nothing = [None] * (1 + len(constants))
        return adjoint(u, x, *constants), lambda v: [apply(v, *constants), *nothing]

    return apply, transposed
