"""Hessian blocks and Hessian-vector products of a user's own loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf

from keras_qnewton.curvature.blocks import Block, Blocks, Variable, blocks_of
from keras_qnewton.curvature.fisher import EmpiricalFisher
from keras_qnewton.curvature.gauss_newton import GaussNewton
from keras_qnewton.curvature.hessian import ExactHessian
from keras_qnewton.curvature.memory import available_memory, check_formed
from keras_qnewton.curvature.policy import Curvature
from keras_qnewton.loss import as_tensors, record

_T = TypeVar("_T")


def hessian(
    loss_fn: Callable[[], tf.Tensor], variables: Sequence[Variable], blocks: str | Blocks = "full"
) -> list[Block]:
    """Diagonal blocks of the exact Hessian of `loss_fn` at the variables' present values.

    Args:
        loss_fn: Takes no argument, returns a scalar; reads the variables. Called once.
        variables: `tf.Variable`s or `keras.Variable`s.
        blocks: "full", "layer", "variable", "auto", or a `Blocks` object. Every block is
            formed, whatever its size.

    Returns:
        A `Block(matrix [N, N], gradient [N], variables)` for each block.

    Raises:
        ValueError: If an argument is not of these kinds, or the blocks do not fit into memory.
        LossNotReplayableError: If the loss cannot be run again as a function of the weights.
    """
    return _blocks(ExactHessian(), loss_fn, variables, blocks)


def gauss_newton(
    loss_fn: Callable[[], tf.Tensor], variables: Sequence[Variable], blocks: str | Blocks = "full"
) -> list[Block]:
    """Diagonal blocks of the generalised Gauss-Newton matrix of `loss_fn`.

    Args:
        loss_fn: As for `hessian`; some of its terms are convex in tensors of a network, such as
            squared errors and cross-entropies. What is left of it enters with its exact Hessian.
        variables: As for `hessian`.
        blocks: As for `hessian`.

    Returns:
        A `Block(matrix [N, N], gradient [N], variables)` for each block, `matrix` positive
        semidefinite to rounding if all of the loss is convex terms and penalties (Schraudolph 2002;
        see `curvature.gauss_newton`).

    Raises:
        ValueError: If an argument is not of these kinds, no term of the loss is known to be convex,
            or the blocks do not fit into memory.
        LossNotReplayableError: If the loss cannot be run again as a function of the weights.
    """
    return _blocks(GaussNewton(), loss_fn, variables, blocks)


def fisher(
    loss_fn: Callable[[], tf.Tensor], variables: Sequence[Variable], blocks: str | Blocks = "full"
) -> list[Block]:
    """Diagonal blocks of the empirical Fisher matrix (1/B) Σ_b ∇ℓ_b ∇ℓ_bᵀ of `loss_fn`.

    Args:
        loss_fn: As for `gauss_newton`: the mean of B examples' losses ℓ_b, and maybe penalties
            on the weights, whose exact second derivatives are added.
        variables: As for `hessian`.
        blocks: As for `hessian`.

    Returns:
        A `Block(matrix [N, N], gradient [N], variables)` for each block, `matrix` positive
        semidefinite to rounding (see `curvature.fisher`).

    Raises:
        ValueError: If an argument is not of these kinds, the loss is another, or the blocks do not
            fit into memory.
        LossNotReplayableError: If the loss cannot be run again as a function of the weights.
    """
    return _blocks(EmpiricalFisher(), loss_fn, variables, blocks)


def hvp(
    loss_fn: Callable[[], tf.Tensor],
    variables: Sequence[Variable],
    vectors: Sequence[tf.Tensor | np.ndarray],
) -> list[tf.Tensor]:
    """The exact Hessian-vector product H v of `loss_fn`, without forming H.

    Args:
        loss_fn: Takes no argument, returns a scalar; reads the variables. Called once.
        variables: `tf.Variable`s or `keras.Variable`s.
        vectors: v: one tensor or array a variable, of its shape.

    Returns:
        H v: one tensor a variable, of its shape and dtype.

    Raises:
        ValueError: If the vectors do not match the variables.
        LossNotReplayableError: If the loss cannot be run again as a function of the weights.
    """
    tensors = as_tensors(variables)
    if len(vectors) != len(tensors):
        raise ValueError(
            "Argument `vectors` must hold one tensor for each of `variables`. "
            f"Received: {len(vectors)} vectors for {len(tensors)} variables"
        )
    directions = [tf.cast(u, v.dtype) for u, v in zip(vectors, tensors, strict=True)]
    for direction, v in zip(directions, tensors, strict=True):
        if direction.shape != v.shape:
            raise ValueError(
                "Argument `vectors` must have the shapes of `variables`. "
                f"Received: a vector of shape {direction.shape} for a variable of shape {v.shape}"
            )
    parts = Blocks("full").split(tensors)

    def compute() -> list[tf.Tensor]:
        loss = record(loss_fn, tensors)
        at = ExactHessian().at(loss, loss.at_variables(), parts)
        return at.unflatten(at.product(at.flatten(directions)))

    return _in_graph(compute)


def _in_graph(compute: Callable[[], _T]) -> _T:
    """Runs `compute` in the graph being traced, or traces one for it."""
    return compute() if tf.inside_function() else tf.function(compute, autograph=False)()


def _blocks(
    curvature: Curvature,
    loss_fn: Callable[[], tf.Tensor],
    variables: Sequence[Variable],
    blocks: str | Blocks,
) -> list[Block]:
    policy = blocks_of(blocks)
    tensors = as_tensors(variables)
    parts = policy.split(list(variables) if isinstance(variables, Sequence) else [variables])
    check_formed(parts, max(v.dtype.size for v in tensors), available_memory())

    def compute() -> list[tuple[tf.Tensor, tf.Tensor]]:
        loss = record(loss_fn, tensors)
        at = curvature.at(loss, loss.at_variables(), parts)
        return [(tf.cast(at.block(k), at.dtype), at.gradients[k]) for k in range(len(parts))]

    results = _in_graph(compute)
    return [
        Block(matrix, gradient, [variables[i] for i in part.indices])
        for part, (matrix, gradient) in zip(parts, results, strict=True)
    ]
