"""Weights of examples, masks, and where batches come from.

Each test is a row of `docs/compatibility.md`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from tests.compatibility.cells import L, X, Y, cell, compiled, falls, fitted, small


@cell("Data", "`class_weight` and `sample_weight`")
def test_weights_of_examples():
    labels = (Y[:, 0] > 0).astype("int64")
    model = small(L.Dense(2, activation="softmax", name="classes"))
    model = keras.Sequential([*model.layers[:-1]])
    compiled(model, loss="sparse_categorical_crossentropy")
    weighted = fitted(model, X, labels, class_weight={0: 1.0, 1: 3.0})
    assert falls(weighted)
    assert falls(fitted(compiled(), sample_weight=np.linspace(0, 1, 32)))


@cell("Data", "an example of weight zero counts in Keras's mean; one that is masked does not")
def test_examples_of_weight_zero():
    """The loss is that of Keras, and the step that of the loss."""
    weights = np.ones(32)
    weights[16:] = 0.0
    model = compiled()
    losses = fitted(model, sample_weight=weights)
    half = compiled()
    of_half = fitted(half, X[:16], Y[:16], batch_size=16)
    np.testing.assert_allclose(losses, np.array(of_half) / 2, rtol=1e-3)


@cell("Data", "`validation_split`, `validation_freq`, metrics and weighted metrics")
def test_validation_and_metrics():
    model = compiled(metrics=["mae"], weighted_metrics=["mse"])
    options = {"validation_split": 0.25, "validation_freq": 2, "batch_size": 8}
    history = model.fit(X, Y, epochs=4, verbose=0, **options).history
    assert len(history["val_mae"]) == 2 and falls(history["loss"])


@cell("Data", "generators, `tf.data`, `steps_per_epoch`")
@pytest.mark.slow
def test_generators_and_datasets():
    def batches():
        while True:
            yield X, Y

    options = {"steps_per_epoch": 1, "epochs": 4, "verbose": 0}
    assert falls(compiled().fit(batches(), shuffle=False, **options).history["loss"])
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32).repeat()
    assert falls(compiled().fit(dataset, shuffle=False, **options).history["loss"])


@cell("Data", "inputs and targets in dictionaries, with weights for each loss")
@pytest.mark.slow
def test_dictionaries():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    hidden = L.Dense(4, activation="tanh")(L.Concatenate()([a, b]))
    heads = {"p": L.Dense(1, name="p")(hidden), "q": L.Dense(1, "sigmoid", name="q")(hidden)}
    model = keras.Model({"a": a, "b": b}, heads)
    losses = {"p": "mse", "q": "binary_crossentropy"}
    model.compile(QNewton(), losses, loss_weights={"p": 1.0, "q": 0.5}, metrics={"q": "accuracy"})
    weights = {"p": np.ones(len(X)), "q": np.linspace(0, 1, len(X))}
    targets = {"p": Y, "q": (Y > 0).astype("float32")}
    assert falls(fitted(model, {"a": X, "b": -X}, targets, sample_weight=weights))


@cell("Data", "`PyDataset` with workers; batches of changing sizes, in `train_on_batch` too")
@pytest.mark.slow
def test_batches_of_many_sizes():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, number):
            size = (32, 7, 20)[number]
            return X[:size], Y[:size]

    model = compiled()
    history = model.fit(Batches(workers=2, max_queue_size=2), epochs=3, verbose=0).history
    assert falls(history["loss"])
    losses = [float(model.train_on_batch(X[:n], Y[:n])) for n in (32, 5, 1, 17, 32)]
    assert np.isfinite(losses).all() and losses[-1] < history["loss"][-1]


@cell("Data", "sparse inputs, ragged ones, and sequences with masks")
@pytest.mark.slow
def test_sparse_ragged_and_masked_inputs():
    words = tf.ragged.constant([[1, 2], [3], [4, 1, 2], [1]])
    model = keras.Sequential([L.Embedding(5, 3), L.GlobalAveragePooling1D(), L.Dense(1)])
    history = compiled(model).fit(words, np.ones((4, 1)), epochs=3, verbose=0).history
    assert falls(history["loss"])

    sparse = tf.sparse.from_dense(np.eye(4, dtype="float32")[[0, 1, 2, 3, 0, 2]])
    inputs = keras.Input((4,), sparse=True)
    model = keras.Sequential([inputs, L.Dense(3, activation="tanh"), L.Dense(1)])
    targets = np.array([[0.0], [1.0], [2.0], [3.0], [0.0], [2.0]])
    assert falls(fitted(compiled(model), sparse, targets, batch_size=6))

    series = np.random.default_rng(0).normal(size=(16, 6, 2)).astype("float32")
    series[:8, 3:] = 0
    model = keras.Sequential([keras.Input((6, 2)), L.Masking(), L.LSTM(3), L.Dense(1)])
    losses = fitted(compiled(model), series, series[:, :3, 0].sum(1), batch_size=16, epochs=8)
    assert losses[-1] < losses[0]
