"""Weights that never get a gradient are told of, once; those at a minimum are not."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.decision_log import CAPACITY
from keras_qnewton.refusals import RUN
from tests.optimizer.models import L, fit, regression_data

NEGATIVE = keras.initializers.Constant(-1e3)


def sequential(*layers):
    return keras.Sequential([L.Input((3,)), *layers])


def dead(**options):
    """Its hidden units are, and the last bias is not."""
    hidden = L.Dense(8, "relu", bias_initializer=NEGATIVE, name="hidden")
    model = sequential(hidden, L.Dense(1, name="last"))
    model.compile(QNewton(**options), "mse")
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"blocks": "layer"}, marks=pytest.mark.slow),
        {"curvature": "quasi_newton"},
    ],
)
def test_fit_names_weights_behind_dead_units_once(options):
    model = dead(**options)
    with pytest.warns(UserWarning, match="exactly zero in every step so far") as caught:
        fit(model, RUN)
    (warning,) = caught
    text = str(warning.message)
    names = ["hidden/kernel'", "hidden/bias'", "last/kernel'"]
    assert all(name in text for name in names) and "last/bias'" not in text
    assert "dead" in text and "leaky_relu" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, RUN)  # it was said


def test_a_short_run_is_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(dead(), RUN - 1)


def saturated():
    return sequential(L.Dense(1, "sigmoid", bias_initializer=keras.initializers.Constant(300.0)))


def all_zeros():
    return sequential(
        *(L.Dense(n, "tanh", use_bias=False, kernel_initializer="zeros") for n in (4, 1))
    )


def clipped():
    return sequential(L.Dense(1), L.Lambda(lambda x: tf.clip_by_value(x, 50.0, 60.0)))


def of_signs():
    return sequential(L.Dense(4, "tanh"), L.Lambda(tf.sign), L.Dense(1, use_bias=False))


@pytest.mark.parametrize(
    "made",
    [saturated, *(pytest.param(m, marks=pytest.mark.slow) for m in (all_zeros, clipped, of_signs))],
)
def test_other_kinds_of_no_gradient_are_told(made):
    model = made()
    model.compile(QNewton(), "mse")
    with pytest.warns(UserWarning, match="exactly zero in every step so far"):
        fit(model, RUN + 2)


def test_masked_examples_are_told():
    x, y = regression_data()
    model = sequential(L.Dense(1))

    def nothing_but_a_constant(y, p):
        return keras.ops.mean(keras.ops.where(y > 1e9, (y - p) ** 2, 1.0), -1)

    model.compile(QNewton(), nothing_but_a_constant)
    with pytest.warns(UserWarning, match="sample weights may be zero"):
        model.fit(x, y, epochs=RUN, batch_size=len(x), verbose=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_one_by_one_tell_once(capfd, compiled):
    model, (x, y) = dead(), regression_data()

    @tf.function(autograph=False)
    def own_step():
        return model.train_step((x, y))

    for _ in range(RUN - 1):
        own_step() if compiled else model.train_on_batch(x, y)
    assert "exactly zero" not in capfd.readouterr().err
    for _ in range(4):
        own_step() if compiled else model.train_on_batch(x, y)
    told = capfd.readouterr().err
    assert told.count("exactly zero in every step") == 1
    assert "hidden/kernel'" in told and "last/bias'" not in told


def test_one_weight_without_a_gradient_is_told_where_the_loss_falls():
    used, unused = tf.Variable([1.0, -1.0], name="used"), tf.Variable(2.0, name="unused")
    empty = tf.Variable(tf.zeros([0, 2]), name="empty")
    optimizer = QNewton(curvature="hessian")

    def loss_fn():
        of_used = tf.reduce_sum(tf.exp(used) - used) + tf.reduce_sum(empty)
        return of_used + tf.nn.relu(unused - 10.0)

    for _ in range(RUN - 1):
        optimizer.minimize(loss_fn, [empty, used, unused])
    with pytest.warns(UserWarning, match=r"these weights: 'unused(:0)?'\.") as caught:
        optimizer.minimize(loss_fn, [empty, used, unused])
    assert caught[0].filename == __file__


def test_many_weights_are_told_of_in_groups():
    used = [tf.Variable(1.0, name=f"used_{k}") for k in range(30)]
    unused = [tf.Variable([1.0, 2.0], name=f"unused_{k}") for k in range(40)]
    optimizer = QNewton()

    def loss_fn():
        dead = tf.add_n([tf.reduce_sum(tf.nn.relu(w - 10.0)) for w in unused])
        return tf.add_n([(w - 3.0) ** 2 for w in used]) + 1.0 + dead

    step = tf.function(lambda: optimizer.minimize(loss_fn, used + unused), autograph=False)
    for _ in range(RUN):
        step()
    with pytest.warns(UserWarning, match=r"unused_2.*and \d+ more") as caught:
        optimizer.finalize_variable_values(used + unused)
    assert "'used" not in str(caught[0].message)


def test_units_that_saturate_later_are_told():
    w = tf.Variable(np.full([5], 0.5))
    optimizer = QNewton(learning_rate=1.0, curvature="hessian")
    goes = tf.Variable(True, trainable=False)

    def loss_fn():
        return 3.0 + tf.where(goes, tf.reduce_sum(tf.cos(w)), tf.reduce_sum(tf.round(w)) * 0.0)

    step = tf.function(lambda: optimizer.minimize(loss_fn, [w]), autograph=False)
    step()
    goes.assign(False)
    for _ in range(RUN + 1):
        step()
    with pytest.warns(UserWarning, match="have become exactly zero in all weights"):
        optimizer.finalize_variable_values([w])


# --- minima ----------------------------------------------------------------------------------


def integers(dtype):
    """Least squares whose residuals sum to zero exactly, at a loss that is not zero."""
    x = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype)
    y = np.array([[3], [1], [1], [7]], dtype)
    return x, y


@pytest.mark.parametrize("again", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
@pytest.mark.parametrize("curvature", ["auto", "hessian", "quasi_newton"])
def test_least_squares_with_a_gradient_of_exactly_zero_are_no_news(dtype, curvature, again):
    x, y = integers(dtype)
    model = keras.Sequential(
        [L.Input((2,), dtype=dtype), L.Dense(1, kernel_initializer="ones", dtype=dtype)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2 if again and curvature != "quasi_newton" else 1):
            model.compile(QNewton(curvature=curvature), "mse")
            model.fit(x, y, batch_size=4, epochs=25, verbose=0)
    gradient = x.T @ (model.predict(x, verbose=0) - y)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


def classifier(x, y):
    model = sequential(L.Dense(1, "sigmoid"))
    model.compile(QNewton(), "binary_crossentropy")
    model.fit(x, (y > 0).astype("float32"), batch_size=len(x), epochs=60, verbose=0)


def frozen(x, y):
    model = sequential(L.Dense(4, "tanh", trainable=False), L.Dense(1))
    model.compile(QNewton(), "mse")
    fit(model, 25)


def weightless_batches(x, y):
    model = sequential(L.Dense(1))
    model.compile(QNewton(), "mse")
    model.fit(x, y, batch_size=4, epochs=25, verbose=0, sample_weight=np.zeros(len(x)))
    amounts = (np.arange(len(x)) > len(x) // 2).astype("float32")
    model.fit(x, y, batch_size=4, epochs=10, verbose=0, sample_weight=amounts, shuffle=False)


def rows_that_no_batch_has(x, y):
    model = keras.Sequential([L.Input((1,)), L.Embedding(9, 4), L.Flatten(), L.Dense(1)])
    model.compile(QNewton(), "mse")
    model.fit(np.arange(len(x))[:, None] % 3, y, batch_size=len(x), epochs=25, verbose=0)


def zero_loss(x, y):
    model = sequential(L.Dense(1))
    model.compile(QNewton(), "hinge")
    model.fit(x, np.sign(x[:, :1]), batch_size=len(x), epochs=40, verbose=0)


def zero_last_layer(x, y):
    model = sequential(L.Dense(4, "tanh"), L.Dense(1, kernel_initializer="zeros"))
    model.compile(QNewton(), "mse")
    fit(model, 25)


@pytest.mark.parametrize(
    "train",
    [
        weightless_batches,
        zero_last_layer,
        *(
            pytest.param(train, marks=pytest.mark.slow)
            for train in (classifier, frozen, rows_that_no_batch_has, zero_loss)
        ),
    ],
)
def test_what_trains_or_has_converged_is_no_news(train):
    keras.utils.set_random_seed(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*xactly zero")
        train(*regression_data())


# --- later --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [pytest.param(10, marks=pytest.mark.slow), 64])
def test_a_layer_that_dies_later_is_named(batch_size):
    x, y = regression_data()
    hidden = L.Dense(8, "relu", name="hidden")
    model = sequential(hidden, L.Dense(1, name="last"))
    model.compile(QNewton(), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, y, batch_size=batch_size, epochs=RUN + 2, verbose=0)
    hidden.bias.assign(np.full(8, -1e3))
    with pytest.warns(UserWarning, match=f"exactly zero in the last {RUN} steps") as caught:
        model.fit(x, y, batch_size=batch_size, epochs=2 * RUN + 2, verbose=0)
    (warning,) = caught
    names = ["hidden/kernel'", "hidden/bias'", "last/kernel'"]
    text = str(warning.message)
    assert all(name in text for name in names) and "last/bias'" not in text


def test_what_had_a_gradient_before_the_log_begins_is_not_said_to_have_had_none():
    x, y = regression_data()
    hidden = L.Dense(8, "relu")
    model = sequential(hidden, L.Dense(1))
    model.compile(QNewton(blocks="layer"), "mse")
    model.fit(x, y, batch_size=len(x), epochs=RUN + 2, verbose=0)
    hidden.bias.assign(np.full(8, -1e3))
    steps = CAPACITY // 2 + 2 * RUN
    with pytest.warns(UserWarning, match=f"exactly zero in the last {RUN} steps"):
        repeated = tf.data.Dataset.from_tensors((x, y)).repeat(steps)
        model.fit(repeated, epochs=1, verbose=0, shuffle=False)
    assert len(model.optimizer.decisions) == CAPACITY


def test_units_that_come_back_are_no_news():
    x, y = regression_data()
    hidden = L.Dense(8, "relu")
    model = sequential(hidden, L.Dense(1))
    model.compile(QNewton(), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, y, batch_size=len(x), epochs=RUN, verbose=0)
        bias = hidden.bias.numpy()
        hidden.bias.assign(np.full(8, -1e3))
        model.fit(x, y, batch_size=len(x), epochs=RUN - 1, verbose=0)
        hidden.bias.assign(bias)
        model.fit(x, y, batch_size=len(x), epochs=3, verbose=0)
