"""A run of refused steps is told once; how often a step was tried is in the log."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Constant, QNewton
from keras_qnewton.decision_log import CAPACITY
from tests.blocks import variable
from tests.optimizer.models import L, fit, regression_data


def walled(beyond=np.inf):
    """Two weights, and a loss that is higher by `beyond` wherever else they are."""
    w = tf.Variable([1.0, 1.0], dtype=tf.float64)

    def loss():
        start = tf.reduce_all(tf.equal(w, 1.0))
        return tf.reduce_sum((w - 3.0) ** 2) + tf.where(start, tf.zeros([], w.dtype), beyond)

    return w, loss


def stuck_model():
    """Its loss jumps as soon as a weight moves."""
    model = keras.Sequential([L.Input((3,)), L.Dense(1, kernel_initializer="ones")])
    kernel = model.weights[0]

    def jumps(y, p):
        moved = tf.cast(tf.reduce_any(tf.not_equal(kernel, 1.0)), p.dtype)
        return keras.ops.mean((y - p) ** 2, -1) + 100.0 * moved

    model.compile(QNewton(damping=Adaptive(retries=0)), jumps)
    return model


def test_fit_warns_once_with_the_reason_and_what_to_try():
    model = stuck_model()
    with pytest.warns(UserWarning, match="refused 1[0-9] steps in a row") as caught:
        fit(model, 15)
    (warning,) = caught
    assert "The loss rose" in str(warning.message) and "Adaptive(" in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, 2)  # it was said


def test_minimize_in_a_graph_tells_once(capfd):
    w, loss = walled()
    optimizer = QNewton(damping=Adaptive(retries=0))
    step = tf.function(lambda: optimizer.minimize(loss, [w]), autograph=False)
    for _ in range(9):
        step()
    assert "in a row" not in capfd.readouterr().err
    for _ in range(8):
        step()
    told = capfd.readouterr().err
    assert told.count("QNewton refused 10 steps in a row") == 1 and "not finite" in told
    np.testing.assert_array_equal(w, [1.0, 1.0])


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_one_by_one_tell_once(capfd, compiled):
    """`train_on_batch`, and a loop of one's own."""
    model, (x, y) = stuck_model(), regression_data()

    @tf.function(autograph=False)
    def own_step():
        return model.train_step((x, y))

    for _ in range(12):
        own_step() if compiled else model.train_on_batch(x, y)
    told = capfd.readouterr().err
    assert told.count("QNewton refused 10 steps in a row") == 1 and "The loss rose" in told


@pytest.mark.slow
def test_an_eager_minimize_warns(capfd):
    w, loss = walled()
    optimizer = QNewton(damping=Adaptive(retries=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(9):
            optimizer.minimize(loss, [w])
    with pytest.warns(UserWarning, match="refused 10 steps in a row"):
        optimizer.minimize(loss, [w])
    assert "refused" not in capfd.readouterr().err


def test_xla_compiles_minimize_without_a_print():
    w = tf.Variable([1.0, 2.0])
    optimizer = QNewton()
    step = tf.function(
        lambda: optimizer.minimize(lambda: tf.reduce_sum((w - 3.0) ** 4), [w]),
        jit_compile=True,
        autograph=False,
    )
    optimizer.build([w])
    assert float(step()) > float(step())


def test_a_converged_model_is_no_news():
    x, _ = regression_data()
    y = (x @ np.ones((3, 1))).astype("float32")
    linear = keras.Sequential([L.Input((3,)), L.Dense(1)])
    linear.compile(QNewton(), "mse")
    linear.fit(x, y, batch_size=len(x), epochs=40, verbose=0)


def test_a_step_that_is_tried_again_says_how_often():
    w = tf.Variable([2.0], dtype=tf.float64)
    optimizer = QNewton(damping=Adaptive(initial=1e-2), curvature="hessian")
    # Newton's step on √(1 + w²) overshoots beyond |w| = 1.
    optimizer.minimize(lambda: tf.reduce_sum(tf.sqrt(1 + w**2)), [w])
    (decision,) = optimizer.decisions
    assert decision.attempts > 1 and decision.accepted


def test_refused_steps_say_how_often_they_were_tried():
    w, loss = walled()
    optimizer = QNewton(damping=Adaptive(retries=3))
    optimizer.minimize(loss, [w])
    (decision,) = optimizer.decisions
    assert not decision.accepted and decision.attempts == 4


@pytest.mark.slow
def test_a_step_at_constant_damping_is_tried_once():
    w = tf.Variable([2.0])
    optimizer = QNewton(damping=Constant(0.1))
    optimizer.minimize(lambda: tf.reduce_sum(w**2), [w])
    assert optimizer.decisions[0].attempts == 1


@pytest.mark.parametrize("accepted", [0.0, 1.0])
def test_a_log_that_was_saved_earlier_has_no_attempts(accepted):
    w = tf.Variable([2.0])
    optimizer = QNewton()
    optimizer.minimize(lambda: tf.reduce_sum(w**2), [w])
    log = variable(optimizer, "log")
    rows = np.array(log)
    rows[0, 9] = accepted
    log.assign(rows)
    (decision,) = optimizer.decisions
    assert len(rows) == CAPACITY
    assert decision.accepted is bool(accepted) and decision.attempts is None


DECAY = keras.optimizers.schedules.ExponentialDecay(0.01, 9, 0.9)
WARM_UP = keras.optimizers.schedules.CosineDecay(0.0, 9, warmup_target=1.0, warmup_steps=3)


@pytest.mark.parametrize("rate", [1e-3, 0.1, DECAY], ids=["small", "a tenth", "decay"])
def test_a_learning_rate_of_first_order_methods_is_told(rate):
    with pytest.warns(UserWarning, match="Newton's own learning rate is 1.0") as caught:
        QNewton(rate)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize(
    "arguments",
    [
        {"learning_rate": 0.5},
        {"learning_rate": 1e-3, "damping": Constant(0.1)},
        {"learning_rate": WARM_UP},
    ],
    ids=["half", "fixed damping", "warm-up"],
)
def test_other_learning_rates_are_not(arguments):
    QNewton(**arguments)


def becomes_zero():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [1.0, 0.0])
    return QNewton(schedule), lambda optimizer: None


def becomes_negative():
    return QNewton(), lambda optimizer: setattr(optimizer, "learning_rate", -1.0)


@pytest.mark.parametrize("made", [becomes_zero, becomes_negative])
def test_a_rate_that_lets_no_step_lower_the_loss_is_told_once(made):
    keras.utils.set_random_seed(0)
    optimizer, then = made()
    model = keras.Sequential([L.Input((3,)), L.Dense(5, "tanh"), L.Dense(1)])
    model.compile(optimizer, "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, 4)
    then(optimizer)
    with pytest.warns(UserWarning, match="did not lower the loss, and the learning rate"):
        fit(model, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, 12)


def test_a_schedule_that_ends_at_zero_is_no_news():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 12, 0.0)
    model = keras.Sequential([L.Input((3,)), L.Dense(5, "tanh"), L.Dense(1)])
    model.compile(QNewton(schedule), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, 14)


def test_a_schedule_that_ends_at_zero_after_convergence_is_no_news():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 30, 0.0)
    model = keras.Sequential([L.Input((3,)), L.Dense(1)])
    model.compile(QNewton(schedule), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = fit(model, 32)
    assert losses[-1] >= 0.999 * losses[15]
