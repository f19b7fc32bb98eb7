"""Checks of arguments that constructors share: numbers, as Python's own, names and switches."""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

# The largest integer that a tensor holds.
_LARGEST = 2**63 - 1


def check_count(
    argument: str, value: Any, least: int = 1, what: str = "", most: float = _LARGEST
) -> int:
    """`value` as an int; NumPy's integers are taken, too, and 1e5.

    Args:
        argument: Its name, for the message.
        value: What was given.
        least: The smallest that is allowed.
        what: What it counts, for the message.
        most: The largest that is allowed.

    Raises:
        ValueError: If it is no whole number, is below `least`, or above `most`.
    """
    whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
    try:
        number = int(value) if whole else operator.index(value)
    except (TypeError, AttributeError):  # of a tensor of floats
        number = least - 1
    if number > most:
        raise refused(argument, value, "an integer below 2^63")
    if number < least or isinstance(value, (bool, np.bool_)):
        kind = {0: "a non-negative integer", 1: "a positive integer"}
        wanted = kind.get(least, f"an integer, at least {least}")
        meaning = f", {what}" if what else ""
        raise refused(argument, value, f"{wanted}{meaning}")
    return number


def check_number(
    argument: str,
    value: Any,
    meaning: str,
    least: float = 0.0,
    most: float = sys.float_info.max,
    ends: str = "(]",
) -> float:
    """`value` as a float between `least` and `most`; finite, unless `most` is not.

    Args:
        argument: Its name, for the message.
        value: What was given.
        meaning: What it must be, for the message.
        least: Lower end.
        most: Upper end.
        ends: Which ends are in, as intervals are written: "(]" leaves out the lower one.

    Raises:
        ValueError: If it is no such number.
    """
    number = as_number(value)
    above = number >= least if ends[0] == "[" else number > least
    below = number <= most if ends[1] == "]" else number < most
    if not (above and below):
        raise refused(argument, value, meaning)
    return number


def check_choice(argument: str, value: Any, choices: Sequence[str]) -> str:
    """`value`, a name among `choices`.

    Raises:
        ValueError: If it is none of them.
    """
    if not (isinstance(value, str) and value in choices):
        raise refused(argument, value, f"one of {', '.join(map(repr, choices))}")
    return value


def check_switch(argument: str, value: Any) -> bool:
    """`value` as a bool.

    Raises:
        ValueError: If it is neither True nor False: "no" would be true.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise refused(argument, value, "True or False")
    return bool(value)


def check_path(argument: str, value: Any) -> None:
    """Refuses what is no path: a number would be a file that is open already, such as stdout.

    Raises:
        ValueError: If it is none, is empty, or has a character that no path can have.
    """
    is_path = isinstance(value, (str, bytes, os.PathLike)) and bool(value)
    if not is_path or "\0" in os.fsdecode(value):
        raise refused(argument, value, "a path")


def as_number(value: Any) -> float:
    """`value` as a float; NaN if it is no real number: a string, a bool, an array."""
    if isinstance(value, (bool, np.bool_, str, bytes, complex, np.complexfloating)):
        return math.nan
    if isinstance(value, np.ndarray) and value.dtype.kind not in "iuf":
        return math.nan
    try:
        return math.nan if np.ndim(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def as_numbers(values: Any) -> tuple[float, ...]:
    """Each of a sequence `as_number`; a single NaN of what is no sequence."""
    try:
        return tuple(as_number(value) for value in values)
    except TypeError:
        return (math.nan,)


def refused(argument: str, value: Any, wanted: str) -> ValueError:
    """The error of an argument that is not what it must be."""
    return ValueError(f"Argument `{argument}` must be {wanted}. Received: {argument}={value!r}")
