"""Sums over examples, by matrix products, of which blocks of dense layers are made.

diagonal_block      Σ_b (a_b a_bᵀ) ⊗ H_b                        [i·o, i·o]
cross_block         Σ_b (a_b ⊗ H_b + δ_b ⊗ D_b) ⊗ c_b           [i·o, k·p]
gram                Σ_g U_gᵀ U_g                                [N, N]
symmetric_product   L Rᵀ, where it is symmetric                 [N, N]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

# Numbers in the largest intermediate of an assembly, about 128 MB in float32.
_MAX_ELEMENTS = 32_000_000
# Inputs from which on it pays to leave out zeros.
MANY_INPUTS = 256
# Pieces in which a large block is written.
_PIECES = 32
_ASSUMED_BATCH = 4096
# Columns, at least, of a panel of U; products of two of them make UᵀU, of which symmetry spares
# nearly half. More panels would be narrower than matrix products like.
_PANEL, _MOST_PANELS = 128, 5
# A panel may be longer or shorter by the first part of its width, if nothing is copied then.
_SLACK = 4


def diagonal_block(a: tf.Tensor, hessian: tf.Tensor) -> tf.Tensor:
    """Σ_b (a aᵀ) ⊗ H: `[B, i]`, `[B, o, o]` -> `[i·o, i·o]`; half the work, by symmetry."""
    inputs, outputs = int(a.shape[1]), int(hessian.shape[1])
    upper = [(o, p) for o in range(outputs) for p in range(o, outputs)]
    # Symmetric to the bit, and so is what is put together of them.
    weights = tf.gather(
        tf.reshape(hessian, [-1, outputs * outputs]), [o * outputs + p for o, p in upper], axis=1
    )
    position = {pair: q for q, pair in enumerate(upper)}
    table = [position[min(o, p), max(o, p)] for o in range(outputs) for p in range(outputs)]
    if inputs >= MANY_INPUTS:
        return _large_block(a, weights, table)
    grams = tf.reshape(
        tf.gather(_weighted_grams(a, weights), table, axis=1), [inputs, outputs, outputs, inputs]
    )
    return tf.reshape(tf.transpose(grams, [0, 1, 3, 2]), [inputs * outputs, inputs * outputs])


def _weighted_grams(a: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """aᵀ diag(w_q) a for each column of w: `[B, i]`, `[B, Q]` -> `[i, Q, i]`, symmetric in i."""
    inputs, count = int(a.shape[1]), int(weights.shape[1])
    column = inputs * (a.shape[0] or _ASSUMED_BATCH)
    if inputs <= count and inputs * column <= _MAX_ELEMENTS:
        # An example has fewer products of two inputs than of an input and a weight. Rows are
        # gathered, not columns, which would be a number at a time.
        first, second = np.triu_indices(inputs)
        rows = tf.transpose(a)
        pairs = tf.matmul(tf.gather(rows, first) * tf.gather(rows, second), weights)
        number = np.zeros((inputs, inputs), np.int32)
        number[first, second] = number[second, first] = np.arange(len(first))
        return tf.transpose(tf.gather(pairs, number), [0, 2, 1])
    chunk = max(1, min(count, _MAX_ELEMENTS // column))
    pieces = -(-count // chunk)
    half = -(-inputs // 2)
    upper, lower = a[:, :half], a[:, half:]

    def weighted(left: tf.Tensor, w: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        """leftᵀ diag(w_q) right: with all q in its columns, the product is a wide one."""
        columns = tf.reshape(w[:, :, None] * right[:, None, :], [-1, chunk * int(right.shape[1])])
        product = tf.matmul(left, columns, transpose_a=True)
        return tf.reshape(product, [-1, chunk, int(right.shape[1])])

    def some(w: tf.Tensor) -> tf.Tensor:
        # Three of the four quarters are computed, the fourth is one of them transposed.
        first = _symmetric(weighted(upper, w, upper))
        if inputs == 1:
            return first
        second = weighted(a, w, lower)
        across, last = second[:half], _symmetric(second[half:])
        return tf.concat(
            [
                tf.concat([first, across], 2),
                tf.concat([tf.transpose(across, [2, 1, 0]), last], 2),
            ],
            0,
        )

    if pieces == 1:
        return some(weights)
    padded = tf.pad(weights, [[0, 0], [0, pieces * chunk - count]])
    grams = tf.map_fn(
        some,
        tf.transpose(tf.reshape(padded, [-1, pieces, chunk]), [1, 0, 2]),
        fn_output_signature=tf.TensorSpec([inputs, chunk, inputs], a.dtype),
        parallel_iterations=1,
    )
    return tf.reshape(tf.transpose(grams, [1, 0, 2, 3]), [inputs, -1, inputs])[:, :count]


def _symmetric(grams: tf.Tensor) -> tf.Tensor:
    """`[i, Q, i]`, symmetric but for rounding, made so to the bit."""
    return (grams + tf.transpose(grams, [2, 1, 0])) / 2


def _large_block(a: tf.Tensor, weights: tf.Tensor, table: Sequence[int]) -> tf.Tensor:
    """`diagonal_block` without the inputs that are always zero and examples of weight zero.

    Pixels at an image's edge are the one, inactive ReLU units the other; to look for them costs
    little beside a matrix product this large. The result is written some rows at a time, in its
    final order, and is the one array of N² numbers: a transpose of the whole would be another.

    Args:
        a: `[B, i]`.
        weights: `[B, Q]`, one column for each pair of outputs that differs from the others.
        table: The column of each pair (o, p), row by row; o² numbers.
    """
    inputs, outputs = int(a.shape[1]), math.isqrt(len(table))
    live = tf.where(tf.reduce_any(tf.not_equal(a, 0), axis=0))[:, 0]
    kept = tf.gather(a, live, axis=1)
    # Where each input is among those that are kept; the others are a row of zeros at the end.
    count = tf.size(live)
    where = tf.tensor_scatter_nd_update(tf.fill([inputs], count), live[:, None], tf.range(count))

    def gram(w: tf.Tensor) -> tf.Tensor:
        active = tf.where(tf.not_equal(w, 0))[:, 0]
        rows = tf.gather(kept, active)
        product = tf.matmul(rows * tf.gather(w, active)[:, None], rows, transpose_a=True)
        return tf.pad((product + tf.transpose(product)) / 2, [[0, 1], [0, 1]])

    grams = tf.map_fn(
        gram,
        tf.transpose(weights),
        fn_output_signature=tf.TensorSpec([None, None], a.dtype),
        parallel_iterations=1,
    )
    # All of it is written over. Graph optimisation would make a second array of a constant.
    row = outputs * inputs * outputs
    block = tf.fill([inputs * row], grams[0, 0, 0])
    step = -(-inputs // _PIECES)
    for start in range(0, inputs, step):
        stop = min(start + step, inputs)
        # One after another: all pieces at once would be as large as the result.
        with tf.control_dependencies([block]):
            rows = tf.gather(grams, where[start:stop], axis=1)
        rows = tf.reshape(tf.gather(rows, table), [outputs, outputs, stop - start, -1])
        rows = tf.gather(tf.transpose(rows, [2, 0, 3, 1]), where, axis=2)
        # This op writes in place, as `tf.tensor_scatter_nd_update` does not (TensorFlow 2.18), and
        # fastest in one dimension; XLA takes no bounds that a loop would count.
        block = tf.raw_ops.TensorStridedSliceUpdate(
            input=block,
            begin=tf.constant([start * row], tf.int64),
            end=tf.constant([stop * row], tf.int64),
            strides=tf.constant([1], tf.int64),
            value=tf.reshape(rows, [-1]),
        )
    return tf.reshape(block, [inputs * outputs, inputs * outputs])


def cross_block(
    left: tf.Tensor,
    hessian: tf.Tensor,
    delta: tf.Tensor | None,
    jacobian: tf.Tensor | None,
    right: tf.Tensor,
) -> tf.Tensor:
    """Σ_b (left ⊗ H + δ ⊗ D) ⊗ right -> `[i·o, k·p]`, one output o at a time."""
    i, o = int(left.shape[1]), int(hessian.shape[1])
    k, p = int(right.shape[1]), int(hessian.shape[2])
    transposed = tf.transpose(left)
    moved = None if jacobian is None else tf.transpose(jacobian, [2, 1, 0])

    def one(output: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        h, d = output
        factor = transposed[None] * tf.transpose(h)[:, None, :]
        if moved is not None:
            factor += d[None, None, :] * moved
        return tf.reshape(tf.matmul(tf.reshape(factor, [p * i, -1]), right), [p, i, k])

    deltas = tf.zeros_like(hessian[:, :, 0]) if delta is None else delta
    stacked = tf.map_fn(
        one,
        (tf.transpose(hessian, [1, 0, 2]), tf.transpose(deltas)),
        fn_output_signature=tf.TensorSpec([p, i, k], left.dtype),
        parallel_iterations=1,
    )
    return tf.reshape(tf.transpose(stacked, [2, 0, 3, 1]), [i * o, k * p])


def gram(*groups: Sequence[tf.Tensor]) -> tf.Tensor:
    """Σ_g U_gᵀU_g, symmetric to the bit: columns of each U_g, `[r_g, N_i]` -> `[N, N]`."""
    by_group = [_panels(pieces) for pieces in groups]
    widths = [int(panel.shape[1]) for panel in by_group[0]]

    def product(i: int, j: int) -> tf.Tensor:
        found = [tf.matmul(panels[i], panels[j], transpose_a=True) for panels in by_group]
        return found[0] if len(found) == 1 else tf.add_n(found)

    return _of_panels(len(widths), product)


def symmetric_product(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """L Rᵀ, which is known to be symmetric, and is so to the bit: `[N, Z]` twice -> `[N, N]`."""
    size = int(left.shape[0])
    heights = np.diff([0, *_cuts([size]), size]).tolist()
    lefts, rights = tf.split(left, heights), tf.split(right, heights)
    return _of_panels(len(heights), lambda i, j: tf.matmul(lefts[i], rights[j], transpose_b=True))


def _of_panels(count: int, product: Callable[[int, int], tf.Tensor]) -> tf.Tensor:
    """A symmetric matrix of the products of two panels; those below the diagonal are not made.

    A panel is transposed by itself, since to transpose the whole takes longer.
    """
    rows: list[list[tf.Tensor]] = [[] for _ in range(count)]
    for i in range(count):
        half = product(i, i) / 2
        rows[i].append(half + tf.transpose(half))
        for j in range(i + 1, count):
            rows[i].append(product(i, j))
            rows[j].append(tf.transpose(rows[i][-1]))
    return tf.concat([tf.concat(row, 1) for row in rows], 0)


def _panels(pieces: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The same columns `[r, N_i]` in few panels of about the same width."""
    sizes = [int(piece.shape[1]) for piece in pieces]
    starts = [0, *itertools.accumulate(sizes)]
    cuts = [0, *_cuts(sizes), starts[-1]]
    panels = []
    for begin, end in itertools.pairwise(cuts):
        some = [
            piece[:, max(begin - start, 0) : end - start]
            if start < begin or end < start + size
            else piece
            for piece, start, size in zip(pieces, starts[:-1], sizes, strict=True)
            if start < end and begin < start + size
        ]
        panels.append(some[0] if len(some) == 1 else tf.concat(some, 1))
    return panels


def _cuts(sizes: Sequence[int]) -> list[int]:
    """Where panels end within N columns: between two pieces, if these are about as wide."""
    total = sum(sizes)
    count = max(1, min(_MOST_PANELS, total // _PANEL))
    ends = list(itertools.accumulate(sizes))
    cuts = []
    for i in range(1, count):
        wanted = -(-total // count) * i
        # Of two as near as each other, the first.
        off, end = min((abs(end - wanted), end) for end in ends)
        cuts.append(end if off <= total // count // _SLACK else wanted)
    return cuts
