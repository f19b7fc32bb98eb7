"""A block's part of the step at one λ, and how it was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.scheduling import Scheduler
from keras_qnewton.types import Solution

# Routes that bypass the scheduler.
UNSCHEDULED = ("eigen", "cg", "woodbury")
# Routes that are not the scheduler's to choose; its own are counted after them. A saved log holds
# these numbers: another entry here makes earlier logs read wrong.
FIXED_ROUTES = (*UNSCHEDULED, "ldl")
# Rules that decided without the scheduler; its own rules count from 0.
RULE_SADDLE_FREE, RULE_MATRIX_FREE, RULE_LOW_RANK = -1, -2, -3
# Rules by which an inverse Hessian was learned, where no linear system is solved.
RULES_LEARNED = {"bfgs": -4, "ssbfgs": -5, "ssbroyden": -6, "lbfgs": -7}
# Added to those where nobody asked for it.
_BY_DATA = -4
# Added to the scheduler's rule where it chose for a saddle-free step.
RULE_ABSOLUTE = 100

_LEARNED = (
    "no linear system was solved: the gradient times {}, which is learned from differences of "
    "gradients; the step's length is a line search's"
)
_WHY_BY_DATA = (
    "more weights than a matrix is formed of, more rows than a system of them is worth, and data "
    "that stay: "
)
_EXPLANATIONS = {
    RULE_SADDLE_FREE: ("a saddle-free step takes an eigendecomposition, whatever it costs"),
    RULE_MATRIX_FREE: (
        "too large a block to be formed: conjugate gradients on Hessian-vector products"
    ),
    RULE_LOW_RANK: (
        "of low rank on so small a batch: solved exactly in as many dimensions as its rank "
        "(Woodbury), and not formed"
    ),
    RULES_LEARNED["bfgs"]: _LEARNED.format("a dense inverse Hessian, by BFGS's updates"),
    RULES_LEARNED["ssbfgs"]: _LEARNED.format(
        "a dense inverse Hessian, by self-scaled BFGS's updates"
    ),
    RULES_LEARNED["ssbroyden"]: _LEARNED.format(
        "a dense inverse Hessian, by self-scaled Broyden updates"
    ),
    RULES_LEARNED["lbfgs"]: _LEARNED.format("the inverse Hessian of the last pairs (L-BFGS)"),
}


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
            Of a learned inverse, evaluations of the loss and its gradient by the line search.
        sparsity_before: d before reshaping, float64; NaN for a system solved as it is.
        added_shift: ε of reshaping, likewise.
        error_bound: Of a reshaped system's solution, as checked; NaN if none was tried.
        alpha: α/‖A‖₂ of a block encoding of the system, float64; NaN where it was not measured.
        lengths: For the next step's circuit: ‖x‖/‖g‖, that of refinements, and the shift that
            they are of, float64 `[3]`; empty where no solver is told.
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
    alpha: tf.Tensor
    lengths: tf.Tensor | tuple[()] = ()


def explain(rule: int) -> str:
    """The sentence for a rule of this module."""
    if is_learned(rule) and rule not in RULES_LEARNED.values():
        return _WHY_BY_DATA + _EXPLANATIONS[rule - _BY_DATA]
    return _EXPLANATIONS[rule]


def is_learned(rule: int) -> bool:
    """Whether no linear system was solved, by this rule."""
    return rule in RULES_LEARNED.values() or rule - _BY_DATA in RULES_LEARNED.values()


def unscheduled(
    solution: Solution,
    *,
    condition_number: tf.Tensor,
    sparsity: tf.Tensor,
    rule: int,
    scheduler: Scheduler,
) -> BlockStep:
    """The step of a block that the scheduler was not asked about."""
    route = tf.constant(FIXED_ROUTES.index(solution.solver))
    return BlockStep(
        solution.x,
        condition_number,
        sparsity,
        route,
        route,
        tf.constant(rule),
        tf.cast(solution.residual, tf.float64),
        _unpriced(scheduler),
        tf.constant(math.nan, tf.float64),
        *not_reshaped(),
        tf.constant(math.nan, tf.float64),
        no_lengths(scheduler),
    )


def unknown(size: int, dtype: tf.DType, scheduler: Scheduler) -> BlockStep:
    """A step of zeros `[size]` of which no number is known."""
    nan, none = tf.constant(math.nan, tf.float64), tf.constant(0)
    zeros = tf.zeros([size], dtype)
    numbers = nan, nan, none, none, none, nan, _unpriced(scheduler), *(nan,) * 5
    return BlockStep(zeros, *numbers, no_lengths(scheduler))


def learned(
    blank: BlockStep, update: str, evaluations: tf.Tensor, asked_for: bool = True
) -> BlockStep:
    """`blank` as the log's entry of a step along a learned inverse Hessian times the gradient.

    Args:
        blank: A step of which no number is known.
        update: By which the inverse Hessian learns.
        evaluations: Of the loss and its gradient, by the line search.
        asked_for: False where the data made it the choice.
    """
    rule = tf.constant(RULES_LEARNED[update] + (0 if asked_for else _BY_DATA))
    return blank._replace(rule=rule, products=tf.cast(evaluations, tf.float64))


def no_lengths(scheduler: Scheduler) -> tf.Tensor | tuple[()]:
    """`BlockStep.lengths` of a system that no circuit has solved."""
    return tf.zeros([3], tf.float64) if scheduler.carries else ()


def measured_alpha(measured: Mapping[str, Any]) -> tf.Tensor:
    """`BlockStep.alpha` of what a cost model was told of a matrix."""
    alpha = measured.get("alpha")
    return tf.constant(math.nan, tf.float64) if alpha is None else tf.cast(alpha, tf.float64)


def _unpriced(scheduler: Scheduler) -> tf.Tensor:
    """`BlockStep.predicted` where no route was priced."""
    return tf.constant([math.nan] * len(scheduler.routes), tf.float64)


def not_reshaped() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`sparsity_before`, `added_shift` and `error_bound` of a system solved as it is."""
    return (tf.constant(math.nan, tf.float64),) * 3
