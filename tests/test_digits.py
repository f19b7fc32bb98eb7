"""The main job on real data: scikit-learn's digits through stock compile and fit."""

import keras
import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_qnewton import QNewton
from keras_qnewton.conditioning import condition_number, regularize
from keras_qnewton.curvature import hessian

L = keras.layers
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y.astype("int32")


def network(seed, activation="tanh"):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            L.Input((64,)),
            L.Dense(16, activation=activation),
            L.Dense(16, activation=activation),
            L.Dense(10),
        ]
    )


def train(seed, steps):
    x, y = digits()
    model = network(seed)
    model.compile(optimizer=QNewton(), loss=CROSS_ENTROPY, metrics=["accuracy"])
    model.fit(x, y, batch_size=len(x), epochs=steps, verbose=0)
    decisions = model.optimizer.decisions
    assert all(d.loss_after <= d.loss for d in decisions if d.accepted)
    losses = [d.loss_after if d.accepted else d.loss for d in decisions]
    return model, losses


@pytest.mark.slow
def test_full_batch():
    model, losses = train(0, 12)
    x, y = digits()
    assert losses[-1] <= 0.02
    assert model.evaluate(x, y, batch_size=len(x), verbose=0)[1] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1437, 128])
def test_half_precision_takes_as_many_epochs_to_generalise(batch_size):
    """To a validation accuracy of 0.96, under the policy as `compile` sets it up."""
    x, y = digits()
    order = np.random.default_rng(0).permutation(len(x))
    (x, rest_x), (y, rest_y) = (np.split(v[order], [1437]) for v in (x, y))
    epochs = {}
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            model = network(0)
            model.add(L.Activation("linear", dtype="float32"))
        finally:
            keras.config.set_dtype_policy("float32")
        model.compile(QNewton(), CROSS_ENTROPY, metrics=["accuracy"])
        assert (policy == "float32") == isinstance(model.optimizer, QNewton)
        history = model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=12 if batch_size == len(x) else 2,
            validation_data=(rest_x, rest_y),
            verbose=0,
        ).history["val_accuracy"]
        epochs[policy] = next(k for k, accuracy in enumerate(history) if accuracy >= 0.96)
    assert epochs["mixed_float16"] <= epochs["float32"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_full_batch_converges_from_any_seed(seed):
    model, losses = train(seed, 20)
    x, y = digits()
    assert losses[14] <= 1e-6
    assert losses[19] == 0.0  # in single precision
    assert model.evaluate(x, y, batch_size=len(x), verbose=0)[1] == 1.0


@pytest.mark.slow
def test_mini_batches_generalise():
    x, y = digits()
    accuracies = []
    for seed in range(5):
        x_train, x_test, y_train, y_test = train_test_split(
            x, y, test_size=0.2, random_state=seed, stratify=y
        )
        model = network(seed)
        model.compile(optimizer=QNewton(), loss=CROSS_ENTROPY, metrics=["accuracy"])
        model.fit(x_train, y_train, batch_size=256, epochs=5, verbose=0)
        accuracies.append(model.evaluate(x_test, y_test, verbose=0)[1])
    assert np.mean(accuracies) >= 0.93
    assert min(accuracies) >= 0.85


@pytest.mark.slow
def test_lanczos_is_close_to_exact_on_the_digits_hessian():
    """Regularised as in the paper: pixels that are always 0 make the bare Hessian singular."""
    x, y = digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((64,)), L.Dense(6, activation="tanh"), L.Dense(10)])
    for trained in (False, True):
        if trained:
            model.compile(optimizer=QNewton(), loss=CROSS_ENTROPY)
            model.fit(x, y, batch_size=len(x), epochs=2, verbose=0)
        (block,) = hessian(lambda: CROSS_ENTROPY(y, model(x)), model.trainable_variables)
        matrix = regularize(block.matrix)
        assert np.linalg.eigvalsh(matrix.numpy())[0] < 0  # indefinite: the hard case
        exact = float(condition_number(matrix, "exact"))
        assert abs(float(condition_number(matrix, "lanczos")) / exact - 1) <= 0.05
        assert float(condition_number(matrix, "norm_det")) >= exact
