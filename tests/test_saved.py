"""Files that an earlier version wrote load, and train on as they did there.

`tests/saved` holds a model after five steps on two batches, with blocks, spectra and factors
kept, as a `.keras` file and as a checkpoint; and what four more steps came to.
"""

import json
import pathlib
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from packaging.version import Version

from keras_qnewton import QNewton

SAVED = pathlib.Path(__file__).parent / "saved"
EXPECTED = json.loads((SAVED / "trained_on.json").read_text())


def data():
    x = np.linspace(-1, 1, 48).reshape(-1, 2).astype("float32")
    return x, np.sin(3 * x).sum(1, keepdims=True).astype("float32")


def from_file(folder):
    del folder
    with zipfile.ZipFile(SAVED / "trained.keras") as archive:
        wrote = json.loads(archive.read("metadata.json"))["keras_version"]
    if Version(keras.__version__) < Version(wrote):
        pytest.skip(
            f"Keras {wrote} wrote the file: older ones do not know all of its layers' settings"
        )
    return keras.saving.load_model(SAVED / "trained.keras")


def from_checkpoint(folder):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, activation="tanh", name="hidden"),
            layers.Dense(1, name="out"),
        ],
        name="saved",
    )
    model.compile(QNewton(blocks="layer", update_every=2), "mse")
    model.optimizer.build(model.trainable_variables)
    with zipfile.ZipFile(SAVED / "trained_checkpoint.zip") as archive:
        archive.extractall(folder)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    status = checkpoint.read(str(folder / "trained"))
    status.assert_existing_objects_matched()
    return model


@pytest.mark.parametrize("load", [from_file, from_checkpoint], ids=["file", "checkpoint"])
def test_a_file_of_an_earlier_version_trains_on(load, tmp_path):
    model = load(tmp_path)
    assert model.optimizer.decision_count == 10
    x, y = data()
    losses = []
    for _ in range(4):
        model.reset_metrics()  # of which some versions of Keras return the mean so far
        losses.append(float(model.train_on_batch(x[:12], y[:12])))
    np.testing.assert_allclose(losses, EXPECTED["losses"], rtol=1e-4)
    for found, expected in zip(model.get_weights(), EXPECTED["weights"], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    steps = [d.step for d in model.optimizer.decisions]
    assert steps == [k for k in range(9) for _ in range(2)]
