"""What `compile`, `fit` and callbacks offer.

Each test is a row of `docs/compatibility.md`.
"""

import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from tests.compatibility.cells import L, X, Y, cell, compiled, falls, fitted, small
from tests.compatibility.page import PAGE


@cell("Training", "`steps_per_execution`")
def test_several_steps_an_execution():
    model = small()
    model.compile(optimizer=QNewton(), loss="mse", steps_per_execution=3)
    assert falls(model.fit(X, Y, batch_size=8, epochs=3, verbose=0).history["loss"])


@cell("Training", "`gradient_accumulation_steps`: one step of all the batches")
def test_accumulation():
    model = compiled(gradient_accumulation_steps=2)
    assert falls(fitted(model, batch_size=16))
    assert len(model.optimizer.decisions) == 4


@cell("Training", "`jit_compile=True` on the default routes")
def test_compiled_by_xla():
    model = small()
    model.compile(optimizer=QNewton(), loss="mse", jit_compile=True)
    assert falls(fitted(model))


@cell("Training", "`run_eagerly=True`", "refuses: `the train step ran eagerly`")
def test_eager_train_steps():
    model = small()
    model.compile(optimizer=QNewton(), loss="mse", run_eagerly=True)
    with pytest.raises(ValueError, match=r"the train step ran eagerly"):
        fitted(model)


@cell("Training", "TensorFlow's op determinism: two runs are equal bit for bit")
@pytest.mark.slow
def test_determinism():
    program = """if True:
        import keras, numpy, tensorflow
        keras.utils.set_random_seed(0)
        tensorflow.config.experimental.enable_op_determinism()
        from tests.compatibility.cells import compiled, fitted
        runs = []
        for _ in range(2):
            model = compiled()
            fitted(model, batch_size=8)
            runs.append(numpy.concatenate([w.ravel() for w in model.get_weights()]))
        numpy.testing.assert_array_equal(*runs)
    """
    # It cannot be switched off again: in a process of its own.
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PAGE.parents[1])


@cell("Training", "SIGINT in the middle of `fit`: weights are those of the last whole step")
def test_an_interrupt_and_going_on():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 2:
                signal.raise_signal(signal.SIGINT)

    model = compiled()
    # A shell that starts a run in the background has it ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fitted(model, callbacks=[Interrupt()])
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(model.optimizer.decisions) == 2
    unbroken = compiled()
    fitted(unbroken, epochs=4)
    fitted(model, epochs=2)
    for a, b in zip(model.get_weights(), unbroken.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@cell(
    "Training",
    "a batch with NaN",
    "refuses: `The loss has NaN or Inf`; no weight changes, and `TerminateOnNaN` is not reached",
)
def test_a_batch_with_nan():
    model = compiled()
    fitted(model, epochs=1)
    before = model.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"The loss has NaN or Inf"):
        fitted(model, np.full_like(X, np.nan), callbacks=[keras.callbacks.TerminateOnNaN()])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@cell("Training", "`EarlyStopping` with `restore_best_weights`")
def test_early_stopping():
    stop = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)
    assert falls(fitted(compiled(), epochs=6, callbacks=[stop]))


@cell("Training", "losses by `add_loss` alone, and `compute_loss` of one's own")
@pytest.mark.slow
def test_losses_of_the_models_own():
    class Added(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x):
            z = self.dense(x)
            self.add_loss(keras.ops.mean((z - x) ** 2))
            return z

    class Computed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(1)

        def call(self, x):
            return self.dense(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean((y - y_pred) ** 2) + 1e-3 * keras.ops.sum(self.dense.kernel**2)

    for model in (Added(), Computed()):
        model.compile(QNewton())
        assert falls(fitted(model, X, None if isinstance(model, Added) else Y))


@cell("Training", "a `train_step` that takes gradients itself, with several updates in it")
@pytest.mark.slow
def test_train_steps_of_ones_own():
    class Twice(keras.Sequential):
        def train_step(self, data):
            x, y = data
            for _ in range(2):
                with tf.GradientTape() as tape:
                    loss = self.optimizer.scale_loss(tf.reduce_mean((self(x) - y) ** 2))
                gradients = tape.gradient(loss, self.trainable_variables)
                self.optimizer.apply(gradients, self.trainable_variables)
            return {"last": loss}

    model = Twice(small().layers)
    model.compile(QNewton(), "mse")
    before = model.evaluate(X, Y, verbose=0)
    model.fit(X, Y, batch_size=len(X), epochs=4, verbose=0)
    assert falls([before, model.evaluate(X, Y, verbose=0)])
    assert int(model.optimizer.iterations) == 8


@cell(
    "Training",
    '`steps_per_execution="auto"`',
    "refuses: Keras's TypeError, with any optimizer on TensorFlow",
)
@pytest.mark.parametrize("optimizer", ["adam", "qnewton"])
def test_steps_per_execution_by_keras(optimizer):
    model = small()
    model.compile(
        QNewton() if optimizer == "qnewton" else optimizer, "mse", steps_per_execution="auto"
    )
    with pytest.raises(TypeError):
        fitted(model)
