"""The empirical Fisher matrix: second moments of per-example gradients.

    L   = Σ_i Σ_b ℓ_ib / B_i + R(w)      ℓ_ib(w): example b's loss in the i-th output
    F   = Σ_i (1/B_i) Σ_b ∇ℓ_ib ∇ℓ_ibᵀ + R''(w)      [N, N], positive semidefinite

The likelihoods of several outputs are taken to be independent. The rank is at most Σ_i B_i, but
for R. It is the Gauss-Newton matrix with C_i = B_i δ δᵀ for each example, δ = ∂L/∂z_i its gradient
in the output: one backward pass gives all ∇ℓ_ib of a linear layer, as a_b ⊗ d_b. It is cheap, and
not the curvature: it goes to zero as the model fits (Kunstner et al. 2019).

References:
    Amari 1998, Neural Computation 10(2) (natural gradient).
    Kunstner, Balles & Hennig 2019, arXiv:1905.12558 (limits of the empirical Fisher).
    arXiv:2405.00252 (used for transformers).
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.gauss_newton import required_outputs
from keras_qnewton.curvature.linearized import Linearized, Point
from keras_qnewton.curvature.outputs import ConvexLoss, ConvexPart, OutputCurvature
from keras_qnewton.curvature.policy import Curvature
from keras_qnewton.curvature.structured_gauss_newton import StructuredGaussNewton
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.norms import power_of_two
from keras_qnewton.registry import register
from keras_qnewton.replicas import Replicas

# Of second moments, which are squares of a loss's scale, all that is in between is left as it is.
_USUAL = (2.0**-20, 2.0**20)


@register("curvature", "fisher")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class EmpiricalFisher(Curvature):
    """Empirical Fisher curvature, of any sum of terms that are convex in outputs with examples.

    Such as cross-entropies and squared errors, of any number of outputs. An example is a row of an
    output: for a language model whose cross-entropy is taken over `[B·T, V]` logits, a token.
    Sample weights, and weights of the terms, enter squared; a sum of them that is not within 2**±20
    is divided out once. Terms that are piecewise linear in an output of their own are left out. See
    `Curvature` for the argument.
    """

    of_examples = True

    def at(
        self, loss: RecordedLoss, weights: Sequence[tf.Tensor], parts: Sequence[Part]
    ) -> Linearized:
        """Differentiates `loss` at `weights`; see `Curvature.at`.

        Raises:
            ValueError: If the network's output is not found in the loss, or the examples of one
                have no likelihood of their own.
        """
        return self._at(loss, weights, parts, None)

    def of_replicas(self, replicas: Replicas, losses: Sequence[RecordedLoss]) -> Curvature:
        """See `Curvature.of_replicas`."""
        found = replicas.each(_counts, losses)
        totals = replicas.total([[number for pair in some for number in pair] for some in found])
        pairs = zip(totals[::2], totals[1::2], strict=True)
        return _OfReplicas(self.memory, [Count(*pair) for pair in pairs])

    def _at(
        self,
        loss: RecordedLoss,
        weights: Sequence[tf.Tensor],
        parts: Sequence[Part],
        counts: Sequence[Count] | None,
    ) -> Linearized:
        """`at`; `counts` has one entry an output, None if they are those of this loss."""
        convex = _checked(loss)
        terms_of = collections.Counter(output.name for output in convex.outputs)

        def second_moment(part: ConvexPart) -> OutputCurvature:
            exact = part.output.rule.curvature(part)
            if exact.one_example or exact.z.shape.rank is None:
                name, terms = part.output.name, ", ".join(part.output.terms)
                raise ValueError(
                    "Argument `curvature` can be 'fisher' only where each output has an axis of "
                    "examples, with a likelihood for each. Use 'gauss_newton' or 'auto'. "
                    f"Received: an output {name!r} of shape {exact.z.shape}, whose terms ({terms}) "
                    "are of all its elements together"
                )
            at = convex.outputs.index(part.output)
            count = Count.of(part) if counts is None else counts[at]
            if loss.factor is None:
                scale = _extreme(count.weight)
            else:
                # A square, of which the factor is divided out but once.
                factor = tf.cast(loss.factor, count.weight.dtype)
                scale = factor * _extreme(count.weight / factor)
            return SecondMoment(exact, count.examples, terms_of[part.output.name], scale)

        point = Point(loss, weights, parts, self.memory)
        return StructuredGaussNewton.at(point, convex, second_moment)


class _OfReplicas(EmpiricalFisher):
    """That of one of several replicas, which knows what all of them count together."""

    def __init__(self, memory: float, counts: Sequence[Count]):
        super().__init__(memory)
        self._counts = counts

    def at(
        self, loss: RecordedLoss, weights: Sequence[tf.Tensor], parts: Sequence[Part]
    ) -> Linearized:
        """See `EmpiricalFisher.at`."""
        return self._at(loss, weights, parts, self._counts)


class Count(NamedTuple):
    """What an output's terms are of.

    Attributes:
        examples: B, float64 scalar.
        weight: The sum of the terms' weights, scalar of the precision of the terms.
    """

    examples: tf.Tensor
    weight: tf.Tensor

    @classmethod
    def of(cls, part: ConvexPart) -> Count:
        """Those of a loss by itself."""
        examples = tf.cast(tf.shape(part.z)[0], tf.float64)
        return cls(examples, tf.reduce_sum(part.term_weights()))


def _checked(loss: RecordedLoss) -> ConvexLoss:
    convex = required_outputs(loss, "fisher")
    if not convex.outputs:
        raise ValueError(
            "Argument `curvature` can be 'fisher' only for a loss with terms that are curved. "
            "Use 'hessian'. Received: a loss that is piecewise linear in all outputs"
        )
    return convex


def _counts(loss: RecordedLoss) -> list[Count]:
    """One an output, of the loss as it was recorded; of those without examples, none."""
    weights, outputs = loss.at_variables(), _checked(loss).outputs
    zs = {output.name: loss.tensor(output.name) for output in outputs}
    nothing = Count(tf.constant(0.0, tf.float64), tf.constant(0.0, tf.float64))
    return [
        Count.of(ConvexPart(loss, output, weights, zs, weights[0].dtype))
        if zs[output.name].shape.rank
        else nothing
        for output in outputs
    ]


class SecondMoment(OutputCurvature):
    """C = B δ δᵀ / c for each example, δ = ∂L/∂z: one root, whatever the outputs.

    Args:
        exact: The curvature of the loss itself, which knows how the loss and δ are rounded.
        examples: B, float64 scalar.
        shares: How many there are of the same z, all with the δ of all of its terms: each has its
            share of C.
        scale: c, scalar of the precision of the terms.
    """

    def __init__(
        self,
        exact: OutputCurvature,
        examples: tf.Tensor,
        shares: int = 1,
        scale: tf.Tensor | float = 1.0,
    ):
        super().__init__(exact.z, exact.gradient, exact.dtype)
        self._exact, self._examples, self._shares, self._scale = exact, examples, shares, scale
        self.loses_digits = exact.loses_digits

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v, of the shape of z."""
        axes = list(range(1, self.z.shape.rank))
        along = tf.reduce_sum(self.gradient * vector, axes, keepdims=True)
        return self._factor() * self.gradient * along

    def roots(self) -> tf.Tensor:
        """√(B/c) δ, `[1, *z.shape]`."""
        return (tf.sqrt(self._factor()) * self.gradient)[None]

    def coefficients(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        """√(c/B), always; None where z has another's terms, too, of which δ is as well."""
        if self._shares > 1:
            return None
        each = tf.fill([tf.shape(self.z)[0], 1], tf.math.rsqrt(self._factor()))
        return each, tf.constant(True)

    def lost_digits(self) -> tf.Tensor:
        """See `OutputCurvature.lost_digits`."""
        return self._exact.lost_digits()

    def lost_digits_at(self, z: tf.Tensor) -> tf.Tensor:
        """See `OutputCurvature.lost_digits_at`."""
        return self._exact.lost_digits_at(z)

    def value_error(self) -> tf.Tensor:
        """See `OutputCurvature.value_error`."""
        return self._exact.value_error()

    def _factor(self) -> tf.Tensor:
        """B/c, or a share of it, in the precision of z."""
        examples = tf.cast(self._examples, self.z.dtype) / self._shares
        return examples / tf.cast(self._scale, self.z.dtype)


def _extreme(weight: tf.Tensor) -> tf.Tensor:
    """A power of two near the sum of a term's weights, 1 for a mean; 1 unless that is extreme."""
    low, high = _USUAL
    power = power_of_two(math.sqrt(2.0) * weight)
    return tf.where((weight >= low) & (weight <= high), tf.ones_like(weight), power)
