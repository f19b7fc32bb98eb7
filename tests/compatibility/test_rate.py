"""What a learning rate may be.

Each test is a row of `docs/compatibility.md`.
"""

import keras
import numpy as np

from tests.compatibility.cells import cell, compiled, falls, fitted


@cell("Learning rate", "a schedule")
def test_a_schedule():
    rate = keras.optimizers.schedules.CosineDecay(1.0, 100)
    assert falls(fitted(compiled(learning_rate=rate)))


@cell("Learning rate", "a callable")
def test_a_callable():
    assert falls(fitted(compiled(learning_rate=lambda: 0.9)))


@cell("Learning rate", "assigned between steps; `LearningRateScheduler`, `ReduceLROnPlateau`")
def test_an_assigned_rate():
    model = compiled()
    fitted(model, epochs=1)
    model.optimizer.learning_rate = 0.0
    before = model.get_weights()
    fitted(model, epochs=2)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: 1.0),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1),
    ]
    assert falls(fitted(model, callbacks=callbacks))
