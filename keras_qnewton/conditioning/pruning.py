"""Symmetric pruning: (i, j) and (j, i) are kept or dropped together.

    "matching"   at most d non-zeros a row
    "either"     each row's d largest, and their mirror images: d is what comes out, usually more

Choosing which pairs to keep of at most d a row is a b-matching: rows are vertices, entries
(i, j) edges of weight a_ij², and a row has room for d - 1 edges beside its diagonal. Edges are
kept by local dominance (Preis 1999; Khan et al., "Efficient approximation algorithms for
weighted b-matching", SIAM J. Sci. Comput. 38, 2016): in each round every row points at its
heaviest remaining edges, as many as it has room for, and an edge at which both ends point is
kept. The result is what a greedy pass over all entries from the largest down would keep, at
least half of the largest Σ a_ij² there is, but found in a few parallel rounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.arguments import check_choice, check_switch
from keras_qnewton.conditioning.arguments import square_matrix, symmetrised
from keras_qnewton.conditioning.compensation import compensated
from keras_qnewton.registry import Policy
from keras_qnewton.types import Array

# Entries in no particular order take a handful of rounds, |a_ij| falling off steadily from
# one corner about N/d. Stopping early leaves rows emptier than allowed, nothing worse.
_MAX_ROUNDS = 64
KEEP = ("matching", "either")


class Pruned(NamedTuple):
    """A pruned matrix, and how far it is from the original.

    Attributes:
        matrix: `[N, N]`, dtype of the input, symmetric to the bit.
        delta_norm: ‖ΔH‖_F, scalar float64, ΔH = what was dropped.
        row_nonzeros: d as it came out: the largest number of non-zeros in a row, scalar int32.
        spectral_bound: Upper bound of ‖ΔH‖₂, min(‖ΔH‖_F, ‖ΔH‖_∞), scalar float64. By Weyl no
            eigenvalue moved further: shifting by it keeps a positive definite matrix so.
    """

    matrix: tf.Tensor
    delta_norm: tf.Tensor
    row_nonzeros: tf.Tensor
    spectral_bound: tf.Tensor


@keras.saving.register_keras_serializable(package="keras_qnewton")
class Pruning(Policy):
    """A pruning of each block: `QNewton(sparsity=Pruning(0.1, keep="either"))`.

    Args:
        sparsity: How many non-zeros d a row keeps, an int, or a fraction of the block's N weights,
            a float in (0, 1].
        keep: "matching" keeps at most d non-zeros a row, so that a circuit's price is what was
            asked for. "either" keeps each row's d largest, and every entry whose mirror image is
            among its row's. That is closer to the matrix, but rows of large entries become
            denser than asked. The log and the scheduler's prices have the d that came out.
        compensate: Whether to give back on the diagonal what pruning takes from the smallest
            eigenvalue, so that a semidefinite block stays so (`conditioning.compensation`). It is
            for `Constant(definite=True)`. Saddle-free steps do better without.

    Raises:
        ValueError: If an argument is not one of these.
    """

    def __init__(self, sparsity: int | float, keep: str = "matching", compensate: bool = False):
        self.sparsity = _checked_sparsity(sparsity)
        self.keep = check_choice("keep", keep, KEEP)
        self.compensate = check_switch("compensate", compensate)

    def row_limit(self, size: int) -> int:
        """d for a block of N weights, between 1 and N."""
        d = self.sparsity if isinstance(self.sparsity, int) else round(self.sparsity * size)
        return max(1, min(d, size))

    def __call__(self, matrix: tf.Tensor) -> Pruned:
        """Prunes `matrix` `[N, N]`; the norms are those of the dropped entries."""
        pruned = prune(matrix, self.row_limit(int(matrix.shape[0])), self.keep)
        if self.compensate:
            pruned = pruned._replace(matrix=compensated(matrix, pruned.matrix)[0])
        return pruned

    def get_config(self) -> dict[str, Any]:
        return {"sparsity": self.sparsity, "keep": self.keep, "compensate": self.compensate}


def pruning_policy(sparsity: Any) -> tuple[Any, Any]:
    """The argument `sparsity` with plain numbers for NumPy's, and the policy that it stands for."""
    if sparsity is None or (callable(sparsity) and not isinstance(sparsity, type)):
        return sparsity, sparsity
    pruning = Pruning(sparsity)
    return pruning.sparsity, pruning


