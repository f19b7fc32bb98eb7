"""Outputs of a network in which its loss is convex, and the second derivative there.

    z = network(w)      an output in which terms of the loss are convex   any shape, examples first
    Σ_t ω_t φ_t(z)      these terms φ, with weights ω ≥ 0                 scalar
    C = d²/dz² Σ ω φ    block diagonal over examples, and psd             applied, never formed
      = Σ_r s_r s_rᵀ    for each example, where R roots are few           s [R, *z.shape]

`convex_loss` finds z and φ in the recorded operations: by the table of convex functions, or by a
`LossRule`. An `OutputCurvature` has C at one point.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss import RecordedLoss

# Outputs of an example up to which its C is held; a vocabulary has more.
MAX_OUTPUTS = 256
UNIT_ROUNDOFF = {tf.float32: 2.0**-24, tf.float64: 2.0**-53}


class Candidate(NamedTuple):
    """A tensor in which a rule knows some of the loss's terms to be convex.

    Attributes:
        z: The output.
        terms: Convex functions of z, one a row of it or one an element. Labels and everything else
            that they are made of must not depend on the weights (`moving_tensors`).
    """

    z: tf.Tensor
    terms: tf.Tensor


class LossRule(abc.ABC):
    """Recognises one kind of loss; registered by `@register("loss_rule", name)`.

    For what the table of convex functions (`loss.convexity`) cannot see, or for curvature that is
    better written down than differentiated.
    """

    @abc.abstractmethod
    def candidates(self, loss: RecordedLoss) -> Iterable[Candidate]:
        """Where in the recorded operations this kind of loss may be; none where it is not.

        What comes between the terms and the loss is looked at for all rules alike (`loss.cut`).
        """

    def curvature(self, part: ConvexPart) -> OutputCurvature:
        """C of the terms, found by this rule, at one point: by tapes, if a rule knows no better."""
        return CurvatureByTapes(part)


class RuleOfTable(LossRule):
    """Finds nothing, since the table of convex functions (`loss.convexity`) did."""

    def candidates(self, loss: RecordedLoss) -> Iterable[Candidate]:
        """None."""
        del loss
        return ()


@dataclasses.dataclass(frozen=True)
class ConvexOutput:
    """A tensor of the network in which some of the loss's terms are convex.

    Attributes:
        name: Name of the tensor z in the recorded graph.
        terms: Names of the tensors of these terms: a value a row of z, or one an element, or one.
        rule: Knows their curvature.
    """

    name: str
    terms: tuple[str, ...]
    rule: LossRule


@dataclasses.dataclass(frozen=True)
class ConvexPart:
    """The terms of a loss that are functions of one output, at one point.

    Attributes:
        loss: The recorded loss.
        output: Names of z and of the terms.
        weights: One tensor a variable.
        outputs: By name, the values at `weights` of this output and of all others of the loss,
            constants to all tapes.
        dtype: Precision of the weights.
    """

    loss: RecordedLoss
    output: ConvexOutput
    weights: Sequence[tf.Tensor]
    outputs: Mapping[str, tf.Tensor]
    dtype: tf.DType

    @property
    def z(self) -> tf.Tensor:
        """The output's value."""
        return self.outputs[self.output.name]

    def gradient(self) -> tf.Tensor:
        """∂L/∂z, of the shape of z, while the other outputs are held."""
        z = self.z
        with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            loss, _ = self.loss.evaluate(self.weights, overrides=self.outputs)
        return tape.gradient(loss, z)

    def gradient_of_terms(self, z: tf.Tensor) -> tf.Tensor:
        """∂/∂z of these terms Σ ω φ alone, at `z`."""
        with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            given = {**self.outputs, self.output.name: z}
            terms = self.loss.fetch(self.output.terms, self.weights, overrides=given)
        return tape.gradient(terms, z, self.signed_weights, unconnected_gradients="zero")

    def term_weights(self) -> tf.Tensor:
        """ω = ∂L/∂φ, of the shape of the terms: by how much each counts; at least zero."""
        return tf.nn.relu(self.signed_weights[0])

    @functools.cached_property
    def signed_weights(self) -> list[tf.Tensor]:
        """∂L/∂φ of each term: ω, or -ω of a concave term that is subtracted."""
        values = [tf.stop_gradient(self.loss.tensor(name)) for name in self.output.terms]
        with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            given = {**self.outputs, **dict(zip(self.output.terms, values, strict=True))}
            loss, _ = self.loss.evaluate(self.weights, overrides=given)
        return tape.gradient(loss, values)


