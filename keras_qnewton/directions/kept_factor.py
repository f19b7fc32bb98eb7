"""A factorisation that lasts as long as its system: that of the last step if nothing changed.

Curvature of `update_every` steps is one matrix H. Its eigendecomposition serves every λ; a Cholesky
or LU factor of H + sI serves while s stays: with `Constant`, and on mini-batches from the 20th step
on, when λ depends on H alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton.directions.block_step import Keep
from keras_qnewton.solvers.packing import Packed

# Which factorisation it is; the scheduler's routes count from the last of these.
EIGEN, MIXED, INDEFINITE, FIRST_ROUTE = 1, 2, 3, 4


def kept_factor(
    keep: Keep, kind: int, shift: tf.Tensor | float, factorised: Callable[[], Packed]
) -> Packed:
    """What `factorised` returns, or returned for the same H, kind and shift; float64.

    Args:
        keep: Of this block.
        kind: See `EIGEN`.
        shift: s, float64 scalar.
        factorised: Factorises H + sI.
    """
    system = tf.stack([tf.constant(kind, tf.float64), tf.convert_to_tensor(shift, tf.float64)])

    def computed() -> tuple[tf.Tensor, ...]:
        return (system, *(tf.cast(array, tf.float64) for array in factorised()))

    def still(last: tf.Tensor, *_: Any) -> tf.Tensor:
        return tf.reduce_all(tf.equal(last, system))

    (_, *arrays), _ = keep("factor", computed, still)
    return Packed(*arrays)
