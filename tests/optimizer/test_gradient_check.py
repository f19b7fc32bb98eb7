"""Gradients that are not the recorded loss's own are refused, and rounding is not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from tests.derivatives import get_flat
from tests.optimizer.models import L, fit, regression_data

REFUSED = "not those of the recorded loss"


class Edited(keras.Model):
    """A custom train step that does something to the gradients."""

    def __init__(self, *args, edit, **kwargs):
        super().__init__(*args, **kwargs)
        self._edit = edit

    def train_step(self, data):
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            residual = self(x, training=True) - y
            other = tf.reduce_mean(tf.abs(residual))
            loss = self.optimizer.scale_loss(tf.reduce_mean(residual**2))
        weights = self.trainable_weights
        gradients = tape.gradient(loss, weights)
        edited = self._edit(gradients, lambda: tape.gradient(other, weights), weights)
        self.optimizer.apply_gradients(zip(edited, weights, strict=True))
        return {"loss": loss}


def edited(edit, optimizer=None, layers=(), **kwargs):
    keras.utils.set_random_seed(0)
    inputs = outputs = L.Input((3,))
    for layer in (L.Dense(5, activation="tanh", name="hidden"), *layers, L.Dense(1, name="out")):
        outputs = layer(outputs)
    model = Edited(inputs, outputs, edit=edit)
    model.compile(optimizer=optimizer or QNewton(), **kwargs)
    return model


def frozen(gradients, other, weights):
    return [g * 0.0 if "hidden" in w.path else g for g, w in zip(gradients, weights, strict=True)]


def masked(gradients, other, weights):
    """As `frozen`, by a mask that is known when the step runs."""
    mask = tf.cast(tf.random.uniform([]) > 2.0, gradients[0].dtype)
    return [mask * gradients[0], *gradients[1:]]


EDITS = {
    "frozen": frozen,
    "masked": masked,
    "zeros": lambda gradients, other, weights: [
        tf.zeros_like(gradients[0]),
        *gradients[1:],
    ],
    "noised": lambda gradients, other, weights: [
        g + 0.02 * tf.norm(g) * tf.random.normal(g.shape) for g in gradients
    ],
    "clipped": lambda gradients, other, weights: [tf.clip_by_norm(g, 1e-3) for g in gradients],
    "of another loss": lambda gradients, other, weights: other(),
    "of twice the loss": lambda gradients, other, weights: [2.0 * g for g in gradients],
    "swapped": lambda gradients, other, weights: [
        tf.reverse(gradients[0], [0]),
        *gradients[1:],
    ],
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_gradients_are_refused_before_any_weight_changes(name):
    model = edited(EDITS[name])
    before = get_flat(model.trainable_variables)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=REFUSED) as raised:
        fit(model, 1)
    assert "layer.trainable = False" in str(raised.value) and "clipnorm=" in str(raised.value)
    np.testing.assert_array_equal(get_flat(model.trainable_variables), before)


def test_a_frozen_layer_is_seen_while_tracing():
    with pytest.raises(ValueError, match=f"{REFUSED}.*Received: a gradient of zeros for"):
        fit(edited(frozen), 1)


@pytest.mark.slow
def test_edited_gradients_are_refused_late_in_training():
    """What is edited is small then, and not as small as rounding."""
    switch = tf.Variable(0.0)

    def late(gradients, other, weights):
        return [g * (1.0 - switch) for g in gradients]

    model = edited(late)
    fit(model, 15)
    switch.assign(0.5)
    with pytest.raises(tf.errors.InvalidArgumentError, match=REFUSED):
        fit(model, 1)


@pytest.mark.slow
def test_xla_refuses_the_step():
    model = edited(EDITS["clipped"], jit_compile=True)
    before = get_flat(model.trainable_variables)
    fit(model, 2)
    np.testing.assert_array_equal(get_flat(model.trainable_variables), before)


def assert_lowers_the_loss(model):
    decisions = model.optimizer.decisions
    assert decisions[-1].loss_after < decisions[0].loss


def same(gradients, other, weights):
    return gradients


@pytest.mark.slow
def test_xla_takes_the_losss_own_gradients():
    model = edited(same, jit_compile=True)
    fit(model, 4)
    assert_lowers_the_loss(model)


def test_weights_left_out_keep_their_values():
    """The way to freeze that the error names."""
    model = edited(same)
    model.get_layer("hidden").trainable = False
    model.compile(optimizer=QNewton())
    before = get_flat(model.get_layer("hidden").weights)
    fit(model, 3)
    assert_lowers_the_loss(model)
    np.testing.assert_array_equal(get_flat(model.get_layer("hidden").weights), before)


def test_a_gradient_of_zeros_where_the_loss_has_none_passes():
    def connected(gradients, other, weights):
        return [
            tf.zeros_like(w) if g is None else g for g, w in zip(gradients, weights, strict=True)
        ]

    class Idle(L.Layer):
        def build(self, shape):
            self.idle = self.add_weight(shape=(2,), name="idle")

        def call(self, x):
            return x

    model = edited(connected, layers=[Idle()])
    fit(model, 3)
    assert_lowers_the_loss(model)


def converging(kind):
    keras.utils.set_random_seed(0)
    if kind == "embedding":
        layers = [L.Input((3,), dtype="int32"), L.Embedding(4, 2), L.Flatten()]
    elif kind == "recurrent":
        layers = [L.Input((3,)), L.Reshape((3, 1)), L.LSTM(2)]
    elif kind == "layer norm":
        layers = [L.Input((3,)), L.Dense(6), L.LayerNormalization()]
    elif kind == "batch norm":
        layers = [L.Input((3,)), L.Dense(6), L.BatchNormalization(), L.Activation("silu")]
        layers.append(L.Dropout(0.2))
    else:
        layers = [L.Input((3,)), L.Dense(5, "tanh")]
    return keras.Sequential([*layers, L.Dense(1)])


@pytest.mark.parametrize(
    ("kind", "policy", "options"),
    [
        ("plain", "mixed_bfloat16", {"loss_scale_factor": 64.0, "clipnorm": 1.0}),
        ("layer norm", "float32", {}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("plain", "float64", {}),
                ("layer norm", "mixed_bfloat16", {}),
                ("batch norm", "float32", {"weight_decay": 1e-4}),
                ("embedding", "float32", {}),
                ("recurrent", "float32", {"blocks": "layer"}),
            ]
        ),
    ],
)
def test_training_to_convergence_raises_no_alarm(kind, policy, options):
    """Gradients that are rounding alone, for hundreds of steps."""
    keras.config.set_dtype_policy(policy)
    try:
        model = converging(kind)
        model.compile(optimizer=QNewton(**options), loss="mse")
        x, y = regression_data()
        x = np.abs(x).astype("int32") % 4 if kind == "embedding" else x
        model.fit(x, y, batch_size=len(x), epochs=150, verbose=0, shuffle=False)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.optimizer.decision_count >= 150
