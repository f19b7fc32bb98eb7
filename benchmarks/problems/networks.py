"""Networks of the kinds that people train, full batch, on scikit-learn's digits.

    perceptron   64-64-32-10, tanh, 6,570 weights, cross-entropy
    wide         64-512-512-10, relu, 301,066 weights, cross-entropy
    convolution  two of 3 x 3 and 16 channels, pooled, 5,130 weights, cross-entropy
    lstm         an image's rows as eight steps, 32 units, 5,706 weights, cross-entropy
    autoencoder  64-128-32-8-32-128-64, 25,544 weights, squared error of pixels

Cross-entropies have a penalty of 1e-4 on kernels' squares, without which a minimum is at infinity.
Each example has several rows of the Gauss-Newton matrix, so that a full batch has many.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf
from common import digits

from .problem import Problem, Setup, Task

EXAMPLES = 1797
PENALTY = 1e-4
CLASSES = 10


def _classifier(layers: Sequence[keras.layers.Layer], shape: tuple[int, ...], setup: Setup) -> Task:
    x, y = digits(EXAMPLES)
    inputs, labels = tf.constant(x.reshape(-1, *shape), setup.dtype), tf.constant(y)
    network = keras.Sequential([keras.layers.Input(shape, dtype=setup.dtype), *layers])
    kernels = [v for v in network.trainable_variables if len(v.shape) > 1]

    def loss() -> tf.Tensor:
        entropy = keras.losses.sparse_categorical_crossentropy(
            labels, network(inputs), from_logits=True
        )
        squares = [tf.reduce_sum(tf.square(kernel)) for kernel in kernels]
        return tf.reduce_mean(entropy) + PENALTY * tf.add_n(squares)

    return Task(network.trainable_variables, loss, None)


def _dense(units: Sequence[int], activation: str, dtype: str) -> list[keras.layers.Layer]:
    hidden = [keras.layers.Dense(n, activation=activation, dtype=dtype) for n in units[:-1]]
    return [*hidden, keras.layers.Dense(units[-1], dtype=dtype)]


def _perceptron(setup: Setup) -> Task:
    keras.utils.set_random_seed(setup.seed)
    return _classifier(_dense([64, 32, CLASSES], "tanh", setup.dtype), (64,), setup)


def _wide(setup: Setup) -> Task:
    keras.utils.set_random_seed(setup.seed)
    return _classifier(_dense([512, 512, CLASSES], "relu", setup.dtype), (64,), setup)


def _convolution(setup: Setup) -> Task:
    keras.utils.set_random_seed(setup.seed)
    dtype = setup.dtype
    layers = [
        keras.layers.Conv2D(16, 3, padding="same", activation="relu", dtype=dtype),
        keras.layers.Conv2D(16, 3, padding="same", activation="relu", dtype=dtype),
        keras.layers.AveragePooling2D(2, dtype=dtype),
        keras.layers.Flatten(dtype=dtype),
        keras.layers.Dense(CLASSES, dtype=dtype),
    ]
    return _classifier(layers, (8, 8, 1), setup)


def _lstm(setup: Setup) -> Task:
    keras.utils.set_random_seed(setup.seed)
    layers = [
        keras.layers.LSTM(32, dtype=setup.dtype),
        keras.layers.Dense(CLASSES, dtype=setup.dtype),
    ]
    return _classifier(layers, (8, 8), setup)


def _autoencoder(setup: Setup) -> Task:
    keras.utils.set_random_seed(setup.seed)
    x, _ = digits(EXAMPLES)
    inputs = tf.constant(x, setup.dtype)
    units = [128, 32, 8, 32, 128, 64]
    layers = _dense(units, "tanh", setup.dtype)
    network = keras.Sequential([keras.layers.Input((64,), dtype=setup.dtype), *layers])
    return Task(
        network.trainable_variables,
        lambda: tf.reduce_mean(tf.square(network(inputs) - inputs)),
        None,
    )


_STARTS = {
    "perceptron": _perceptron,
    "wide": _wide,
    "convolution": _convolution,
    "lstm": _lstm,
    "autoencoder": _autoencoder,
}
NETWORKS = tuple(Problem(name, start, "float32") for name, start in _STARTS.items())
