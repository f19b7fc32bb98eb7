"""Quasi-Newton steps in `minimize` and `fit`: what is accepted, carried over, saved and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from keras_qnewton import (
    Adaptive,
    Blocks,
    NewtonLog,
    QNewton,
    QuasiNewton,
    Scheduler,
    StrongWolfe,
    explain,
    project,
)
from tests.derivatives import get_flat
from tests.optimizer.models import compiled, fit, regression_data

DENSE = ("bfgs", "ssbfgs", "ssbroyden")


def learner(update: str = "ssbfgs", **kwargs: Any) -> QNewton:
    return QNewton(curvature=QuasiNewton(update=update), **kwargs)


class Rosenbrock:
    """The chained function of Rosenbrock, of a TensorFlow variable and of an array."""

    def __init__(
        self, size: int = 4, dtype: str = "float64", scale: float = 1.0, shift: float = 0.0
    ):
        # That of two weights has a minimum near (-1, 1), too, of more than three weights.
        start = np.tile([-1.2, 1.0], size)[:size] if size < 5 else np.zeros(size)
        self.w = tf.Variable(start, dtype=dtype)
        self.scale, self.shift = tf.constant(scale, dtype), tf.constant(shift, dtype)

    def loss(self) -> tf.Tensor:
        w = self.w
        return self.shift + self.scale * tf.reduce_sum(
            100 * tf.square(w[1:] - tf.square(w[:-1])) + tf.square(1 - w[:-1])
        )

    def stepper(self, optimizer: QNewton) -> Callable[[], tf.Tensor]:
        step: Callable[[], tf.Tensor] = tf.function(
            lambda: optimizer.minimize(self.loss, [self.w]), autograph=False
        )
        return step


def test_first_iterates_are_scipys() -> None:
    problem = Rosenbrock()
    optimizer = learner("bfgs")
    step = problem.stepper(optimizer)
    expected: list[np.ndarray] = []
    # SciPy's begins with H = I; ours with that of a gradient whose largest entry is at least 1, and
    # below 2.
    unit = 2.0 ** np.floor(np.log2(np.abs(scipy.optimize.rosen_der(problem.w.numpy())).max()))
    scipy.optimize.minimize(
        lambda w: scipy.optimize.rosen(w) / unit,
        problem.w.numpy(),
        jac=lambda w: scipy.optimize.rosen_der(w) / unit,
        method="BFGS",
        options={"maxiter": 20, "c1": 1e-4, "c2": 0.9},
        callback=lambda w: expected.append(w.copy()),
    )
    for iterate in expected:
        step()
        np.testing.assert_allclose(problem.w.numpy(), iterate, rtol=1e-6)
    assert len(expected) == 20


@pytest.mark.parametrize("update", DENSE)
def test_minimum_is_found(update: str) -> None:
    problem = Rosenbrock(10)
    step = problem.stepper(learner(update))
    for _ in range(150):
        step()
    np.testing.assert_allclose(problem.w.numpy(), np.ones(10), rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_step_raises_the_loss(dtype: str) -> None:
    problem = Rosenbrock(6, dtype)
    optimizer = learner()
    step = problem.stepper(optimizer)
    losses = [float(step()) for _ in range(120)]
    assert losses == sorted(losses, reverse=True)
    assert all(d.loss_after <= d.loss for d in optimizer.decisions)


def test_every_accepted_step_meets_the_strong_wolfe_conditions() -> None:
    problem = Rosenbrock(6)
    step = problem.stepper(learner())
    for _ in range(40):
        before = problem.w.numpy()
        step()
        moved = problem.w.numpy() - before
        slope = scipy.optimize.rosen_der(before) @ moved
        fall = scipy.optimize.rosen(problem.w.numpy()) - scipy.optimize.rosen(before)
        assert fall <= 1e-4 * slope < 0
        assert abs(scipy.optimize.rosen_der(problem.w.numpy()) @ moved) <= 0.9 * abs(slope)


def test_single_precision_goes_on_to_its_rounding() -> None:
    problem = Rosenbrock(6, "float32", shift=1.0)
    optimizer = learner()
    step = problem.stepper(optimizer)
    for _ in range(150):
        step()
    # A loss of 1 is known to 1e-7, which weights that are off by 1e-3 change it by.
    np.testing.assert_allclose(problem.w.numpy(), np.ones(6), rtol=2e-4)
    searching = [d for d in optimizer.decisions if d.evaluations]
    assert sum(not d.accepted for d in searching[:60]) <= 6


def test_decisions_say_that_no_system_was_solved() -> None:
    problem = Rosenbrock()
    optimizer = learner()
    problem.stepper(optimizer)()
    (decision,) = optimizer.decisions
    assert decision.route == decision.solved_by == "quasi_newton"
    assert "no linear system was solved" in decision.reason
    assert "self-scaled BFGS" in decision.reason
    assert decision.evaluations >= 1


def test_most_steps_take_one_evaluation() -> None:
    problem = Rosenbrock(10)
    optimizer = learner()
    step = problem.stepper(optimizer)
    for _ in range(60):
        step()
    counts = [d.evaluations for d in optimizer.decisions]
    assert sorted(counts)[len(counts) // 2] == 1


def test_weights_that_were_set_in_between_are_seen() -> None:
    problem = Rosenbrock()
    step = problem.stepper(learner())
    for _ in range(5):
        step()
    problem.w.assign([0.5, 0.5, 0.5, 0.5])
    assert float(step()) == pytest.approx(scipy.optimize.rosen([0.5] * 4))


@pytest.mark.parametrize("factor", [-1.0, 2.0, [-1.0, -1.0, 1.0, 1.0]])
def test_weights_are_seen_of_which_signs_or_exponents_alone_were_set(factor: Any) -> None:
    problem, optimizer = Rosenbrock(), learner()
    step = problem.stepper(optimizer)
    for _ in range(5):
        step()
    problem.w.assign(factor * problem.w)
    there = float(problem.loss())
    step()
    assert optimizer.decisions[-1].loss == pytest.approx(there)


def test_data_that_change_are_seen() -> None:
    w = tf.Variable([1.0, 2.0])
    optimizer = learner()

    @tf.function
    def step(x: tf.Tensor) -> tf.Tensor:
        return optimizer.minimize(lambda: tf.reduce_sum(tf.square(x * w - 1)), [w])

    for k in range(1, 5):
        x = np.array([1.0, k], "float32")
        expected = float(np.sum((x * w.numpy() - 1) ** 2))
        assert float(step(tf.constant(x))) == pytest.approx(expected, rel=1e-5)


def test_rows_that_change_places_are_seen_where_the_loss_depends_on_them() -> None:
    w = tf.Variable([1.0, 2.0])
    optimizer = learner()

    @tf.function
    def step(x: tf.Tensor) -> tf.Tensor:
        return optimizer.minimize(lambda: tf.reduce_sum(tf.square(x * w - [1.0, 2.0])), [w])

    for k in range(1, 5):
        x = np.array([3.0, 1.0] if k % 2 else [1.0, 3.0], "float32")
        expected = float(np.sum((x * w.numpy() - [1.0, 2.0]) ** 2))
        assert float(step(tf.constant(x))) == pytest.approx(expected, rel=1e-5)


def test_examples_in_another_order_are_the_same_data() -> None:
    x, y = regression_data()
    losses = {}
    for shuffle in (False, True):
        model = compiled(learner())
        model.fit(x, y, batch_size=len(x), epochs=12, verbose=0, shuffle=shuffle)
        losses[shuffle] = [d.loss_after for d in model.optimizer.decisions]
        assert all(d.loss_after <= d.loss for d in model.optimizer.decisions)
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-3)


def test_fit_does_not_take_the_gradients_that_it_is_handed() -> None:
    """TensorFlow leaves out of a graph what nobody takes: a step computes one gradient."""
    handed = []

    class Kept(keras.Sequential):
        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.optimizer.scale_loss(tf.reduce_mean(tf.square(self(x) - y)))
            handed.extend(tape.gradient(loss, self.trainable_variables))
            self.optimizer.apply(handed, self.trainable_variables)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    model = Kept([keras.layers.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    model.compile(optimizer=learner())
    fit(model, 5)
    assert all(d.accepted for d in model.optimizer.decisions)
    assert len(handed) == 4 and not any(gradient.consumers() for gradient in handed)


def test_dropout_masks_do_not_change_within_a_step() -> None:
    model = compiled(learner(), extra=[keras.layers.Dropout(0.3, seed=1)])
    fit(model, 10)
    assert all(d.loss_after <= d.loss for d in model.optimizer.decisions)


def test_mini_batches_train_and_no_batch_gets_worse() -> None:
    model = compiled(learner())
    x, y = regression_data(96)
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, batch_size=32, epochs=15, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 0.1 * before
    assert all(d.loss_after <= d.loss for d in model.optimizer.decisions)


@pytest.mark.slow
def test_fit_and_minimize_take_the_same_steps() -> None:
    x, y = regression_data()
    fitted, minimized = compiled(learner()), compiled(learner())
    losses = fit(fitted, 12)
    optimizer, variables = minimized.optimizer, minimized.trainable_variables
    step = tf.function(
        lambda: optimizer.minimize(
            lambda: keras.losses.MeanSquaredError()(y, minimized(x)), variables
        ),
        autograph=False,
    )
    np.testing.assert_allclose([float(step()) for _ in range(12)], losses, rtol=1e-4)


@pytest.mark.slow
def test_xla_takes_the_same_steps() -> None:
    plain = fit(compiled(learner(), jit_compile=False), 18)
    np.testing.assert_allclose(fit(compiled(learner(), jit_compile=True), 18), plain, rtol=1e-2)


@pytest.mark.parametrize(
    "update", [pytest.param("bfgs", marks=pytest.mark.slow), "ssbfgs", "lbfgs"]
)
def test_resumed_training_is_bit_for_bit_the_same(update: str, tmp_path: Any) -> None:
    model = compiled(learner(update))
    fit(model, 5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert fit(loaded, 20) == fit(model, 20)
    np.testing.assert_array_equal(
        get_flat(loaded.trainable_variables), get_flat(model.trainable_variables)
    )


def test_train_step_is_exported_and_trains_on(tmp_path: Any) -> None:
    problem = Rosenbrock()
    optimizer = learner()
    optimizer.build([problem.w])
    module = tf.Module()
    module.w, module.state = problem.w, [v.value for v in optimizer.variables]
    module.step = tf.function(
        lambda: optimizer.minimize(problem.loss, [problem.w]), input_signature=[], autograph=False
    )
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    losses = [float(loaded.step()) for _ in range(80)]
    assert losses[-1] < 1e-10 * losses[0]


def test_clipped_steps_are_short_and_lower_the_loss() -> None:
    problem = Rosenbrock()
    optimizer = learner(clipnorm=0.01)
    step = problem.stepper(optimizer)
    for _ in range(10):
        before = problem.w.numpy()
        step()
        assert np.linalg.norm(problem.w.numpy() - before) <= 0.01 * (1 + 1e-6)
    assert all(d.accepted and d.loss_after < d.loss for d in optimizer.decisions)


def test_constraints_hold_and_the_loss_falls() -> None:
    w = keras.Variable([2.0, 1.0], dtype="float64")
    w.constraint = keras.constraints.NonNeg()
    optimizer = learner()
    target = tf.constant([3.0, -1.0], tf.float64)
    step = tf.function(
        lambda: optimizer.minimize(lambda: tf.reduce_sum(tf.square(w - target)), [w]),
        autograph=False,
    )
    losses = [float(step()) for _ in range(20)]
    assert losses == sorted(losses, reverse=True)
    assert (w.numpy() >= 0).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("rate", [0.25, 2.0])
def test_learning_rate_is_a_factor_of_the_step_that_is_tried_first(rate: float) -> None:
    problem = Rosenbrock()
    optimizer = learner(learning_rate=rate)
    step = problem.stepper(optimizer)
    for _ in range(150):
        step()
    np.testing.assert_allclose(problem.w.numpy(), np.ones(4), rtol=1e-6)
    assert all(d.loss_after <= d.loss for d in optimizer.decisions)


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    w = tf.Variable([1.0, 2.0])
    optimizer = learner()

    @tf.function
    def step(x: tf.Tensor) -> tf.Tensor:
        return optimizer.minimize(lambda: tf.reduce_sum(tf.square(x * w - 1)), [w])

    step(tf.constant([1.0, 2.0]))
    step(tf.constant([1.0, 2.0]))
    learned = [v for v in optimizer.variables if "inverse" in v.name or "last" in v.name]
    kept = [np.array(v) for v in (w, *learned)]
    with pytest.raises(tf.errors.InvalidArgumentError, match="has NaN or Inf"):
        step(tf.constant([np.nan, 1.0]))
    for variable, before in zip((w, *learned), kept, strict=True):
        np.testing.assert_array_equal(np.array(variable), before)


@pytest.mark.slow
def test_a_frozen_layer_stays_and_its_inverse_waits() -> None:
    model = compiled(learner())
    fit(model, 3)
    model.get_layer("hidden").trainable = False
    model.compile(optimizer=model.optimizer, loss="mse")
    kernel = model.get_layer("hidden").kernel.numpy()
    losses = fit(model, 5)
    np.testing.assert_array_equal(model.get_layer("hidden").kernel.numpy(), kernel)
    assert losses[-1] < losses[0]


def test_edited_gradients_are_an_error() -> None:
    class Halving(keras.Sequential):
        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.optimizer.scale_loss(tf.reduce_mean(tf.square(self(x) - y)))
            variables = self.trainable_variables
            gradients = [0.5 * g for g in tape.gradient(loss, variables)]
            self.optimizer.apply(gradients, variables)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    model = Halving([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer=learner())
    with pytest.raises(tf.errors.InvalidArgumentError, match="are not those of the recorded loss"):
        fit(model, 1)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"blocks": "layer"}, "blocks"),
        ({"damping": Adaptive(0.1)}, "damping"),
        ({"damping": "constant"}, "damping"),
        ({"sparsity": 3}, "sparsity"),
        ({"scheduler": Scheduler()}, "scheduler"),
        ({"update_every": 2}, "update_every"),
    ],
)
def test_arguments_without_effect_are_errors(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"Argument `{name}` has no effect.*Received: {name}="):
        QNewton(curvature="quasi_newton", **arguments)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"update": "dfp"}, "update"),
        ({"history": 0}, "history"),
        ({"max_size": 2.5}, "max_size"),
        ({"line_search": "wolfe"}, "line_search"),
    ],
)
def test_argument_errors(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"Argument `{name}` must be .*Received: {name}="):
        QuasiNewton(**arguments)


@pytest.mark.parametrize(
    "optimizer",
    [
        QNewton(curvature="quasi_newton"),
        QNewton(0.5, curvature=QuasiNewton("ssbroyden", 7, 99, StrongWolfe(1e-3, 0.5, 9))),
        QNewton(curvature="quasi_newton", blocks=Blocks("full"), clipnorm=1.0),
    ],
    ids=["default", "objects", "blocks"],
)
def test_config_round_trip(optimizer: QNewton) -> None:
    config = optimizer.get_config()
    assert QNewton.from_config(config).get_config() == config
    through_keras = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert through_keras.get_config() == config


def test_an_inverse_that_does_not_fit_leaves_the_optimizer_unbuilt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("keras_qnewton.step.method.available_memory", lambda: 1e3)
    optimizer = learner()
    with pytest.raises(ValueError, match="enough for a dense one of 11 weights"):
        optimizer.build([tf.Variable(tf.zeros([20]))])
    assert not optimizer.built


def test_newton_log_counts_evaluations() -> None:
    model = compiled(learner())
    x, y = regression_data()
    history = model.fit(
        x, y, batch_size=len(x), epochs=3, verbose=0, callbacks=[NewtonLog()]
    ).history
    assert len(history["evaluations"]) == 3
    assert "damping" not in history


def test_explain_says_that_an_inverse_is_learned() -> None:
    model = compiled(learner())
    text = str(explain(model, *regression_data()))
    assert "learned inverse Hessian (ssbfgs)" in text
    assert "no linear system" in text


def test_nothing_is_there_to_be_priced() -> None:
    problem = Rosenbrock()
    optimizer = learner()
    problem.stepper(optimizer)()
    with pytest.raises(ValueError, match="quasi-Newton steps solve none"):
        project(optimizer.decisions, 1e-9)


@pytest.mark.slow
def test_small_batches_do_not_undo_one_another() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 3)).astype("float32")
    y = (np.sin(x @ [1.0, -0.5, 0.3]) + 0.3 * rng.normal(size=256))[:, None].astype("float32")
    model = compiled(learner())
    losses = model.fit(x, y, batch_size=8, epochs=12, verbose=0).history["loss"]
    # The noise's variance is 0.09; batches of eight have as many points as four weights' share.
    assert max(losses[6:]) < 0.2


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_the_loss_is_learned(scale: float) -> None:
    problem = Rosenbrock(scale=scale)
    step = problem.stepper(learner())
    for _ in range(120):
        step()
    np.testing.assert_allclose(problem.w.numpy(), np.ones(4), rtol=1e-5)


@pytest.mark.parametrize("dtype, power", [("float64", 60), ("float32", 30)])
@pytest.mark.parametrize("update", ["ssbfgs", "lbfgs"])
def test_steps_do_not_depend_on_a_power_of_two_on_the_loss(
    update: str, dtype: str, power: int
) -> None:
    found = []
    for scale in (1.0, 2.0**-3, 2.0**power, 2.0**-power):
        problem = Rosenbrock(dtype=dtype, scale=scale)
        step = problem.stepper(learner(update))
        weights = []
        for _ in range(12):
            step()
            weights.append(problem.w.numpy())
        found.append(np.array(weights))
    for others in found[1:]:
        np.testing.assert_array_equal(others, found[0])
