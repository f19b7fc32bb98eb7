"""`audit` flags planted wrong layers, passes the others, and leaves the model as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import audit
from tests.derivatives import set_precision

L = keras.layers


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    set_precision(request.param)
    yield request.param
    set_precision("float32")


@pytest.fixture(params=[pytest.param("float32", marks=pytest.mark.slow), "float64"])
def mostly_double(request):
    """As `precision`, where single precision has another fast test of what it may blur."""
    set_precision(request.param)
    yield request.param
    set_precision("float32")


class Linear(L.Layer):
    """A dense layer, right or with a planted fault in its kernel's derivative."""

    def __init__(self, units=4, fault=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.fault = units, fault

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x):
        kernel = tf.convert_to_tensor(self.kernel)
        if self.fault == "stop_gradient":
            # The scale depends on the kernel; the tape does not see it.
            kernel = kernel * tf.stop_gradient(1.0 + tf.reduce_sum(kernel**2))
        elif self.fault == "custom_gradient":

            @tf.custom_gradient
            def cubed(w):
                return w**3, lambda upstream: upstream * 2.0 * w**2

            kernel = cubed(kernel)
        return tf.matmul(x, kernel)


class WrongActivation(L.Layer):
    def call(self, x):
        return tf.tanh(x) * tf.stop_gradient(tf.cos(x))


def data(shape=(3,), n=12, classes=3):
    rng = np.random.default_rng(0)
    floatx = keras.config.floatx()
    return rng.normal(size=(n, *shape)).astype(floatx), rng.integers(0, classes, n)


def compiled(*layers, shape=(3,), seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([L.Input(shape), *layers, L.Dense(3, name="out")])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def states(model):
    return [v.numpy() for v in (*model.variables, *model.metrics_variables)]


def assert_unchanged(model, before):
    for a, b in zip(states(model), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [L.Dense(4, "tanh"), Linear()],
        lambda: [L.Dense(6, "relu"), L.Dropout(0.4), L.Dense(4, "gelu")],
        lambda: [L.Dense(6, "relu"), L.Dropout(0.4), L.BatchNormalization(), L.Dense(4, "silu")],
        lambda: [L.Dense(4, "tanh", kernel_regularizer="l2"), L.LayerNormalization()],
    ],
    ids=["dense", "dropout and kinks", "batch norm", "layer norm and penalty"],
)
def test_healthy_layers_pass(layers, precision):
    model = compiled(*layers())
    before = states(model)
    result = audit(model, *data())
    assert result.ok, str(result)
    assert result.notes == ()
    limit = 1e-6 if precision == "float64" else 2e-2
    assert all(row.gradient_error < limit and row.hessian_error < limit for row in result.rows)
    assert_unchanged(model, before)


def test_differences_that_do_not_converge_accuse_nobody(precision):
    """A function that changes faster than float32 steps can be small."""
    result = audit(compiled(L.Dense(4), L.Lambda(lambda x: tf.sin(3000.0 * x))), *data())
    if precision == "float64":
        assert result.ok, str(result)
    else:
        assert "do not converge" in result.rows[0].verdict
        assert result["out"].verdict == "ok"
        assert not result.ok
        assert "audit a float64 copy" in str(result)


@pytest.mark.parametrize("fault", ["stop_gradient", "custom_gradient"])
def test_a_planted_wrong_layer_is_flagged_and_the_others_pass(fault, precision):
    model = compiled(L.Dense(4, "tanh", name="first"), Linear(fault=fault, name="planted"))
    result = audit(model, *data())
    assert not result.ok
    assert "gradient is not the loss's derivative" in result["planted"].verdict
    assert result["planted"].gradient_error > 0.04
    # Neither hides how the layer's result depends on the kernel from differences of the gradient.
    assert "H v is not" in result["planted"].verdict
    assert result["first"].verdict == result["out"].verdict == "ok"
    assert result["(whole model)"].verdict != "ok"
    assert f"Last wrong layer: '{model.layers[1].path}' (Linear)" in str(result)


