"""How many rows U of the Gauss-Newton matrix G = UᵀU has on a batch, before anything is made.

    r    rows of U
    n    columns of U that have to be formed, for U Uᵀ

U Uᵀ takes r²n multiplications, and its factorisation of the order of r³.
"""

from __future__ import annotations

import math
from collections import defaultdict

import tensorflow as tf

from keras_qnewton.curvature.gauss_newton import prefers_exact
from keras_qnewton.curvature.low_rank import MAX_RANK
from keras_qnewton.curvature.outputs import convex_loss
from keras_qnewton.loss import RecordedLoss, SummedLoss
from keras_qnewton.loss.graph_walk import ancestors


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


def row_limit(loss: RecordedLoss) -> int:
    """The largest r at which U Uᵀ takes no more work than r = `MAX_RANK` does without columns.

    Args:
        loss: The recorded loss.
    """
    columns = formed_columns(loss.losses[0] if isinstance(loss, SummedLoss) else loss)
    return MAX_RANK if columns <= MAX_RANK else math.isqrt(MAX_RANK**3 // columns)


def formed_columns(loss: RecordedLoss) -> int:
    """n: elements of the weights that several operations on the way to the loss's outputs take.

    Rows of a matrix that multiplies examples once are outer products, whose products with one
    another are cheap. A network that is differentiated in its inputs takes each matrix several
    times. What else has to be formed, as a convolution's rows, is not counted.
    """
    outputs = [loss.tensor(output.name) for output in convex_loss(loss).outputs]
    on_the_way = ancestors(outputs)
    takers: dict[int, set[tf.Operation]] = defaultdict(set)
    for op in loss.operations:
        if op not in on_the_way:  # a penalty has no rows
            continue
        for tensor in op.inputs:
            weight = loss.weight_read_by(tensor)
            if weight is not None and op.type not in ("Identity", "Cast"):
                takers[weight].add(op)
    return sum(
        loss.variables[weight].shape.num_elements()
        for weight, operations in takers.items()
        if len(operations) > 1
    )


def _of_replicas(loss: SummedLoss) -> int | tf.Tensor | None:
    counts = [n for n in loss.each(row_count) if n is not None]
    if len(counts) < len(loss.losses):
        return None
    known = [n for n in counts if isinstance(n, int)]
    if len(known) == len(counts) and not loss.replicas.has_other_workers:
        return sum(known)
    return loss.replicas.total([[tf.convert_to_tensor(n)] for n in counts])[0]
