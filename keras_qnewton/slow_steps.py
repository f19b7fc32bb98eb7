"""A run of steps that lower the loss by next to nothing because λ, the damping, decides them.

    κ    condition number of the damped system; small where λ is the larger part of it

Where λ is larger than the curvature, a step is a short one along the gradient. So it is where some
weights have to go much further than the quadratic model of the others holds: those of a last layer
whose outputs are to grow to targets of a million, behind hidden units that saturate at once. Data
in other units help.

At a minimum λ falls, or the loss does not; in a long valley κ is large.
"""

from __future__ import annotations

import numpy as np

from keras_qnewton.decision_log import StepColumns

# Steps in a row, and how many of them have to be slow.
_RUN, _MOST = 20, 15
# λ is above a ninth of the largest eigenvalue where κ of a semidefinite matrix is below this.
_DAMPED = 10.0
# Shares of the loss: what a step has to lower it by, more than rounding, and all together at most.
_VISIBLE, _SLOW = 1e-6, 0.05

_TEXT = (
    "The last {count} of QNewton's steps lowered the loss by {share:.2g} % in all. Each was a "
    "short one along the gradient, since the damping λ had to be larger than the curvature: longer "
    "steps raised the loss. Some weights have to go further than others may. Are targets or "
    "inputs far from the order of 1? Scale them (`keras.layers.Normalization`; a `Rescaling` layer "
    "at the end); else look for saturated units, try other initial weights, or BFGS's curvature, "
    '`curvature="quasi_newton"`. See `optimizer.decisions`.'
)


def told_of(steps: StepColumns) -> str | None:
    """What to say of the last steps; None where they are not slow.

    Args:
        steps: Of the log, oldest first.
    """
    if len(steps.loss) < _RUN:
        return None
    last = StepColumns(*(column[-_RUN:] for column in steps))
    with np.errstate(divide="ignore", invalid="ignore"):  # losses may be zero or infinite
        fall = np.where(last.accepted > 0, last.loss - last.loss_after, 0.0)
        slow = (last.condition_number < _DAMPED) & (fall > _VISIBLE * np.abs(last.loss))
        # Of the same data: a loss goes on where the step before left it.
        before, after = last.loss_after[:-1], last.loss[1:]
        same = (last.accepted[:-1] <= 0) | np.isclose(before, after, rtol=1e-4, atol=0.0)
        share = fall.sum() / np.abs(last.loss[0])
    # Longer steps raised the loss. Where none was tried, a small learning rate or clipping may be
    # what makes steps short.
    tried = (last.accepted > 2).any()
    if slow.sum() < _MOST or not same.all() or not share < _SLOW or not tried:
        return None
    return _TEXT.format(count=_RUN, share=100.0 * share)
