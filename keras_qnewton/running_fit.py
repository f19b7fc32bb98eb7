"""The `fit` and the train step that a step is traced in, which Keras tells no optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import keras


def callbacks_of_fit() -> keras.callbacks.CallbackList | None:
    """The callbacks of the `fit` that this is called from; None in a loop of one's own.

    An optimizer knows no model, and Keras hands it none: they are found among the callers' local
    variables.
    """
    for variables in _variables_of_callers("fit"):
        for value in variables.values():
            if isinstance(value, keras.callbacks.CallbackList):
                return value
    return None


def model_of_train_step() -> keras.Model | None:
    """The model whose `train_step` this is called from; None in a loop of one's own."""
    for variables in _variables_of_callers("train_step"):
        # The first argument, whatever it is called, is the first of the local variables.
        model = next(iter(variables.values()), None)
        if isinstance(model, keras.Model):
            return model
    return None


def _variables_of_callers(name: str) -> Iterator[dict[str, Any]]:
    """The local variables of each function of that name that this is called from."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == name:
            yield frame.f_locals
        frame = frame.f_back
