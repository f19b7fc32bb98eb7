"""How far the quadratic model can be trusted: actual over predicted reduction.

    ρ       (L(w) - L(w + d)) / -q(d)                          from two losses
    T       g.d + (g(w+d) - g).d / 2                           trapezoidal rule
    C       g.d + d.H d / 2 + (g(w+d) - g - H d).d / 3         exact for a cubic loss

A loss is a mean of numbers with an absolute error: cross-entropy's is that of the logits. A
difference of two losses has no digits left long before a gradient, a sum of products, loses any.
Where T and C agree, the error of C is smaller than their difference, and ρ is C / q(d).
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.step.quadratic_model import Plan, QuadraticModel, dot
from keras_qnewton.step.rounding import ROUNDING

# A ratio of losses in between is taken as it is, and so is any of a reduction this many times
# their rounding error; another is compared with that of gradients.
_CREDIBLE = (0.75, 1.5)
_CLEAR = 2.0**8
# Two estimates of a reduction that differ by less, relative to the model's, agree.
_AGREEMENT = 0.25


def ratio_of_losses(plan: Plan, before: tf.Tensor, reduction: tf.Tensor) -> tf.Tensor:
    """ρ from two losses, float64 scalar; -1 where the model predicts a rise, or the loss is NaN.

    Near a minimum the loss's rounding hides what a step does: NaN says that there is no ratio, and
    no reason to change λ, which would run away on a converged model. A loss of NaN, as beyond a
    logarithmic barrier, is one: the step was too long.

    Args:
        plan: The step d.
        before: L(w), scalar.
        reduction: L(w) - L(w + d), float64 scalar.
    """
    change, defined = plan.change, ~tf.math.is_nan(reduction)
    rounding = ROUNDING[before.dtype] * tf.abs(tf.cast(before, tf.float64))
    hidden = defined & (tf.abs(change) <= rounding)
    ratio = tf.where(defined & (change < 0), reduction / -change, -tf.ones_like(change))
    return tf.where(hidden, tf.constant(float("nan"), tf.float64), ratio)


def trust_ratio(
    model: QuadraticModel, plan: Plan, before: tf.Tensor, reduction: tf.Tensor
) -> tf.Tensor:
    """ρ, float64 scalar: of the losses where they tell, else of the gradients.

    See `ratio_of_losses` for the arguments.
    """
    losses, change = ratio_of_losses(plan, before, reduction), plan.change
    # NaN is not credible.
    credible = (losses >= _CREDIBLE[0]) & (losses <= _CREDIBLE[1])
    credible |= -change >= _CLEAR * model.value_error
    return _tf_private.cond(
        credible | (change >= 0), lambda: losses, lambda: _ratio_of_gradients(model, plan, losses)
    )


def _ratio_of_gradients(model: QuadraticModel, plan: Plan, losses: tf.Tensor) -> tf.Tensor:
    """ρ from the gradients at both ends of the step; the one from `losses` if T and C disagree."""
    (after,) = model.batch.agreed(dot(model.system.curvature.gradients_after(plan.flat), plan.flat))
    difference = after - plan.slope
    trapezoid = plan.slope + difference / 2
    cubic = plan.slope + plan.bend / 2 + (difference - plan.bend) / 3
    agreed = tf.abs(trapezoid - cubic) <= _AGREEMENT * tf.abs(plan.change)
    ratio = cubic / plan.change
    # A poor ratio of a hidden reduction says only that the model has converged.
    agreed &= ~tf.math.is_nan(losses) | (ratio >= _CREDIBLE[0])
    return tf.where(agreed, ratio, losses)
