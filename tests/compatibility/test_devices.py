"""Strategies of one device and of several.

Each test is a row of `docs/compatibility.md`.
"""

import json
import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from tests import hangs
from tests.compatibility.cells import cell, compiled, falls, fitted
from tests.devices.test_workers import free_ports


@cell("Devices", "`OneDeviceStrategy`")
@pytest.mark.slow
def test_one_device():
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = compiled()
    assert falls(fitted(model))


@cell("Devices", "`keras.distribution.DataParallel` of one device")
@pytest.mark.slow
def test_data_parallel():
    devices = keras.distribution.list_devices()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        assert len(devices) == 1 and falls(fitted(compiled()))
    finally:
        keras.distribution.set_distribution(None)


# A model of two logical CPUs, which are made before TensorFlow is used.
TWO_CPUS = """
import keras, numpy as np, tensorflow as tf
from keras_qnewton import QNewton
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.linspace(-1, 1, 64).reshape(32, 2).astype("float32")
y = np.sin(3 * x).sum(1, keepdims=True)
keras.utils.set_random_seed(0)

def made(options={}, **compiled):
    with strategy.scope():
        layers = [keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((2,)), *layers])
        model.compile(QNewton(**options), "mse", **compiled)
    return model

def losses(model, epochs=4, **options):
    options = {"batch_size": 32, "epochs": epochs, "shuffle": False, "verbose": 0} | options
    return model.fit(x, y, **options).history["loss"]
"""


def two_cpus(script):
    """What `script` prints last, in a process of its own."""
    command = [sys.executable, "-c", TWO_CPUS + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=hangs.SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@cell("Devices", "`MirroredStrategy` of two replicas, in `fit`")
@pytest.mark.slow
def test_two_replicas():
    assert falls(json.loads(two_cpus("import json; print(json.dumps(losses(made())))")))


@cell("Devices", "`MirroredStrategy` of two replicas, in `fit` with `steps_per_execution`")
@pytest.mark.slow
def test_two_replicas_several_steps_at_once():
    script = """
model = made(steps_per_execution=2)
batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(32).repeat()
model.fit(batches, steps_per_epoch=4, epochs=1, verbose=0)
print(float(model.evaluate(x, y, verbose=0)))
"""
    assert float(two_cpus(script)) < 0.5


@cell("Devices", "`MirroredStrategy` of two replicas, `minimize` inside `strategy.run`")
@pytest.mark.slow
def test_two_replicas_minimize():
    script = """
import json
model = made()
variables = model.trainable_variables
@tf.function
def step(x, y):
    loss = lambda: tf.reduce_mean(tf.square(model(x) - y)) / 2
    return strategy.run(lambda: model.optimizer.minimize(loss, variables))
print(json.dumps([float(step(x, y)) for _ in range(4)]))
"""
    assert falls(json.loads(two_cpus(script)))


def refused_by_two(options="{}", compiled=""):
    return two_cpus(f"""
model = made({options}{compiled})
before = model.get_weights()
try:
    losses(model)
except ValueError as error:
    same = all((a == b).all() for a, b in zip(before, model.get_weights()))
    print(str(error).replace(chr(10), " ") if same else "weights changed")
""")


@cell("Devices", "`MirroredStrategy` with `gradient_accumulation_steps`")
@pytest.mark.slow
def test_two_replicas_accumulating():
    script = """
import json
model = made({"gradient_accumulation_steps": 2})
print(json.dumps(losses(model, batch_size=16)))
"""
    assert falls(json.loads(two_cpus(script)))


@cell(
    "Devices",
    "`MirroredStrategy` with `jit_compile=True`",
    "refuses: `does not go with several replicas`",
)
@pytest.mark.slow
def test_two_replicas_compiled():
    said = refused_by_two(compiled=", jit_compile=True")
    assert "`jit_compile=True` does not go with several replicas" in said
    assert "`MirroredStrategy` has 2" in said and "`jit_compile=False`" in said


@cell(
    "Devices",
    "`MirroredStrategy` with `ema_overwrite_frequency`",
    "refuses: Keras's RuntimeError, with SGD, too",
)
@pytest.mark.slow
def test_two_replicas_that_overwrite_weights():
    script = """
averages = {"use_ema": True, "ema_overwrite_frequency": 2}
said = []
for make in (QNewton, keras.optimizers.SGD):
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(make(**averages), "mse")
    before = model.get_weights()
    try:
        losses(model)
    except RuntimeError as error:
        same = all((a == b).all() for a, b in zip(before, model.get_weights()))
        said.append(same and "merge_call" in str(error))
print(said)
"""
    assert two_cpus(script) == "[True, True]"


@cell("Devices", "`MirroredStrategy` with `mixed_float16`")
@pytest.mark.slow
def test_two_replicas_in_half_precision():
    script = """
import json
keras.config.set_dtype_policy("mixed_float16")
print(json.dumps(losses(made(), epochs=8)))
"""
    assert falls(json.loads(two_cpus(script)))


def two_workers(script):
    """What `script` prints last in each of two processes, the workers of one strategy."""
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    begin = """
import json, keras, numpy as np, tensorflow as tf
from keras_qnewton import QNewton
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
"""
    workers = []
    for number in range(2):
        task = {"type": "worker", "index": number}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = [sys.executable, "-c", begin + script]
        env, pipe = {**os.environ, "TF_CONFIG": config}, subprocess.PIPE
        workers.append(subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True))
    try:
        said = [worker.communicate(timeout=hangs.SECONDS) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert not any(worker.returncode for worker in workers), said[0][1][-2000:]
    return [out.splitlines()[-1] for out, _ in said]


@cell("Devices", "`MultiWorkerMirroredStrategy` of two workers, `minimize` inside `strategy.run`")
@pytest.mark.slow
def test_two_workers_minimize():
    script = """
with strategy.scope():
    optimizer = QNewton()
x = tf.reshape(tf.linspace(-1.0, 1.0, 64), [32, 2])
@tf.function
def step():
    loss = lambda: tf.reduce_mean(tf.square(model(x) - tf.sin(3 * x[:, :1]))) / 2
    return strategy.run(lambda: optimizer.minimize(loss, model.trainable_variables))
print(json.dumps([float(step()) for _ in range(4)]))
"""
    first, second = two_workers(script)
    assert first == second and falls(json.loads(first))


@cell(
    "Devices",
    "`MultiWorkerMirroredStrategy` of two workers, in `fit`",
    "refuses: Keras's `Attempt to convert a value`, with SGD, too (keras#20585)",
)
@pytest.mark.slow
def test_two_workers_fit():
    script = """
said = []
for optimizer in (keras.optimizers.SGD, QNewton):
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(optimizer(), "mse")
    before = model.get_weights()
    try:
        model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=8, verbose=0)
    except ValueError as error:
        same = all((a == b).all() for a, b in zip(before, model.get_weights()))
        said.append(str(error)[:26] if same else "weights changed")
print(json.dumps(said))
"""
    for said in two_workers(script):
        assert json.loads(said) == ["Attempt to convert a value"] * 2
