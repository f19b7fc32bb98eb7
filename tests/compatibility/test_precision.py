"""Policies of precision.

Each test is a row of `docs/compatibility.md`.
"""

import keras
import pytest

from tests.compatibility.cells import cell, compiled, falls, fitted


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@cell("Precision", "`float64` policy")
def test_double_precision(policy):
    policy("float64")
    assert falls(fitted(compiled()))


@cell("Precision", "`mixed_bfloat16` policy")
def test_mixed_bfloat16(policy):
    policy("mixed_bfloat16")
    assert falls(fitted(compiled(), epochs=8))


@cell("Precision", "`mixed_float16` policy, with the `LossScaleOptimizer` that `compile` makes")
def test_mixed_float16(policy):
    policy("mixed_float16")
    assert falls(fitted(compiled(), epochs=8))


@cell("Precision", "`bfloat16` and `float16` policies: weights in half precision, too")
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_throughout(policy, name):
    policy(name)
    assert falls(fitted(compiled(), epochs=6))
