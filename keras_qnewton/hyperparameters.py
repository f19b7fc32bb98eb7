"""What Keras's optimizers take beside: numbers that they do not check, and names.

A NaN among these numbers would reach weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from keras_qnewton.arguments import (
    as_number,
    check_count,
    check_number,
    check_switch,
    refused,
)
from keras_qnewton.registry import call_text

# A learning rate up to here is likely one for a first-order method.
SMALL = 0.1
# Where a schedule is looked at: powers of ten.
_STEPS = (0, *(10**k for k in range(7)))
# Keras's own arguments that are off by default.
_OF_KERAS = (
    "weight_decay",
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "use_ema",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


_NOT_NEGATIVE = ("weight_decay", "clipnorm", "global_clipnorm", "clipvalue")
_COUNTS = {"ema_overwrite_frequency": 1, "gradient_accumulation_steps": 2}


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keras's own arguments, with plain numbers for NumPy's.

    Raises:
        ValueError: If one is not what it must be.
    """
    found = dict(settings)
    for name, value in settings.items():
        if name == "use_ema":
            found[name] = check_switch(name, value)
        elif name == "ema_momentum" and (value is not None or settings.get("use_ema")):
            fraction = "a finite number from 0 to 1"
            found[name] = check_number(name, value, fraction, most=1.0, ends="[]")
        elif value is not None and name in _NOT_NEGATIVE:
            wanted = "None or a finite number, 0 or more"
            found[name] = check_number(name, value, wanted, ends="[]")
        elif value is not None and name == "loss_scale_factor":
            found[name] = check_number(name, value, "None or a finite positive number")
        elif name in _COUNTS:  # for Keras, 0 is none, too
            none = value is None or (isinstance(value, (int, np.integer)) and value == 0)
            least = _COUNTS[name]
            found[name] = None if none else check_count(name, value, least=least, what="or None")
    return found


def checked_rate(rate: Any) -> Any:
    """A learning rate as Keras takes it: floats for other real numbers.

    Raises:
        ValueError: If it is no number, schedule or callable.
    """
    if isinstance(rate, LearningRateSchedule) or (callable(rate) and not isinstance(rate, type)):
        return rate
    # One that is not finite, or is negative, is told by a warning: see `warn_of_rate`. The value of
    # a tensor or variable would be taken once, and its later values by nobody.
    if isinstance(rate, (float, np.floating)) or (
        not isinstance(rate, (tf.Tensor, tf.Variable, keras.Variable))
        and math.isfinite(as_number(rate))
    ):
        return float(rate)
    raise refused("learning_rate", rate, "a number, a schedule or a callable")


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
    elif largest is not None and largest < 0:
        warnings.warn(
            "The learning rate is negative: QNewton's steps would raise the loss, and are refused. "
            f"Newton's own learning rate is 1.0, the default. Received: learning_rate={rate!r}",
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


def check_name(name: Any) -> None:
    """Refuses a name that Keras does not take.

    Raises:
        ValueError: If it is neither None nor a string without `/`.
    """
    if name is not None and (not isinstance(name, str) or "/" in name):
        raise refused("name", name, "None or a string without `/`")


def name_or_number(name: str | None) -> str:
    """The name, or if there is none another instance's, as Keras numbers its own optimizers."""
    if name:
        return name
    number = keras.backend.get_uid("qnewton")
    return "qnewton" if number == 1 else f"qnewton_{number - 1}"


def settings_text(optimizer: keras.optimizers.Optimizer, own: Sequence[str]) -> str:
    """The call that makes an optimizer like this: `own` arguments, and Keras's that are set."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        with tf.init_scope():  # a graph that is being traced knows no numbers
            rate = float(tf.convert_to_tensor(rate))
    values = {"learning_rate": rate, **{name: getattr(optimizer, name) for name in own}}
    for name in _OF_KERAS:
        value = getattr(optimizer, name)
        if value is not None and value is not False:
            values[name] = value
    return call_text(optimizer, values)
