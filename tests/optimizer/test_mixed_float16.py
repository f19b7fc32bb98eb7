"""mixed_float16 as `compile` sets it up: a `LossScaleOptimizer` around QNewton."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Blocks, NewtonLog, QNewton, explain
from keras_qnewton.run_file import runs_of_file
from tests.optimizer.models import L, regression_data


def model_of(loss, units=4, outputs=1, **arguments):
    keras.utils.set_random_seed(0)
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    layers = [L.Dense(units, activation="tanh", dtype=policy), L.Dense(outputs, dtype=policy)]
    model = keras.Sequential([L.Input((3,)), *layers])
    optimizer = keras.optimizers.LossScaleOptimizer(QNewton(**arguments))
    model.compile(optimizer, loss)
    return model


def trained(model, steps, small=1.0):
    x, y = regression_data()
    y = small * y
    fit = model.fit(x, y, batch_size=len(x), epochs=steps, shuffle=False, verbose=0)
    return fit.history["loss"]


def test_an_overflow_halves_the_scale_and_leaves_the_rest():
    model = model_of("mse")
    losses = trained(model, 6)
    assert losses[-1] < 0.3 * losses[0]
    decisions = model.optimizer.inner_optimizer.decisions
    np.testing.assert_allclose([d.loss for d in decisions], losses, rtol=1e-3)
    # From here on half precision has no number for the gradients.
    scale = model.optimizer.dynamic_scale
    scale.assign(2.0**40)
    kept = [*model.variables[:4], *model.optimizer.inner_optimizer.variables]
    before = [v.numpy() for v in kept]
    trained(model, 2)
    assert float(scale) == 2.0**38
    for now, then in zip(kept, before, strict=True):
        np.testing.assert_array_equal(now.numpy(), then)
    scale.assign(2.0**12)
    assert trained(model, 3)[-1] < losses[-1]
    assert len({d.step for d in model.optimizer.inner_optimizer.decisions}) == 9


def test_the_log_and_the_explanation_are_of_the_wrapped_optimizer(tmp_path):
    model = model_of("mse", damping=Adaptive(initial=0.1))
    x, y = regression_data()
    log = NewtonLog(tmp_path / "run.jsonl")
    logs = model.fit(x, y, batch_size=len(x), epochs=2, verbose=0, callbacks=[log]).history
    assert log.decisions == model.optimizer.inner_optimizer.decisions
    assert [d.accepted for d in log.decisions] == [True] * 2 and "damping" in logs
    (run,) = runs_of_file(tmp_path / "run.jsonl")
    assert "initial=0.1" in run.about["settings"]["damping"]
    layers = model_of("mse", blocks="layer")
    assert len(explain(layers, x, y).blocks) == 2


ROUTES = {
    "exact": {"curvature": "hessian"},
    "by layers": {"blocks": "layer"},
    "fisher": {"curvature": "fisher"},
    "woodbury": {"units": 60},
    "not formed": {"blocks": Blocks("full", max_size=2), "curvature": "hessian"},
    "learned": {"curvature": "quasi_newton"},
    "kept": {"update_every": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_divides_the_scale_out(route):
    losses = []
    for scale in (2.0**6, 2.0**15):
        model = model_of("mse", **ROUTES[route])
        model.optimizer.build(model.trainable_variables)
        model.optimizer.dynamic_scale.assign(scale)
        losses.append(trained(model, 5))
        logged = [d.loss for d in model.optimizer.inner_optimizer.decisions]
        np.testing.assert_allclose(logged[:: len(logged) // 5], losses[-1], rtol=2e-3)
    assert losses[0][-1] < 0.8 * losses[0][0]
    np.testing.assert_allclose(*losses, rtol=0.1)


@pytest.mark.slow
def test_a_sparse_gradient_is_divided_too():
    keras.utils.set_random_seed(0)
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    layers = [L.Embedding(5, 3, dtype=policy), L.Flatten(), L.Dense(1, dtype=policy)]
    model = keras.Sequential([L.Input((2,), dtype="int32"), *layers])
    model.compile(keras.optimizers.LossScaleOptimizer(QNewton()), "mse")
    tokens = np.random.default_rng(0).integers(0, 5, (30, 2))
    y = np.sin(tokens).sum(1, keepdims=True)
    losses = model.fit(tokens, y, batch_size=30, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_derivatives_that_vanish_in_half_precision_are_there():
    """Of a loss of 1e-10 float16 has no gradient without a scale."""
    model = model_of(lambda y, p: keras.ops.mean((tf.cast(p, tf.float32) - y) ** 2) * 1e-8)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**36)
    losses = trained(model, 6)
    assert losses[-1] < 0.3 * losses[0]
