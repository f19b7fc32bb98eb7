"""Checks of arguments that constructors share: numbers, as Python's own."""

from __future__ import annotations

import math
import operator
from typing import Any


def check_count(argument: str, value: Any, least: int = 1, what: str = "") -> int:
    """`value` as an int; NumPy's integers are taken, too.

    Args:
        argument: Its name, for the message.
        value: What was given.
        least: The smallest that is allowed, 0 or 1.
        what: What it counts, for the message.

    Raises:
        ValueError: If it is no integer, or is below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        kind = "positive" if least else "non-negative"
        meaning = f", {what}" if what else ""
        raise ValueError(
            f"Argument `{argument}` must be a {kind} integer{meaning}. "
            f"Received: {argument}={value!r}"
        )
    return number


def check_number(argument: str, value: Any, meaning: str, least: float = 0.0) -> float:
    """`value` as a finite float, positive and at least `least`.

    Raises:
        ValueError: If it is not; `argument` is its name there, `meaning` what it must be.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (0 < number < math.inf and number >= least) or isinstance(value, bool):
        raise ValueError(f"Argument `{argument}` must be {meaning}. Received: {argument}={value!r}")
    return number
