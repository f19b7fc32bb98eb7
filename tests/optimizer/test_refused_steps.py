"""A step that is refused with an error leaves every variable as it was, and training goes on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Constant, QNewton, QuasiNewton
from tests.optimizer.models import L, compiled, regression_data, regression_model

KINDS = {
    "full batch": {},
    "layers, kept": {"blocks": "layer", "update_every": 2, "curvature": "hessian"},
    "factor kept": {"damping": Constant(0.1), "update_every": 3},
    "decay and average": {"weight_decay": 0.01, "use_ema": True, "ema_momentum": 0.5},
    "dense inverse": {"curvature": QuasiNewton()},
    "limited memory": {"curvature": QuasiNewton(update="lbfgs")},
}

# The other inverse, and what is kept without layers, are enough for the fast suite.
SLOW = {"factor kept", "limited memory", "decay and average"}


def everything(model):
    """All variables of a model and its optimizer, but for metrics of the predictions."""
    of_layers = [v for layer in model.layers for v in layer.variables]
    return [*model.variables, *of_layers, *model.optimizer.variables]


def values(variables):
    return [np.array(v) for v in variables]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def batches(count, rows=20):
    x, y = regression_data(count * rows)
    return [(x[k * rows : (k + 1) * rows], y[k * rows : (k + 1) * rows]) for k in range(count)]


def spoiled(x):
    x = x.copy()
    x[3, 1] = np.nan
    return x


@pytest.mark.parametrize("changing", [False, True], ids=["same data", "mini-batches"])
@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in KINDS],
)
def test_training_goes_on_as_if_the_bad_batch_had_not_been(kind, changing):
    def weights_after(bad):
        extra = (L.BatchNormalization(), L.Dropout(0.2, seed=1)) if changing else ()
        model = compiled(QNewton(**KINDS[kind]), extra=extra)
        data = batches(6 if changing else 1)
        for step in range(6):
            if step == bad:
                before = values(everything(model))
                x, y = data[0]
                with pytest.raises(tf.errors.InvalidArgumentError, match="changed no weight"):
                    model.train_on_batch(spoiled(x), y)
                assert_same(values(everything(model)), before)
            model.train_on_batch(*data[step % len(data)])
        return values(everything(model))

    assert_same(weights_after(bad=4), weights_after(bad=None))


@pytest.mark.parametrize("policy", ["auto", QuasiNewton()], ids=["newton", "quasi-newton"])
@pytest.mark.parametrize("rate", [np.inf, np.nan])
def test_a_rate_that_is_not_finite_is_an_error_where_weights_decay_by_it(rate, policy):
    w = tf.Variable([1.0, 2.0])
    optimizer = QNewton(curvature=policy, weight_decay=0.1)
    step = tf.function(lambda: optimizer.minimize(lambda: tf.reduce_sum((w - 3.0) ** 4), [w]))
    step()
    optimizer.learning_rate = rate
    before = values([w, *optimizer.variables])
    with pytest.raises(tf.errors.InvalidArgumentError, match="The learning rate has NaN or Inf"):
        step()
    assert_same(values([w, *optimizer.variables]), before)


@keras.saving.register_keras_serializable(package="keras_qnewton_tests")
class OneOver(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 1.0 / tf.cast(step, tf.float32)

    def get_config(self):
        return {}


@pytest.mark.parametrize("policy", ["auto", QuasiNewton()], ids=["newton", "quasi-newton"])
@pytest.mark.parametrize("rate", [np.inf, np.nan])
def test_a_step_at_a_rate_that_is_not_finite_is_refused_and_told(rate, policy, capfd):
    w = tf.Variable([1.0, 2.0])
    optimizer = QNewton(curvature=policy)
    step = tf.function(lambda: optimizer.minimize(lambda: tf.reduce_sum((w - 3.0) ** 4), [w]))
    step()
    optimizer.learning_rate = rate
    before = w.numpy()
    step()
    np.testing.assert_array_equal(w, before)
    assert not optimizer.decisions[-1].accepted
    assert "The learning rate has NaN or Inf" in capfd.readouterr().err


def test_training_goes_on_after_a_rate_that_was_not_finite():
    w = tf.Variable([1.0, 2.0])
    optimizer = QNewton()
    step = tf.function(lambda: optimizer.minimize(lambda: tf.reduce_sum((w - 3.0) ** 4), [w]))
    for rate in (np.nan, *[1.0] * 30):
        optimizer.build([w])
        optimizer.learning_rate = rate
        step()
    np.testing.assert_allclose(w, 3.0, atol=0.1)


def test_a_schedule_that_divides_by_zero_is_refused_at_its_first_step():
    model = compiled(QNewton(OneOver()))
    before = model.get_weights()
    x, y = regression_data()
    model.fit(x, y, batch_size=len(x), verbose=0)
    assert_same(model.get_weights(), before)


@pytest.mark.parametrize("rate", [-1.0, -1e-3])
def test_a_negative_rate_is_told_at_once(rate):
    with pytest.warns(UserWarning, match=rf"is negative.*Received: learning_rate={rate}"):
        QNewton(rate)


def test_a_rate_that_is_no_number_is_told_at_once():
    with pytest.warns(UserWarning, match="The learning rate is not finite"):
        QNewton(float("nan"))


@pytest.mark.parametrize("policy", ["auto", QuasiNewton()], ids=["newton", "quasi-newton"])
def test_a_weight_that_is_not_finite_is_named_where_the_loss_hides_it(policy):
    good, hidden = tf.Variable([1.0, 2.0], name="good"), tf.Variable([1.0, 1.0], name="hidden")
    optimizer = QNewton(curvature=policy)

    def loss():
        return tf.reduce_sum((good - 3.0) ** 4) + tf.reduce_sum(tf.where(good > 0, 1.0, hidden))

    step = tf.function(lambda: optimizer.minimize(loss, [good, hidden]))
    step()
    hidden.assign([1.0, np.nan])
    before = values([good, hidden, *optimizer.variables])
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="The weight 'hidden:0' has NaN or Inf"
    ):
        step()
    assert_same(values([good, hidden, *optimizer.variables]), before)


def test_no_block_is_kept_where_another_is_not_finite():
    """|z|^1.5 has no second derivative at 0, where its loss and its gradient are finite."""
    x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
    v, w = tf.Variable(0.5 * np.ones((3, 1), "float32")), tf.Variable(np.ones((3, 1), "float32"))
    optimizer = QNewton(curvature="hessian", blocks="variable")

    @tf.function
    def step(x):
        def loss():
            return tf.reduce_mean((x @ v) ** 4 + tf.abs(x @ w) ** 1.5)

        return optimizer.minimize(loss, [v, w])

    for k in range(3):
        step(tf.constant(x[8 * k : 8 * k + 8]))
    bad, before = x[24:].copy(), values([v, w, *optimizer.variables])
    bad[2] = 0.0
    with pytest.raises(tf.errors.InvalidArgumentError, match="The Hessian block"):
        step(tf.constant(bad))
    assert_same(values([v, w, *optimizer.variables]), before)


def test_a_step_under_xla_is_refused_at_a_learning_rate_that_is_not_finite():
    w = tf.Variable([1.0, 2.0])
    optimizer = QNewton(damping=Adaptive(memory=1))
    step = tf.function(
        lambda: optimizer.minimize(lambda: tf.reduce_sum((w - 3.0) ** 2), [w]),
        jit_compile=True,
        autograph=False,
    )
    optimizer.build([w])
    optimizer.learning_rate = np.inf
    step()
    np.testing.assert_array_equal(w, [1.0, 2.0])
    assert not optimizer.decisions[-1].accepted


@pytest.mark.parametrize("name", ["weight_decay", "clipnorm", "global_clipnorm", "clipvalue"])
def test_numbers_that_are_not_finite_are_refused(name):
    message = f"Argument `{name}` must be None or a finite .*Received: {name}=nan"
    with pytest.raises(ValueError, match=message):
        QNewton(**{name: float("nan")})


def test_statistics_that_the_loss_depends_on_are_assigned_before_it():
    """What a check depends on cannot wait for it: here the moving mean that the loss reads."""
    mean, w = tf.Variable(0.0), tf.Variable(1.0)
    optimizer = QNewton()

    @tf.function
    def step(x):
        def loss():
            mean.assign(0.5 * mean + x)
            return (w * mean - 1.0) ** 2

        return optimizer.minimize(loss, [w])

    assert float(step(tf.constant(2.0))) == 1.0
    assert float(mean) == 2.0


@pytest.mark.slow
def test_a_frozen_layer_leaves_no_trace_of_a_bad_batch():
    model = regression_model()
    model.layers[0].trainable = False
    model.compile(QNewton(use_ema=True), "mse")
    x, y = regression_data()
    model.train_on_batch(x, y)
    before = values(everything(model))
    with pytest.raises(tf.errors.InvalidArgumentError, match="The loss has NaN or Inf"):
        model.train_on_batch(spoiled(x), y)
    assert_same(values(everything(model)), before)
