"""How many rows U of the Gauss-Newton matrix G = UᵀU has on a batch, before anything is made."""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.curvature.gauss_newton import prefers_exact
from keras_qnewton.curvature.outputs import convex_loss
from keras_qnewton.loss import RecordedLoss, SummedLoss


def row_count(loss: RecordedLoss) -> int | tf.Tensor | None:
    """An upper bound: one row for each element of each output.

    Args:
        loss: The recorded loss.

    Returns:
        A number where it is known while tracing, else an int32 scalar; None where "auto" curvature
        has no rows: the exact Hessian, or a rest that is not convex.
    """
    if isinstance(loss, SummedLoss):
        return _of_replicas(loss)
    convex = convex_loss(loss)
    if not convex.outputs or convex.rest or prefers_exact(loss, convex):
        return None
    outputs = [loss.tensor(output.name) for output in convex.outputs]
    known = [z.shape.num_elements() for z in outputs]
    if all(n is not None for n in known):
        return sum(known)
    return tf.add_n([tf.size(z) for z in outputs])


def _of_replicas(loss: SummedLoss) -> int | tf.Tensor | None:
    counts = [n for n in loss.each(row_count) if n is not None]
    if len(counts) < len(loss.losses):
        return None
    known = [n for n in counts if isinstance(n, int)]
    if len(known) == len(counts) and not loss.replicas.has_other_workers:
        return sum(known)
    return loss.replicas.total([[tf.convert_to_tensor(n)] for n in counts])[0]
