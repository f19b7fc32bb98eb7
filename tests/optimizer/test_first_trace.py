"""Where Keras makes variables while it traces, TensorFlow traces twice, and we one step."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qnewton.optimizer
from keras_qnewton import QNewton
from tests import hangs

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype("float32")
CLASSES = (X.sum(1) > 0).astype("int32")
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def traced(monkeypatch):
    """How many Newton steps were traced, as the length of a list."""
    steps, step = [], keras_qnewton.optimizer.next_step

    def counted(*args):
        steps.append(args)
        return step(*args)

    monkeypatch.setattr(keras_qnewton.optimizer, "next_step", counted)
    return steps


def classifier():
    keras.utils.set_random_seed(0)
    return keras.Sequential([L.Input((4,)), L.Dense(3, activation="tanh"), L.Dense(2)])


def fitted(**arguments):
    """The losses of two epochs, with a last batch of fewer examples."""
    model = classifier()
    model.compile(QNewton(), CROSS_ENTROPY, **arguments)
    history = model.fit(X, CLASSES, batch_size=32, epochs=2, verbose=0).history
    assert int(model.optimizer.iterations) == len(model.optimizer.decisions) == 4
    return history


@pytest.mark.parametrize(
    "arguments",
    [
        {"metrics": ["accuracy"]},
        {"metrics": [keras.metrics.SparseCategoricalAccuracy()]},
        {"weighted_metrics": ["accuracy"]},
        {"metrics": ["accuracy"], "steps_per_execution": 2},
        pytest.param({"metrics": ["accuracy"], "jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=["metrics", "metric", "weighted", "steps_per_execution", "jit_compile"],
)
def test_one_step_is_traced_and_trains_as_without_metrics(traced, arguments):
    history = fitted(**arguments)
    assert len(traced) == 1
    (accuracy,) = history.keys() - {"loss"}
    assert 0.5 < history[accuracy][-1] <= 1
    np.testing.assert_allclose(history["loss"], fitted()["loss"], rtol=1e-5)
    assert len(traced) == 2


def test_losses_of_two_outputs(traced):
    keras.utils.set_random_seed(0)
    inputs = L.Input((4,))
    hidden = L.Dense(3, activation="tanh")(inputs)
    model = keras.Model(inputs, [L.Dense(2)(hidden), L.Dense(1)(hidden)])
    model.compile(QNewton(), [CROSS_ENTROPY, "mse"])
    losses = model.fit(X, [CLASSES, X[:, :1]], epochs=3, verbose=0).history["loss"]
    assert len(traced) == 1
    assert losses[-1] < losses[0]


def test_compiled_again(traced):
    model = classifier()
    for count in (1, 2):
        model.compile(QNewton(), CROSS_ENTROPY, metrics=["accuracy"])
        model.fit(X, CLASSES, verbose=0)
        model.evaluate(X, CLASSES, verbose=0)
        model.fit(X, CLASSES, batch_size=10, verbose=0)
        assert len(traced) == count


def test_a_batch_alone(traced):
    model = classifier()
    model.compile(QNewton(), CROSS_ENTROPY, metrics=["accuracy"])
    first, last = (model.train_on_batch(X, CLASSES)[0] for _ in range(2))
    assert len(traced) == 1
    assert last < first


def test_an_error_is_still_one():
    """What a step refuses is refused in the trace that would run."""
    model = classifier()
    model.compile(QNewton(curvature="gauss_newton"), lambda y, z: -tf.reduce_sum(z**4, 1))
    with pytest.raises(ValueError, match="convex"):
        model.fit(X, CLASSES, verbose=0)
    model.compile(
        QNewton(curvature="gauss_newton"),
        lambda y, z: -tf.reduce_sum(z**4, 1),
        metrics=["accuracy"],
    )
    with pytest.raises(ValueError, match="convex"):
        model.fit(X, CLASSES, verbose=0)


def test_a_first_trace_that_is_run_fails_before_a_weight_changes():
    """`wrap_function` keeps the graph of the only trace, in which variables may be made."""
    model = classifier()
    model.compile(QNewton(), CROSS_ENTROPY, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    before = [w.copy() for w in model.get_weights()]
    specs = [tf.TensorSpec([50, 4], tf.float32), tf.TensorSpec([50], tf.int32)]

    def train(x, y):
        model.train_step((x, y))
        with tf.control_dependencies(tf.compat.v1.get_default_graph().get_operations()):
            return tf.constant(0)

    step = tf.compat.v1.wrap_function(train, specs)
    with pytest.raises(tf.errors.InvalidArgumentError, match="had left its step out"):
        step(tf.constant(X), tf.constant(CLASSES))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
def test_a_wrapped_optimizer(traced, metrics):
    """`LossScaleOptimizer` makes variables of its own, and calls in a branch."""
    model = classifier()
    wrapped = keras.optimizers.LossScaleOptimizer(QNewton(), initial_scale=8.0)
    model.compile(wrapped, CROSS_ENTROPY, metrics=metrics)
    history = model.fit(X, CLASSES, batch_size=32, epochs=2, verbose=0).history
    assert len(traced) == 1
    np.testing.assert_allclose(history["loss"], fitted()["loss"], rtol=1e-4)


def test_a_train_step_that_names_no_loss(traced):
    class Gradients(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                outputs = self(x, training=True)
                loss = self.compute_loss(x, y, outputs)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return self.compute_metrics(x, y, outputs)

    model = Gradients(classifier().layers)
    model.compile(QNewton(), CROSS_ENTROPY, metrics=["accuracy"])
    for _ in range(2):
        model.fit(X, CLASSES, batch_size=25, verbose=0)
    assert len(traced) == 1
    assert len(model.optimizer.decisions) == 4


REPLICAS = """
import keras, numpy as np, tensorflow as tf
import keras_qnewton.optimizer
from keras_qnewton import QNewton

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
steps, step = [], keras_qnewton.optimizer.next_step