def test_a_wrong_gradient_with_a_consistent_hessian_is_flagged(mostly_double):
    """Differences of the gradient alone would find nothing."""

    class HiddenPenalty(Linear):
        def call(self, x):
            self.add_loss(tf.stop_gradient(tf.reduce_sum(self.kernel**2)))
            return super().call(x)

    result = audit(compiled(L.Dense(4, "tanh"), HiddenPenalty(name="planted")), *data())
    assert result["planted"].verdict == "gradient is not the loss's derivative"
    assert [row.verdict == "ok" for row in result.rows] == [True, False, True, False]


def test_a_wrong_layer_without_weights_shows_in_the_layers_before_it(mostly_double):
    model = compiled(L.Dense(4, name="first"), WrongActivation(), L.Dense(4, name="after"))
    result = audit(model, *data())
    assert "gradient is not" in result["first"].verdict
    assert result["after"].verdict == result["out"].verdict == "ok"
    assert "layers without weights that come after it" in result.notes[0]


def test_a_wrong_second_derivative_alone_is_flagged(mostly_double):
    """The function and its gradient agree; only the backward pass is opaque to a second one."""

    class Squared(Linear):
        def call(self, x):
            @tf.custom_gradient
            def same(w):
                return w**2, lambda upstream: upstream * 2 * tf.stop_gradient(w)

            return tf.matmul(x, same(tf.convert_to_tensor(self.kernel)))

    result = audit(compiled(Squared(name="planted")), *data())
    assert result["planted"].verdict == "H v is not the gradient's derivative"
    assert result["out"].verdict == "ok"


def test_a_right_gradient_of_hidden_operations_passes(mostly_double):
    """As for a root that is found by iteration; its gradient is differentiated once more."""

    class Squared(Linear):
        def call(self, x):
            @tf.custom_gradient
            def same(w):
                return tf.stop_gradient(w**2), lambda upstream: upstream * 2 * w

            return tf.matmul(x, same(tf.convert_to_tensor(self.kernel)))

    result = audit(compiled(Squared(name="planted")), *data())
    assert result.ok, str(result)


@pytest.mark.parametrize("loss", ["mse", lambda y, p: tf.reduce_mean((y - p) ** 2, -1)])
def test_a_loss_by_name_or_function_takes_sample_weights(loss, mostly_double):
    model = keras.Sequential([L.Input((3,)), L.Dense(4, "tanh"), L.Dense(2)])
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(8, n)).astype(mostly_double) for n in (3, 2))
    weights = np.linspace(0, 1, 8).astype(mostly_double)
    weighted, plain = audit(model, x, y, weights, loss=loss), audit(model, x, y, loss=loss)
    assert weighted.ok and plain.ok, f"{weighted}\n{plain}"
    with pytest.raises(ValueError, match="finite"):
        audit(model, x, y, weights * np.nan, loss=loss)


def test_the_table():
    result = audit(compiled(Linear(fault="stop_gradient", name="planted")), *data())
    lines = str(result).splitlines()
    assert lines[0].split() == ["layer", "type", "weights", "gradient", "H", "v", "verdict"]
    assert lines[2].split()[1:3] == ["Linear", "12"]
    assert "gradient is not the loss's derivative" in lines[2]
    assert lines[3].split()[1:3] == ["Dense", "15"] and lines[3].endswith("ok")
    assert lines[4].startswith("(whole model)")
    with pytest.raises(KeyError, match="nowhere"):
        result["nowhere"]


def test_functional_nested_and_subclassed_models():
    set_precision("float64")
    try:
        inputs = L.Input((3,))
        inner = keras.Sequential([L.Input((4,)), L.Dense(4, "tanh", name="inside")])
        shared = L.Dense(4, "tanh", name="shared")
        outputs = L.Dense(3, name="out")(L.Add()([inner(shared(inputs)), shared(inputs)]))
        functional = keras.Model(inputs, outputs)

        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.hidden, self.out = L.Dense(4, "tanh", name="hidden"), L.Dense(3, name="out")

            def build(self, shape):
                self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")
                self.hidden.build(shape)
                self.out.build((None, 4))

            def call(self, x):
                return self.out(self.hidden(x) * self.scale)

        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        x, y = data()
        for model, names in (
            (functional, {"shared", "inside", "out"}),
            (Own(), {"hidden", "out", "own"}),
        ):
            result = audit(model, x, y, np.linspace(0.5, 1.5, len(x)), loss=loss)
            assert result.ok, str(result)
            assert names <= {row.layer.rpartition("/")[2] for row in result.rows}
    finally:
        set_precision("float32")


