"""Gauss-Newton products with vectors: three passes, and no matrix is formed.

    G v = Σ_i J_iᵀ (C_i (J_i v)) + R v      [N] -> [N]; z, J, C and R as in `gauss_newton`

J and R are `output_jacobian`'s, and C is an `OutputCurvature` of the loss, or another in its place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.linearized import Linearized, Point
from keras_qnewton.curvature.output_jacobian import OutputJacobian, Remainder
from keras_qnewton.curvature.outputs import (
    ConvexLoss,
    ConvexOutput,
    ConvexPart,
    OutputCurvature,
)
from keras_qnewton.loss.independence import Passage
from keras_qnewton.loss.loop_uses import UsesInLoops
from keras_qnewton.loss.uses import Uses
from keras_qnewton.norms import norm

# Relative size of a change of the gradient that is far below what one batch tells of it.
_NEGLIGIBLE = 2.0**-12


class GaussNewtonLinearized(Linearized):
    """A loss differentiated once through the network and twice through its convex part.

    Args:
        point: What is differentiated, and where.
        convex: The outputs z, and what is held beside them.
        output_curvature: From the loss behind a z to C; that of the rule which found z, if None.
        fetch: Names of other tensors of which the value is wanted.
    """

    def __init__(
        self,
        point: Point,
        convex: ConvexLoss,
        output_curvature: Callable[[ConvexPart], OutputCurvature] | None = None,
        fetch: Sequence[str] = (),
    ):
        super().__init__(*point)
        loss, weights = point.loss, point.weights
        self.positive_semidefinite = not convex.rest
        self._convex = convex
        outputs = list(dict.fromkeys(output.name for output in convex.outputs))
        others = list(dict.fromkeys([*fetch, *convex.held]))
        loss.require_second_derivatives(outputs)
        loss.require_second_derivatives([loss.recorded.name], given=convex.held)
        self._jacobian = OutputJacobian(
            lambda weights, watch: self._run(weights, watch, [*outputs, *others]),
            weights,
            like=[loss.tensor(name) for name in outputs],
        )
        # As they were made, for derivatives in them.
        self._inside = dict(zip(others, self._jacobian.others, strict=True))
        # Static shapes get lost where operations are run again.
        self._values = {
            name: tf.ensure_shape(tf.stop_gradient(t), loss.shape(name))
            for name, t in zip(
                [*outputs, *others], [*self._jacobian.outputs, *self._jacobian.others], strict=True
            )
        }
        held = [self._values[name] for name in convex.held]
        self._remainder = Remainder(self._loss_while_held, weights, held)
        zs = {name: self._values[name] for name in outputs}
        parts_of_loss = [
            ConvexPart(loss, output, weights, zs, self.dtype) for output in convex.outputs
        ]
        self._curvatures = [
            (output_curvature or part.output.rule.curvature)(part) for part in parts_of_loss
        ]
        self._position = [outputs.index(output.name) for output in convex.outputs]

    @property
    def outputs(self) -> list[tuple[ConvexOutput, OutputCurvature]]:
        """The outputs, and C of each."""
        return list(zip(self._convex.outputs, self._curvatures, strict=True))

    def _run(
        self,
        weights: Sequence[tf.Tensor],
        watch: Callable[[tf.Tensor], None],
        names: list[str],
    ) -> list[tf.Tensor]:
        """Runs the network, and sees where weights enter."""
        self._uses, self._passage = Uses(weights, self.dtype), Passage(weights)
        observer = UsesInLoops(self._uses, watch, self._passage)
        return self._loss.fetch(names, weights, observer=observer)

    def _loss_while_held(
        self, weights: Sequence[tf.Tensor], held: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        given = dict(zip(self._convex.held, held, strict=True))
        return self._loss.evaluate(weights, overrides=given)[0]

    @functools.cached_property
    def _value_and_gradients(self) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        return self._value_and_gradients_by_tape()

    def _value_and_gradients_by_tape(self) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        """The loss, and its gradient by the network's tape."""
        return self._remainder.value, self._with_gradient_beside(self._through_outputs())

    def _through_outputs(self) -> list[tf.Tensor | None]:
        """The gradient through what is held, one tensor a weight."""
        reached = [
            (self._inside[name], seed)
            for name, seed in zip(self._convex.held, self._remainder.held_gradients, strict=True)
            if seed is not None
        ]
        if not reached:
            return [None] * len(self._shapes)
        inside, seeds = zip(*reached, strict=True)
        return self._jacobian.gradient(inside, seeds)

    def _with_gradient_beside(self, through: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """The gradient `through` what is held, and what is beside it."""
        return [
            a if b is None else b if a is None else a + b
            for a, b in zip(through, self._remainder.gradients, strict=True)
        ]

    def _of_outputs(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Sums, one a tensor z, of what there is for each output; two may be of one tensor."""
        sums: list[tf.Tensor] = [None] * len(self._jacobian.outputs)
        for i, tensor in zip(self._position, tensors, strict=True):
            sums[i] = tensor if sums[i] is None else sums[i] + tensor
        return sums

    def sharpened(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """`gradients` with the digits that the loss's derivatives in z have lost."""
        if not any(c.loses_digits for c in self._curvatures):
            return list(gradients)
        lost = self._of_outputs([c.lost_digits() for c in self._curvatures])
        known = self._of_outputs([c.gradient for c in self._curvatures])

        def won_back() -> list[tf.Tensor]:
            added = self.flatten(self._jacobian.transposed(lost, range(len(self._shapes))))
            return [g + more for g, more in zip(gradients, added, strict=True)]

        # A backward pass, which models that are certain of few examples do without.
        worth_it = _global_norm(lost) > _NEGLIGIBLE * _global_norm(known)
        return _tf_private.cond(worth_it, won_back, lambda: list(gradients))

    def value_error(self) -> tf.Tensor:
        """About how far rounding has moved the loss, float64 scalar."""
        if not self._curvatures:
            return super().value_error()
        return tf.add_n([c.value_error() for c in self._curvatures])

    def gradients_after(self, step: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradient at the weights plus `step`, as exact as `sharpened`."""
        if not any(c.loses_digits for c in self._curvatures):
            return super().gradients_after(step)
        points = [x + d for x, d in zip(self.points, step, strict=True)]
        names = [output.name for output in self._convex.outputs]
        # One pass, by a tape that is used once: for others, loops have derivatives of derivatives.
        with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            value, zs = self._loss.evaluate(self.unflatten(points), fetch=names, unroll=0)
        lost = [c.lost_digits_at(z) for c, z in zip(self._curvatures, zs, strict=True)]
        seeds = [tf.ones_like(value), *lost]
        found: list[tf.Tensor] = tape.gradient(
            [value, *zs], points, seeds, unconnected_gradients="zero"
        )
        return found

    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """G v with the whole matrix: one `[N_k]` a block in, one out."""
        everything = range(len(self._shapes))

        def whole(*vectors: tf.Tensor) -> list[tf.Tensor]:
            return self.flatten(self._product(self.unflatten(vectors), everything))

        # Several branches of a step ask for it, and seldom get it.
        return list(self._jacobian.called("G v", whole, vectors))

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """G_k v with the k-th diagonal block, `[N_k]`."""
        tensors, indices = self.unflatten_block(k, vector), self._parts[k].indices
        return self.flatten_block(k, self._product(tensors, indices))

    def _product(self, tensors: Sequence[tf.Tensor], of: Sequence[int]) -> list[tf.Tensor]:
        curved = self._curved(self._along(tensors, of))
        through = self._jacobian.transposed(curved, of)
        if not self._remainder.depends_on(of):
            return through
        beside = self._beside(tensors, of)
        return [a + b for a, b in zip(through, beside, strict=True)]

    def _along(self, tensors: Sequence[tf.Tensor], of: Sequence[int]) -> list[tf.Tensor]:
        """J v, one tensor a tensor z."""
        vectorized = self._loss.vectorizable
        product = self._jacobian.product if vectorized else self._jacobian.called_product
        return product(tensors, of)

    def _remainder_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """R_k v with the k-th diagonal block, `[N_k]`."""
        indices = self._parts[k].indices
        return self.flatten_block(k, self._beside(self.unflatten_block(k, vector), indices))

    def _beside(self, tensors: Sequence[tf.Tensor], of: Sequence[int]) -> list[tf.Tensor]:
        """R v; of penalties alone, whose factors the rules take to be positive, cut off at zero."""
        if not self.positive_semidefinite:
            return self._remainder.product(tensors, of)
        diagonal = self._remainder.product([tf.ones_like(t) for t in tensors], of)
        return [tf.maximum(d, 0) * v for d, v in zip(diagonal, tensors, strict=True)]

    def _curved(self, along: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """C u, one tensor a tensor z."""
        return self._of_outputs(
            [c.product(along[i]) for i, c in zip(self._position, self._curvatures, strict=True)]
        )


def _global_norm(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The norm of all tensors together, scalar."""
    return norm(tf.stack([norm(tensor) for tensor in tensors]))
