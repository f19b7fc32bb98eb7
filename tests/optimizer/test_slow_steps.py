"""Steps that are nothing but damping are told of, once, and no others are."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, QNewton
from keras_qnewton.decision_log import StepColumns
from keras_qnewton.slow_steps import told_of
from tests.optimizer.models import L

HIDDEN = 6


def data(scale):
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    return x, (scale * (np.sin(2 * x[:, :1]) + 0.5 * x[:, 1:])).astype("float32")


def perceptron(damping):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((2,)), L.Dense(HIDDEN, "tanh"), L.Dense(1)])
    model.compile(QNewton(damping=damping), "mse")
    return model


def fitted(model, scale, epochs):
    x, y = data(scale)
    return model.fit(x, y, batch_size=64, epochs=epochs, verbose=0).history["loss"]


def test_targets_of_a_million_are_told_of_once():
    """With λI, whatever it takes."""
    model = perceptron(Adaptive(scaling="none"))
    with pytest.warns(UserWarning, match="Are targets or inputs far from") as caught:
        losses = fitted(model, 1e6, 30)
    assert len(caught) == 1 and losses[-1] > 0.8 * losses[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(model, 1e6, 3)  # it was said


def test_the_same_targets_in_other_units_train_without_a_word():
    losses = fitted(perceptron(Adaptive()), 1.0, 30)
    assert losses[-1] < 0.01 * losses[0]


def test_a_small_learning_rate_and_clipping_are_not_taken_for_damping():
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    for settings in ({"learning_rate": 1e-4}, {"global_clipnorm": 1e-3}):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([L.Input((2,)), L.Dense(1)])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.compile(QNewton(**settings), "mse")
            model.fit(x, x[:, :1] + 1.0, batch_size=64, epochs=30, verbose=0)
        assert not [one for one in caught if "short one along the gradient" in str(one.message)]


def test_a_valley_beside_a_block_of_one_weight_is_a_valley():
    """Whose κ is 1, or nearly, at every λ."""
    alone, valley = tf.Variable([1.5]), tf.Variable([-1.2, 1.0])

    def loss():
        bend = valley[1] - valley[0] ** 2
        return 20 + 0.01 * tf.reduce_sum((alone - 1) ** 2) + (1 - valley[0]) ** 2 + 1e6 * bend**2

    optimizer = QNewton(blocks="variable")
    step = tf.function(lambda: optimizer.minimize(loss, [alone, valley]), autograph=False)
    for _ in range(59):
        step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.minimize(loss, [alone, valley])  # eagerly: it looks at the steps before
    kappas = [d.condition_number for d in optimizer.decisions if d.size == 1]
    assert len(kappas) == 60 and max(kappas) < 1.01


def columns(losses, kappa, accepted=3.0):
    """Steps from each of the losses to the next one, each at its second attempt."""
    count = len(losses) - 1
    values = np.arange(count), kappa, 1.0, losses[:-1], losses[1:], accepted
    return StepColumns(*(np.broadcast_to(v, count).astype(float) for v in values))


STEPS = np.arange(26)
CREEPING = 1.0 - 1e-3 * STEPS


def test_a_creeping_loss_is_told_of():
    assert "lowered the loss by 2 % in all" in told_of(columns(CREEPING, 1.5))
    assert told_of(columns(1e30 * CREEPING, 1.5))


@pytest.mark.parametrize(
    "steps",
    [
        columns(CREEPING[:20], 1.5),  # too few
        columns(CREEPING, 1e3),  # a long valley
        columns(CREEPING, np.nan),  # curvature is learned
        columns(1.0 - 1e-8 * STEPS, 1.0),  # a minimum
        columns(1.0 + 0.5**STEPS, 1.0),  # on the way to one
        columns(0.9**STEPS, 1.0),  # fast
        columns(CREEPING, 1.5, accepted=-3.0),  # refused
        columns(CREEPING, 1.5, accepted=2.0),  # at once: shortened by something else
        columns(np.full(26, np.inf), 1.5),
        columns(np.zeros(26), 1.5),
    ],
)
def test_other_runs_are_not(steps):
    assert told_of(steps) is None


def test_losses_of_other_data_say_nothing():
    steps = columns(CREEPING, 1.5)
    other = np.where(STEPS[:-1] % 2, 1.0, 1.1)
    assert told_of(steps._replace(loss=other, loss_after=other - 1e-3)) is None