class OutputCurvature(abc.ABC):
    """C = d²/dz² Σ ω φ(z) at one z, positive semidefinite.

    Args:
        z: The output.
        gradient: ∂L/∂z.
        dtype: Precision of the weights.

    Attributes:
        z: As given.
        gradient: As given.
        dtype: As given.
        loses_digits: True if `gradient` has lost digits that `lost_digits` knows.
        one_example: True if z has no axis of examples.
    """

    loses_digits: bool = False
    one_example: bool = False

    def __init__(self, z: tf.Tensor, gradient: tf.Tensor, dtype: tf.DType):
        self.z, self.gradient, self.dtype = z, gradient, dtype
        self.one_example = z.shape.rank == 0

    @abc.abstractmethod
    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v for each example: of the shape of z."""

    @abc.abstractmethod
    def roots(self) -> tf.Tensor | None:
        """s with C = Σ_r s_r s_rᵀ for each example, `[R, *z.shape]`; None where R is large.

        Blocks are made of them as they are, where examples are proved to be apart: no step compares
        them with `product` there. Both are functions of z and of the terms' constants alone, so
        that a test of the rule says all that a step could: S Sᵀ v = C v at random z
        (`tests/curvature/test_outputs.py`, which a new rule joins).
        """

    def coefficients(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        """c `[B, R]` with ∂L/∂z = Σ_r c_r s_r, and whether there are such, a scalar bool.

        None where that is not looked for.
        """
        return None

    def lost_digits(self) -> tf.Tensor:
        """The part of ∂L/∂z that rounding took from `gradient`, of its shape.

        Asked for only if `loses_digits`.
        """
        return self.lost_digits_at(self.z)

    def lost_digits_at(self, z: tf.Tensor) -> tf.Tensor:
        """The same at another z."""
        return tf.zeros_like(z)

    def value_error(self) -> tf.Tensor:
        """About how far rounding has moved the loss, float64 scalar: u Σ|∂L/∂z||z|."""
        terms = tf.reduce_sum(tf.abs(self.gradient * self.z))
        return UNIT_ROUNDOFF[self.dtype] * tf.cast(terms, tf.float64)


class CurvatureByTapes(OutputCurvature):
    """C of terms in which no two elements of z meet: diagonal, the derivative of ∂/∂z.

    Terms in which they do need their own. A negative C_cc, of labels that make a term concave, is
    cut off at zero.

    Args:
        part: The terms.
        slope: ∂/∂z of what is differentiated, at z; of the terms, if None.
    """

    def __init__(self, part: ConvexPart, slope: Callable[[tf.Tensor], tf.Tensor] | None = None):
        z = part.z
        with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            gradient = (slope or part.gradient_of_terms)(z)
        super().__init__(z, part.gradient(), part.dtype)
        self._diagonal = tf.nn.relu(tape.gradient(gradient, z, unconnected_gradients="zero"))

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v, of the shape of z."""
        return self._diagonal * vector

    def roots(self) -> tf.Tensor | None:
        """√C_cc e_c for each of an example's elements c, `[R, *z.shape]`."""
        count = countable_outputs(self.z)
        if count is None:
            return None
        root = tf.sqrt(self._diagonal)[None]
        if count == 1:
            return root
        inner = self.z.shape[1:].as_list()
        return tf.reshape(tf.eye(count, dtype=self.z.dtype), [count, 1, *inner]) * root

    def coefficients(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        """∂L/∂z over √C, of one element an example; there are none where C alone is zero."""
        if countable_outputs(self.z) != 1:
            return None
        root = tf.sqrt(self._diagonal)
        exist = tf.reduce_all((root > 0) | tf.equal(self.gradient, 0))
        return tf.reshape(tf.math.divide_no_nan(self.gradient, root), [-1, 1]), exist


def countable_outputs(z: tf.Tensor) -> int | None:
    """Elements of z an example, if so many roots may be held for each; else None."""
    count = z.shape[1:].num_elements() if z.shape.rank else z.shape.num_elements()
    return None if count is None or count > MAX_OUTPUTS else int(count)
