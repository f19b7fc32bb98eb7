"""The Keras checklist: configuration, saving, settings of compile and fit, error texts."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qnewton
from keras_qnewton import Adaptive, Blocks, Constant, Pruning, QNewton, Scheduler
from keras_qnewton.curvature import ExactHessian
from keras_qnewton.solvers import QSVT
from tests.derivatives import get_flat
from tests.optimizer.models import L, compiled, fit, regression_data, regression_model


@pytest.mark.parametrize(
    "optimizer",
    [
        QNewton(),
        QNewton(
            0.5,
            curvature=ExactHessian(memory=1e6),
            blocks=Blocks("layer", max_size=7),
            damping=Adaptive(0.3, "shift", retries=2, scaling="diagonal"),
            sparsity=0.25,
            scheduler=Scheduler(gate_time=1e-15, quantum=QSVT(epsilon=1e-2), max_qubits=5),
            update_every=4,
            seed=3,
            name="mine",
            clipnorm=2.0,
            weight_decay=0.1,
        ),
        QNewton(damping=Constant(1e-2), sparsity=3),
        QNewton(sparsity=Pruning(0.5, keep="either", compensate=True)),
        QNewton(keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.9)),
    ],
    ids=["default", "objects", "constant", "pruning", "schedule"],
)
def test_config_round_trip(optimizer):
    config = optimizer.get_config()
    again = QNewton.from_config(config)
    assert again.get_config() == config
    through_keras = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(through_keras, QNewton)
    assert through_keras.get_config() == config


class Plain(NamedTuple):
    """Four steps by the defaults: losses, and weights before the first of them and after it."""

    losses: list[float]
    start: np.ndarray
    after_one: np.ndarray


@pytest.fixture(scope="module")
def plain():
    model = compiled(QNewton())
    start, first = get_flat(model.trainable_variables), fit(model, 1)
    after_one = get_flat(model.trainable_variables)
    return Plain(first + fit(model, 3), start, after_one)


def test_save_load_and_fit_go_on_as_if_never_stopped(tmp_path):
    model = compiled(QNewton())
    fit(model, 3)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    optimizer = loaded.optimizer
    assert isinstance(optimizer, QNewton)
    assert int(optimizer.iterations) == 3
    for a, b in zip(optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert [d.loss for d in optimizer.decisions] == [d.loss for d in model.optimizer.decisions]
    np.testing.assert_allclose(fit(loaded, 3), fit(model, 3), rtol=1e-5)
    assert [d.step for d in optimizer.decisions] == list(range(6))


@pytest.mark.parametrize(
    "options",
    [{"steps_per_execution": 2, "loss_weights": [2.0]}, {"jit_compile": True}],
    ids=str,
)
def test_compile_options(options):
    optimizer = QNewton()
    model = compiled(optimizer, **options)
    x, y = regression_data(64)
    model.fit(x, y, batch_size=32, epochs=4, verbose=0)
    decisions = optimizer.decisions
    assert len(decisions) == 8
    assert all(d.loss_after <= d.loss for d in decisions if d.accepted)
    assert decisions[-1].loss < 0.5 * decisions[0].loss


@pytest.mark.parametrize(
    "layers",
    [
        [L.Dropout(0.3)],
        [L.BatchNormalization()],
        pytest.param([L.LayerNormalization()], marks=pytest.mark.slow),
        [L.Dense(4, activation="silu", kernel_constraint=keras.constraints.MaxNorm(2.0))],
    ],
    ids=["dropout", "batch norm", "layer norm", "constraint"],
)
def test_layers_train(layers):
    optimizer = QNewton()
    losses = fit(compiled(optimizer, extra=layers), 10)
    assert min(losses[5:]) < 0.7 * losses[0]
    assert all(d.loss_after <= d.loss for d in optimizer.decisions if d.accepted)
    assert any(d.accepted for d in optimizer.decisions)


@pytest.mark.slow
def test_integer_learning_rate(plain):
    optimizer = QNewton(learning_rate=1)
    assert float(optimizer.learning_rate) == float(QNewton().learning_rate) == 1.0
    np.testing.assert_allclose(fit(compiled(optimizer), 4), plain.losses)


def test_loss_scale_factor_changes_nothing(plain):
    scaled = QNewton(loss_scale_factor=64.0)
    np.testing.assert_allclose(fit(compiled(scaled), 4), plain.losses, rtol=1e-4)


def test_clipnorm_bounds_the_step_and_the_ratio_is_that_of_the_clipped_step():
    optimizer = QNewton(global_clipnorm=0.01)
    model = compiled(optimizer)
    x, y = regression_data()
    before = get_flat(model.trainable_variables)
    fit(model, 1)
    np.testing.assert_allclose(
        np.linalg.norm(get_flat(model.trainable_variables) - before), 0.01, rtol=1e-3
    )
    (decision,) = optimizer.decisions
    np.testing.assert_allclose(
        decision.loss_after, model.evaluate(x, y, batch_size=len(x), verbose=0), rtol=1e-5
    )
    np.testing.assert_allclose(decision.trust_ratio, 1.0, rtol=0.05)  # so short a step


def test_weight_decay_is_decoupled(plain):
    decayed = compiled(QNewton(weight_decay=0.1))
    fit(decayed, 1)
    difference = plain.after_one - get_flat(decayed.trainable_variables)
    np.testing.assert_allclose(difference, 0.1 * plain.start, rtol=1e-3, atol=1e-6)


def test_frozen_layer_stays():
    model = regression_model()
    model.get_layer("hidden").trainable = False
    model.compile(optimizer=QNewton(), loss="mse")
    kernel = model.get_layer("hidden").kernel.numpy()
    losses = fit(model, 4)
    np.testing.assert_array_equal(model.get_layer("hidden").kernel.numpy(), kernel)
    assert losses[-1] < losses[0]
    assert model.optimizer.decisions[-1].size == 6


def test_without_a_recorded_loss_the_error_names_two_ways_out():
    model = compiled(QNewton(), run_eagerly=True)
    before = get_flat(model.trainable_variables)
    with pytest.raises(ValueError, match=r"Two ways out: \(1\).*run_eagerly.*\(2\).*minimize"):
        fit(model, 1)
    np.testing.assert_array_equal(get_flat(model.trainable_variables), before)


def test_custom_train_step_that_declares_its_loss():
    class Custom(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.optimizer.scale_loss(tf.reduce_mean((self(x) - y) ** 2))
            weights = self.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    inputs = L.Input((3,))
    model = Custom(inputs, L.Dense(1)(L.Dense(5, activation="tanh")(inputs)))
    model.compile(optimizer=QNewton())
    fit(model, 6)
    decisions = model.optimizer.decisions
    assert decisions[-1].loss_after < 0.5 * decisions[0].loss


@pytest.mark.parametrize("reduction", ["sum", None])
def test_a_losss_reduction_changes_no_step(reduction, plain):
    model = regression_model()
    optimizer = QNewton()
    model.compile(optimizer, keras.losses.MeanSquaredError(reduction=reduction))
    fit(model, 4)
    examples = len(regression_data()[0])
    found = [d.loss / examples for d in optimizer.decisions]
    np.testing.assert_allclose(found, plain.losses, rtol=1e-3)


def test_mixed_bfloat16_trains():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        optimizer = QNewton()
        losses = fit(compiled(optimizer), 6)
    finally:
        keras.config.set_dtype_policy("float32")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"curvature": "newton"},
            "`curvature` must be one of 'auto', 'fisher', .*'quasi_newton', or",
        ),
        ({"blocks": "rows"}, "`blocks` must be one of"),
        ({"damping": "none"}, "`damping` must be one of 'adaptive', 'constant', or an object"),
        ({"sparsity": 0}, "`sparsity` must be a positive integer"),
        ({"sparsity": 1.5}, "`sparsity` must be a positive integer"),
        ({"sparsity": "half"}, "`sparsity` must be a positive integer"),
        ({"scheduler": "fast"}, "`scheduler` must be a `Scheduler` object or None"),
        ({"update_every": 0}, "`update_every` must be a positive integer"),
        ({"seed": -1}, "`seed` must be a non-negative integer"),
    ],
)
def test_argument_errors(arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        QNewton(**arguments)
    assert "Received: " in str(raised.value)


def test_damping_argument_errors():
    for build in (
        lambda: Adaptive(initial=0.0),
        lambda: Adaptive(negative_curvature="flip"),
        lambda: Adaptive(retries=-1),
        lambda: Adaptive(scaling="identity"),
        lambda: Constant(-1.0),
    ):
        with pytest.raises(ValueError, match="Received: "):
            build()


def test_what_is_shown_makes_an_optimizer_with_the_same_settings():
    shown = repr(QNewton(0.5, blocks="layer", sparsity=3, clipnorm=2.0, seed=1))
    assert "learning_rate=0.5" in shown and "clipnorm=2.0" in shown and "weight_decay" not in shown
    again = eval(shown, vars(keras_qnewton) | vars(keras_qnewton.curvature))
    assert repr(again) == shown


def test_policies_are_shown_as_the_calls_that_make_them():
    names = vars(keras_qnewton) | vars(keras_qnewton.scheduling)
    for made in (
        keras_qnewton.Scheduler(classical=("cholesky", "lu"), reshape=0.1, forcing=True),
        keras_qnewton.NewtonLog("run.jsonl"),
        keras_qnewton.StrongWolfe(curvature=0.5),
    ):
        assert "object at" not in repr(made) and "class_name" not in repr(made)
        assert repr(eval(repr(made), dict(names))) == repr(made)
    assert "scheduler" not in repr(QNewton())  # the one that stands for None


def test_it_is_shown_while_a_graph_is_traced():
    optimizer = QNewton(0.5)
    shown = []
    tf.function(lambda: shown.append(repr(optimizer)))()
    assert shown == [repr(optimizer)] and "learning_rate=0.5" in shown[0]


def test_a_schedule_is_shown():
    assert "ExponentialDecay object" in repr(
        QNewton(keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.9))
    )
