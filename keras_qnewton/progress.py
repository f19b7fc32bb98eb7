"""A line in `fit` where to trace the first step takes longer than a few seconds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf

from keras_qnewton.running_fit import callbacks_of_fit

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
    """Whether this is called from a `fit` whose `verbose` is not 0."""
    callbacks = callbacks_of_fit()
    return callbacks is not None and bool((callbacks.params or {}).get("verbose"))
