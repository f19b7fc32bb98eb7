"""Layers of one call of the encoding "sparse", counted from a matrix's non-zeros in a graph.

The circuit's trees have a rotation for each Walsh function that `partial.walsh_functions` keeps,
and between two of them as many CNOTs as their numbers differ in bits. All of one level act on one
wire, one after the other. Levels overlap by one gate each. Where the graph of the non-zeros falls
apart, there is a flag of 2 N' - 3 layers. That is seen here from a row that has no entry but its
diagonal's, as padding makes: a graph in larger parts is counted without its flag. Else the count
is the circuit's.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_qnewton.solvers.quantum.encodings.base import padded_qubits


def sparse_layers(matrix: tf.Tensor) -> tf.Tensor:
    """Layers of gates on one and two qubits, scalar float64.

    Args:
        matrix: `[N, N]`, N static: what is not zero counts. Padding adds a diagonal.
    """
    size = int(matrix.shape[0])
    n = padded_qubits(size)
    rows = 1 << n
    padding = rows - size
    there = tf.pad(tf.not_equal(matrix, 0), [[0, padding], [0, padding]])
    there = tf.linalg.set_diag(
        there, tf.concat([tf.linalg.diag_part(there)[:size], tf.ones([padding], tf.bool)], 0)
    )
    column = np.arange(rows)
    # [j, c]: row j ⊕ c of column j.
    pattern = tf.gather(
        tf.reshape(there, [-1]), tf.constant((column[:, None] ^ column) * rows + column[:, None])
    )
    levels = [
        _level(tf.reduce_any(tf.reshape(pattern, [rows << level, -1]), axis=1), n + level)
        for level in range(n)
    ]
    # T and T'†, and the walk's CNOTs, which are side by side.
    layers = 2 * tf.add_n(levels) + 1 - 2 * (n - 1)
    apart = tf.reduce_any(tf.reduce_sum(tf.cast(there, tf.int32), axis=1) == 1)
    flag = tf.cast(max(2 * rows - 3, 3), tf.int64)
    return tf.cast(tf.where(apart, layers + flag, layers), tf.float64)


def _level(needed: tf.Tensor, bits: int) -> tf.Tensor:
    """Rotations and CNOTs of one multiplexed rotation, scalar int64.

    Args:
        needed: Which of the angles matter, bool `[2^bits]`.
        bits: Number of controls.
    """

    def folded(k: tf.Tensor, now: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # By bits from the first on: f = even ± odd; odd is needed where both values are.
        pairs = tf.reshape(now, tf.stack([-1, 2, 2 ** (bits - 1 - k)]))
        low, high = pairs[:, 0], pairs[:, 1]
        out = tf.reshape(tf.stack([low | high, low & high], 1), [1 << bits])
        return k + 1, out

    _, kept = tf.while_loop(
        lambda k, now: k < bits, folded, (tf.constant(0), needed), parallel_iterations=1
    )
    order = np.arange(1 << bits, dtype=np.int64)
    order ^= order >> 1
    used = tf.boolean_mask(tf.constant(order), tf.gather(kept, order))
    ends = tf.zeros([1], tf.int64)
    path = tf.concat([ends, used, ends], 0)
    flips = tf.raw_ops.PopulationCount(x=tf.bitwise.bitwise_xor(path[1:], path[:-1]))
    return tf.cast(tf.size(used), tf.int64) + tf.reduce_sum(tf.cast(flips, tf.int64))
