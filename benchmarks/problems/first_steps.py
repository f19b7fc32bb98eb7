"""Models whose first step is measured: one of each kind that a newcomer tries, with random data."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

_L = keras.layers


class Newcomer(NamedTuple):
    """A model that is compiled by whoever measures it, and one batch for it.

    Attributes:
        model: Not compiled.
        loss: What to compile it with.
        x: The batch's inputs.
        y: Its targets.
    """

    model: keras.Model
    loss: keras.losses.Loss
    x: np.ndarray
    y: np.ndarray


def _classes(model: keras.Model, shape: tuple[int, ...], count: int) -> Newcomer:
    rng = np.random.default_rng(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x = rng.normal(size=shape).astype("float32")
    return Newcomer(model, loss, x, rng.integers(0, count, shape[0]))


def perceptron() -> Newcomer:
    """1,482 weights on images of 8 x 8 pixels, as of digits."""
    hidden = [_L.Dense(16, activation="tanh") for _ in range(2)]
    model = keras.Sequential([_L.Input((64,)), *hidden, _L.Dense(10)])
    return _classes(model, (512, 64), 10)


def curve() -> Newcomer:
    """673 weights on a function of one variable."""
    hidden = [_L.Dense(24, activation="tanh") for _ in range(2)]
    model = keras.Sequential([_L.Input((1,)), *hidden, _L.Dense(1)])
    x = np.linspace(0, 1, 256, dtype="float32")[:, None]
    y = np.sin(8 * x) + 0.5 * np.cos(23 * x**2)
    return Newcomer(model, keras.losses.MeanSquaredError(), x, y)


def convolution() -> Newcomer:
    """754 weights on images of 8 x 8 pixels."""
    hidden = [_L.Conv2D(8, 3, activation="relu") for _ in range(2)]
    last = [_L.GlobalAveragePooling2D(), _L.Dense(10)]
    model = keras.Sequential([_L.Input((8, 8, 1)), *hidden, *last])
    return _classes(model, (512, 8, 8, 1), 10)


def lstm() -> Newcomer:
    """443 weights on sequences of ten steps."""
    model = keras.Sequential([_L.Input((10, 4)), _L.LSTM(8), _L.Dense(3)])
    return _classes(model, (256, 10, 4), 3)


def attention() -> Newcomer:
    """A transformer's block of 466 weights on sequences of eight steps."""
    inputs = keras.Input((8, 8))
    z = _L.LayerNormalization()(_L.MultiHeadAttention(2, 4)(inputs, inputs) + inputs)
    z = _L.GlobalAveragePooling1D()(_L.Dense(8, activation="gelu")(z))
    return _classes(keras.Model(inputs, _L.Dense(10)(z)), (256, 8, 8), 10)


NEWCOMERS: dict[str, Callable[[], Newcomer]] = {
    "perceptron": perceptron,
    "curve": curve,
    "convolution": convolution,
    "lstm": lstm,
    "attention": attention,
}


def train_function(newcomer: Newcomer, optimizer: keras.Optimizer, jit: bool = False) -> Callable:
    """The `tf.function` of one step of `fit`, of an iterator over batches; not traced yet.

    Args:
        newcomer: Its model is compiled here.
        optimizer: Its state is created here.
        jit: Whether XLA compiles the step.
    """
    model, loss, x, y = newcomer
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit)
    model.make_train_function()
    model._symbolic_build(data_batch=(x[:4], y[:4]))
    optimizer.build(model.trainable_variables)
    cells = [cell.cell_contents for cell in model.train_function.__closure__]
    return next(c for c in cells if hasattr(c, "get_concrete_function"))


def batches(newcomer: Newcomer) -> tf.data.Iterator:
    """The batch, again and again; of unknown size, as in `fit`."""
    data = tf.data.Dataset.from_tensor_slices((newcomer.x, newcomer.y))
    return iter(data.batch(len(newcomer.x)).repeat())


def operations(graph: tf.Graph) -> int:
    """How many operations a graph and all functions in it have."""
    definition = graph.as_graph_def()
    functions = definition.library.function
    return len(definition.node) + sum(len(function.node_def) for function in functions)
