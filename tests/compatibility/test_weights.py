"""What is trained: frozen, cloned, quantised, averaged.

Each test is a row of `docs/compatibility.md`.
"""

import keras
import numpy as np
import pytest

from keras_qnewton import QNewton
from tests.compatibility.cells import cell, compiled, falls, fitted, small


@cell("Weights", "a layer frozen before `compile`, and again with a second `compile`")
def test_freezing_and_recompiling():
    model = small()
    model.get_layer("hidden").trainable = False
    frozen = model.get_layer("hidden").get_weights()[0]
    fitted(compiled(model))
    np.testing.assert_array_equal(frozen, model.get_layer("hidden").get_weights()[0])
    model.get_layer("hidden").trainable = True
    assert falls(fitted(compiled(model)))
    assert np.any(frozen != model.get_layer("hidden").get_weights()[0])


@cell("Weights", "a layer frozen without a second `compile`: left out from the next trace on")
def test_freezing_without_recompiling():
    model = compiled()
    fitted(model, epochs=1)
    model.get_layer("hidden").trainable = False
    model.make_train_function(force=True)
    frozen = model.get_layer("hidden").get_weights()[0]
    losses = fitted(model)
    np.testing.assert_array_equal(frozen, model.get_layer("hidden").get_weights()[0])
    assert losses[-1] <= losses[0]


@cell("Weights", "`clone_model`")
@pytest.mark.slow
def test_cloned_models():
    model = compiled()
    fitted(model)
    assert falls(fitted(compiled(keras.models.clone_model(model))))


@cell("Weights", "LoRA (`enable_lora`)")
@pytest.mark.slow
def test_lora():
    model = small()
    model.get_layer("hidden").enable_lora(1)
    kernel = keras.ops.convert_to_numpy(model.get_layer("hidden")._kernel)
    losses = fitted(compiled(model))
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(
        kernel, keras.ops.convert_to_numpy(model.get_layer("hidden")._kernel)
    )


@cell("Weights", "quantised layers (`quantize('int8')`): what is left trainable")
@pytest.mark.slow
def test_quantised_layers():
    model = small()
    model.get_layer("hidden").quantize("int8")
    losses = fitted(compiled(model))
    assert losses[-1] < losses[0]


@cell("Weights", "`set_weights` between steps")
def test_weights_set_between_steps():
    model = compiled()
    start = model.get_weights()
    first = fitted(model)
    model.set_weights(start)
    again = fitted(model)
    assert falls(again) and again[0] == pytest.approx(first[0], rel=1e-5)


@cell("Weights", "averages of weights: `use_ema`, `ema_overwrite_frequency`, `SwapEMAWeights`")
@pytest.mark.slow
def test_averages_of_weights():
    model = compiled(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    assert falls(fitted(model, epochs=8))
    model = compiled(use_ema=True, ema_momentum=0.5)
    assert falls(fitted(model, epochs=8, callbacks=[keras.callbacks.SwapEMAWeights()]))


@cell("Weights", "`weight_decay` with `exclude_from_weight_decay`")
def test_weight_decay_with_exceptions():
    model = compiled(weight_decay=0.01)
    model.optimizer.exclude_from_weight_decay(var_names=["bias"])
    assert falls(fitted(model))


@cell(
    "Weights",
    "`MultiOptimizer`: QNewton for some variables, Adam for others",
)
def test_two_optimizers():
    model = small()
    newton = QNewton()
    rules = keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.01))
    rules[".*hidden/.*"] = newton
    model.compile(loss="mse", optimizer=keras.optimizers.MultiOptimizer(rules))
    losses = fitted(model, epochs=8)
    assert losses[-1] < losses[0] and len(newton.decisions) == 8
