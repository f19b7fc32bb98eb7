"""Connectionist temporal classification, whose curvature in the logits has a simple bound.

    L = Σ_t log Σ_c exp z_tc - log Σ_paths exp Σ_t z_t,path(t)      paths that read the label
    H = diag_t(diag p_t - p_t p_tᵀ) - Cov(n)                        p_t = softmax(z_t)
    C = ω diag_t(diag p_t - p_t p_tᵀ)  ⪰  ω H                       of the frames in use

n says which class a path is in at each frame. Cov(n) is its covariance over the paths that read the
label, weighted by their probabilities: the Hessian of the second log-sum-exp. It is positive
semidefinite, so that leaving it out gives an upper bound, which needs no factor. L is not convex,
and C is not its Hessian: steps are shorter than Newton's.

References:
    Graves et al. 2006, Connectionist Temporal Classification, ICML, equation 15 (the gradient).
    Boyd & Vandenberghe 2004, Convex Optimization, section 3.1.5 (log-sum-exp).
"""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from keras_qnewton.curvature.outputs.base import (
    Candidate,
    ConvexPart,
    LossRule,
    OutputCurvature,
    countable_outputs,
)
from keras_qnewton.curvature.outputs.softmax import softmax_product, softmax_roots
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.convexity import moving_tensors
from keras_qnewton.loss.ctc import logits_and_frames
from keras_qnewton.loss.known_values import known_value
from keras_qnewton.registry import register


@register("loss_rule", "ctc")
class ConnectionistTemporalClassification(LossRule):
    """CTC loss of logits `[B, T, C]`, or `[T, B, C]`, with dense or sparse labels."""

    def candidates(self, loss: RecordedLoss) -> Iterator[Candidate]:
        """TensorFlow's own operations."""
        moving = moving_tensors(loss)
        for op in loss.operations:
            found = logits_and_frames(op)
            if found is not None and found[0].name in moving:
                yield Candidate(_examples_first(found[0])[0], op.outputs[0])

    def curvature(self, part: ConvexPart) -> BoundOfFrames:
        """C by formula."""
        return BoundOfFrames(part)


class BoundOfFrames(OutputCurvature):
    """C = ω (diag p - p pᵀ) of each frame in use."""

    def __init__(self, part: ConvexPart):
        super().__init__(part.z, part.gradient(), part.dtype)
        (terms,) = part.output.terms
        found = logits_and_frames(part.loss.tensor(terms).op)
        if found is None:
            raise ValueError(f"This is no CTC loss. Received: terms={terms!r}")
        logits, frames = found
        _, self.one_example = _examples_first(logits)
        used = tf.sequence_mask(
            frames, tf.shape(part.z)[0 if self.one_example else 1], part.z.dtype
        )
        weights = part.term_weights()[:, None] * used
        self._weights = tf.transpose(weights) if self.one_example else weights
        self._probabilities = tf.nn.softmax(part.z)

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v, of the shape of z."""
        return softmax_product(self._probabilities, self._weights, vector)

    def roots(self) -> tf.Tensor | None:
        """Those of each frame of an example, zero on its other frames, `[T (C - 1), B, T, C]`."""
        if self.one_example or countable_outputs(self.z) is None:
            return None
        frames, classes = (int(n) for n in self.z.shape[1:])
        rows = tf.reshape(self._probabilities, [-1, classes])
        of_rows = softmax_roots(rows, tf.reshape(self._weights, [-1]))
        count = of_rows.shape[0]
        of_frames = tf.reshape(of_rows, [count, -1, frames, classes])
        apart = tf.einsum("tu,rbuc->trbuc", tf.eye(frames, dtype=rows.dtype), of_frames)
        return tf.reshape(apart, [frames * count, -1, frames, classes])


def _examples_first(logits: tf.Tensor) -> tuple[tf.Tensor, bool]:
    """The logits `[B, T, C]` that the loss was given, and False; or `[T, B, C]`, and True.

    TensorFlow exchanges the first two axes, and moves the blank class, where C stays C.
    """
    found, time_major = logits, True
    while True:
        op = found.op
        order = known_value(op.inputs[1]) if op.type == "Transpose" else None
        if op.type == "Identity" or (_moves_classes(op)):
            found = op.inputs[0] if op.type == "Identity" else op.inputs[0].op.inputs[0]
        elif time_major and order is not None and order.tolist() == [1, 0, 2]:
            found, time_major = op.inputs[0], False
        else:
            return found, time_major


def _moves_classes(op: tf.Operation) -> bool:
    """Whether this joins slices of one tensor's last axis to all of it, in another order."""
    if op.type != "ConcatV2" or not all(t.op.type == "StridedSlice" for t in op.inputs[:-1]):
        return False
    sources = {t.op.inputs[0].name for t in op.inputs[:-1]}
    whole = op.inputs[0].op.inputs[0].shape
    return (
        len(sources) == 1 and whole.rank == 3 and op.outputs[0].shape[-1] == whole[-1] is not None
    )
