"""A block of the curvature as a step uses it: formed, averaged, checked, kept, pruned.

Nothing is kept before all that may refuse the step has passed. Of several blocks that are kept,
each is formed before the first of them is: another's may be the one that is not finite.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning.pruning import Pruned
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.curvature.low_rank import RowFactors
from keras_qnewton.state import KeptBlock
from keras_qnewton.step.batch import Share
from keras_qnewton.step.checks import finite, gated


@dataclasses.dataclass(frozen=True)
class Forming:
    """How a block is formed.

    Attributes:
        part: The block's `Part`.
        curvature: Gives H_k of this batch.
        kept: What lasts of it from step to step.
        share: m, the number of batches that are averaged, and what this one weighs.
        ready: A tensor that is there once the loss and its gradient have passed their checks.
        pruning: From a matrix `[N, N]` to a `Pruned`; None keeps all entries.
    """

    part: Part
    curvature: Callable[[], Formed]
    kept: KeptBlock
    share: Share
    ready: tf.Tensor
    pruning: Callable[[tf.Tensor], Pruned] | None

    def checked(self) -> Formed:
        """H_k, averaged over the batches, once it has passed its check; nothing is assigned."""
        formed = self.kept.matrix(self._of_full_batch, self.share.count, self.share.weight)
        # The sum has a NaN or Inf wherever the matrix has one.
        (total,) = gated([tf.reduce_sum(formed.matrix)], [self.ready])
        total = finite(total, f"The Hessian block {self.part.name!r}")
        return formed._replace(matrix=gated([formed.matrix], [total])[0])

    def _of_full_batch(self) -> Formed:
        """H_k of this batch, of a sum over examples as a full batch has it."""
        formed = self.curvature()
        if not self.share.summed or not self.kept.averages:
            return formed
        matrix = formed.matrix
        return formed._replace(matrix=matrix / tf.cast(self.share.weight, matrix.dtype))

    def assigned(self, formed: Formed) -> Formed:
        """What `checked` gave, kept for the next steps and pruned for this one."""
        matrix = self.kept.keep(formed, self.share.count)
        if self.pruning is not None:
            matrix = self.pruning(matrix).matrix
        return formed._replace(matrix=matrix)

    def __call__(self) -> Formed:
        """The block; for `BlockProblem.form`."""
        return self.assigned(self.checked())


def formed_before_any_is_kept(
    blocks: Sequence[Forming], rows: Sequence[RowFactors | None]
) -> list[Callable[[], Formed]]:
    """One `BlockProblem.form` a block.

    Args:
        blocks: How each is formed.
        rows: The rows of each, where they may be few enough to solve by them: where they are, the
            block is not formed.
    """
    several = sum(bool(block.kept.variables) for block in blocks) > 1
    if not several:
        return list(blocks)
    ahead = [
        _where_wanted(block, few) if block.part.dense else None
        for block, few in zip(blocks, rows, strict=True)
    ]
    all_checked = [formed.matrix for formed in ahead if formed is not None]

    def assigned(block: Forming, formed: Formed) -> Formed:
        (matrix,) = gated([formed.matrix], all_checked)
        return block.assigned(formed._replace(matrix=matrix))

    return [
        block if formed is None else _later(assigned, block, formed)
        for block, formed in zip(blocks, ahead, strict=True)
    ]


def _later(
    assigned: Callable[[Forming, Formed], Formed], block: Forming, formed: Formed
) -> Callable[[], Formed]:
    return lambda: assigned(block, formed)


def _where_wanted(block: Forming, rows: RowFactors | None) -> Formed:
    """The block as `Forming.checked` gives it; zeros where it is solved by its rows."""
    if rows is None:
        return block.checked()
    specs: list[Formed] = []

    def formed() -> Formed:
        found = Formed(*map(tf.convert_to_tensor, block.checked()))
        specs.append(Formed(*map(tf.TensorSpec.from_tensor, found)))
        return found

    def nothing() -> Formed:
        (spec,) = specs
        matrix = tf.zeros(spec.matrix.shape, spec.matrix.dtype)
        return Formed(matrix, tf.constant(Formation.NOT_FORMED), tf.constant(False))

    # The true branch is traced first: the other has to return as many tensors of its kinds.
    return _tf_private.cond(~rows.holds, formed, nothing)
