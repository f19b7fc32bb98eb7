"""What an inverse Hessian learns of a line search, wherever that started and ended.

    s, y    the pair d(α), g(w + d(α)) - g    [N]

Of one batch among others the pair is damped: its curvature is not believed to be much less than
H's.

References:
    Nocedal & Wright 2006, procedure 18.2 (damped pairs, after Powell 1978).
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.norms import norms_of_rows
from keras_qnewton.quasi_newton.inverse import dot
from keras_qnewton.quasi_newton.line_search import Searched
from keras_qnewton.state.quasi_newton_state import Here, QuasiNewtonState
from keras_qnewton.step.line import Line
from keras_qnewton.step.start import forgotten

# A pair whose curvature is less than this, relative to its lengths, is rounding.
LEAST_CURVATURE = 1e-12
# Of its expected curvature, what a pair of one batch among others has at least (Powell 1978).
_LEAST_SHARE = 0.2


def taken_in(state: QuasiNewtonState, line: Line, here: Here, searched: Searched) -> tf.Tensor:
    """H' g at the end of the step, once H has taken in the search's pair, float64 `[N]`.

    A search without an end and without a pair says that H is of no use: it is forgotten.
    """
    end, pair = searched.point, searched.pair
    s = line.moved(pair.step)
    y = pair.gradient - here.gradient
    minus_bs = pair.step * line.share * here.gradient
    sbs, noisy = -dot(minus_bs, s), here.count > 1
    y, sbs = tf.cond(noisy, lambda: _damped(s, y, minus_bs, sbs), lambda: (y, sbs))
    lengths = tf.reduce_prod(norms_of_rows(tf.stack([y, s])))
    curved = dot(y, s) > LEAST_CURVATURE * lengths
    (known,) = line.batch.agreed((pair.step > 0) & curved & (sbs > 0))

    def learn() -> tf.Tensor:
        # H y from H g' - H g, where y is the difference.
        to = tf.where(noisy, y, pair.gradient)
        since = tf.where(noisy, tf.zeros_like(y), here.product)
        product = state.inverse.learned(state.inverse.prepared(s, y, to, since, sbs))
        with tf.control_dependencies([product]):
            ready = (pair.step == end.step) & ~noisy
            return tf.cond(ready, lambda: tf.identity(product), multiply)

    def multiply() -> tf.Tensor:
        return state.inverse.product(end.gradient)

    def forget() -> tf.Tensor:
        with tf.control_dependencies([forgotten(state)]):
            return tf.identity(here.gradient)

    product = tf.cond(known, learn, lambda: tf.cond(end.step > 0, multiply, forget))
    return line.batch.agreed(product)[0]


def _damped(
    s: tf.Tensor, y: tf.Tensor, minus_bs: tf.Tensor, sbs: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """y and sᵀBs of one batch among others, whose curvature it is not much less than.

    A batch's own curvature is no reason to believe much less in that of the others.
    """
    ys = dot(y, s)
    theta = tf.where(ys < _LEAST_SHARE * sbs, (1 - _LEAST_SHARE) * sbs / (sbs - ys), 1.0)
    y = theta * y - (1 - theta) * minus_bs
    return y, tf.minimum(sbs, dot(y, s))