def _checked_sparsity(sparsity: Any) -> int | float:
    """`sparsity` as a plain int (a count) or a plain float (a fraction)."""
    if isinstance(sparsity, (int, np.integer)):
        if not isinstance(sparsity, bool) and sparsity >= 1:
            return int(sparsity)
    elif isinstance(sparsity, (float, np.floating)) and 0 < sparsity <= 1:
        return float(sparsity)
    raise ValueError(
        "Argument `sparsity` must be a positive integer (non-zeros a row), a float in (0, 1] "
        f"(fraction of a row), or None. Received: sparsity={sparsity!r}"
    )


def prune(matrix: Array, max_row_nonzeros: int | tf.Tensor, keep: str = "matching") -> Pruned:
    """Keeps the largest entries of a symmetric matrix.

    The diagonal is always kept and counts as one of the d. Kept entries are not changed. Runs
    eagerly and inside a `tf.function`; equal magnitudes are told apart by a fixed hash of the
    pair (i, j), so that the outcome is the same every time and for both triangles.

    Args:
        matrix: `[N, N]`, float32 or float64, symmetric (to rounding: its symmetric part is
            what is pruned); a tensor or an array.
        max_row_nonzeros: d ≥ 1, an int or a scalar int tensor. d ≥ N keeps everything.
        keep: "matching": at most d non-zeros a row. "either": (i, j) if it is among the d
            largest of row i or of row j, so that a row may have more than d.

    Returns:
        A `Pruned`.

    Raises:
        ValueError: If `matrix` is not square or not float32 or float64, `max_row_nonzeros` is
            not a positive integer, or `keep` not one of these; eagerly also if `matrix` is not
            symmetric or finite.
    """
    matrix = square_matrix(matrix)
    check_choice("keep", keep, KEEP)
    if not tf.is_tensor(max_row_nonzeros) and (
        int(max_row_nonzeros) != max_row_nonzeros or max_row_nonzeros < 1
    ):
        raise ValueError(
            "Argument `max_row_nonzeros` must be a positive integer. "
            f"Received: max_row_nonzeros={max_row_nonzeros}"
        )
    return Pruned(*_prune(matrix, tf.cast(max_row_nonzeros, tf.int32), keep))


@tf.function(reduce_retracing=True)
def _prune(matrix: tf.Tensor, max_row_nonzeros: tf.Tensor, keep: str) -> tuple[tf.Tensor, ...]:
    matrix = symmetrised(matrix)
    n = tf.shape(matrix)[0]
    diagonal = tf.cast(tf.eye(n), tf.bool)
    chosen = _matched if keep == "matching" else _chosen_by_either
    kept = diagonal | chosen(tf.abs(matrix), ~diagonal, tf.maximum(max_row_nonzeros, 1) - 1)
    pruned = tf.where(kept, matrix, tf.zeros_like(matrix))

    dropped = tf.abs(tf.cast(tf.where(kept, tf.zeros_like(matrix), matrix), tf.float64))
    largest = tf.reduce_max(dropped)  # scaled by it, no square over- or underflows
    frobenius = largest * tf.norm(tf.math.divide_no_nan(dropped, largest))
    row_sum = tf.reduce_max(tf.reduce_sum(dropped, axis=1))
    # Sums of n terms are rounded; the bound has to stay one.
    rounding = 1 + 2.0**-52 * tf.cast(n, tf.float64)
    return (
        pruned,
        frobenius,
        tf.reduce_max(tf.math.count_nonzero(pruned, axis=1, dtype=tf.int32)),
        rounding * tf.minimum(frobenius, row_sum),
    )


