"""Loss rules and output curvatures: where a loss is convex, and its second derivative there.

    z = network(w)      the output in which the loss is convex       any shape, examples first
    L(z) = Σ_t ω_t ℓ_t  its terms ℓ, with weights ω ≥ 0              scalar
    C = d²L/dz²         block diagonal over examples, and psd        applied, never formed
      = Σ_r s_r s_rᵀ    for each example, where R roots are few      s [R, *z.shape]

A `LossRule` finds z and ℓ in the recorded operations. An `OutputCurvature` has C at one point.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.loss import RecordedLoss

# Outputs of an example up to which its C is held; a vocabulary has more.
MAX_OUTPUTS = 256
UNIT_ROUNDOFF = {tf.float32: 2.0**-24, tf.float64: 2.0**-53}


class Candidate(NamedTuple):
    """A tensor in which a rule takes the loss for convex, provided the operations behind it agree.

    Attributes:
        z: The output.
        terms: The loss's terms: convex functions of z, one a row of it or one an element.
        within: The operations between z and the terms for which the rule vouches. Others must
            keep any function convex (`loss.convexity`), as must all between the terms and the loss.
    """

    z: tf.Tensor
    terms: tf.Tensor
    within: Collection[tf.Operation]


class LossRule(abc.ABC):
    """Recognises one kind of loss; registered by `@register("loss_rule", name)`."""

    @abc.abstractmethod
    def candidates(self, loss: RecordedLoss) -> Iterable[Candidate]:
        """Where in the recorded operations this kind of loss may be; none where it is not.

        Labels and everything else that the terms are made of must not depend on the weights, but
        for z (`loss.convexity.moving_tensors`).
        """

    def curvature(self, part: ConvexPart) -> OutputCurvature:
        """C of the loss, found by this rule, at one point: by tapes, if a rule knows no better."""
        return CurvatureByTapes(part)


@dataclasses.dataclass(frozen=True)
class ConvexOutput:
    """The network's output, in which the loss is convex.

    Attributes:
        name: Name of the tensor z in the recorded graph.
        terms: Name of the tensor of the loss's terms, one a row of z or one an element.
        rule: The rule that found it.
    """

    name: str
    terms: str
    rule: LossRule


@dataclasses.dataclass(frozen=True)
class ConvexPart:
    """The loss from its output z on, at one point.

    Attributes:
        loss: The recorded loss.
        output: Names of z and of the terms.
        weights: One tensor a variable.
        z: The output at `weights`, a constant to all tapes.
        dtype: Precision of the weights.
    """

    loss: RecordedLoss
    output: ConvexOutput
    weights: Sequence[tf.Tensor]
    z: tf.Tensor
    dtype: tf.DType

    def gradient(self) -> tf.Tensor:
        """∂L/∂z, of the shape of z."""
        return self._derivative(self.output.name, self.z)

    def term_weights(self) -> tf.Tensor:
        """ω = ∂L/∂ℓ, of the shape of the terms: by how much each counts; at least zero."""
        terms = self.loss.tensor(self.output.terms)
        return tf.nn.relu(self._derivative(self.output.terms, terms))

    def _derivative(self, name: str, value: tf.Tensor) -> tf.Tensor:
        """The loss's derivative in the tensor `name`, whose value is given."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(value)
            loss, _ = self.loss.evaluate(self.weights, overrides={name: value})
        return tape.gradient(loss, value)


class OutputCurvature(abc.ABC):
    """C = d²L/dz² of a loss at one z, positive semidefinite.

    Args:
        z: The output.
        gradient: ∂L/∂z.
        dtype: Precision of the weights.

    Attributes:
        z: As given.
        gradient: As given.
        dtype: As given.
        loses_digits: True if `gradient` has lost digits that `lost_digits` knows.
    """

    loses_digits: bool = False

    def __init__(self, z: tf.Tensor, gradient: tf.Tensor, dtype: tf.DType):
        self.z, self.gradient, self.dtype = z, gradient, dtype

    @abc.abstractmethod
    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v for each example: of the shape of z."""

    @abc.abstractmethod
    def roots(self) -> tf.Tensor | None:
        """s with C = Σ_r s_r s_rᵀ for each example, `[R, *z.shape]`; None where R is large.

        Roots that are wrong cost time only: blocks made of them are compared with `product`.
        """

    def lost_digits(self) -> tf.Tensor:
        """The part of ∂L/∂z that rounding took from `gradient`, of its shape.

        Asked for only if `loses_digits`.
        """
        return self.lost_digits_at(self.z, self.gradient)

    def lost_digits_at(self, z: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        """The same at another z, whose `gradient` is given."""
        del z
        return tf.zeros_like(gradient)

    def value_error(self) -> tf.Tensor:
        """About how far rounding has moved the loss, float64 scalar: u Σ|∂L/∂z||z|."""
        terms = tf.reduce_sum(tf.abs(self.gradient * self.z))
        return UNIT_ROUNDOFF[self.dtype] * tf.cast(terms, tf.float64)


class CurvatureByTapes(OutputCurvature):
    """C v as the derivative of ∂L/∂z; for losses that are a sum over the elements of z.

    A loss in which an example's outputs meet needs its own `roots`: here C is diagonal.
    """

    def __init__(self, part: ConvexPart):
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._tape:
            self._tape.watch(part.z)
            gradient = part.gradient()
        super().__init__(part.z, gradient, part.dtype)

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v, of the shape of z."""
        return self._tape.gradient(self.gradient, self.z, vector, unconnected_gradients="zero")

    def roots(self) -> tf.Tensor | None:
        """√C_cc e_c for each output c, `[C, B, C]`; z must be `[B, C]`."""
        count = countable_outputs(self.z)
        if count is None:
            return None
        identity = tf.eye(count, dtype=self.z.dtype)
        diagonal = self._tape.gradient(self.gradient, self.z, unconnected_gradients="zero")
        return identity[:, None, :] * tf.sqrt(tf.nn.relu(diagonal))[None]


def countable_outputs(z: tf.Tensor) -> int | None:
    """C of z `[B, C]`, if so many roots may be held for each example; else None."""
    if z.shape.rank != 2 or z.shape[1] is None or int(z.shape[1]) > MAX_OUTPUTS:
        return None
    return int(z.shape[1])
