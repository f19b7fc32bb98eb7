"""Small batches: whether the data change from step to step, and how far then to trust one.

A Newton step fits its batch; the trust ratio, judged on the same batch, cannot tell. So the
last weights' loss is evaluated on the new batch:

    noisy   iff   |L_t(w_{t-1}) - L_{t-1}(w_{t-1})|  is beyond rounding

Data that stay the same (a full batch, no dropout) are never noisy, and nothing below applies.
Otherwise a step is one of m that share the work, m = 2, 3, ..., M:

    H̄_2 = H_2,  H̄_m = H̄_{m-1} + (H_m - H̄_{m-1}) / m    curvature of the last batches
    d    = -(1/m) (H̄_m + λI)⁻¹ g,  λ = initial · λ_max(H̄_m) / m

A batch of n examples counts n/N of a full one, of N: m grows by n/N, and both 1/m above are
(n/N)/m. An average that began with a small batch alone begins anew.

This is one step of minimising the sum of the batches' quadratic models, with a prior that
keeps its place in that sum, as a Kalman filter does (Bertsekas 1996; Ollivier 2018). M bounds
how long a model is remembered that was made at other weights.

docs/decisions/small_batches.md has the measurements, also of what was tried and lost.

References:
    Bertsekas 1996, SIAM J. Optim. 6(3) (incremental least squares and the Kalman filter).
    Ollivier 2018, arXiv:1703.00209 (the Kalman filter as online natural gradient).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_EPSILON = {tf.bfloat16: 2.0**-8, tf.float16: 2.0**-11, tf.float32: 2.0**-24, tf.float64: 2.0**-53}
# Units of rounding in a loss that is computed twice, by other kernels or in another order.
_UNITS = 64.0
# Smallest share of a loss that other data change it by. At a minimum above zero the gradient says
# nothing of how far rounding moves residuals, and with them the loss.
_SHARE = 2.0**-30


def data_changed(
    then: tf.Tensor,
    now: tf.Tensor,
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
) -> tf.Tensor:
    """True if a loss at the same weights is another because the data are; a scalar bool.

    Args:
        then: The loss at some weights, on the data of the last step; NaN if there was none.
        now: The loss at those weights on the data of this step.
        weights: Weights close to those, one tensor a variable.
        gradients: The loss's gradient there. Rounding moves a loss by some units of its own
            size, and as much as rounding the weights would: the residuals of a model that fits
            are differences of large numbers.
    """
    epsilon = _EPSILON[now.dtype]
    then, now = tf.cast(then, tf.float64), tf.cast(now, tf.float64)
    by_weights = tf.add_n(
        [
            tf.reduce_sum(tf.abs(tf.cast(w, tf.float64) * tf.cast(g, tf.float64)))
            for w, g in zip(weights, gradients, strict=True)
        ]
    )
    share = max(_UNITS * epsilon, _SHARE)
    rounding = share * tf.maximum(tf.abs(then), tf.abs(now)) + _UNITS * epsilon * by_weights
    # False for a NaN.
    return tf.abs(now - then) > rounding
