"""Connectionist temporal classification: which operations of a graph are this loss.

    CTCLoss, CTCLossV2    of sparse labels: logits [T, B, C], labels, frames in use [B]
    IdentityN             of dense labels: (losses, logits, labels, their lengths, frames in use)

The second comes from `tf.custom_gradient`: its loop, of TensorFlow 1's functions, is not run again,
but made anew. Neither's gradient has a derivative that can be used.

References:
    Graves et al. 2006, Connectionist Temporal Classification, ICML.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private

_SPARSE = {"CTCLoss", "CTCLossV2"}
_RANKS = [1, 3, 2, 1, 1]  # of the losses, logits, labels and lengths

INSTEAD = (
    "It is a CTC loss: curvature='auto' and 'gauss_newton' take a bound of its curvature, unless "
    "it is in a loop or a condition, or the whole loss is no sum of it. Else use "
    "curvature='quasi_newton', which needs first derivatives alone."
)


def is_dense_loss(op: tf.Operation) -> bool:
    """Whether this is `tf.nn.ctc_loss` of dense labels."""
    if op.type != "IdentityN" or len(op.inputs) < len(_RANKS):
        return False
    ranks = [t.shape.rank for t in op.inputs[: len(_RANKS)]]
    alike = all(r in (None, wanted) for r, wanted in zip(ranks, _RANKS, strict=True))
    loss, logits, *lengths = op.inputs[: len(_RANKS)]
    if not alike or not all(t.dtype.is_integer for t in lengths) or loss.op.type != "Neg":
        return False
    of_logits = any(user.type == "LogSoftmax" for user in logits.consumers())
    return of_logits and _tf_private.given_gradient(op) is not None


def logits_and_frames(op: tf.Operation) -> tuple[tf.Tensor, tf.Tensor] | None:
    """The logits `[T, B, C]` and the number of frames in use `[B]`; None of another operation."""
    if op.type in _SPARSE:
        return op.inputs[0], op.inputs[3]
    return (op.inputs[1], op.inputs[4]) if is_dense_loss(op) else None


def inputs_of(op: tf.Operation) -> list[tf.Tensor]:
    """The inputs that an operation is made of when it is run again."""
    return list(op.inputs[1:] if is_dense_loss(op) else op.inputs)


def run(inputs: list[Any]) -> list[Any]:
    """The loss of dense labels, of other logits; `inputs` as of the operation."""
    _, logits, labels, label_length, frames, *unique = inputs
    again = tf.nn.ctc_loss(
        labels, logits, label_length, frames, unique=tuple(unique) or None, blank_index=0
    )
    return [again, *inputs[1:]]
