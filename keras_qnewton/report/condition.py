"""Whether a condition number says something of the curvature, or of the damping alone.

The system of a block is H + λI, and its condition number is κ = (λ_max + λ) / (λ_min + λ), with the
largest and the smallest eigenvalue of H. Where λ_min is small beside λ, κ is 1 + λ_max / λ: any
curvature has that, and κ falls as λ rises. The log has κ and λ, so that the two can be told apart
wherever λ moved: on logarithmic axes κ - 1 is a line of slope 1 against 1/λ, or it is not.

On mini-batches λ starts anew at each step, as a share of λ_max over the number m of batches that
curvature is averaged over. Then λ_max moves with λ, and κ - 1 is m times what it was at first.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from keras_qnewton.decision import Decision, is_known

# How far apart λ has to be, largest over smallest, and in how many steps, to tell anything.
_LEAST_SPAN, _FEWEST = 4.0, 4
_FOLLOWS, _HARDLY = 0.8, 0.25
# How near to whole numbers, and in what share of at least so many steps, κ - 1 grows by units.
_NEAR, _MOSTLY, _FEWEST_UNITS = 0.1, 0.8, 8
_SADDLE_FREE = "saddle-free, by"

YES, PARTLY, NO, UNTOLD = "yes", "in part", "hardly", "not told"


def follows_damping(own: Sequence[Decision]) -> str:
    """Whether a block's κ is the damping's doing: `YES`, `PARTLY`, `NO` or `UNTOLD`.

    Args:
        own: The block's decisions, oldest first.
    """
    if is_bound(own) or _grows_by_units(own):
        return YES
    # Below κ = 2 the damping is larger than the curvature, or that is even in all directions.
    known = [(damping, excess) for damping, excess in _known(own) if excess >= 1]
    dampings = [damping for damping, _ in known]
    if len(known) < _FEWEST or max(dampings) < _LEAST_SPAN * min(dampings):
        return UNTOLD
    slope, _ = statistics.linear_regression(
        [-math.log(damping) for damping in dampings], [math.log(excess) for _, excess in known]
    )
    if slope >= _FOLLOWS:
        return YES
    return NO if slope <= _HARDLY else PARTLY


def is_bound(own: Sequence[Decision]) -> bool:
    """Whether a block's κ is but a bound, the norm of H over λ: that of saddle-free circuits."""
    return bool(own) and all(d.reason.startswith(_SADDLE_FREE) for d in own)


def _grows_by_units(own: Sequence[Decision]) -> bool:
    """Whether κ - 1 is its first value times whole numbers, from one up."""
    excesses = [excess for _, excess in _known(own)]
    if len(excesses) < _FEWEST_UNITS:
        return False
    multiples = [excess / excesses[0] for excess in excesses]
    whole = [round(of) for of in multiples if abs(of - round(of)) <= _NEAR]
    often = len(whole) >= _MOSTLY * len(multiples)
    return often and whole[-1] >= 2 and whole == sorted(whole)


def highest(own: Sequence[Decision]) -> list[tuple[float, float]]:
    """(λ, κ) as damping alone would have it: 1 + c/λ, with the largest c that was seen."""
    known = sorted(_known(own))
    scale = max((damping * excess for damping, excess in known), default=0.0)
    return [(damping, 1.0 + scale / damping) for damping, _ in known]


def _known(own: Sequence[Decision]) -> list[tuple[float, float]]:
    """λ and κ - 1, where both are known and positive."""
    return [
        (d.damping, d.condition_number - 1.0)
        for d in own
        if is_known(d.damping)
        and is_known(d.condition_number)
        and d.damping > 0
        and d.condition_number > 1
    ]
