"""Changes to a system that let it be solved in less time, as far as its solution allows.

A = H + s I is replaced by Â = prune(A, d) + ε I. With what was dropped at most δ in the 2-norm, and
A positive definite, its smallest eigenvalue at least σ:

    ‖x̂ - x‖ / ‖x‖  ≤  ‖Â - A‖ / (σ - ‖Â - A‖),        ‖Â - A‖ ≤ δ + ε

(Golub & Van Loan 2013, Matrix Computations, section 2.6.2; Higham 2002, theorem 7.2). It says what
is worth trying. What was solved is checked by its residual on A:

    e = ‖b - A x̂‖ / σ  ≥  ‖x̂ - x‖,        ‖x̂ - x‖ / ‖x‖  ≤  e / (‖x̂‖ - e)

which an exact solution of Â x̂ = b within the first bound always passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.arguments import as_numbers, check_count, check_number, refused
from keras_qnewton.registry import Policy

# Share of the bound that is used; the rest is for the solver's own residual.
_MARGIN = 1 - 1e-3


@keras.saving.register_keras_serializable(package="keras_qnewton")
class Reshape(Policy):
    """Which (d, ε) are tried, and how large an error of the step they may cost.

    Args:
        bound: Largest ‖x̂ - x‖ / ‖x‖, in (0, 1).
        sparsities: d to try, as fractions of N in (0, 1), beside d as it is.
        shifts: How many ε > 0 to try for each d, evenly spaced up to the largest that the bound
            allows.

    Raises:
        ValueError: If an argument is not as described.
    """

    def __init__(
        self,
        bound: float = 0.1,
        sparsities: Sequence[float] = (0.25, 0.5, 0.75),
        shifts: int = 2,
    ) -> None:
        between = "a relative error between 0 and 1"
        self.bound = check_number("bound", bound, between, most=1.0, ends="()")
        fractions = as_numbers(sparsities)
        if not all(0 < fraction < 1 for fraction in fractions):
            raise refused("sparsities", sparsities, "fractions between 0 and 1")
        self.sparsities = tuple(sorted(fractions, reverse=True))
        self.shifts = check_count("shifts", shifts, least=0)

    def row_limits(self, size: int) -> tuple[int, ...]:
        """d to try for N = `size`, descending."""
        limits = {max(1, round(fraction * size)) for fraction in self.sparsities}
        return tuple(sorted((d for d in limits if d < size), reverse=True))

    def largest_drop(self, smallest: tf.Tensor) -> tf.Tensor:
        """The δ at which the bound is reached without a shift; scalar float64."""
        return self.bound * smallest / (1 + self.bound)

    def shifts_for(self, smallest: tf.Tensor, dropped: tf.Tensor) -> tf.Tensor:
        """ε to try, float64 `[1 + shifts]`, from 0 on.

        Args:
            smallest: σ, scalar float64.
            dropped: δ, scalar float64; so large that no ε meets the bound: zeros.
        """
        largest = _MARGIN * self.largest_drop(smallest) - dropped
        steps = tf.range(1 + self.shifts, dtype=tf.float64) / max(self.shifts, 1)
        return steps * tf.maximum(largest, 0.0)

    def error_bound(self, smallest: tf.Tensor, dropped: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
        """(δ + ε) / (σ - δ - ε), or Inf where that is not positive; float64."""
        left = smallest - dropped - shift
        infinity = tf.constant(float("inf"), tf.float64)
        ratio = tf.math.divide_no_nan(dropped + shift, left)
        return tf.where((left > 0) & tf.math.is_finite(dropped), ratio, infinity)

    def checked_error(self, smallest: tf.Tensor, gap: tf.Tensor, solution: tf.Tensor) -> tf.Tensor:
        """e / (‖x̂‖ - e), a bound of the relative error of x̂; Inf where it says nothing.

        Args:
            smallest: σ, scalar float64.
            gap: b - A x̂, float64 `[N]`.
            solution: x̂, float64 `[N]`.
        """
        error = tf.norm(gap) / smallest
        left = tf.norm(solution) - error
        infinity = tf.constant(float("inf"), tf.float64)
        known = (smallest > 0) & (left > 0) & tf.math.is_finite(error)
        return tf.where(known, tf.math.divide_no_nan(error, left), infinity)

    def get_config(self) -> dict[str, Any]:
        return {
            "bound": self.bound,
            "sparsities": list(self.sparsities),
            "shifts": self.shifts,
        }
