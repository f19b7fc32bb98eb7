"""A line in `fit` where to trace the first step takes longer than a few seconds."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Iterator

import keras
import tensorflow as tf

# Seconds of tracing without a word.
PATIENCE = 3.0

_SAID = "QNewton is tracing its step, once: the steps after the first do not wait for it."


@contextlib.contextmanager
def tracing_told() -> Iterator[None]:
    """Prints a line if the block takes longer than `PATIENCE`, within a `fit` that is not silent.

    Eagerly, where nothing is traced, and in a loop of one's own it prints nothing.
    """
    if tf.executing_eagerly() or not _fit_prints():
        yield
        return
    timer = threading.Timer(PATIENCE, print, args=(_SAID,), kwargs={"flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _fit_prints() -> bool:
    """Whether this is called from a `fit` whose `verbose` is not 0.

    Keras hands `verbose` to callbacks alone, and an optimizer knows no model: the callbacks are
    found among the callers' local variables.
    """
    frame = inspect.currentframe()
    while frame is not None:
        for value in frame.f_locals.values() if frame.f_code.co_name == "fit" else ():
            if isinstance(value, keras.callbacks.CallbackList):
                return bool((value.params or {}).get("verbose"))
        frame = frame.f_back
    return False
