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


def numbered_name() -> str:
    """The name of another instance, as Keras numbers those of its own optimizers."""
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
