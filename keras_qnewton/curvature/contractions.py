"""Sums of products a ⊗ d of which rows of U are made: einsum, by quicker operations where they are.

    a  [B, P, ...]      what a weight is multiplied by
    d  [R, B, P, ...]   derivatives, one a root
    -> [R, B, ...]      the letters B, P and R stand for these axes, others for the weight's own;
                        or summed over these, too, of a d without R

`tf.einsum` puts the axes of its result in order at the end, which are the most numbers of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def contracted(a: tf.Tensor | None, of_a: str, d: tf.Tensor, of_d: str, to: str) -> tf.Tensor:
    """einsum(a, d), of axes named `of_a` and `of_d`, with the axes `to`; of d alone without a."""
    if a is None:
        axes = [i for i, letter in enumerate(of_d) if letter not in to]
        return _ordered(tf.reduce_sum(d, axes), "".join(c for c in of_d if c in to), to)
    shared = set(of_a) & set(of_d)
    summed = (set(of_a) | set(of_d)) - set(to)
    if summed == shared:
        return _one_product(a, of_a, d, of_d, to)
    of_positions = summed == {"P"} and of_a.startswith("BP") and of_d.startswith("RBP")
    if of_positions and d.shape[2] == 1 and a.shape[1] == 1:
        a, d = tf.squeeze(a, [1]), tf.squeeze(d, [2])
        return _spread(a, of_a.replace("P", ""), to) * _spread(d, of_d.replace("P", ""), to)
    left = "".join(c for c in to if c in of_a and c not in shared)
    right = "".join(c for c in to if c in of_d and c not in shared and c != "R")
    if shared - summed == {"B"} and summed <= shared:
        a, of_a = a[None], "R" + of_a
        if to == "RB" + left + right:
            return _batched_product(a, of_a, d, of_d, left, right)
        if to == "RB" + right + left:
            return _batched_product(d, of_d, a, of_a, right, left)
    return tf.einsum(f"{of_a},{of_d}->{to}", a, d)


def _one_product(a: tf.Tensor, of_a: str, d: tf.Tensor, of_d: str, to: str) -> tf.Tensor:
    """einsum(a, d) -> `to`, where all axes that both have are summed over: one matrix product."""
    summed = "".join(c for c in of_a if c in of_d)
    left, right = ("".join(c for c in to if c in letters) for letters in (of_a, of_d))
    a = _ordered(a, of_a, summed + left)
    d = _ordered(d, of_d, summed + right)
    of_left, of_right = lengths(a, len(summed)), lengths(d, len(summed))
    flat = [tf.reshape(t, [-1, _size(kept)]) for t, kept in ((a, of_left), (d, of_right))]
    if to == right + left:
        return tf.reshape(tf.matmul(*reversed(flat), transpose_a=True), [*of_right, *of_left])
    product = tf.reshape(tf.matmul(*flat, transpose_a=True), [*of_left, *of_right])
    return _ordered(product, left + right, to)


def _batched_product(
    first: tf.Tensor, of_first: str, second: tf.Tensor, of_second: str, left: str, right: str
) -> tf.Tensor:
    """`[R, B, *left, *right]`, one matrix product an example and root."""
    summed = "".join(c for c in of_second if c in of_first and c not in "RB")
    first = _ordered(first, of_first, "RB" + summed + left)
    second = _ordered(second, of_second, "RB" + summed + right)
    first, of_left = _as_matrices(first, len(summed))
    second, of_right = _as_matrices(second, len(summed))
    product = tf.matmul(first, second, transpose_a=True)
    return reshaped(product, 2, *of_left, *of_right)


def _as_matrices(tensor: tf.Tensor, summed: int) -> tuple[tf.Tensor, list[tf.Tensor | int]]:
    """`[R, B, *summed, *kept]` -> `[R, B, rows, columns]`, and the lengths of `kept`."""
    inner = lengths(tensor, 2)
    rows, kept = inner[:summed], inner[summed:]
    return reshaped(tensor, 2, _size(rows), _size(kept)), kept


def lengths(tensor: tf.Tensor, first: int = 0) -> list[tf.Tensor | int]:
    """Lengths of the axes from the first on, known ones as integers."""
    known = list(tensor.shape)
    if None not in known[first:]:
        return known[first:]
    counted = tf.unstack(tf.shape(tensor), num=len(known))
    return [counted[i] if n is None else n for i, n in enumerate(known)][first:]


def reshaped(tensor: tf.Tensor, kept: int, *others: tf.Tensor | int) -> tf.Tensor:
    """`tensor` with its first axes, as many as are kept, and others in place of the rest.

    A single unknown length is left to TensorFlow, which takes an operation in place of four.
    """
    target = [*tensor.shape[:kept], *others]
    known = [n for n in target if isinstance(n, int)]
    # Beside a length of zero none can be inferred.
    if target.count(None) == 1 and len(known) == len(target) - 1 and 0 not in known:
        return tf.reshape(tensor, [-1 if n is None else n for n in target])
    if None in target[:kept]:
        target[:kept] = lengths(tensor)[:kept]
    return tf.reshape(tensor, target)


def _size(lengths: Sequence[tf.Tensor | int]) -> tf.Tensor | int:
    size: tf.Tensor | int = 1
    for n in lengths:
        size = size * n
    return size


def _ordered(tensor: tf.Tensor, letters: str, to: str) -> tf.Tensor:
    """`tensor` with its axes, named `letters`, in the order `to`."""
    return tensor if letters == to else tf.transpose(tensor, [letters.index(c) for c in to])


def _spread(tensor: tf.Tensor, letters: str, to: str) -> tf.Tensor:
    """`tensor` with its axes in the order `to`, those that it does not have of length 1."""
    moved = _ordered(tensor, letters, "".join(c for c in to if c in letters))
    for axis, letter in enumerate(to):
        if letter not in letters:
            moved = tf.expand_dims(moved, axis)
    return moved
