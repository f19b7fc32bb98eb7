"""Keras's contract cell by cell: what works with QNewton, and what is refused with which words.

Each test is a row of `docs/compatibility.md`. After a change of rows, write the page anew:

    python -m tests.test_compatibility
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from tests.devices.test_workers import free_ports

L = keras.layers
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "compatibility.md"
X = np.linspace(-1, 1, 64).reshape(32, 2).astype("float32")
Y = np.sin(3 * X).sum(1, keepdims=True).astype("float32")


class Cell(NamedTuple):
    """A row of the page.

    Attributes:
        area: What it belongs to.
        what: The setting or the use.
        verdict: "works", or what is said where it does not.
        test: The test that shows it.
    """

    area: str
    what: str
    verdict: str
    test: str


CELLS: list[Cell] = []


def cell(area: str, what: str, verdict: str = "works") -> Callable:
    """A test that backs a row of the page."""

    def register(test: Callable) -> Callable:
        CELLS.append(Cell(area, what, verdict, test.__name__))
        return test

    return register


def small(*extra):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((2,)), L.Dense(4, activation="tanh", name="hidden"), *extra, L.Dense(1)]
    )


def compiled(model=None, loss="mse", **options):
    model = small() if model is None else model
    compile_options = {k: options.pop(k) for k in ("metrics", "weighted_metrics") if k in options}
    model.compile(optimizer=QNewton(**options), loss=loss, **compile_options)
    return model


def fitted(model, x=X, y=Y, epochs=4, **options):
    """The losses of `epochs` full batches."""
    options = {"batch_size": len(X), "shuffle": False, "verbose": 0} | options
    return model.fit(x, y, epochs=epochs, **options).history["loss"]


def falls(losses):
    return np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]


# --- precision -------------------------------------------------------------------------


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@cell("Precision", "`float64` policy")
def test_double_precision(policy):
    policy("float64")
    assert falls(fitted(compiled()))


@cell("Precision", "`mixed_bfloat16` policy")
def test_mixed_bfloat16(policy):
    policy("mixed_bfloat16")
    assert falls(fitted(compiled(), epochs=8))


@cell("Precision", "`mixed_float16` policy, with the `LossScaleOptimizer` that `compile` makes")
def test_mixed_float16(policy):
    policy("mixed_float16")
    assert falls(fitted(compiled(), epochs=8))


@cell("Precision", "`bfloat16` and `float16` policies: weights in half precision, too")
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_throughout(policy, name):
    policy(name)
    assert falls(fitted(compiled(), epochs=6))


# --- the learning rate -----------------------------------------------------------------


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


# --- what is trained -------------------------------------------------------------------


@cell("Weights", "a layer frozen before `compile`, and again with a second `compile`")
def test_freezing_and_recompiling():
    model = small()
    model.get_layer("hidden").trainable = False
    frozen = model.get_layer("hidden").get_weights()[0]
    fitted(compiled(model))
    np.testing.assert_array_equal(frozen, model.get_layer("hidden").get_weights()[0])
    model.get_layer("hidden").trainable = True
    assert falls(fitted(compiled(model)))
    assert np.any(frozen != model.get_layer("hidden").get_weights()[0])


@cell("Weights", "a layer frozen without a second `compile`: left out from the next trace on")
def test_freezing_without_recompiling():
    model = compiled()
    fitted(model, epochs=1)
    model.get_layer("hidden").trainable = False
    model.make_train_function(force=True)
    frozen = model.get_layer("hidden").get_weights()[0]
    losses = fitted(model)
    np.testing.assert_array_equal(frozen, model.get_layer("hidden").get_weights()[0])
    assert losses[-1] <= losses[0]


@cell("Weights", "`clone_model`")
@pytest.mark.slow
def test_cloned_models():
    model = compiled()
    fitted(model)
    assert falls(fitted(compiled(keras.models.clone_model(model))))


@cell("Weights", "LoRA (`enable_lora`)")
@pytest.mark.slow
def test_lora():
    model = small()
    model.get_layer("hidden").enable_lora(1)
    kernel = keras.ops.convert_to_numpy(model.get_layer("hidden")._kernel)
    losses = fitted(compiled(model))
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(
        kernel, keras.ops.convert_to_numpy(model.get_layer("hidden")._kernel)
    )


@cell("Weights", "quantised layers (`quantize('int8')`): what is left trainable")
@pytest.mark.slow
def test_quantised_layers():
    model = small()
    model.get_layer("hidden").quantize("int8")
    losses = fitted(compiled(model))
    assert losses[-1] < losses[0]


@cell("Weights", "`set_weights` between steps")
def test_weights_set_between_steps():
    model = compiled()
    start = model.get_weights()
    first = fitted(model)
    model.set_weights(start)
    again = fitted(model)
    assert falls(again) and again[0] == pytest.approx(first[0], rel=1e-5)


@cell("Weights", "averages of weights: `use_ema`, `ema_overwrite_frequency`, `SwapEMAWeights`")
@pytest.mark.slow
def test_averages_of_weights():
    model = compiled(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    assert falls(fitted(model, epochs=8))
    model = compiled(use_ema=True, ema_momentum=0.5)
    assert falls(fitted(model, epochs=8, callbacks=[keras.callbacks.SwapEMAWeights()]))


@cell("Weights", "`weight_decay` with `exclude_from_weight_decay`")
def test_weight_decay_with_exceptions():
    model = compiled(weight_decay=0.01)
    model.optimizer.exclude_from_weight_decay(var_names=["bias"])
    assert falls(fitted(model))


@cell(
    "Weights",
    "`MultiOptimizer`: QNewton for some variables, Adam for others",
)
def test_two_optimizers():
    model = small()
    newton = QNewton()
    rules = keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.01))
    rules[".*hidden/.*"] = newton
    model.compile(loss="mse", optimizer=keras.optimizers.MultiOptimizer(rules))
    losses = fitted(model, epochs=8)
    assert losses[-1] < losses[0] and len(newton.decisions) == 8


# --- data ------------------------------------------------------------------------------


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


# --- compile and fit -------------------------------------------------------------------


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
        from tests.test_compatibility import compiled, fitted
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


# --- files -----------------------------------------------------------------------------


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


# --- devices and wrappers --------------------------------------------------------------


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
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
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
        said = [worker.communicate(timeout=300) for worker in workers]
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


@cell("Wrappers", "`SKLearnRegressor`, `clone` and `cross_val_score` of scikit-learn")
@pytest.mark.slow
def test_scikit_learn():
    selection = pytest.importorskip("sklearn.model_selection")

    def build(X, y):
        del X, y
        return compiled()

    wrapped = keras.wrappers.SKLearnRegressor(build, fit_kwargs={"epochs": 6, "verbose": 0})
    scores = selection.cross_val_score(wrapped, X, Y[:, 0], cv=2, scoring="neg_mean_squared_error")
    assert np.isfinite(scores).all()


@cell("Wrappers", "`SKLearnClassifier` in a `GridSearchCV` over settings of the optimizer")
@pytest.mark.slow
def test_grid_search():
    selection = pytest.importorskip("sklearn.model_selection")

    def build(X, y, blocks):
        del X, y
        model = small()
        model.pop()
        model.add(L.Dense(2, activation="softmax"))
        model.compile(QNewton(blocks=blocks), "categorical_crossentropy")
        return model

    wrapped = keras.wrappers.SKLearnClassifier(
        build, model_kwargs={"blocks": "full"}, fit_kwargs={"epochs": 8, "verbose": 0}
    )
    grid = {"model_kwargs": [{"blocks": name} for name in ("full", "layer")]}
    search = selection.GridSearchCV(wrapped, grid, cv=2, error_score="raise")
    search.fit(X, (Y[:, 0] > 0).astype(int))
    assert search.best_score_ > 0.8


@cell("Wrappers", "KerasTuner: a search over settings of the optimizer")
def test_a_tuner(tmp_path):
    tuner = pytest.importorskip("keras_tuner")

    def build(choices):
        kinds = ["gauss_newton", "quasi_newton"]
        rate = choices.Float("learning_rate", 0.5, 1.0)
        return compiled(curvature=choices.Choice("curvature", kinds), learning_rate=rate)

    options = {"objective": "val_loss", "max_trials": 2, "seed": 1, "directory": tmp_path}
    search = tuner.RandomSearch(build, **options)
    fit = {"batch_size": len(X), "epochs": 4, "validation_data": (X, Y), "verbose": 0}
    search.search(X, Y, **fit)
    best = search.get_best_models(1)[0]
    assert best.evaluate(X, Y, verbose=0) < 0.5
    assert falls(fitted(best, epochs=8))


@cell("Names", "two optimizers of one name, numbered as Keras does it")
def test_names_of_instances():
    keras.utils.clear_session()
    assert [QNewton().name for _ in range(3)] == ["qnewton", "qnewton_1", "qnewton_2"]
    assert QNewton(name="mine").name == "mine"


# --- the page --------------------------------------------------------------------------


def page() -> str:
    lines = [
        "# Compatibility",
        "",
        "What Keras and TensorFlow offer, and what QNewton makes of it. Each row is a test of",
        "`tests/test_compatibility.py`, which writes this page. Keras's own tests of optimizers",
        "are run by `test_keras_own_tests.py`, but for those with gradients of no loss.",
        "",
    ]
    for area in dict.fromkeys(c.area for c in CELLS):
        lines += [f"## {area}", "", "| what | verdict | test |", "|---|---|---|"]
        lines += [f"| {c.what} | {c.verdict} | `{c.test}` |" for c in CELLS if c.area == area]
        lines.append("")
    return "\n".join(lines)


def test_the_page_has_these_rows():
    assert PAGE.read_text("utf-8") == page(), "run `python -m tests.test_compatibility`"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