def _matched(magnitudes: tf.Tensor, allowed: tf.Tensor, capacity: tf.Tensor) -> tf.Tensor:
    """Mask `[N, N]`, symmetric: edges kept, at most `capacity` a row, all within `allowed`."""
    n = tf.shape(magnitudes)[0]
    order = _heaviest_first(magnitudes)
    place = tf.argsort(order, axis=1)

    def proceed(
        _round: tf.Tensor, free: tf.Tensor, _kept: tf.Tensor, _room: tf.Tensor
    ) -> tf.Tensor:
        return tf.reduce_any(free)

    def body(
        round_: tf.Tensor, free: tf.Tensor, kept: tf.Tensor, room: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        pointed = _pointed_at(order, place, free, room)
        mutual = pointed & tf.transpose(pointed)
        room -= tf.reduce_sum(tf.cast(mutual, tf.int32), axis=1)
        open_ = room > 0
        free &= ~mutual & open_[:, None] & open_[None, :]
        return round_ + 1, free, kept | mutual, room

    # Dropping a zero changes nothing, so zeros never take up room.
    free = allowed & (magnitudes > 0) & (capacity > 0)
    kept = tf.zeros_like(free)
    state = tf.while_loop(
        proceed,
        body,
        (0, free, kept, tf.fill([n], capacity)),
        maximum_iterations=_MAX_ROUNDS,
        parallel_iterations=1,
    )
    return state[2]


def _chosen_by_either(magnitudes: tf.Tensor, allowed: tf.Tensor, capacity: tf.Tensor) -> tf.Tensor:
    """Mask `[N, N]`, symmetric: edges among the `capacity` heaviest allowed ones of either end."""
    order = _heaviest_first(magnitudes)
    room = tf.fill([tf.shape(magnitudes)[0]], capacity)
    pointed = _pointed_at(order, tf.argsort(order, axis=1), allowed & (magnitudes > 0), room)
    return pointed | tf.transpose(pointed)


def _pointed_at(order: tf.Tensor, place: tf.Tensor, free: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """The `room[i]` heaviest of row i's free edges; `order` its columns, `place` its inverse."""
    ranked = tf.gather(free, order, batch_dims=1)
    first = ranked & (tf.cumsum(tf.cast(ranked, tf.int32), axis=1) <= room[:, None])
    return tf.gather(first, place, batch_dims=1)


def _heaviest_first(magnitudes: tf.Tensor) -> tf.Tensor:
    """Column numbers `[N, N]`: each row from its heaviest edge down, ties by the edge's hash.

    The order is strict and the same seen from either end of an edge, so in every round the
    heaviest free edge of all is mutual: the loop always advances. A plain index as the
    tie-break would be so too, but with equal magnitudes all rows would point at the same few
    columns, and one clique a round would be all that is kept.
    """
    n = tf.shape(magnitudes)[0]
    by_hash = tf.argsort(_edge_hash(n), axis=1)
    hashed = tf.gather(magnitudes, by_hash, batch_dims=1)
    by_magnitude = tf.argsort(hashed, axis=1, direction="DESCENDING", stable=True)
    return tf.gather(by_hash, by_magnitude, batch_dims=1)


def _edge_hash(n: tf.Tensor) -> tf.Tensor:
    """`[N, N]` int64, symmetric; different for different pairs up to N = 46,340."""
    index = tf.cast(tf.range(n), tf.int64)
    low = tf.minimum(index[:, None], index[None, :])
    high = tf.maximum(index[:, None], index[None, :])
    word = low * tf.cast(n, tf.int64) + high
    # Odd multipliers and xor-shifts are one-to-one modulo 2³¹; no product exceeds int64.
    for multiplier in (0x2C1B3C6D, 0x297A2D39):
        word = tf.bitwise.bitwise_and(word * multiplier, 0x7FFFFFFF)
        word = tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, 15))
    return word
