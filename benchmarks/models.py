"""Seconds of the first step and of later steps, by kind of model: QNewton() beside Adam.

The first step traces, and decides how each block's matrix is formed. Later steps are medians. Both
optimizers are at their defaults, on one batch over and over. Each model has a process of its own,
where Adam runs first: no first step gains by what another model's has brought about, and
TensorFlow's own start is Adam's. Keras's models train by `train_on_batch`, the last two by a loss
of their own: QNewton() through `minimize` in a `tf.function`, Adam in one of its own.

    dense             64-16-16-10 tanh, batch 512
    cnn               two convolutions of 8 filters on 8 x 8 pixels, batch 512
    batch_norm        a residual block of two convolutions of 4 filters, each with batch
                      normalization, on 8 x 8 pixels, batch 256
    lstm10, 28, 100   LSTM(8) on so many steps of 4 numbers, batch 256
    gru               GRU(8) on 10 steps of 4 numbers, batch 256
    transformer       attention of 2 heads, layer normalization, GELU, 8 tokens of 8 numbers,
                      batch 256
    tagger            the same, with a class for each token
    lstm_tagger       LSTM(8) on 10 steps of 4 numbers, with a class for each, batch 256
    two_heads         a shared layer, a number and a class, two losses, batch 256
    embedding         50 words of 8 numbers, mean over 12 words, batch 256
    vae               16-16-(4, 4)-16-16, a random draw in the loss, batch 256
    pinn              Poisson 2-d of `benchmarks/physics.py`, float64

A model that is not done within `--limit` seconds gets a note instead of a row.

    python benchmarks/models.py [--models dense cnn ...] [--steps 15] [--seconds 20]
        [--limit 600] [--json FILE]
"""

from __future__ import annotations

import argparse
import collections
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import common
import keras
import numpy as np
import physics
import tensorflow as tf

from keras_qnewton import QNewton

L = keras.layers
CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
OPTIMIZERS = {"Adam": keras.optimizers.Adam, "QNewton": QNewton}
# An optimizer's step, compiled at its first call, and how many weights it trains.
Step = tuple[Callable[[], Any], int]


# --- Keras's models -----------------------------------------------------------------------


def fitted(model: keras.Model, optimizer: Any, x: Any, y: Any, loss: Any = CLASSES) -> Step:
    model.compile(optimizer=optimizer, loss=loss)
    return lambda: model.train_on_batch(x, y), model.count_params()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def labels(batch: int | tuple[int, ...], classes: int) -> np.ndarray:
    return np.random.default_rng(1).integers(classes, size=batch)


def dense(optimizer: Any) -> Step:
    model = common.keras_mlp((64, 16, 16, 10))
    return fitted(model, optimizer, noise(512, 64), labels(512, 10))


def cnn(optimizer: Any) -> Step:
    layers = [L.Conv2D(8, 3, activation="relu"), L.Conv2D(8, 3, activation="relu")]
    model = keras.Sequential([L.Input((8, 8, 1)), *layers, L.GlobalAveragePooling2D(), L.Dense(10)])
    return fitted(model, optimizer, noise(512, 8, 8, 1), labels(512, 10))


def batch_norm(optimizer: Any) -> Step:
    def normalised(z: Any) -> Any:
        return L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False)(z))

    images = keras.Input((8, 8, 1))
    z = L.ReLU()(normalised(images))
    z = L.ReLU()(z + normalised(z))
    model = keras.Model(images, L.Dense(10)(L.GlobalAveragePooling2D()(z)))
    return fitted(model, optimizer, noise(256, 8, 8, 1), labels(256, 10))


def recurrent(layer: Any, steps: int) -> Callable[[Any], Step]:
    def build(optimizer: Any) -> Step:
        model = keras.Sequential([L.Input((steps, 4)), layer(8), L.Dense(3)])
        return fitted(model, optimizer, noise(256, steps, 4), labels(256, 3))

    return build


def attention() -> tuple[Any, Any]:
    """Tokens, and what they are after attention and one more layer."""
    tokens = keras.Input((8, 8))
    z = L.LayerNormalization()(L.MultiHeadAttention(2, 4)(tokens, tokens) + tokens)
    return tokens, L.Dense(8, activation="gelu")(z)


def transformer(optimizer: Any) -> Step:
    tokens, z = attention()
    model = keras.Model(tokens, L.Dense(10)(L.GlobalAveragePooling1D()(z)))
    return fitted(model, optimizer, noise(256, 8, 8), labels(256, 10))


def tagger(optimizer: Any) -> Step:
    tokens, z = attention()
    return fitted(
        keras.Model(tokens, L.Dense(5)(z)), optimizer, noise(256, 8, 8), labels((256, 8), 5)
    )


def lstm_tagger(optimizer: Any) -> Step:
    layers = [L.Input((10, 4)), L.LSTM(8, return_sequences=True), L.Dense(3)]
    model = keras.Sequential(layers)
    return fitted(model, optimizer, noise(256, 10, 4), labels((256, 10), 3))


def two_heads(optimizer: Any) -> Step:
    inputs = keras.Input((16,))
    shared = L.Dense(16, activation="tanh")(inputs)
    heads = {"number": L.Dense(1, name="number")(shared), "kind": L.Dense(5, name="kind")(shared)}
    x = noise(256, 16)
    y = {"number": x[:, :1] * x[:, 1:2], "kind": labels(256, 5)}
    losses = {"number": "mse", "kind": CLASSES}
    return fitted(keras.Model(inputs, heads), optimizer, x, y, losses)


