"""`gradient_accumulation_steps`: one Newton step of several batches."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton, QuasiNewton

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 4))
Y = np.sin(X.sum(1, keepdims=True))
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
WORDS = np.where(RNG.random((128, 5)) < 0.3, 0, RNG.integers(1, 7, (128, 5)))
LAYERS = keras.layers


@pytest.fixture(autouse=True)
def double_precision():
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def dense(units=1, activation=None):
    hidden = LAYERS.Dense(5, activation="tanh")
    return keras.Sequential([keras.Input((4,)), hidden, LAYERS.Dense(units, activation)])


def masked():
    embedding = LAYERS.Embedding(7, 3, mask_zero=True)
    sequence = LAYERS.Dense(1)
    return keras.Sequential([keras.Input((5,), dtype="int32"), embedding, sequence])


def two_heads():
    x = keras.Input((4,))
    hidden = LAYERS.Dense(4, activation="tanh")(x)
    return keras.Model(x, [LAYERS.Dense(1)(hidden), LAYERS.Dense(3, "softmax")(hidden)])


WEIGHTS = RNG.random(128)
CASES = {
    "squares": (dense, "mse", X, Y, {}),
    "classes": (
        lambda: dense(3, "softmax"),
        "sparse_categorical_crossentropy",
        X,
        CLASSES,
        {},
    ),
    "sample weights": (dense, "mse", X, Y, {"sample_weight": WEIGHTS}),
    "two heads": (
        two_heads,
        ["mse", "sparse_categorical_crossentropy"],
        X,
        [Y, CLASSES],
        {},
    ),
    "tokens": (masked, "mse", np.where(WORDS == 0, 1, WORDS), WORDS[..., None] / 7.0, {}),
}
OPTIONS = {
    "by default": {},
    "hessian": {"curvature": "hessian"},
    "blocks": {"blocks": "layer"},
    "kept": {"update_every": 2},
    "clipped": {"clipnorm": 0.1, "weight_decay": 0.01},
    "averages of weights": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "fisher": {"curvature": "fisher"},
    "learned": {"curvature": QuasiNewton()},
}


def trained(case, batch_size, epochs=5, static=False, **options):
    """Batches whose size is not known while tracing, or written in the graph.

    `fit` of arrays has the one where batches divide them evenly, else the other.
    """
    keras.utils.set_random_seed(0)
    make, loss, x, y, data = CASES[case]
    model = make()
    model.compile(optimizer=QNewton(**options), loss=loss)
    y = tuple(y) if isinstance(y, list) else y
    batches = tf.data.Dataset.from_tensor_slices((x, y, *data.values()))
    batches = batches.batch(batch_size, drop_remainder=static)
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    return model


def assert_as_one_batch(several, one, *, formed_alike=True):
    for a, b in zip(several.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    logs = several.optimizer.decisions, one.optimizer.decisions
    assert [d.step for d in logs[0]] == [d.step for d in logs[1]]
    for field in ("damping", "loss", "loss_after", "ratio", "sparsity", "length"):
        numbers = [[getattr(d, field, np.nan) or np.nan for d in log] for log in logs]
        np.testing.assert_allclose(*numbers, rtol=1e-7, err_msg=field)
    for field in ("accepted", "route", "attempts", *(["formed_by"] if formed_alike else [])):
        assert [getattr(d, field) for d in logs[0]] == [getattr(d, field) for d in logs[1]], field


@pytest.mark.parametrize("case", CASES)
def test_four_batches_of_32_are_one_of_128(case):
    several = trained(case, 32, gradient_accumulation_steps=4)
    assert int(several.optimizer.iterations) == 5
    assert_as_one_batch(several, trained(case, 128))


@pytest.mark.parametrize("name", OPTIONS)
def test_with_other_options_too(name):
    options = OPTIONS[name]
    several = trained("squares", 32, gradient_accumulation_steps=4, **options)
    assert_as_one_batch(several, trained("squares", 128, **options))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["two heads", "tokens"])
def test_batches_whose_size_is_written_in_the_graph(case):
    """They have one loss each: the same curvature is formed in another way."""
    several = trained(case, 32, static=True, gradient_accumulation_steps=4)
    assert_as_one_batch(several, trained(case, 128, static=True), formed_alike=False)


def test_fisher_wants_batches_that_can_be_joined():
    """Of a mean of losses it is another than of one loss."""
    options = {"curvature": "fisher", "gradient_accumulation_steps": 4}
    with pytest.raises(ValueError, match=r'`curvature="fisher"`.*`drop_remainder`.*Received: '):
        trained("squares", 32, static=True, **options)


def test_batches_of_unequal_size_weigh_by_their_examples():
    """128 examples by 43: 43, 43 and 42."""
    several = trained("squares", 43, gradient_accumulation_steps=3)
    assert_as_one_batch(several, trained("squares", 128))


def test_nothing_moves_between_steps():
    keras.utils.set_random_seed(0)
    model = dense()
    model.compile(optimizer=QNewton(gradient_accumulation_steps=3), loss="mse")
    seen = [model.get_weights()]
    for k in range(7):
        model.train_on_batch(X[16 * k : 16 * k + 16], Y[16 * k : 16 * k + 16])
        seen.append(model.get_weights())
    moved = [
        any(np.any(a != b) for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(seen)
    ]
    assert moved == [False, False, True] * 2 + [False]
    assert len(model.optimizer.decisions) == 2


def test_batches_of_a_static_size():
    """`train_on_batch` of arrays: a mean of K losses, since sizes are written in the graph."""
    several, one = dense(), dense()
    one.set_weights(several.get_weights())
    several.compile(optimizer=QNewton(gradient_accumulation_steps=4), loss="mse")
    one.compile(optimizer=QNewton(), loss="mse")
    for _ in range(3):
        for k in range(4):
            several.train_on_batch(X[k::4], Y[k::4])
        one.train_on_batch(X, Y)
    for a, b in zip(several.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_minimize_of_data_given_to_a_function():
    weights = [tf.Variable(np.ones(4)) for _ in range(2)]
    optimizers = QNewton(gradient_accumulation_steps=2), QNewton()

    def stepper(optimizer, weight):
        def step(x, y):
            def loss():
                return tf.reduce_mean(tf.square(tf.tanh(tf.linalg.matvec(x, weight)) - y))

            return optimizer.minimize(loss, [weight])

        signature = [tf.TensorSpec([None, 4], tf.float64), tf.TensorSpec([None], tf.float64)]
        return tf.function(step, input_signature=signature)

    several, one = (stepper(*pair) for pair in zip(optimizers, weights, strict=True))
    for _ in range(4):
        first = several(X[:32], Y[:32, 0])
        several(X[32:64], Y[32:64, 0])
        one(X[:64], Y[:64, 0])
        assert np.isfinite(first)
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-9)


@pytest.mark.slow
def test_dropout_and_batch_normalisation_train():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            LAYERS.Dense(8, activation="tanh"),
            LAYERS.BatchNormalization(),
            LAYERS.Dropout(0.2),
            LAYERS.Dense(1),
        ]
    )
    model.compile(optimizer=QNewton(gradient_accumulation_steps=4), loss="mse")
    before = model.evaluate(X, Y, verbose=0)
    model.fit(X, Y, batch_size=32, epochs=12, verbose=0)
    assert model.evaluate(X, Y, verbose=0) < 0.5 * before


@pytest.mark.slow
def test_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = dense()
    model.compile(optimizer=QNewton(gradient_accumulation_steps=2), loss="mse")
    losses = model.fit(X, Y, batch_size=64, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_a_saved_model_goes_on(tmp_path):
    """The batches since the last step are lost: the next step is of those that are left."""
    model = trained("squares", 32, epochs=1, gradient_accumulation_steps=3)
    assert len(model.optimizer.decisions) == 1  # and one batch more
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.gradient_accumulation_steps == 3
    before = loaded.evaluate(X, Y, verbose=0)
    loaded.fit(X, Y, batch_size=32, epochs=3, shuffle=False, verbose=0)
    assert len(loaded.optimizer.decisions) == 5
    assert loaded.evaluate(X, Y, verbose=0) < before


@pytest.mark.slow
def test_steps_per_execution():
    keras.utils.set_random_seed(0)
    model = dense()
    optimizer = QNewton(gradient_accumulation_steps=4)
    model.compile(optimizer=optimizer, loss="mse", steps_per_execution=4)
    model.fit(X, Y, batch_size=32, epochs=5, shuffle=False, verbose=0)
    assert_as_one_batch(model, trained("squares", 128))


def test_data_of_another_kind_are_refused():
    model = dense()
    model.compile(optimizer=QNewton(gradient_accumulation_steps=2), loss="mse")
    model.fit(X[:32], Y[:32], batch_size=32, verbose=0)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"needs batches of one kind.*Received: "):
        model.fit(X[:32], Y[:32], sample_weight=WEIGHTS[:32], batch_size=32, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def normalised():
    inputs = [keras.Input((4,)), LAYERS.BatchNormalization(), LAYERS.Dense(3, "tanh")]
    model = keras.Sequential([*inputs, LAYERS.Dense(1)])
    model.compile(optimizer=QNewton(gradient_accumulation_steps=3), loss="mse")
    return model


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_batch_of_nan_leaves_everything_as_it_was(kept):
    keras.utils.set_random_seed(0)
    model = normalised()
    model.train_on_batch(X[:32], Y[:32])
    for k in range(2 + kept):
        model.train_on_batch(X[32 * (k % 3) :][:32], Y[32 * (k % 3) :][:32])
    everything = [*model.variables, *model.optimizer.variables]
    before = [v.numpy() for v in everything]
    broken = X[:32].copy()
    broken[3, 1] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match="The loss has NaN or Inf"):
        model.train_on_batch(broken, Y[:32])
    for variable, value in zip(everything, before, strict=True):
        assert variable.numpy().tobytes() == value.tobytes(), variable.path
    for _ in range(3 - kept):
        model.train_on_batch(X[:32], Y[:32])
    assert len(model.optimizer.decisions) == 2
    assert np.isfinite(model.evaluate(X, Y, verbose=0))


@keras.saving.register_keras_serializable(package="tests")
class Norm(LAYERS.Layer):
    """Has no derivative at 0, but a value."""

    def call(self, x):
        return keras.ops.norm(x, axis=1, keepdims=True)


def test_a_step_that_fails_drops_its_batches_and_training_goes_on():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), LAYERS.Dense(2, use_bias=False), Norm()])
    model.compile(optimizer=QNewton(gradient_accumulation_steps=2), loss="mse")
    x, y = X[:16], np.abs(Y[:16])
    at_zero = x.copy()
    at_zero[3] = 0
    model.train_on_batch(at_zero, y)
    before = model.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match="gradient of the loss has NaN"):
        model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.get_weights(), before)
    losses = [model.train_on_batch(x, y) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert len(model.optimizer.decisions) == 3


def test_xla_is_refused_with_both_settings():
    model = dense()
    optimizer = QNewton(gradient_accumulation_steps=2)
    model.compile(optimizer=optimizer, loss="mse", jit_compile=True)
    with pytest.raises(ValueError, match=r"`jit_compile=True`.*`gradient_accumulation_steps`"):
        model.fit(X, Y, batch_size=32, verbose=0)


def test_a_number_that_is_no_accumulation_is_refused():
    with pytest.raises(ValueError, match="must be an integer, at least 2"):
        QNewton(gradient_accumulation_steps=1)
