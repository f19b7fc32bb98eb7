"""The direction x_k of one Hessian block, in the five ways there are.

    SaddleFree   (H² + λ²I)^(-1/2) g   dense, by eigendecomposition; one for all λ
    Absolute     (H² + λ²I)^(-1/2) g   dense, by a circuit or by eigendecomposition, as the
                                       scheduler chooses
    Scheduled    (H + s(λ) I)^(-1) g   dense, by whichever solver the scheduler chooses: for
                                       positive semidefinite curvature, and for circuits
    MatrixFree   (H + s(λ) I)^(-1) g   too large to be formed: conjugate gradients on H v
    Woodbury     (UᵀU + s(λ)I)^(-1) g  too large to be formed, of low rank on a small batch

Each is built once a step from the block's curvature and then solved for as many λ as the
step tries. A circuit's solution that fails its residual check is solved again classically.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton.directions.block_step import (
    FIXED_ROUTES,
    RULE_ABSOLUTE,
    UNSCHEDULED,
    BlockStep,
    Direction,
    Keep,
    computed,
    explain,
)
from keras_qnewton.directions.matrix_free import Large, MatrixFree
from keras_qnewton.directions.saddle_free import Absolute, SaddleFree
from keras_qnewton.directions.scheduled import Scheduled

__all__ = [
    "FIXED_ROUTES",
    "RULE_ABSOLUTE",
    "UNSCHEDULED",
    "BlockStep",
    "Direction",
    "Keep",
    "Scheduled",
    "computed",
    "direction",
    "explain",
]


def direction(
    at: Any,
    k: int,
    part: Any,
    matrix: tf.Tensor | None,
    gradient: tf.Tensor,
    damping: Any,
    scheduler: Any,
    pruning: Any,
    seed: int,
    keep: Keep = computed,
) -> Direction:
    """The way in which the k-th block is solved.

    Args:
        at: Curvature at the present weights (`curvature.linearized.Linearized`).
        k: Block number.
        part: The block's `Part`.
        matrix: H_k `[N, N]`, in the gradient's precision or double; None if the block is too
            large to be formed.
        gradient: g_k `[N]`.
        damping: Damping policy.
        scheduler: Chooses among linear solvers.
        pruning: From a matrix to a `Pruned`, or None to keep all.
        seed: Of the Lanczos start vectors.
        keep: Spares what was computed of the same matrix at an earlier step.
    """
    if matrix is None:
        free = MatrixFree(at, k, part.size, gradient, damping, scheduler)
        factors = at.low_rank(k)
        return Large(free, seed) if factors is None else Large(free, seed, *factors)
    if pruning is not None:
        matrix = pruning(matrix).matrix
    linear = scheduler.quantum is not None or at.positive_semidefinite
    if damping.saddle_free(linear=linear):
        matrix = tf.cast(matrix, gradient.dtype)
        if Absolute.possible(scheduler, part.size):
            return Absolute(matrix, gradient, scheduler, seed, keep)
        return SaddleFree(matrix, gradient, scheduler, keep)
    # Pruning may take a semidefinite matrix's definiteness away.
    semidefinite = at.positive_semidefinite and pruning is None
    return Scheduled(matrix, gradient, damping, scheduler, semidefinite, seed, keep)
