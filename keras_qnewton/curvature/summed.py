"""The curvature of several replicas: the sum of theirs, each of its own data.

g = Σ_r g_r,  H = Σ_r H_r            each formed on its replica's device      [N], [N, N]
U = [U_1; U_2; ...]                  rows of each replica's batch             [Σ_r rank, N]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton.curvature.formation import Formed
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.low_rank import LowRank, RowFactors
from keras_qnewton.loss.summed import SummedLoss, summed_gradients
from keras_qnewton.replicas import Replicas


class Summed(Linearized):
    """What `Linearized` gives of Σ_r L_r.

    Args:
        loss: The sum.
        at: From the loss of a replica to its `Linearized`.
    """

    def __init__(self, loss: SummedLoss, at: Callable[..., Linearized]):
        self._replicas: Replicas = loss.replicas
        self._summands = loss.each(at)
        first = self._summands[0]
        self._parts, self._shapes, self._dtypes = first._parts, first._shapes, first._dtypes
        self.dtype, self.points = first.dtype, first.points
        self.positive_semidefinite = all(c.positive_semidefinite for c in self._summands)

    @functools.cached_property
    def _value_and_gradients(self) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        found = self._each(lambda c: (c.value, c.gradients_of_weights))
        return summed_gradients(self._replicas, found)

    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Linearized`."""
        return self._replicas.total(self._each(lambda c: c.product(vectors)))

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """See `Linearized`."""
        return self._replicas.total(self._each(lambda c: [c.block_product(k, vector)]))[0]

    def sharpened(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Linearized`."""
        # Digits are added to a gradient, and to none as well.
        nothing = [tf.zeros_like(g) for g in gradients]
        lost = self._each(lambda c: c.sharpened(nothing))
        if all(
            digits is zeros for some in lost for digits, zeros in zip(some, nothing, strict=True)
        ):
            return list(gradients)
        more = self._replicas.total(lost)
        return [g + digits for g, digits in zip(gradients, more, strict=True)]

    def value_error(self) -> tf.Tensor:
        """See `Linearized`."""
        return self._replicas.total(self._each(lambda c: [c.value_error()]))[0]

    def gradients_after(self, step: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Linearized`."""
        return self._replicas.total(self._each(lambda c: c.gradients_after(step)))

    def formed(self, k: int) -> Formed:
        """See `Linearized`."""
        found = self._each(lambda c: c.formed(k))
        (matrix,) = self._replicas.total([[formed.matrix] for formed in found])
        return found[0]._replace(matrix=matrix)

    def low_rank(
        self, max_ranks: Sequence[int], used: Sequence[tf.Tensor | bool]
    ) -> list[RowFactors | None]:
        """See `Linearized`."""
        # A replica has its share of the rows.
        count = self._replicas.strategy.num_replicas_in_sync
        shares = [-(-rank // count) for rank in max_ranks]
        by_replica = self._each(lambda c: c.low_rank(shares, used))
        return [self._stacked(rows) for rows in zip(*by_replica, strict=True)]

    def _stacked(self, rows: Sequence[RowFactors | None]) -> RowFactors | None:
        """The rows of all replicas, one below another; None if one has none."""
        found = [r for r in rows if r is not None]
        if len(found) < len(rows):
            return None
        replicas = self._replicas
        count = replicas.strategy.num_replicas_in_sync
        counts = [[tf.cast(r.holds, tf.int32), r.number] for r in found]
        holding, number = replicas.total(counts)
        diagonal = None
        if found[0].diagonal is not None:
            (diagonal,) = replicas.total([[r.diagonal] for r in found])

        def make() -> LowRank:
            first, *others = (r.make() for r in found)
            if replicas.has_other_workers:
                return first.gathered(replicas.gathered)
            return first.above(*others)

        return RowFactors(
            holds=tf.equal(holding, count),
            make=make,
            max_rank=count * found[0].max_rank,
            diagonal=diagonal,
            penalised=tuple(any(has) for has in zip(*(r.penalised for r in found), strict=True)),
            number=number,
        )

    def _each(self, function: Callable[[Linearized], object]) -> list:
        return self._replicas.each(function, self._summands)
