"""Numbers that Keras's optimizers take and do not check: a NaN of theirs would reach weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

# A learning rate up to here is likely one for a first-order method.
SMALL = 0.1
# Where a schedule is looked at: powers of ten.
_STEPS = (0, *(10**k for k in range(7)))


def check_numbers(settings: Mapping[str, Any]) -> None:
    """Refuses numbers that are NaN or infinite.

    Raises:
        ValueError: With the first one's name.
    """
    for name, value in settings.items():
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if number and not math.isfinite(value):
            raise ValueError(f"Argument `{name}` must be finite. Received: {name}={value!r}")


def warn_of_rate(rate: Any, stacklevel: int) -> None:
    """Warns of a learning rate that was meant for a first-order method, or is no number.

    Args:
        rate: A number, a schedule or a callable; of those, Keras's own schedules are looked at.
        stacklevel: Of `warnings.warn`, as the caller would give it.
    """
    largest = _largest(rate)
    if largest is not None and not math.isfinite(largest):
        warnings.warn(
            "The learning rate is not finite: QNewton refuses each step until it is. "
            f"Received: learning_rate={rate!r}",
            stacklevel=stacklevel + 1,
        )
    elif largest is not None and 0 <= largest <= SMALL:
        warnings.warn(
            f"The learning rate is {largest:.3g}: each of QNewton's steps will be that fraction of "
            "Newton's, whose length needs no tuning. Newton's own learning rate is 1.0, the "
            f"default; leave `learning_rate` out. Received: learning_rate={rate!r}",
            stacklevel=stacklevel + 1,
        )


def _largest(rate: Any) -> float | None:
    """The largest rate that is seen; None where none is."""
    if isinstance(rate, LearningRateSchedule):
        # A schedule of the user's own may count how often it is called.
        ours = type(rate).__module__.startswith("keras.")
        return max(float(rate(step)) for step in _STEPS) if ours else None
    if callable(rate):
        return None
    try:
        return float(rate)
    except (TypeError, ValueError):
        return None