def test_recurrent_layers_pass_with_a_warning_of_gpus():
    layers = [L.LSTM(2, name="lstm", return_sequences=True), L.SimpleRNN(2)]
    result = audit(compiled(*layers, shape=(3, 2)), *data((3, 2)))
    assert result.ok
    (note,) = result.notes
    assert "'lstm' (LSTM);" in note and "use_cudnn=False" in note
    assert audit(compiled(L.GRU(2, use_cudnn=False), shape=(3, 2)), *data((3, 2))).notes == ()


def test_layers_that_leave_the_graph_are_named():
    class Leaves(Linear):
        def call(self, x):
            y = super().call(x)
            return tf.ensure_shape(tf.numpy_function(np.sin, [y], y.dtype), y.shape)

    model = compiled(L.Dense(4, name="first"), Leaves(name="planted"))
    result = audit(model, *data())
    assert not result.ok
    assert result["planted"].verdict == "no second derivatives"
    assert result["first"].verdict == result["out"].verdict == "not checked"
    assert "has a state or leaves the graph" in str(result)


def test_cudnn_layers_are_named(monkeypatch):
    """What Keras traces where there is a GPU, traced without one and never run."""
    devices = tf.config.list_logical_devices
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind=None: devices(kind) or ["a device"]
    )
    sequences = {"return_sequences": True}
    layers = [
        L.Dense(2, name="first"),
        L.Bidirectional(L.LSTM(2, **sequences), name="both"),
        L.LSTM(2, use_cudnn=False, name="lstm", **sequences),
        L.GRU(2, name="lstm_1"),  # what a second trace of "lstm" might be called
    ]
    result = audit(compiled(*layers, shape=(3, 2)), *data((3, 2)))
    refused = [row.layer.rpartition("/")[2] for row in result.rows if row.verdict != "not checked"]
    assert refused == ["both", "lstm_1"]
    assert result["both"].verdict == result["lstm_1"].verdict == "no second derivatives"
    (note,) = result.notes
    assert "use_cudnn=False" in note


def test_everything_is_restored_after_an_exception():
    class Fails(Linear):
        """Works at the present weights only."""

        def call(self, x):
            inside = tf.debugging.assert_less(tf.reduce_max(tf.abs(self.kernel)), 1.0005)
            with tf.control_dependencies([inside]):
                return super().call(x)

    model = compiled(L.Dropout(0.3), L.BatchNormalization(), Fails(name="planted"))
    model.layers[2].kernel.assign(np.ones((3, 4)))
    before = states(model)
    with pytest.raises(tf.errors.InvalidArgumentError):
        audit(model, *data())
    assert_unchanged(model, before)


def test_random_numbers_without_a_generator_are_refused():
    class Noise(L.Layer):
        def call(self, x):
            return x + tf.random.normal(tf.shape(x), dtype=x.dtype)

    model = compiled(L.Dense(4), Noise())
    before = states(model)
    with pytest.raises(ValueError, match="must be the same in two evaluations"):
        audit(model, *data())
    assert_unchanged(model, before)


def test_errors_name_the_argument():
    x, y = data()
    bare = keras.Sequential([L.Input((3,)), L.Dense(3)])
    with pytest.raises(ValueError, match="must be compiled with a loss"):
        audit(bare, x, y)
    with pytest.raises(ValueError, match="`tolerance` must be a positive"):
        audit(bare, x, y, loss="mse", tolerance=0)
    with pytest.raises(ValueError, match="no trainable weights"):
        audit(keras.Sequential([L.Input((3,)), L.ReLU()]), x, y, loss="mse")
    half = keras.Sequential([L.Input((3,)), L.Dense(3, dtype="mixed_bfloat16")])
    with pytest.raises(ValueError, match="need float32 or float64"):
        audit(half, x, y, loss="mse")
