"""The line that `fit` prints while the first step is traced."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton, progress

X = np.linspace(-1, 1, 8, dtype="float32")[:, None]


def fitted(verbose):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=QNewton(), loss="mse")
    model.fit(X, X, epochs=2, batch_size=4, verbose=verbose)


@pytest.mark.parametrize("verbose", [1, 2])
def test_a_long_trace_is_told_once(capsys, monkeypatch, verbose):
    monkeypatch.setattr(progress, "PATIENCE", 1e-3)
    fitted(verbose)
    said = [line for line in capsys.readouterr().out.splitlines() if "QNewton" in line]
    assert said == [
        "QNewton is tracing its step, once: the steps after the first do not wait for it."
    ]


def test_silent_where_verbose_is_0(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 1e-3)
    fitted(verbose=0)
    assert "QNewton" not in capsys.readouterr().out


def test_a_short_trace_is_not_told(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 600.0)
    fitted(verbose=2)
    assert "QNewton" not in capsys.readouterr().out


def test_silent_in_a_loop_of_ones_own(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 1e-3)
    weight, optimizer = tf.Variable([1.0]), QNewton()
    optimizer.minimize(lambda: tf.reduce_sum(weight**2), [weight])
    assert capsys.readouterr().out == ""
