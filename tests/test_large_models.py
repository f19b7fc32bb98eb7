"""Models beyond one dense block, with default settings, each in a process of its own."""

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("sklearn")

SCRIPT = """
import resource, sys
import keras
from sklearn.datasets import load_digits
from keras_qnewton import QNewton

L = keras.layers
x, y = load_digits(return_X_y=True)
x, y = (x / 16).astype("float32"), y.astype("int32")
keras.utils.set_random_seed(0)


def mlp():
    hidden = [L.Dense(400, activation="tanh") for _ in range(7)]
    return keras.Sequential([L.Input((64,)), *hidden, L.Dense(10)])


def cnn():
    first, second = (L.Conv2D(n, 3, activation="relu") for n in (8, 16))
    head = [L.MaxPooling2D(), L.Flatten(), L.Dense(32, activation="relu"), L.Dense(10)]
    return keras.Sequential([L.Input((64,)), L.Reshape((8, 8, 1)), first, second, *head])


def transformer():
    inputs = L.Input((64,))
    z = L.Dense(16)(L.Reshape((8, 8))(inputs))
    for _ in range(2):
        z = L.LayerNormalization()(z + L.MultiHeadAttention(2, 8)(z, z))
        z = L.LayerNormalization()(z + L.Dense(16)(L.Dense(32, activation="gelu")(z)))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling1D()(z)))


model = {"mlp": mlp, "cnn": cnn, "transformer": transformer}[sys.argv[1]]()
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = QNewton()
model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
losses = model.fit(x, y, batch_size=128, epochs=3, verbose=0).history["loss"]
decisions = optimizer.decisions
assert len(decisions) == 3 * 15
assert all(d.loss_after <= d.loss for d in decisions if d.accepted)
assert sum(d.accepted for d in decisions) > 0.8 * len(decisions)
assert {d.size for d in decisions} == {model.count_params()}
assert losses[-1] < 0.7 * losses[0], losses
gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(sys.argv[1], model.count_params(), losses, {d.route for d in decisions}, gigabytes, "GiB")
assert gigabytes < 6
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])
def test_large_models_train_within_six_gibibytes(model):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), model], capture_output=True, text=True
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
