"""Every decision says how its block was formed, and why not in fewer backward passes."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Blocks, QNewton
from keras_qnewton.curvature import structured

L = keras.layers


class TwiceUsed(L.Layer):
    """A kernel in two products."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        return tf.tanh(tf.tanh(x @ self.kernel) @ self.kernel)


class Normalised(L.Layer):
    """A kernel of norm 1."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        return tf.tanh(x @ (self.kernel / tf.norm(self.kernel)))


class LoopUntilSmall(L.Layer):
    """As many turns as its state takes: no number that is known before they are made."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return tf.while_loop(
            lambda x: tf.reduce_max(tf.abs(x)) > 0.5,
            lambda x: (0.5 * tf.tanh(x * self.scale),),
            (x,),
        )[0]


DENSE = [L.Dense(3, activation="tanh"), L.Dense(3)]
IMAGES = [L.Reshape((2, 2, 1)), L.Conv2D(2, 2, activation="tanh"), L.Flatten(), L.Dense(3)]
COUPLED = [L.Dense(3), L.BatchNormalization(), L.Activation("tanh"), L.Dense(3)]
# Layers, arguments, and how the decisions of the first block begin.
CASES = {
    "dense": (DENSE, {}, "layers: "),
    "dense, exact": (DENSE, {"curvature": "hessian"}, "layers: "),
    "one root": (DENSE, {"curvature": "fisher"}, "rows: "),
    "convolution": (IMAGES, {}, "rows: "),
    "convolution, exact": (
        IMAGES,
        {"curvature": "hessian"},
        "products with unit vectors: a weight",
    ),
    "examples interact": (COUPLED, {"blocks": "layer"}, "columns by single forward passes: what"),
    "shared": ([TwiceUsed(), L.Dense(3)], {}, "rows: "),
    "not linear": ([Normalised(), L.Dense(3)], {}, "rows by single backward passes: a weight"),
    "loop": ([LoopUntilSmall(), L.Dense(3)], {}, "columns by single forward passes, one at"),
    "large": (DENSE, {"blocks": Blocks(max_size=4)}, "not formed"),
}


def decisions(layers, arguments, steps=2):
    keras.utils.set_random_seed(0)
    layers = [type(layer).from_config(layer.get_config()) for layer in layers]
    model = keras.Sequential([L.Input((4,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=QNewton(**arguments), loss=loss)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)).astype("float32"), rng.integers(0, 2, 12)
    model.fit(x, y, batch_size=12, epochs=steps, verbose=0)
    return model.optimizer.decisions


@functools.cache
def decisions_of(case):
    layers, arguments, _ = CASES[case]
    return decisions(layers, arguments)


@pytest.mark.parametrize("case", CASES)
def test_says_how_and_why(case):
    first, expected = decisions_of(case), CASES[case][-1]
    assert all(d.formed_by.startswith(expected) for d in first if d.block == first[0].block)


@pytest.mark.slow
def test_layers_behind_the_interaction_are_assembled():
    last = decisions_of("examples interact")[-1]
    assert last.formed_by.startswith("layers: ")


def test_outputs_of_a_time_step_each_have_rows():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((5, 3)), L.Dense(4, activation="tanh"), L.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=QNewton(), loss=loss)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 5, 3)).astype("float32"), rng.integers(0, 2, (6, 5))
    model.fit(x, y, batch_size=4, verbose=0)  # and two in the last batch
    assert {d.formed_by for d in model.optimizer.decisions} == {
        "rows: assembled from derivatives of each example's output"
    }


def test_more_outputs_an_example_than_are_differentiated_one_by_one():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((3,)), L.Dense(4, activation="tanh"), L.Dense(300)])
    model.compile(optimizer=QNewton(), loss="mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)).astype("float32"), rng.normal(size=(6, 300))
    model.fit(x, y, verbose=0)
    (decision,) = model.optimizer.decisions
    assert decision.formed_by.endswith(": there is not one row of few outputs for each example")


def test_a_kept_matrix_is_said_to_be():
    ways = [d.formed_by.split(":")[0] for d in decisions(DENSE, {"update_every": 3}, steps=5)]
    assert ways == ["layers", "kept", "kept", "layers", "kept"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param({}, "rows: ", marks=pytest.mark.slow),
        ({"curvature": "hessian"}, "products with unit vectors: of so wide"),
        # Two variables of the layer are in no block together, so that one has rows all the same.
        ({"blocks": "variable"}, "rows: "),
    ],
)
def test_layers_too_wide_for_all_examples_at_once(monkeypatch, arguments, expected):
    """Another way to the same steps."""
    monkeypatch.setattr(structured, "_ANY_BATCH", float("inf"))
    runs = []
    for memory, how in ((1e3, expected), (1e9, "layers: ")):
        monkeypatch.setattr(structured, "memory_of_a_batch", lambda least, memory=memory: memory)
        runs.append(decisions([L.Dense(3, activation="tanh")], arguments))
        assert runs[-1][0].formed_by.startswith(how)
    np.testing.assert_allclose(*[[d.loss_after for d in run] for run in runs], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("examples", "expected"), [(10, "rows by"), (60, "columns by")])
def test_single_passes_compiled_by_xla(examples, expected):
    """33 weights and three roots an example."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(examples, 4)).astype("float32"), rng.integers(0, 2, examples)
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        layers = [L.Dense(3), L.BatchNormalization(), L.Activation("tanh"), L.Dense(3)]
        model = keras.Sequential([L.Input((4,)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(QNewton(), loss=loss, jit_compile=jit_compile)
        history = model.fit(x, y, batch_size=examples, epochs=3, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
        assert all(d.formed_by.startswith(expected) for d in model.optimizer.decisions)
    np.testing.assert_allclose(*losses, rtol=1e-3)
