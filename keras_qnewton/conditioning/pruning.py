"""Symmetric pruning: at most d non-zeros a row, (i, j) and (j, i) together.

Choosing which pairs to keep is a b-matching: rows are vertices, entries (i, j) edges of
weight a_ij², and a row has room for d - 1 edges beside its diagonal. Edges are kept by local
dominance (Preis 1999; Khan et al., "Efficient approximation algorithms for weighted
b-matching", SIAM J. Sci. Comput. 38, 2016): in each round every row points at its heaviest
remaining edges, as many as it has room for, and an edge at which both ends point is kept.
The result is what a greedy pass over all entries from the largest down would keep, at least
half of the largest Σ a_ij² there is, but found in a few parallel rounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.conditioning.arguments import square_matrix, symmetrised

# Entries in no particular order take a handful of rounds, |a_ij| falling off steadily from
# one corner about N/d. Stopping early leaves rows emptier than allowed, nothing worse.
_MAX_ROUNDS = 64


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


def prune(matrix: Any, max_row_nonzeros: Any) -> Pruned:
    """Keeps the largest entries of a symmetric matrix, at most d a row.

    The diagonal is always kept and counts as one of the d. Kept entries are not changed. Runs
    eagerly and inside a `tf.function`; equal magnitudes are told apart by a fixed hash of the
    pair (i, j), so that the outcome is the same every time and for both triangles.

    Args:
        matrix: `[N, N]`, float32 or float64, symmetric (to rounding: its symmetric part is
            what is pruned); a tensor or an array.
        max_row_nonzeros: d ≥ 1, an int or a scalar int tensor. d ≥ N keeps everything.

    Returns:
        A `Pruned`.

    Raises:
        ValueError: If `matrix` is not square or not float32 or float64, or `max_row_nonzeros`
            is not a positive integer; eagerly also if `matrix` is not symmetric or finite.
    """
    matrix = square_matrix(matrix)
    if not tf.is_tensor(max_row_nonzeros) and (
        int(max_row_nonzeros) != max_row_nonzeros or max_row_nonzeros < 1
    ):
        raise ValueError(
            "Argument `max_row_nonzeros` must be a positive integer. "
            f"Received: max_row_nonzeros={max_row_nonzeros}"
        )
    return Pruned(*_prune(matrix, tf.cast(max_row_nonzeros, tf.int32)))


@tf.function(reduce_retracing=True)
def _prune(matrix: tf.Tensor, max_row_nonzeros: tf.Tensor) -> tuple[tf.Tensor, ...]:
    matrix = symmetrised(matrix)
    n = tf.shape(matrix)[0]
    diagonal = tf.cast(tf.eye(n), tf.bool)
    kept = diagonal | _matched(tf.abs(matrix), ~diagonal, tf.maximum(max_row_nonzeros, 1) - 1)
    pruned = tf.where(kept, matrix, tf.zeros_like(matrix))

    dropped = tf.abs(tf.cast(tf.where(kept, tf.zeros_like(matrix), matrix), tf.float64))
    largest = tf.reduce_max(dropped)  # scaled by it, no square over- or underflows
    frobenius = largest * tf.norm(tf.math.divide_no_nan(dropped, largest))
    row_sum = tf.reduce_max(tf.reduce_sum(dropped, axis=1))
    rounding = 1 + 2.0**-52 * tf.cast(n, tf.float64)  # of sums of n terms: keep it a bound
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

    def pointed_at(free: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
        """The `room[i]` heaviest of row i's free edges."""
        ranked = tf.gather(free, order, batch_dims=1)
        first = ranked & (tf.cumsum(tf.cast(ranked, tf.int32), axis=1) <= room[:, None])
        return tf.gather(first, place, batch_dims=1)

    def proceed(_round, free, _kept, _room):
        return tf.reduce_any(free)

    def body(round_, free, kept, room):
        pointed = pointed_at(free, room)
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
