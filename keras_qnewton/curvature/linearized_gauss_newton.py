"""Gauss-Newton products with vectors: three passes, and no matrix is formed.

    G v = Jᵀ (C (J v)) + R v        [N] -> [N]; z, J, C and R as in `gauss_newton`

    J v       of the shape of z     forward mode, as two reverse ones
    C (J v)   of the shape of z     of a softmax row with weight ω: C = ω (diag p - p pᵀ)
    Jᵀ u      [N]                   a backward pass

Of outputs `[B, C]` with C small, the roots s_c of C = Σ_c s_c s_cᵀ are known besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.loss.structure import ConvexOutput

# Outputs of an example up to which its C is held.
MAX_OUTPUTS = 256
# Of a gradient, relative to it: far below what one batch tells of it.
_NEGLIGIBLE = 2.0**-12
_ROUNDING = {tf.float32: 2.0**-24, tf.float64: 2.0**-53}


class GaussNewtonLinearized(Linearized):
    """A loss differentiated once through the network and twice through its convex part.

    Args:
        *args: Of `Linearized`.
        output: z.
        fetch: Names of other tensors of which the value is wanted.
        **kwargs: Of `Linearized`.
    """

    positive_semidefinite = True

    def __init__(self, *args: Any, output: ConvexOutput, fetch: Sequence[str] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._output = output
        loss, points = self._loss, self.points
        self._probe = tf.zeros_like(loss.tensor(output.name))
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._forward:
            self._forward.watch(self._probe)
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._network:
                self._network.watch(points)
                _, (self._z, *fetched) = loss.evaluate(
                    self.unflatten(points), fetch=[output.name, *fetch]
                )
            # Jᵀu: linear in u, so that its derivative in u along v is J v.
            self._pulled = self._network.gradient(
                self._z, points, self._probe, unconnected_gradients="zero"
            )
        # Static shapes get lost where operations are run again.
        recorded, *others = (
            tf.ensure_shape(tf.stop_gradient(t), loss.tensor(name).shape)
            for t, name in zip([self._z, *fetched], [output.name, *fetch], strict=True)
        )
        self._values = dict(zip(fetch, others, strict=True))
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._convex:
            self._convex.watch(recorded)
            with tf.GradientTape(watch_accessed_variables=False) as first:
                first.watch(recorded)
                value, _ = loss.evaluate(self.unflatten(points), overrides={output.name: recorded})
            self._output_gradient = first.gradient(value, recorded)
        self._recorded = recorded
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._rest:
            self._rest.watch(points)
            with tf.GradientTape(watch_accessed_variables=False) as first:
                first.watch(points)
                value, _ = loss.evaluate(
                    self.unflatten(points), overrides={output.name: tf.stop_gradient(recorded)}
                )
            self._rest_gradients = first.gradient(value, points)
        if output.kind == "softmax cross-entropy":
            self._probabilities = tf.nn.softmax(recorded)
            self._likeliest = tf.argmax(self._probabilities, axis=1)[:, None]
            self._term_weights = self._weights_of_terms()
        self._roots: Any = self._output_roots() if self._has_few_outputs() else None

    def sharpened(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """`gradients` with the digits that softmax cross-entropy's derivative loses."""
        if self._output.kind != "softmax cross-entropy":
            return list(gradients)
        lost = self._lost(self._output_gradient, self._likeliest)

        def won_back() -> list[tf.Tensor]:
            added = self._network.gradient(self._z, self.points, lost, unconnected_gradients="zero")
            return [g + more for g, more in zip(gradients, added, strict=True)]

        # A backward pass, which models that are certain of few examples do without.
        worth_it = tf.norm(lost) > _NEGLIGIBLE * tf.norm(self._output_gradient)
        return tf.cond(worth_it, won_back, lambda: list(gradients))

    def value_error(self) -> tf.Tensor:
        """About how far rounding has moved the loss, float64 scalar.

        u Σ|∂L/∂z||z| comes from that of z; softmax cross-entropy of a certain example, the
        logarithm of nearly 1, has the absolute error u besides.
        """
        terms = tf.reduce_sum(tf.abs(self._output_gradient * self._recorded))
        if self._output.kind == "softmax cross-entropy":
            terms += tf.reduce_sum(self._term_weights)
        return _ROUNDING[self.dtype] * tf.cast(terms, tf.float64)

    def gradients_after(self, step: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradient at the weights plus `step`, as exact as `sharpened`."""
        if self._output.kind != "softmax cross-entropy":
            return super().gradients_after(step)
        points = [x + d for x, d in zip(self.points, step, strict=True)]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(points)
            value, (z,) = self._loss.evaluate(self.unflatten(points), fetch=[self._output.name])
        lost = self._lost(
            tf.ensure_shape(tape.gradient(value, z), self._recorded.shape),
            tf.argmax(z, axis=1)[:, None],
        )
        gradients = tape.gradient(value, points, unconnected_gradients="zero")
        added = tape.gradient(z, points, lost, unconnected_gradients="zero")
        return [g + more for g, more in zip(gradients, added, strict=True)]

    def _lost(self, derivative: tf.Tensor, likeliest: tf.Tensor) -> tf.Tensor:
        """What rounding took from ∂L/∂z, `[B, C]`, of softmax cross-entropy.

        A row is ω (p - y), and its sum zero. Where the model is certain of the class y, p_y - 1
        is a difference of nearly equal numbers: in single precision it is wrong by 6e-8, which
        is all of it at a loss of 6e-8. The other entries are right: theirs is its value.
        """
        excess = tf.reduce_sum(derivative, axis=1)
        # More than rounding: labels that do not sum to one.
        rounding = 2.0**-20 if derivative.dtype == tf.float32 else 2.0**-48
        explained = tf.abs(excess) <= rounding * self._term_weights
        excess = tf.where(explained, excess, tf.zeros_like(excess))
        count = tf.shape(derivative)[1]
        return -excess[:, None] * tf.one_hot(likeliest[:, 0], count, dtype=derivative.dtype)

    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """G v with the whole matrix: one `[N_k]` a block in, one out."""
        curved = self._output_product(self._jacobian_product(self._pulled, list(vectors)))
        out = self._network.gradient(self._z, self.points, curved, unconnected_gradients="zero")
        for gradient, vector in zip(self._rest_gradients, vectors, strict=True):
            if gradient is not None:
                rest = self._rest.gradient(
                    gradient, self.points, vector, unconnected_gradients="zero"
                )
                out = [a + b for a, b in zip(out, rest, strict=True)]
        return out

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """G_k v with the k-th diagonal block, `[N_k]`."""
        curved = self._output_product(self._jacobian_product(self._pulled[k], vector))
        out = self._network.gradient(self._z, self.points[k], curved, unconnected_gradients="zero")
        if self._rest_gradients[k] is not None:
            out += self._rest.gradient(
                self._rest_gradients[k], self.points[k], vector, unconnected_gradients="zero"
            )
        return out

    def _jacobian_product(self, pulled: Any, vector: Any) -> tf.Tensor:
        return self._forward.gradient(pulled, self._probe, vector, unconnected_gradients="zero")

    def _output_product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v for each example, of the shape of z."""
        if self._output.kind == "softmax cross-entropy":
            # Where the model is certain, C v = ω (p v - p (p.v)) is a difference of nearly equal
            # numbers, in the second derivative by tapes too. C ignores what all entries of v
            # share: taken from the likeliest class, nothing cancels.
            p = self._probabilities
            v = vector - tf.gather(vector, self._likeliest, axis=1, batch_dims=1)
            mean = tf.reduce_sum(p * v, axis=1, keepdims=True)
            return self._term_weights[:, None] * p * (v - mean)
        return self._convex.gradient(
            self._output_gradient, self._recorded, vector, unconnected_gradients="zero"
        )

    def _weights_of_terms(self) -> tf.Tensor:
        """ω `[B]`: by how much each term of the loss counts."""
        terms = self._loss.tensor(self._output.terms)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(terms)
            value, _ = self._loss.evaluate(
                self.unflatten(self.points), overrides={self._output.terms: terms}
            )
        return tf.nn.relu(tape.gradient(value, terms))

    def _has_few_outputs(self) -> bool:
        """Whether C `[C, C]` may be held for each example: not for a large vocabulary."""
        z = self._recorded.shape
        return z.rank == 2 and z[1] is not None and int(z[1]) <= MAX_OUTPUTS

    def _output_roots(self) -> tf.Tensor:
        """S with C = Σ_c s_c s_cᵀ for each example: `[C, B, C]`; z must be `[B, C]`.

        Softmax of a row with weight ω: C = ω (diag p - p pᵀ), s_c = √(ω p_c) (e_c - p). In the
        other losses C is diagonal.
        """
        count = int(self._recorded.shape[1])
        identity = tf.eye(count, dtype=self._recorded.dtype)
        if self._output.kind != "softmax cross-entropy":
            diagonal = self._convex.gradient(
                self._output_gradient, self._recorded, unconnected_gradients="zero"
            )
            return identity[:, None, :] * tf.sqrt(tf.nn.relu(diagonal))[None]
        p = self._probabilities
        # 1 - p_c as the sum of the others, which cancels nothing.
        rest = tf.matmul(p, 1 - identity)
        scale = tf.transpose(tf.sqrt(self._term_weights[:, None] * p))[:, :, None]
        return scale * (identity[:, None, :] * rest[None] - (1 - identity)[:, None, :] * p[None])