def counted(*args):
    steps.append(args)
    return step(*args)

keras_qnewton.optimizer.next_step = counted
x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
for metrics in (None, ["mae"]):
    keras.utils.set_random_seed(0)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(QNewton(), "mse", metrics=metrics)
    losses = model.fit(x, np.tanh(x[:, :1]), epochs=3, batch_size=50, verbose=0).history["loss"]
    print(len(steps), len(model.optimizer.decisions), losses[-1] < losses[0])
    steps.clear()
"""


@pytest.mark.slow
def test_several_replicas():
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True, timeout=hangs.SECONDS
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["1 3 True"] * 2


class Own(keras.Model):
    """A train step of one's own, by `minimize` or by Keras's way, with two metrics."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body = classifier()
        self.mean, self.accuracy = keras.metrics.Mean("mean"), keras.metrics.Mean("accuracy")
        self.traces = 0

    @property
    def metrics(self):
        return [self.mean, self.accuracy]

    def call(self, x):
        return self.body(x)

    def train_step(self, data):
        self.traces += 1
        x, y = data
        loss = self.optimizer.minimize(
            lambda: CROSS_ENTROPY(y, self.body(x)), self.trainable_variables
        )
        self.mean.update_state(loss)
        return {"mean": self.mean.result()}


def test_minimize_in_a_train_step_of_ones_own(traced):
    model = Own()
    model.compile(QNewton())
    means = model.fit(X, CLASSES, epochs=3, verbose=0).history["mean"]
    assert means[-1] < means[0]
    assert len(traced) == model.traces == 1


class Minimizing(keras.Model):
    def train_step(self, data):
        x, y = data
        before = self.optimizer.minimize(
            lambda: self.compute_loss(x, y, self(x, training=True)), self.trainable_variables
        )
        return {**self.compute_metrics(x, y, self(x)), "before": before}


def test_minimize_where_metrics_are_made_late(traced):
    keras.utils.set_random_seed(0)
    inputs = L.Input((4,))
    model = Minimizing(inputs, L.Dense(2)(L.Dense(3, activation="tanh")(inputs)))
    model.compile(QNewton(), CROSS_ENTROPY, metrics=["accuracy"])
    history = model.fit(X, CLASSES, epochs=3, verbose=0).history
    assert history["before"][-1] < history["before"][0]
    assert len(traced) == 1


def test_one_trace_where_metrics_are_known():
    """After `evaluate`, or with metrics that have their variables."""
    traces = []

    class Counted(keras.Sequential):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    model = Counted([L.Input((4,)), L.Dense(2)])
    model.compile(QNewton(), CROSS_ENTROPY, metrics=["accuracy"])
    model.evaluate(X, CLASSES, verbose=0)
    with pytest.raises(ValueError):
        model.fit(X[:, :3], CLASSES, verbose=0)
    traces.clear()
    model.fit(X, CLASSES, verbose=0)
    assert len(traces) == 1
