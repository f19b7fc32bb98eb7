"""The direction x_k of one Hessian block, in the five ways there are.

    SaddleFree   (H² + λ²I)^(-1/2) g   dense, by eigendecomposition; one for all λ
    Absolute     (H² + λ²I)^(-1/2) g   dense, by a circuit or by eigendecomposition, as the
                                       scheduler chooses
    Scheduled    (H + s(λ) I)^(-1) g   dense, by whichever solver the scheduler chooses: for
                                       positive semidefinite curvature, and for circuits
    MatrixFree   (H + s(λ) I)^(-1) g   too large to be formed: conjugate gradients on H v
    Woodbury     (UᵀU + s(λ)I)^(-1) g  not formed: positive semidefinite, of low rank on this batch

Each is built once a step from the block's curvature and then solved for as many λ as the
step tries. A circuit's solution that fails its residual check is solved again classically.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton.conditioning import Spectrum
from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.curvature.low_rank import Few
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
from keras_qnewton.directions.matrix_free import MatrixFree
from keras_qnewton.directions.saddle_free import Absolute, SaddleFree
from keras_qnewton.directions.scheduled import Ends, Scheduled
from keras_qnewton.directions.woodbury import Woodbury, most_rows

__all__ = [
    "FIXED_ROUTES",
    "RULE_ABSOLUTE",
    "UNSCHEDULED",
    "BlockStep",
    "Direction",
    "Keep",
    "Scheduled",
    "direction",
    "explain",
    "most_rows",
]


def direction(
    at: Any,
    k: int,
    part: Any,
    form: Callable[[], tuple[Formed, tf.Tensor | bool]],
    few: Few | None,
    gradient: tf.Tensor,
    damping: Any,
    scheduler: Any,
    pruning: Any,
    seed: int,
    keep: Callable[..., Any],
) -> tuple[Direction, tf.Tensor]:
    """The way in which the k-th block is solved, and its `Formation`, int32 scalar.

    Args:
        at: Curvature at the present weights (`curvature.linearized.Linearized`).
        k: Block number.
        part: The block's `Part`.
        form: Forms it: H_k `[N, N]`, in the gradient's precision or double, and whether it is
            that of the last step.
        few: The block's rows, where they are few.
        gradient: g_k `[N]`.
        damping: Damping policy.
        scheduler: Chooses among linear solvers.
        pruning: From a matrix to a `Pruned`, or None to keep all.
        seed: Of the Lanczos start vectors.
        keep: Called with whether the matrix is that of the last step, and what `Keep` is called
            with.
    """

    def matrix_free(spectrum: Spectrum | None = None) -> MatrixFree:
        return MatrixFree(at, k, part.size, gradient, damping, scheduler, seed, spectrum)

    def scheduled(matrix: tf.Tensor, keep: Keep = computed, ends: Ends | None = None) -> Scheduled:
        # Pruning may take a semidefinite matrix's definiteness away.
        semidefinite = at.positive_semidefinite and pruning is None
        return Scheduled(matrix, gradient, damping, scheduler, semidefinite, seed, keep, ends)

    def low_rank(few: Few, init: Callable[[], Any], resume: Callable[..., Direction]) -> Woodbury:
        return Woodbury(few, gradient, damping, scheduler, seed, init, resume)

    if not part.dense:
        unformed = tf.constant(Formation.NOT_FORMED)
        if few is None:
            return matrix_free(), unformed
        return low_rank(few, lambda: matrix_free().spectrum, matrix_free), unformed
    if few is not None:

        def init() -> tuple[Any, ...]:
            (matrix, how), _ = form()
            return how, matrix, scheduled(matrix).ends

        # A block with factors is not pruned, kept or decomposed (`most_rows`). Where it is not
        # formed, its state is of zeros, which is `Formation.NOT_FORMED`.
        way = low_rank(few, init, lambda state: scheduled(state[1], ends=state[2]))
        return way, way.state[0]
    (matrix, how), same = form()
    kept = computed if same is False else functools.partial(keep, same)
    if pruning is not None:
        matrix = pruning(matrix).matrix
    linear = scheduler.quantum is not None or at.positive_semidefinite
    if not damping.saddle_free(linear=linear):
        return scheduled(matrix, kept), how
    matrix = tf.cast(matrix, gradient.dtype)
    if Absolute.possible(scheduler, part.size):
        return Absolute(matrix, gradient, scheduler, seed, kept), how
    return SaddleFree(matrix, gradient, scheduler, kept), how
