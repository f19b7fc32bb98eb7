"""What a problem is to a benchmark of optimizers: a loss of weights from a seeded start."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Values `[n, 1]` at points `[n, d]`: a network, or a closed form that stands in for it.
Field = Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run may choose of a problem.

    Attributes:
        seed: Of points and weights.
        width: Units of each hidden layer, where the problem leaves it open.
        points: Where the equation's residual is taken, where the problem leaves it open.
        dtype: "float32" or "float64", of the weights, points and loss.
    """

    seed: int = 0
    width: int = 50
    points: int = 2000
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem at its start; each optimizer has one of its own.

    Attributes:
        variables: Keras variables, the weights.
        loss: The loss at their present values, a scalar tensor; for `tf.function` and tapes.
        error: The relative L2 error at their present values; None where there is no solution to
            compare with.
    """

    variables: Sequence[Any]
    loss: Callable[[], tf.Tensor]
    error: Callable[[], float] | None

    @property
    def size(self) -> int:
        return sum(int(np.prod(v.shape)) for v in self.variables)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A named problem.

    Attributes:
        name: As the command line has it.
        start: Makes the task of a setup.
        dtype: Of the loss, unless a run says otherwise.
        published: Relative L2 errors of others, by the method's name.
    """

    name: str
    start: Callable[[Setup], Task]
    dtype: str = "float64"
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)


def tanh_network(sizes: Sequence[int], setup: Setup) -> keras.Sequential:
    """Dense layers, Glorot's normal weights, zero biases; `keras.utils.set_random_seed(seed)`."""
    keras.utils.set_random_seed(setup.seed)
    layers = [
        keras.layers.Dense(
            units,
            activation="tanh" if k + 2 < len(sizes) else None,
            kernel_initializer="glorot_normal",
            dtype=setup.dtype,
        )
        for k, units in enumerate(sizes[1:])
    ]
    return keras.Sequential([keras.layers.Input((sizes[0],), dtype=setup.dtype), *layers])


def relative_error(field: Field, x: tf.Tensor, expected: np.ndarray) -> Callable[[], float]:
    """‖û - u‖/‖u‖ over points `[n, d]`, the norms in float64.

    Args:
        field: û.
        x: The points.
        expected: u there, `[n]` or `[n, 1]`.
    """
    expected = np.ravel(expected)
    norm = np.linalg.norm(expected)
    values = tf.function(field, autograph=False)

    def error() -> float:
        difference = values(x).numpy().ravel().astype("float64") - expected
        return float(np.linalg.norm(difference) / norm)

    return error
