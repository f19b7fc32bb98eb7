"""Limited memory: an inverse Hessian made of the last h pairs.

    S, Y    rows are the last pairs' steps s and changes of the gradient y, oldest first   [h, N]
    R       upper triangle of S Yᵀ, diagonal included: s_i.y_j for i ≤ j                   [h, h]
    D       its diagonal                                                                   [h, h]
    γ       yᵀs/yᵀy of the newest pair: H₀ = γ I

    H v     = γ v + Sᵀ (R⁻ᵀ ((D + γ Y Yᵀ) a - γ Y v)) - γ Yᵀ a,     a = R⁻¹ S v

This is what the two loops of L-BFGS compute (Nocedal 1980), in exact arithmetic: BFGS's update for
each of the pairs, of γ I. S and Y are multiplied by twice, and what is between is of h numbers.
Loops would be 4h operations, each of them a pass over a vector.

R and Y Yᵀ are kept, and a pair adds a column to each: S y and Y y. Pairs are in a ring, the newest
in the oldest one's place; only the small matrices are put in order.

References:
    Byrd, Nocedal & Schnabel 1994, Representations of quasi-Newton matrices and their use in limited
    memory methods, Math. Program. 63, 129-156: theorem 2.2 and section 3.1.
    Nocedal 1980, Math. Comput. 35, 773-782; Liu & Nocedal 1989, Math. Program. 45, 503-528.
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.norms import norm, unit
from keras_qnewton.quasi_newton.inverse import AddVariable, InverseHessian, Prepared

# yᵀs of a pair, relative to ‖y‖‖s‖: what is less may be rounding, and H stays positive definite.
_LEAST_CURVATURE = {tf.float32: 1e-6, tf.float64: 1e-12}


class LimitedMemoryInverse(InverseHessian):
    """H of the last `history` pairs; a pair takes 2N numbers.

    A pair with yᵀs ≤ 1e-12 ‖y‖‖s‖, in single precision 1e-6 ‖y‖‖s‖, is left out: H would not stay
    positive definite.

    Args:
        history: h, the largest number of pairs.
        size: N.
        add_variable: Makes the optimizer's variables.
        dtype: Of S and Y: "float64", or "float32" for half the memory and time. Small matrices are
            in double precision, of the pairs as they are kept.
    """

    def __init__(self, history: int, size: int, add_variable: AddVariable, dtype: str = "float64"):
        self._history, self._dtype = history, tf.as_dtype(dtype)
        square = (history, history)
        # Of S and Y, one above the other: one product is with both.
        self.pairs = add_variable((2 * history, size), dtype, "pairs", "zeros")
        self.products = add_variable(square, "float64", "steps_by_changes", "zeros")  # S Yᵀ
        self.gram = add_variable(square, "float64", "changes_by_changes", "zeros")  # Y Yᵀ
        self.count = add_variable((), "int32", "pairs_learned", "zeros")

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """H v, `[N]` float64."""
        pairs = tf.convert_to_tensor(self.pairs.value)
        return self._outer(pairs, vector, self._inner(pairs, vector))

    def prepared(
        self, s: tf.Tensor, y: tf.Tensor, gradient: tf.Tensor, Hg: tf.Tensor, sbs: tf.Tensor
    ) -> Prepared:
        """A pair, scaled; see `InverseHessian.prepared`. Hg and sᵀBs are of no use here."""
        del Hg, sbs
        # H is the same of a pair times any factor: of y near 1 no square overflows or vanishes.
        u = unit(y)
        both = tf.stack([tf.cast(s / u, self._dtype), tf.cast(y / u, self._dtype)])
        # A product with H before would read all pairs once more.
        return Prepared(None, (both, gradient))

    def learned(self, pair: Prepared) -> tf.Tensor:
        """Takes in a pair; see `InverseHessian.learned`."""
        both, gradient = pair.tensors
        s, y = tf.unstack(both)
        least = _LEAST_CURVATURE[self._dtype] * norm(y) * norm(s)
        return tf.cond(
            tf.tensordot(y, s, 1) > least,
            lambda: self._taken(both, gradient),
            lambda: self.product(gradient),
        )

    def reset(self, factor: tf.Tensor | float = 1.0) -> None:
        """See `InverseHessian.reset`."""
        self.count.assign(0)
        self.products.assign(factor * tf.eye(self._history, dtype=tf.float64))
        self.gram.assign(tf.eye(self._history, dtype=tf.float64))

    def _taken(self, both: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        """H' g' once the pair is in the oldest one's place."""
        count = tf.convert_to_tensor(self.count.value)
        slot = count % self._history
        # TensorFlow copies a variable of which slices were assigned when it is read: once a step.
        places = tf.stack([slot, slot + self._history])
        self.pairs.value.scatter_update(tf.IndexedSlices(both, places))
        self.count.assign(count + 1)
        pairs = tf.convert_to_tensor(self.pairs.value)
        by_steps, by_changes = (v[:, tf.newaxis] for v in tf.split(self._inner(pairs, both[1]), 2))
        # As a whole: XLA assigns no column whose number is not constant.
        here = tf.one_hot(slot, self._history, on_value=True, off_value=False)
        self.products.assign(tf.where(here, by_steps, self.products.value))
        gram = tf.where(here, by_changes, self.gram.value)
        self.gram.assign(tf.where(here[:, tf.newaxis], tf.transpose(by_changes), gram))
        return self._outer(pairs, gradient, self._inner(pairs, gradient))

    def _inner(self, pairs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        """S v and Y v, one above the other, `[2h]` float64."""
        # Products with two vectors at once are slower than one after the other.
        return tf.cast(tf.linalg.matvec(pairs, tf.cast(vector, self._dtype)), tf.float64)

    def _outer(self, pairs: tf.Tensor, vector: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
        """H v of S v and Y v, one above the other, in the ring's order `[2h]`."""
        history, count = self._history, tf.convert_to_tensor(self.count.value)
        order = (count + tf.range(history)) % history  # oldest first
        used = tf.range(history) >= history - count  # what was never written is before the oldest
        both = used[:, tf.newaxis] & used[tf.newaxis]

        def ordered(matrix: tf.Tensor) -> tf.Tensor:
            return tf.where(both, tf.gather(tf.gather(matrix, order), order, axis=1), 0.0)

        def along(rows: tf.Tensor) -> tf.Tensor:
            return tf.where(used, tf.gather(rows, order), 0.0)

        products, gram = ordered(self.products.value), ordered(self.gram.value)
        curvatures = tf.linalg.diag_part(products)
        # Without a pair, the factor of `reset`; 1 before the first.
        alone = tf.convert_to_tensor(self.products.value)[0, 0]
        alone = tf.where(alone > 0, alone, tf.ones_like(alone))
        scale = tf.where(count > 0, tf.math.divide_no_nan(curvatures[-1], gram[-1, -1]), alone)
        upper = tf.linalg.set_diag(
            tf.linalg.band_part(products, 0, -1), tf.where(used, curvatures, 1.0)
        )
        along_s, along_y = along(inner[:history]), along(inner[history:])
        a = _solved(upper, along_s)
        of_steps = curvatures * a + scale * (tf.linalg.matvec(gram, a) - along_y)
        weights = tf.concat([_solved(upper, of_steps, adjoint=True), -scale * a], 0)
        position = tf.concat([order, order + history], 0)
        ring = tf.scatter_nd(position[:, tf.newaxis], weights, [2 * history])
        correction = tf.linalg.matvec(pairs, tf.cast(ring, self._dtype), transpose_a=True)
        return scale * vector + tf.cast(correction, tf.float64)


def _solved(upper: tf.Tensor, rhs: tf.Tensor, adjoint: bool = False) -> tf.Tensor:
    found = tf.linalg.triangular_solve(upper, rhs[:, tf.newaxis], lower=False, adjoint=adjoint)
    return found[:, 0]
