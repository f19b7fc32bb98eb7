"""Small batches on real data, against Adam at its best of five learning rates."""

import keras
import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.datasets import load_digits

from keras_qnewton import QNewton

L = keras.layers
SEEDS = range(5)
RATES = (1e-3, 3e-3, 1e-2, 2e-2, 3e-2)


def accuracies(optimizer, seed, batch_size):
    """Test accuracy after each of five epochs."""
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype("float32"), y.astype("int32")
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[360:], order[:360]
    keras.utils.set_random_seed(seed)
    hidden = [L.Dense(16, activation="tanh") for _ in range(2)]
    model = keras.Sequential([L.Input((64,)), *hidden, L.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    history = model.fit(
        x[train], y[train], batch_size=batch_size, epochs=5, verbose=0,
        validation_data=(x[test], y[test]),
    ).history  # fmt: skip
    return np.array(history["val_accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [32, 64])
def test_at_least_as_good_as_adam_and_no_epoch_falls_back(batch_size):
    ours = np.array([accuracies(QNewton(), seed, batch_size) for seed in SEEDS])
    adam = [
        np.mean([accuracies(keras.optimizers.Adam(r), s, batch_size)[-1] for s in SEEDS])
        for r in RATES
    ]
    print(f"batch {batch_size}: QNewton {ours[:, -1].mean():.4f}, Adam {np.round(adam, 4)}")
    print(f"largest fall from one epoch to the next: {(ours[:, :-1] - ours[:, 1:]).max():.4f}")
    assert ours[:, -1].mean() >= max(adam)
    assert (ours[:, :-1] - ours[:, 1:]).max() <= 0.02