def embedding(optimizer: Any) -> Step:
    layers = [L.Embedding(50, 8), L.GlobalAveragePooling1D(), L.Dense(16, activation="tanh")]
    model = keras.Sequential([L.Input((12,), dtype="int32"), *layers, L.Dense(3)])
    words = np.random.default_rng(0).integers(50, size=(256, 12)).astype("int32")
    return fitted(model, optimizer, words, labels(256, 3))


# --- losses of their own ------------------------------------------------------------------


def minimized(optimizer: Any, loss: Callable[[], tf.Tensor], variables: list[Any]) -> Step:
    def update() -> tf.Tensor:
        if isinstance(optimizer, QNewton):
            return optimizer.minimize(loss, variables)
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, [v.value for v in variables])
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value

    step = tf.function(update, autograph=False)
    return lambda: float(step()), sum(int(np.prod(v.shape)) for v in variables)


def vae(optimizer: Any) -> Step:
    hidden = L.Dense(16, activation="tanh")
    inputs = keras.Input((16,))
    encoder = keras.Model(inputs, L.Dense(8)(hidden(inputs)))
    decoder = keras.Sequential([L.Input((4,)), L.Dense(16, activation="tanh"), L.Dense(16)])
    x = tf.constant(np.tanh(noise(256, 4) @ noise(4, 16)))

    def loss() -> tf.Tensor:
        mean, log_variance = tf.split(encoder(x), 2, axis=1)
        code = mean + tf.exp(log_variance / 2) * tf.random.normal(tf.shape(mean))
        error = tf.reduce_sum((decoder(code) - x) ** 2, 1)
        divergence = tf.reduce_sum(tf.exp(log_variance) + mean**2 - 1 - log_variance, 1) / 2
        return tf.reduce_mean(error + divergence)

    return minimized(optimizer, loss, encoder.trainable_variables + decoder.trainable_variables)


def pinn(optimizer: Any) -> Step:
    problem = physics.PROBLEMS["poisson2d"]
    points, weights = problem.start(0)
    model = physics.keras_network(weights)
    fixed = tuple(tf.constant(of) for of in points)
    return minimized(
        optimizer, lambda: physics.tf_loss(problem, model, fixed), model.trainable_variables
    )


MODELS: dict[str, Callable[[Any], Step]] = {
    "dense": dense,
    "cnn": cnn,
    "batch_norm": batch_norm,
    "lstm10": recurrent(L.LSTM, 10),
    "lstm28": recurrent(L.LSTM, 28),
    "lstm100": recurrent(L.LSTM, 100),
    "gru": recurrent(L.GRU, 10),
    "transformer": transformer,
    "tagger": tagger,
    "lstm_tagger": lstm_tagger,
    "two_heads": two_heads,
    "embedding": embedding,
    "vae": vae,
    "pinn": pinn,
}


# --- measuring ----------------------------------------------------------------------------


def measured(name: str, label: str, steps: int, seconds: float) -> dict[str, Any]:
    """The first step, then as many as there is time for, two at least."""
    keras.utils.set_random_seed(0)
    if name == "pinn":  # before the optimizer: its own variables are float64, too
        keras.config.set_floatx("float64")
    optimizer = OPTIMIZERS[label]()
    step, weights = MODELS[name](optimizer)
    began = time.perf_counter()
    step()
    first = time.perf_counter() - began
    later: list[float] = []
    began = time.perf_counter()
    while len(later) < 2 or (len(later) < steps and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        step()
        later.append(time.perf_counter() - start)
    out = {"model": name, "optimizer": label, "weights": weights, "first_seconds": first}
    out |= {"step_seconds": statistics.median(later), "steps": len(later)}
    decisions = getattr(optimizer, "decisions", [])
    last = [d for d in decisions if d.step == decisions[-1].step]
    return out | {
        "route": counted([d.route for d in last]),
        "formed_by": counted([d.formed_by for d in last]),
    }


def counted(words: list[str]) -> str:
    """What the blocks have, each once, with its number of blocks if there are several."""
    counts = collections.Counter(words)
    if sum(counts.values()) == 1:
        return words[0]
    return "; ".join(f"{count} blocks: {word}" for word, count in counts.items())


def rows_of(name: str, steps: int, seconds: float) -> Iterator[dict[str, Any]]:
    """A row for each optimizer."""
    for label in OPTIMIZERS:
        yield measured(name, label, steps, seconds)


def line(name: str, label: str, row: dict[str, Any] | str) -> str:
    if isinstance(row, str):
        return f"{name:<13}{'':>8}  {label:<9}  {row}"
    of_blocks = f"  {row['route']}; {row['formed_by']}" if row["route"] else ""
    return (
        f"{name:<13}{row['weights']:>8,}  {label:<9}{row['first_seconds']:>9.1f}"
        f"{1e3 * row['step_seconds']:>11,.1f}{row['steps']:>4}{of_blocks}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=15, help="later steps; the median counts")
    parser.add_argument("--seconds", type=float, default=20.0, help="for the later steps at most")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for a model in all")
    common.add_output_options(parser, "models")
    options = parser.parse_args()
    print(
        f"{'model':<13}{'weights':>8}  {'optimizer':<9}{'first, s':>9}{'later, ms':>11}{'N':>4}"
        "  route; formed by",
        flush=True,
    )
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for name in options.models:
        until, late = time.perf_counter() + options.limit, f"not done within {options.limit:g} s"
        arguments = name, options.steps, options.seconds
        rows = common.rows_of_child(rows_of, arguments, until, late)
        for label, row in zip(OPTIMIZERS, rows, strict=False):
            print(line(name, label, row), flush=True)
            if isinstance(row, str):
                results.append({"model": name, "optimizer": label, "skipped": row})
                if row.startswith(common.FAILED):
                    failed.append(name)
            else:
                results.append(row)
    common.save("models", results, options.json)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
