"""What every kind of inverse Hessian can do: multiply, learn a pair, forget."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import keras
import tensorflow as tf

# A name of Keras's, or a function of a shape and a dtype.
Initializer = str | Callable[..., tf.Tensor]


class AddVariable(Protocol):
    """Makes a variable of an optimizer, which saves it by its position."""

    def __call__(
        self, shape: Sequence[int], dtype: str, name: str, initializer: Initializer
    ) -> keras.Variable:
        """Of that shape and dtype."""
        ...


class Prepared(NamedTuple):
    """A pair that is not learned yet.

    Attributes:
        product: H g', with H before and the gradient after the step; None where that is no help.
        tensors: What the kind of inverse needs to learn it.
    """

    product: tf.Tensor | None
    tensors: tuple[tf.Tensor, ...]


class InverseHessian(abc.ABC):
    """H `[N, N]`, symmetric and positive definite, I at first; its variables are assigned in place.

    Vectors are float64 `[N]`.
    """

    @abc.abstractmethod
    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """H v."""

    @abc.abstractmethod
    def prepared(
        self, s: tf.Tensor, y: tf.Tensor, gradient: tf.Tensor, Hg: tf.Tensor, sbs: tf.Tensor
    ) -> Prepared:
        """All that can be computed for a pair before it is learned; nothing is assigned.

        A pair without positive curvature may be prepared, and must not be learned.

        Args:
            s: The step of the weights.
            y: The change of the gradient, g' - g.
            gradient: g', the gradient after the step.
            Hg: H g, with H before and the gradient before the step.
            sbs: sᵀBs with B = H⁻¹, scalar: -α gᵀs for a step s = -α H g.
        """

    @abc.abstractmethod
    def learned(self, pair: Prepared) -> tf.Tensor:
        """Takes in a pair with yᵀs > 0, and returns H' g' with the H' that has it."""

    @abc.abstractmethod
    def reset(self, factor: tf.Tensor | float = 1.0) -> None:
        """H = `factor` I; a float64 scalar, positive."""


def dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """aᵀb; a matrix product would wait for threads, which costs more than it is worth."""
    return tf.reduce_sum(a * b)
