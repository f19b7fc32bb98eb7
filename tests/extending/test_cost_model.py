"""A third party's cost model: one file, one line, and `fit` is scheduled by it."""

import pytest

from keras_qnewton import QNewton, Scheduler
from keras_qnewton.scheduling import AsymptoticQLSA, LUTime
from keras_qnewton.solvers import QSVT
from tests.optimizer.models import compiled, fit

SOURCE = '''
    """A quantum solver whose circuit has one layer for each unknown."""

    import keras

    from keras_qnewton.registry import Policy, register
    from keras_qnewton.scheduling.cost import float64


    @register("cost", "layer_an_unknown")
    @keras.saving.register_keras_serializable(package="third_party")
    class LayerAnUnknown(Policy):
        def seconds(self, size, condition_number, sparsity, gate_time):
            return float64(gate_time) * float64(size)
'''
GATE_TIME, LU_SECONDS = 1e-6, 1e-3


def test_cost_model_of_ones_own(extension):
    """26 µs for 26 weights: less than LU's millisecond, which the paper's model is above."""
    module = extension("layers", SOURCE)
    scheduler = Scheduler(
        quantum=QSVT(backend="emulator"),
        cost="layer_an_unknown",
        gate_time=GATE_TIME,
        classical_cost=LUTime(coefficients=(0.0, 0.0, LU_SECONDS)),
    )
    model = compiled(QNewton(blocks="full", scheduler=scheduler))
    losses = fit(model, steps=3)
    assert losses[-1] < losses[0]
    assert type(scheduler.cost) is module.LayerAnUnknown
    for decision in model.optimizer.decisions:
        prices = {"lu": LU_SECONDS, "qsvt": GATE_TIME * decision.size}
        assert decision.predicted == pytest.approx(prices)
        assert decision.route == "qsvt"
        by_default = AsymptoticQLSA().seconds(
            decision.size, decision.condition_number, decision.sparsity, GATE_TIME
        )
        assert by_default > LU_SECONDS
