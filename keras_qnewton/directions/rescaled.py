"""Another direction in rescaled weights: λD² in place of λI.

    D_j² = |H_jj|                            max_i |H_ii| where it is zero      [N]
    w̃ = D w,  g̃ = D⁻¹ g,  H̃ = D⁻¹ H D⁻¹      H̃_jj = ±1, or 0                   [N], [N], [N, N]
    x = D⁻¹ x̃,  x̃ the direction of g̃ and H̃ at λ                               [N]

(H̃ + λI) x̃ = g̃ is (H + λD²) x = g. Neither the unit that a weight is measured in nor a factor on
the loss changes it, and λ has no unit. λI is nothing to some weights and all to others, once their
scales differ by more than numbers have digits. D is of this step's H alone.

References:
    Marquardt 1963, J. SIAM 11(2), 431-441 (the diagonal of G).
    Moré 1978, Lecture Notes in Mathematics 630, 105-116, section 6 (MINPACK's: running maxima).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.curvature.formation import Formed
from keras_qnewton.directions.block_step import BlockStep
from keras_qnewton.directions.direction import AnyDirection, Direction, DirectionState
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.settings import Settings


class RescaledState(NamedTuple):
    """A block as the other direction prepared it in rescaled weights; see `DirectionState`.

    Attributes:
        formation: See there.
        scale: See there; of H̃.
        diagonal: D `[N]`, the dtype of the gradient; ones where weights are not rescaled.
        other: What the other direction's `init` returned.
    """

    formation: tf.Tensor
    scale: tf.Tensor
    diagonal: tf.Tensor
    other: DirectionState


class Rescaled(Direction[RescaledState]):
    """Another direction of a formed block, in weights rescaled by the block's diagonal.

    Where `BlockProblem.rescaled` is false when the step runs, all is as the other direction has it.

    Args:
        settings: The policies of the step.
        other: The other direction.
    """

    def __init__(self, settings: Settings, other: AnyDirection):
        super().__init__(settings)
        self._other = other

    def init(self, problem: BlockProblem) -> RescaledState:
        """Forms the block, rescales it, and has the other direction prepare it."""
        formed, dtype = problem.form(), problem.gradient.dtype
        ones = tf.ones([problem.size], dtype)

        def rescaled() -> tuple[tf.Tensor, tf.Tensor]:
            diagonal = tf.cast(root_of_diagonal(formed.matrix), dtype)
            d = tf.cast(diagonal, formed.matrix.dtype)
            # One after the other: a product of two of D may be below the smallest number.
            return formed.matrix / d / d[:, None], diagonal

        # A branch of its own would take longer to begin than what is in it.
        matrix, diagonal = tf.cond(
            tf.convert_to_tensor(problem.rescaled), rescaled, lambda: (formed.matrix, ones)
        )
        other = self._other.init(_rescaled(problem, diagonal, formed._replace(matrix=matrix)))
        return RescaledState(other.formation, other.scale, diagonal, other)

    def product(
        self, problem: BlockProblem, state: RescaledState, vector: tf.Tensor
    ) -> tf.Tensor | None:
        """See `Direction.product`."""
        inner = _rescaled(problem, state.diagonal)
        found = self._other.product(inner, state.other, state.diagonal * vector)
        return None if found is None else state.diagonal * found

    def damped(self, problem: BlockProblem, state: RescaledState, vector: tf.Tensor) -> tf.Tensor:
        """See `Direction.damped`."""
        del problem
        return state.diagonal * vector

    def solve(self, problem: BlockProblem, state: RescaledState, damping: tf.Tensor) -> BlockStep:
        """x from the other direction's x̃."""
        step = self._other.solve(_rescaled(problem, state.diagonal), state.other, damping)
        return step._replace(x=step.x / state.diagonal)

    def noted(
        self, problem: BlockProblem, state: RescaledState, damping: tf.Tensor, step: BlockStep
    ) -> BlockStep:
        """See `Direction.noted`."""
        return self._other.noted(_rescaled(problem, state.diagonal), state.other, damping, step)


def root_of_diagonal(matrix: tf.Tensor) -> tf.Tensor:
    """D `[N]` of a symmetric matrix `[N, N]`, in its dtype; see the module."""
    found = tf.abs(tf.linalg.diag_part(matrix))
    largest = tf.reduce_max(found)
    some = tf.where(largest > 0, largest, tf.ones_like(largest))
    return tf.sqrt(tf.where(found > 0, found, some))


def _rescaled(
    problem: BlockProblem, diagonal: tf.Tensor, formed: Formed | None = None
) -> BlockProblem:
    """The problem in rescaled weights; `formed` is H̃, where it is asked for."""
    return dataclasses.replace(
        problem,
        gradient=problem.gradient / diagonal,
        weights=None if problem.weights is None else problem.weights * diagonal,
        product=lambda v: problem.product(v / diagonal) / diagonal,
        form=problem.form if formed is None else lambda: formed,
    )
