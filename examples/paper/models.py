"""The paper's families of models, small enough for exact blocks, out of plain Keras layers."""

from __future__ import annotations

import keras

L = keras.layers


def perceptron(data, hidden: int) -> keras.Model:
    """64-h-h-C, ReLU."""
    return keras.Sequential(
        [
            L.Input((64,)),
            L.Dense(hidden, activation="relu", name="first"),
            L.Dense(hidden, activation="relu", name="second"),
            L.Dense(data.classes, name="output"),
        ]
    )


def bert(data, hidden: int) -> keras.Model:
    """A bidirectional transformer block over words, and one answer a line."""
    tokens = keras.Input(data.x.shape[1:], dtype="int32")
    x = _embedded(tokens, data, hidden)
    x = _block(x, hidden, causal=False)
    return keras.Model(tokens, L.Dense(data.classes, name="output")(L.GlobalAveragePooling1D()(x)))


def gpt(data, hidden: int) -> keras.Model:
    """A causal transformer block over characters, and the next one at each position."""
    tokens = keras.Input(data.x.shape[1:], dtype="int32")
    x = _embedded(tokens, data, hidden)
    x = _block(x, hidden, causal=True)
    return keras.Model(tokens, L.Dense(data.classes, name="output")(x))


def _embedded(tokens, data, hidden: int):
    positions = L.Embedding(data.x.shape[1], hidden, name="positions")
    words = L.Embedding(data.tokens, hidden, name="words")(tokens)
    # Made of the tokens: of what is not made of an input Keras keeps the value, and trains nothing.
    places = keras.ops.cumsum(keras.ops.ones_like(tokens), axis=1) - 1
    return words + positions(places)


def _block(x, hidden: int, causal: bool):
    attention = L.MultiHeadAttention(2, hidden // 2, name="attention")
    y = L.LayerNormalization(name="norm")(x)
    x = x + attention(y, y, use_causal_mask=causal)
    y = L.Dense(2 * hidden, activation="gelu", name="widen")(L.LayerNormalization(name="norm2")(x))
    return x + L.Dense(hidden, name="narrow")(y)
