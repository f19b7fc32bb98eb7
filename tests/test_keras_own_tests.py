"""Keras's own tests of optimizers, of the installed version, with QNewton in the place of theirs.

Those that hand over numbers as gradients of no loss are not among them: QNewton refuses these.
"""

import unittest

import keras
import pytest

# Not every version of Keras has them.
multi_optimizer_test = pytest.importorskip("keras.src.optimizers.multi_optimizer_test")

from keras.src.optimizers import adam_test, loss_scale_optimizer_test, optimizer_test

from keras_qnewton import QNewton

SUITES = {
    optimizer_test.OptimizerTest: [
        "test_clip_args",
        "test_clip_norm",
        "test_clip_value",
        "test_global_clip_norm",
        "test_pickleable_optimizers0",
        "test_tf_checkpointing",
    ],
    adam_test.AdamTest: ["test_clip_norm", "test_clip_value"],
    multi_optimizer_test.MultiOptimizerTest: [
        "test_default_fallback",
        "test_multi_optimizer_initialization",
        "test_optimizer_map_matching",
    ],
    loss_scale_optimizer_test.LossScaleOptimizerTest: [
        "test_serialization",
        "test_init_unsupported_arg",
    ],
}


@pytest.fixture
def qnewton_for_theirs(monkeypatch):
    for name in ("SGD", "Adam", "RMSprop"):
        monkeypatch.setattr(keras.src.optimizers, name, QNewton)
    monkeypatch.setattr(
        keras.src.optimizers,
        "get",
        lambda given: QNewton() if isinstance(given, str) else given,
    )
    monkeypatch.setattr(adam_test, "Adam", QNewton)
    monkeypatch.setattr(loss_scale_optimizer_test, "SGD", QNewton)


@pytest.mark.filterwarnings("ignore:.*Newton's own learning rate")
@pytest.mark.parametrize(
    ("suite", "name"),
    [(suite, name) for suite, names in SUITES.items() for name in names],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_passes(suite, name, qnewton_for_theirs):
    result = unittest.TestResult()
    suite(name).run(result)
    assert result.testsRun == 1 and not result.skipped
    assert not [text for _, text in result.errors + result.failures]
