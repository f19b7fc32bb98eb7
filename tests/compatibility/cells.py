"""Rows of the page, and small models to fill them with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_qnewton import QNewton

L = keras.layers
X = np.linspace(-1, 1, 64).reshape(32, 2).astype("float32")
Y = np.sin(3 * X).sum(1, keepdims=True).astype("float32")


class Cell(NamedTuple):
    """A row of the page.

    Attributes:
        area: What it belongs to.
        what: The setting or the use.
        verdict: "works", or what is said where it does not.
        test: The test that shows it.
    """

    area: str
    what: str
    verdict: str
    test: str


CELLS: list[Cell] = []


def cell(area: str, what: str, verdict: str = "works") -> Callable:
    """A test that backs a row of the page."""

    def register(test: Callable) -> Callable:
        CELLS.append(Cell(area, what, verdict, test.__name__))
        return test

    return register


def small(*extra):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((2,)), L.Dense(4, activation="tanh", name="hidden"), *extra, L.Dense(1)]
    )


def compiled(model=None, loss="mse", **options):
    model = small() if model is None else model
    compile_options = {k: options.pop(k) for k in ("metrics", "weighted_metrics") if k in options}
    model.compile(optimizer=QNewton(**options), loss=loss, **compile_options)
    return model


def fitted(model, x=X, y=Y, epochs=4, **options):
    """The losses of `epochs` full batches."""
    options = {"batch_size": len(X), "shuffle": False, "verbose": 0} | options
    return model.fit(x, y, epochs=epochs, **options).history["loss"]


def falls(losses):
    return np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]
