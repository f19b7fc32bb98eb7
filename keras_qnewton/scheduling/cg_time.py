"""The classical competitor that the paper leaves out: conjugate gradients on the formed matrix."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.arguments import check_number
from keras_qnewton.registry import Policy, register
from keras_qnewton.scheduling.cost import check_epsilon
from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.types import Scalar

_SIZE, _READINGS = 1024, 20
_measured: list[float] = []


@register("cost", "cg_time")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class CGTime(Policy):
    """seconds = s · N² · min(N, ½ √κ ln(2/ε)).

    One product with a dense N×N matrix an iteration, and the iterations after which the error in
    the energy norm has fallen by ε at the latest (Saad 2003, Iterative Methods for Sparse Linear
    Systems, equation 6.128); in exact arithmetic N suffice. It holds for positive definite
    systems. d is not used: products with pruned matrices are not made sparse here.

    Args:
        epsilon: ε, in (0, 1).
        seconds_per_entry: s, seconds a product takes for each of the N² entries; None measures
            it once a process, in double precision.

    Raises:
        ValueError: If an argument is not as described.
    """

    classical = True

    def __init__(self, epsilon: float = 1e-4, seconds_per_entry: float | None = None) -> None:
        self.epsilon = check_epsilon(epsilon)
        given, wanted = seconds_per_entry, "a positive number of seconds"
        self._given = None if given is None else check_number("seconds_per_entry", given, wanted)

    @property
    def seconds_per_entry(self) -> float:
        """s in seconds, measured now if need be."""
        if self._given is not None:
            return self._given
        if not _measured:
            _measured.append(measure())
        return _measured[0]

    def iterations(self, size: Scalar, condition_number: Scalar) -> tf.Tensor:
        """Products with the matrix, scalar float64."""
        bound = 0.5 * tf.sqrt(float64(condition_number)) * math.log(2 / self.epsilon)
        return tf.minimum(tf.math.ceil(bound), float64(size))

    def seconds(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar | None = None,
        gate_time: Scalar | None = None,
    ) -> tf.Tensor:
        """Predicted seconds of one solve, scalar float64; see `CostModel.seconds`."""
        del sparsity, gate_time
        products = self.iterations(size, condition_number)
        return self.seconds_per_entry * float64(size) ** 2 * products

    def get_config(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon, "seconds_per_entry": self._given}


def measure(clock: Callable[[], float] = time.perf_counter) -> float:
    """s in seconds, by the shortest of 20 readings: a busy machine can only add time.

    Args:
        clock: Seconds since some time in the past, ascending.
    """
    with tf.init_scope():
        matrix = tf.constant(np.random.default_rng(0).normal(size=(_SIZE, _SIZE)) / _SIZE)
        vector = tf.ones([_SIZE], tf.float64)
        readings = []
        for _ in range(_READINGS):
            start = clock()
            tf.linalg.matvec(matrix, vector).numpy()
            readings.append(clock() - start)
    return min(readings) / _SIZE**2
