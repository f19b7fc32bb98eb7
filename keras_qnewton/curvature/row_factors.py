"""The factors of rows of U: what a weight is multiplied by, and derivatives in the product.

U[(b,r)] = Σ_p a_bp ⊗ d_rbp        of uses by one equation       [R, B, N]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.curvature.contractions import contracted, lengths, reshaped
from keras_qnewton.curvature.pieces import Piece
from keras_qnewton.curvature.span import Span
from keras_qnewton.loss.uses import Equation, Use


class Factor(NamedTuple):
    """a and d of uses of one weight by the same equation.

    Attributes:
        use: One of them.
        inputs: a `[B, P, ...]`, or without these axes; None for a weight that is added.
        derivatives: d `[R, B, P, ...]`.
    """

    use: Use
    inputs: tf.Tensor | None
    derivatives: tf.Tensor

    @property
    def key(self) -> object:
        """The same for factors whose positions can be joined."""
        use = self.use
        elements = None if use.elements is None else use.elements.tobytes()
        shapes = tuple(self.derivatives.shape[3:])
        shared = None if self.inputs is None or self._by_example else id(self.inputs)
        return use.equation.lettered(), elements, use.factor, shapes, shared

    @property
    def _by_example(self) -> bool:
        return self.inputs is None or self.use.equation.by_example

    def with_smaller_inputs(self) -> Factor:
        """The same rows; of a single root a and d are alike, and the smaller of them becomes a.

        A weight that enters plain and transposed, as in a network's derivatives, has one equation.
        """
        a, d, equation = self.inputs, self.derivatives, self.use.equation
        if a is None or not self._by_example or d.shape[0] != 1:
            return self
        elements, others = a.shape[2:].num_elements(), d.shape[3:].num_elements()
        if elements is None or others is None or elements <= others:
            return self
        mirrored = Equation(equation.outputs, equation.weights, equation.inputs)
        return Factor(self.use._replace(equation=mirrored), d[0], a[None])

    def sliced(self, examples: Span) -> Factor:
        """Of some examples."""
        a = self.inputs
        a = examples.of(a) if a is not None and self._by_example else a
        return self._replace(inputs=a, derivatives=examples.of(self.derivatives, axis=1))

    def rows(self, size: int) -> tf.Tensor:
        """Σ_p a ⊗ d `[R, B, size]`, at the weight's elements."""
        return self._placed(self._contracted(self.inputs, self.derivatives, "RBP", "RB"), size)

    def total(self, coefficients: tf.Tensor, size: int) -> tf.Tensor:
        """Σ_b,r c_br Σ_p a ⊗ d `[size]`, for c `[B, R]`."""
        if self.derivatives.shape[0] == 1 and self._by_example:
            return self.with_smaller_inputs()._total_of_one_root(coefficients, size)
        d = self.derivatives
        inner = [1] * (len(d.shape) - 2)
        shape = tf.concat([tf.shape(d)[:2], inner], 0)
        c = tf.reshape(tf.transpose(tf.cast(coefficients, d.dtype)), shape)
        # Roots first: a is the same for all of them.
        of_examples = tf.reduce_sum(c * d, 0)
        return self._placed(self._contracted(self.inputs, of_examples, "BP", ""), size)

    def _total_of_one_root(self, coefficients: tf.Tensor, size: int) -> tf.Tensor:
        """The same where a may be multiplied by c, and not d, which is larger."""
        d, a = self.derivatives, self.inputs
        c = tf.cast(coefficients, d.dtype)
        if a is None:
            weighted = tf.broadcast_to(c, lengths(d)[1:3])
        else:
            weighted = a * tf.reshape(c, [-1, *[1] * (len(a.shape) - 1)])
        return self._placed(self._contracted(weighted, d[0], "BP", ""), size)

    def _contracted(
        self, inputs: tf.Tensor | None, derivatives: tf.Tensor, axes: str, kept: str
    ) -> tf.Tensor:
        """a ⊗ d, summed over all axes but those of the weight and `kept`.

        `axes` are those of d before the weight's own.
        """
        letters = self.use.equation
        of_d = axes + letters.outputs[1:]
        of_a = "BP" + letters.inputs[1:] if self._by_example else letters.inputs
        found = contracted(inputs, of_a, derivatives, of_d, kept + letters.weights)
        return found if self.use.factor == 1 else self.use.factor * found

    def _placed(self, found: tf.Tensor, size: int) -> tf.Tensor:
        """The weight's axes as one, and zero at elements that are not used."""
        elements = self.use.elements
        before = len(found.shape) - len(self.use.equation.weights)
        if elements is None:
            return reshaped(found, before, size)
        flat = reshaped(found, before, elements.size)
        where = np.full(size, elements.size, np.int32)
        (held,) = np.nonzero(elements.ravel() >= 0)
        where[elements.ravel()[held]] = held
        padding = [[0, 0]] * (len(flat.shape) - 1) + [[0, 1]]
        return tf.gather(tf.pad(flat, padding), where, axis=-1)


class OfPiece(NamedTuple):
    """What a piece's columns of one output's rows are made of.

    Attributes:
        piece: The piece.
        factors: None of them where the output does not depend on its weight.
        made: The rows of all examples, `[R, B, columns]`; None where they are not made yet.
    """

    piece: Piece
    factors: list[Factor]
    made: tf.Tensor | None = None

    @property
    def sums_positions(self) -> bool:
        """Whether a row is a sum over several positions, or uses, of a weight that multiplies."""
        return any(f.inputs is not None and f.derivatives.shape[2] != 1 for f in self.factors)

    def with_rows(self) -> OfPiece:
        """The same with the rows of all examples."""
        return self._replace(made=rows(self.factors, self.piece.columns))

    def rows(self, examples: Span, count: int, dtype: tf.DType) -> tf.Tensor:
        """Of some examples, `[count, examples, columns]`."""
        if self.made is not None:
            return examples.of(self.made, axis=1)
        if not self.factors:
            return tf.zeros([count, examples.count, self.piece.columns], dtype)
        return rows([f.sliced(examples) for f in self.factors], self.piece.columns)

    def total(self, coefficients: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """Uᵀc `[columns]`, for c `[B, R]`."""
        if self.made is not None:
            c = tf.reshape(tf.transpose(coefficients), [1, -1])
            flat = tf.reshape(self.made, [-1, self.piece.columns])
            return tf.matmul(tf.cast(c, flat.dtype), flat)[0]
        found = [f.total(coefficients, self.piece.columns) for f in self.factors]
        zero = [] if found else [tf.zeros([self.piece.columns], dtype)]
        return tf.ensure_shape(tf.add_n([*found, *zero]), [self.piece.columns])


def rows(factors: Sequence[Factor], columns: int) -> tf.Tensor:
    """A piece's columns of U, `[R, B, columns]`."""
    found = [factor.rows(columns) for factor in factors]
    total = found[0] if len(found) == 1 else tf.add_n(found)
    return tf.ensure_shape(total, [None, None, columns])


def joined(factors: list[Factor]) -> Factor:
    """One factor with the positions of all."""
    first = factors[0]
    if len(factors) == 1:
        return first
    d = tf.concat([f.derivatives for f in factors], 2)
    a = None if first.inputs is None else tf.concat([f.inputs for f in factors], 1)
    return Factor(first.use, a, d)
