"""The cost model of the sparse LU route: seconds by N and d, as measured on this machine."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import scipy.optimize
import tensorflow as tf

from keras_qnewton.registry import Policy, register
from keras_qnewton.scheduling import calibration
from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.types import Scalar

SIZES, ROW_NONZEROS = (128, 256, 512, 1024), (1, 3, 5, 8, 16, 32)
# Sizes that are always measured: the largest, of dense rows, takes as long as it is worth.
_LEAST_SIZES = 3
# Share of a measured time that factors are given where the scan explains nearly all of it.
_LEAST_SHARE = 0.02
_COUNT = 6


@register("cost", "sparse_lu_time")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class SparseLUTime(Policy):
    """seconds = s·N² + c + exp(f₀ + f₁ ln N + f₂ ln d + f₃ ln² d), calibrated on first use.

    The first two terms find the non-zeros of a dense matrix and call the host; the last
    factorises, and does not fall as d grows. It is measured on random symmetric patterns with
    N·d non-zeros, N = 128 to 1,024 and d = 1 to 32, which fill in more than patterns with an
    order: banded matrices, for instance, take far less than predicted.

    Args:
        coefficients: (s, c, f₀, f₁, f₂, f₃); nothing is measured.

    Raises:
        ValueError: If `coefficients` are not six finite numbers with s, c and f₁ at least 0.
    """

    classical = True

    def __init__(self, coefficients: Sequence[float] | None = None) -> None:
        try:
            self._given = None if coefficients is None else _six(coefficients)
        except (TypeError, ValueError):
            raise ValueError(
                "Argument `coefficients` must be six finite numbers (s, c, f₀, f₁, f₂, f₃) with "
                f"s, c and f₁ at least 0. Received: coefficients={coefficients}"
            ) from None

    @property
    def coefficients(self) -> tuple[float, ...]:
        """(s, c, f₀, f₁, f₂, f₃), calibrated now if need be."""
        if self._given is not None:
            return self._given
        return calibration.remembered("sparse_lu float64", lambda: fit(measure()), _six)

    def seconds(
        self,
        size: Scalar,
        condition_number: Scalar | None,
        sparsity: Scalar,
        gate_time: Scalar | None = None,
    ) -> tf.Tensor:
        """Predicted seconds of one solve, scalar float64; see `CostModel.seconds`."""
        del condition_number, gate_time
        s, c, f0, f1, f2, f3 = self.coefficients
        log_n = tf.math.log(float64(size))
        log_d = tf.math.log(tf.maximum(float64(sparsity), 1.0))
        if f3 < 0:  # up to the parabola's top
            log_d = tf.minimum(log_d, max(-f2 / (2 * f3), 0.0))
        elif f3 > 0:
            log_d = tf.maximum(log_d, max(-f2 / (2 * f3), 0.0))
        factors = tf.exp(f0 + f1 * log_n + f2 * log_d + f3 * log_d**2)
        return s * float64(size) ** 2 + c + factors

    def get_config(self) -> dict[str, Any]:
        return {"coefficients": None if self._given is None else list(self._given)}


def pattern(size: int, row_nonzeros: int) -> np.ndarray:
    """A random symmetric matrix with about `row_nonzeros` entries a row, positive definite."""
    rng = np.random.default_rng([size, row_nonzeros])
    matrix = np.zeros((size, size))
    i, j = rng.integers(size, size=(2, size * (row_nonzeros - 1) // 2))
    matrix[i, j] = matrix[j, i] = rng.normal(size=len(i))
    matrix[np.diag_indices(size)] = np.abs(matrix).sum(axis=1) + 1
    return matrix


def fit(seconds: Mapping[tuple[int, int], float]) -> tuple[float, ...]:
    """(s, c, f₀ … f₃) from measured seconds by (N, d), d = 1 among them."""
    scans = {n: t for (n, d), t in seconds.items() if d == 1}
    terms = np.array([[n**2 / t, 1 / t] for n, t in scans.items()])
    scale = terms.max(axis=0)
    s, c = scipy.optimize.nnls(terms / scale, np.ones(len(scans)))[0] / scale
    rows = {key: t for key, t in seconds.items() if key[1] > 1}
    left = [math.log(max(t - s * n**2 - c, _LEAST_SHARE * t)) for (n, _), t in rows.items()]
    logs = [[1, math.log(n), math.log(d), math.log(d) ** 2] for n, d in rows]
    f0, f1, f2, f3 = np.linalg.lstsq(np.array(logs), np.array(left), rcond=None)[0]
    return tuple(float(x) for x in (s, c, f0, max(f1, 0.0), f2, f3))


def measure(
    sizes: Sequence[int] = SIZES,
    row_nonzeros: Sequence[int] = ROW_NONZEROS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[tuple[int, int], float]:
    """Seconds of one solve by (N, d), on random symmetric patterns; see `calibration.measure`.

    Args:
        sizes: N, ascending.
        row_nonzeros: d, 1 among them.
        clock: Seconds since some time in the past, ascending.
    """
    seconds = {}
    for d in row_nonzeros:
        measured = calibration.measure(
            "sparse_lu",
            "float64",
            sizes,
            functools.partial(pattern, row_nonzeros=d),
            clock=clock,
            least_sizes=_LEAST_SIZES,
        )
        seconds.update({(n, d): t for n, t in measured.items()})
    return seconds


def _six(numbers: Iterable[float]) -> tuple[float, ...]:
    six = tuple(float(x) for x in numbers)
    good = len(six) == _COUNT and all(map(math.isfinite, six))
    if not good or min(six[0], six[1], six[3]) < 0:
        raise ValueError("not a calibration")
    return six
