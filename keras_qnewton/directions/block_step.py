"""What a block's direction came to, and how it was found; what is kept of it between steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from keras_qnewton.types import Solution

# What takes blocks that the scheduler is not asked about.
UNSCHEDULED = ("eigen", "cg", "woodbury")
# Routes that are not the scheduler's to choose, before its own.
FIXED_ROUTES = (*UNSCHEDULED, "ldl")
# Which rule decided, where the scheduler was not asked (its own rules count from 0).
RULE_SADDLE_FREE, RULE_MATRIX_FREE, RULE_LOW_RANK = -1, -2, -3
# Added to the scheduler's rule where it chose for a saddle-free step.
RULE_ABSOLUTE = 100

_EXPLANATIONS = {
    RULE_SADDLE_FREE: ("a saddle-free step takes an eigendecomposition, whatever it costs"),
    RULE_MATRIX_FREE: (
        "too large a block to be formed: conjugate gradients on Hessian-vector products"
    ),
    RULE_LOW_RANK: (
        "of low rank on so small a batch: solved exactly in as many dimensions as its rank "
        "(Woodbury), and not formed"
    ),
}

Numbers = tuple[tf.Tensor, ...]


class Keep(Protocol):
    """Spares what was computed of the same matrix at an earlier step."""

    def __call__(
        self,
        what: str,
        compute: Callable[[], Numbers],
        still: Callable[..., tf.Tensor] | None = None,
    ) -> tuple[Numbers, tf.Tensor]:
        """What `compute` returns, or returned; and whether it is new, boolean scalar.

        Args:
            what: Its name.
            compute: Computes it.
            still: From what was computed last to whether that is still so, given that the matrix is
                the same; None if it is.
        """
        ...


def computed(
    what: str, compute: Callable[[], Numbers], still: Any = None
) -> tuple[Numbers, tf.Tensor]:
    """Keeps nothing."""
    del what, still
    return compute(), tf.constant(True)


class BlockStep(NamedTuple):
    """One block's solution at one λ, as tensors.

    Attributes:
        x: `[N]`, the dtype of the curvature.
        condition_number: κ of the system, float64 scalar: exact, or an upper bound.
        sparsity: d, largest number of non-zeros in a row, float64 scalar.
        route: What was chosen, int32 index into `FIXED_ROUTES` + the scheduler's routes.
        solved_by: What solved it in the end, likewise.
        rule: Which rule decided, int32.
        residual: `||A x - b|| / ||b||`, float64 scalar.
        predicted: Seconds by scheduler route, float64 `[R]`; NaN where nothing was priced.
        products: Products with the matrix that κ took, float64; NaN where it took something else.
        sparsity_before: d before reshaping, float64; NaN for a system solved as it is.
        added_shift: ε of reshaping, likewise.
        error_bound: Of a reshaped system's solution, as checked; NaN if none was tried.
    """

    x: tf.Tensor
    condition_number: tf.Tensor
    sparsity: tf.Tensor
    route: tf.Tensor
    solved_by: tf.Tensor
    rule: tf.Tensor
    residual: tf.Tensor
    predicted: tf.Tensor
    products: tf.Tensor
    sparsity_before: tf.Tensor
    added_shift: tf.Tensor
    error_bound: tf.Tensor


class Direction(Protocol):
    """Attributes: `scale`, the largest |eigenvalue| of the block, a float64 scalar."""

    scale: tf.Tensor

    def solve(self, damping: tf.Tensor) -> BlockStep:
        """The direction at damping λ, a float64 scalar."""
        ...


def explain(rule: int) -> str:
    """The sentence for a rule of this module."""
    return _EXPLANATIONS[rule]


def unscheduled(
    solution: Solution, *, condition_number: Any, sparsity: Any, rule: int, scheduler: Any
) -> BlockStep:
    route = tf.constant(FIXED_ROUTES.index(solution.solver))
    nothing = tf.fill([len(scheduler.routes)], tf.constant(float("nan"), tf.float64))
    return BlockStep(
        solution.x,
        condition_number,
        sparsity,
        route,
        route,
        tf.constant(rule),
        tf.cast(solution.residual, tf.float64),
        nothing,
        tf.constant(math.nan, tf.float64),
        *not_reshaped(),
    )


def not_reshaped() -> tuple[tf.Tensor, ...]:
    """The last three of `BlockStep` for a system solved as it is."""
    return (tf.constant(math.nan, tf.float64),) * 3
