"""Backups, checkpoints and exports.

Each test is a row of `docs/compatibility.md`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compatibility.cells import L, X, cell, compiled, fitted, small


@cell("Files", "`BackupAndRestore` by epochs and by batches: goes on as Adam does")
@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_backup_and_restore(tmp_path, save_freq):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("the machine went down")

    def resumed(make, folder):
        model = make()
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=save_freq)
        with pytest.raises(RuntimeError, match="went down"):
            fitted(model, batch_size=8, callbacks=[backup, Stop()])
        model = make()
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=save_freq)
        fitted(model, batch_size=8, callbacks=[backup])
        return model

    def of_adam():
        model = small()
        model.compile("adam", "mse")
        return model

    model, adam = resumed(compiled, tmp_path / "newton"), resumed(of_adam, tmp_path / "adam")
    assert int(model.optimizer.iterations) == int(adam.optimizer.iterations)
    if save_freq == "epoch":
        unbroken = compiled()
        fitted(unbroken, batch_size=8)
        for a, b in zip(model.get_weights(), unbroken.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@cell("Files", "a checkpoint of a model of other shapes", "refuses: Keras's or TensorFlow's error")
def test_a_checkpoint_of_other_shapes(tmp_path):
    model = compiled()
    fitted(model, epochs=1)
    model.save_weights(tmp_path / "other.weights.h5")
    wider = compiled(keras.Sequential([keras.Input((2,)), L.Dense(5), L.Dense(1)]))
    with pytest.raises(ValueError, match=r"shape|Layer"):
        wider.load_weights(tmp_path / "other.weights.h5")


@cell("Files", "`Model.export` of a trained model")
def test_export(tmp_path):
    model = compiled()
    fitted(model, epochs=1)
    model.export(tmp_path / "served", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "served")
    served = loaded.serve(X)
    np.testing.assert_allclose(served, model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
