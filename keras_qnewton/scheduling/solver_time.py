"""The classical cost model: seconds of a direct solve, as measured on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.arguments import as_number, as_numbers, check_choice, refused
from keras_qnewton.registry import Policy, register
from keras_qnewton.scheduling import calibration
from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.types import Scalar


@register("cost", "solver_time")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class SolverTime(Policy):
    """seconds = a·N³ + b·N² + c, calibrated on first use; or from the user's own numbers.

    The calibration times the solver inside a graph, as in training. In a traced graph the
    coefficients are constants: an exported model keeps those of the machine that traced it.

    Args:
        solver: Registered name of a solver whose time depends on N alone ("lu", "cholesky",
            "lapack", "eigen"), which the calibration measures.
        coefficients: (a, b, c) in seconds, all ≥ 0 and not all 0; nothing is measured.
        table: Measured seconds by size. Exact at its sizes, a power law between neighbours
            (linear in log-log), constant below the smallest, cubic above the largest.
        dtype: "float32" or "float64", what the calibration measures.

    Raises:
        ValueError: If both `coefficients` and `table` are given or one is not as described,
            or `dtype` is another one.
    """

    classical = True

    def __init__(
        self,
        solver: str = "lu",
        coefficients: Sequence[float] | None = None,
        table: Mapping[int | str, float] | None = None,
        dtype: str = "float64",
    ) -> None:
        if coefficients is not None and table is not None:
            raise ValueError(
                "Argument `table` must not be given together with `coefficients`. "
                f"Received: table={table}, coefficients={coefficients}"
            )
        check_choice("dtype", dtype, ("float32", "float64"))
        if not isinstance(solver, str):
            raise refused("solver", solver, "the name of a solver")
        self._solver = solver
        self._coefficients = None if coefficients is None else _three(coefficients)
        self._table = None if table is None else _checked_table(table)
        self._dtype = dtype

    @property
    def coefficients(self) -> calibration.Coefficients | None:
        """(a, b, c), calibrated now if need be; None with a table."""
        if self._table is not None:
            return None
        return self._coefficients or calibration.coefficients(self._solver, self._dtype)

    def seconds(
        self,
        size: Scalar,
        condition_number: Scalar | None = None,
        sparsity: Scalar | None = None,
        gate_time: Scalar | None = None,
    ) -> tf.Tensor:
        """Predicted seconds of one solve, scalar float64; only `size` matters.

        For a `size` that is a number it is a constant, in a graph too: routes can then be
        compared when the graph is traced.
        """
        if tf.is_tensor(size):
            return self._of(float64(size))
        with tf.init_scope():
            # AutoGraph would make a cast to float32 of float().
            known = self._of(float64(size)).numpy().item()
        return tf.constant(known, tf.float64)

    def _of(self, n: tf.Tensor) -> tf.Tensor:
        if self._table is not None:
            return _interpolate(self._table, n)
        a, b, c = self.coefficients or (0.0, 0.0, 0.0)
        return a * n**3 + b * n**2 + c

    def get_config(self) -> dict[str, Any]:
        table = None if self._table is None else {str(n): s for n, s in self._table.items()}
        return {
            "solver": self._solver,
            "coefficients": None if self._coefficients is None else list(self._coefficients),
            "table": table,
            "dtype": self._dtype,
        }


def _three(coefficients: Sequence[float]) -> calibration.Coefficients:
    numbers = as_numbers(coefficients)
    if len(numbers) != 3 or not all(0 <= x < float("inf") for x in numbers) or not any(numbers):
        wanted = "three finite numbers (a, b, c), at least 0 and not all 0"
        raise refused("coefficients", coefficients, wanted)
    return numbers[0], numbers[1], numbers[2]


def _checked_table(table: Mapping[int | str, float]) -> dict[int, float]:
    try:
        # JSON has string keys only: a table that was saved comes back with those.
        numbers = {int(size): as_number(seconds) for size, seconds in table.items()}
    except (TypeError, ValueError, AttributeError):
        numbers = {}
    good = all(n >= 1 and 0 < seconds < float("inf") for n, seconds in numbers.items())
    if not numbers or not good:
        raise ValueError(
            "Argument `table` must map sizes (positive integers) to positive seconds. "
            f"Received: table={table!r}"
        )
    return dict(sorted(numbers.items()))


def _interpolate(table: dict[int, float], n: tf.Tensor) -> tf.Tensor:
    sizes = tf.constant(list(table), tf.float64)
    logs = tf.math.log(tf.constant(list(table.values()), tf.float64))
    if len(table) == 1:
        inside = logs[0]
    else:
        at = tf.math.log(tf.clip_by_value(n, sizes[0], sizes[-1]))
        upper = tf.clip_by_value(
            tf.reduce_sum(tf.cast(tf.math.log(sizes) < at, tf.int32)), 1, len(table) - 1
        )
        left, right = tf.math.log(sizes[upper - 1]), tf.math.log(sizes[upper])
        share = (at - left) / (right - left)
        inside = (1 - share) * logs[upper - 1] + share * logs[upper]
    return tf.exp(inside) * tf.maximum(n / sizes[-1], 1.0) ** 3
