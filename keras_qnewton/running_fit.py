"""The `fit` and the train step that a step is traced in, which Keras tells no optimizer."""

from __future__ import annotations

import inspect

import keras


def callbacks_of_fit() -> keras.callbacks.CallbackList | None:
    """The callbacks of the `fit` that this is called from; None in a loop of one's own.

    An optimizer knows no model, and Keras hands it none: they are found among the callers' local
    variables.
    """
    frame = inspect.currentframe()
    while frame is not None:
        for value in frame.f_locals.values() if frame.f_code.co_name == "fit" else ():
            if isinstance(value, keras.callbacks.CallbackList):
                return value
        frame = frame.f_back
    return None


def model_of_train_step() -> keras.Model | None:
    """The model whose `train_step` this is called from; None in a loop of one's own."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "train_step":
            model = frame.f_locals.get("self")
            if isinstance(model, keras.Model):
                return model
        frame = frame.f_back
    return None
