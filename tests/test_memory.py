"""A model that is dropped leaves no graph behind."""

import gc
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton, _tf_private

L = keras.layers


def is_dropped(make):
    """Whether the graph in which `make` is run is freed once its function is."""
    graphs = []

    def traced():
        graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return make()

    tf.function(traced, autograph=False)()
    gc.collect()
    (graph,) = graphs
    return graph() is None


def shared_by_a_term(tape, x):
    z = tf.tanh(x)
    return z + tf.ones_like(z), [z]


def shared_by_both_terms(tape, x):
    z, other = tf.tanh(x), tf.sin(x)
    return z + other, [z, other]


def shared_thrice(tape, x):
    z = tf.tanh(x)
    return tf.identity(z) + tf.ones_like(z), [z, tf.identity(x)]


def with_a_source_given_twice(tape, x):
    z = tf.tanh(x)
    return z + tf.ones_like(z), [z, z]


def a_tanh(tape, x):
    return tf.tanh(x), [x]


KINDS = [
    shared_by_a_term,
    shared_by_both_terms,
    shared_thrice,
    with_a_source_given_twice,
    a_tanh,
]


def gradients(kind, seed):
    x = tf.constant([1.0, 2.0]) * 3.0
    with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        y, sources = kind(tape, x)
    return tape.gradient(y, [*sources, y], seed)


def unseen(tensor):
    """How many references the garbage collector knows no holder of."""
    gc.collect()
    return sys.getrefcount(tensor) - len(gc.get_referrers(tensor))


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_shared_gradients_are_neither_kept_nor_freed_twice(kind, outer):
    counts = []

    def step():
        seed = tf.constant([1.0, 2.0]) * 2.0
        before = unseen(seed)
        if outer:
            with tf.GradientTape() as tape:
                tape.watch(seed)
                gradients(kind, seed)
            del tape
        else:
            gradients(kind, seed)
        counts.append(unseen(seed) - before)
        return seed

    tf.function(step, autograph=False)()
    assert counts == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_of_shared_gradients_is_dropped(kind):
    assert is_dropped(lambda: gradients(kind, tf.constant([1.0, 2.0]) * 2.0))


def test_slices_that_sources_share_are_dropped():
    def make():
        table = tf.reshape(tf.range(6.0), [3, 2]) * 2.0
        with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(table)
            same = tf.identity(table)
            rows = tf.gather(same, [0, 2])
        first, second = tape.gradient(rows, [table, same])
        assert first is second and isinstance(first, tf.IndexedSlices)
        return tf.convert_to_tensor(first)

    assert is_dropped(make)


def test_shared_gradients_are_what_they_were():
    def step(tape_of):
        x = tf.constant([1.0, 2.0]) * 3.0
        with tape_of(watch_accessed_variables=False) as tape:
            tape.watch(x)
            z = tf.tanh(x)
            y = z + tf.sin(x)
        return tape.gradient(y, {"z": z, "y": y, "x": x}, tf.constant([2.0, 3.0]))

    ours = tf.function(step, autograph=False)(_tf_private.GradientTape)
    theirs = tf.function(step, autograph=False)(tf.GradientTape)
    assert set(ours) == {"x", "y", "z"}
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)


# --- whole models -------------------------------------------------------------------------


def residual():
    inputs = keras.Input((4,))
    z = L.Dense(4, activation="tanh")(inputs)
    return keras.Model(inputs, L.Dense(1)(z + L.Dense(4)(z) + inputs))


def perceptron():
    return keras.Sequential([L.Input((4,)), L.Dense(4, activation="tanh"), L.Dense(3), L.Dense(1)])


def convolution():
    layers = [L.Conv2D(2, 2, activation="tanh"), L.BatchNormalization(), L.Flatten(), L.Dense(1)]
    return keras.Sequential([L.Input((4,)), L.Reshape((2, 2, 1)), *layers])


def with_forms():
    """Operations that are run again as something else, whose gradients are given."""
    layers = [L.Dense(4, activation="softsign"), L.Reshape((2, 2, 1)), L.UpSampling2D(2)]
    return keras.Sequential([L.Input((4,)), *layers, L.Flatten(), L.Dense(1)])


class Watched(keras.losses.MeanSquaredError):
    """Keeps a weak reference to each graph in which it is traced."""

    def __init__(self, graphs):
        super().__init__()
        self.graphs = graphs

    def call(self, y_true, y_pred):
        self.graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return super().call(y_true, y_pred)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (perceptron, {}),
        (residual, {}),
        (convolution, {}),
        (perceptron, {"curvature": "hessian", "blocks": "layer"}),
        (perceptron, {"curvature": "quasi_newton"}),
        (with_forms, {}),
        (with_forms, {"curvature": "hessian"}),
    ],
)
def test_graphs_of_a_dropped_model_are_collected(make, options):
    graphs = []
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    model = make()
    model.compile(optimizer=QNewton(**options), loss=Watched(graphs))
    model.fit(x, np.sin(x[:, :1]), epochs=2, batch_size=32, verbose=0)
    assert graphs and graphs[0]() is not None
    del model
    keras.backend.clear_session()
    gc.collect()
    assert [graph() for graph in graphs] == [None] * len(graphs)
