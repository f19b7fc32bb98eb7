"""κ by a named estimator: what it finds decides, and is logged."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Constant, QNewton, Scheduler
from keras_qnewton.directions import FIXED_ROUTES
from keras_qnewton.scheduling import LUTime
from keras_qnewton.solvers import QSVT
from keras_qnewton.types import Solution
from tests.blocks import ScheduledBlock

MATRIX = np.diag([4.0, 1.0, 0.5, 0.1]) + 0.05
EPSILON = 0.02
# With the shift that `Constant` adds.
SYSTEM = MATRIX + EPSILON * np.abs(MATRIX).max() * np.eye(4)


def bound(matrix):
    """Piazza & Politi 2002, written down as it is printed."""
    n = len(matrix)
    t = (n / np.sum(matrix**2)) ** n * np.linalg.det(matrix) ** 2
    return (1 + math.sqrt(1 - t)) / math.sqrt(t)


def decision(**settings):
    """Of one step on w.A w/2, A being `MATRIX`."""
    w = tf.Variable(np.ones(4))
    scheduler = Scheduler(classical_cost=LUTime(coefficients=(1e-9, 0, 0)), **settings)
    optimizer = QNewton(curvature="hessian", damping=Constant(EPSILON), scheduler=scheduler)
    optimizer.minimize(lambda: tf.tensordot(w, tf.linalg.matvec(MATRIX, w), 1) / 2, [w])
    (made,) = optimizer.decisions
    return made


@pytest.mark.parametrize(
    "estimator, expected, tolerance",
    [
        ("exact", np.linalg.cond(SYSTEM), 1e-9),
        ("lanczos", np.linalg.cond(SYSTEM), 1e-2),
        ("norm_det", bound(SYSTEM), 1e-3),
    ],
)
def test_condition_number_is_the_estimators(estimator, expected, tolerance):
    made = decision(quantum=None, estimator=estimator)
    assert made.condition_number == pytest.approx(expected, rel=tolerance)
    assert made.conditioning_seconds is None
    assert made.residual < 1e-12


def test_condition_number_decides():
    """A limit between κ and the bound of it lets a circuit have the system, or not."""
    limit = math.sqrt(np.linalg.cond(SYSTEM) * bound(SYSTEM))
    assert np.linalg.cond(SYSTEM) < 0.7 * limit
    quantum = {
        "quantum": QSVT(backend="emulator"),
        "gate_time": 1e-18,
        "max_condition_number": limit,
    }
    assert decision(estimator="exact", **quantum).route == "qsvt"
    refused = decision(estimator="norm_det", **quantum)
    assert refused.route == "lu"
    assert refused.reason.startswith(f"κ = {refused.condition_number:.3g} is above")


@pytest.mark.parametrize("estimator", [None, "exact"])
def test_config_round_trip(estimator):
    original = Scheduler(quantum=None, estimator=estimator)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    again = keras.saving.deserialize_keras_object(saved)
    assert again.estimator == estimator and again.get_config() == original.get_config()


def test_configs_from_before_there_were_estimators():
    config = Scheduler(quantum=None).get_config()
    del config["estimator"]
    assert Scheduler.from_config(config).estimator is None


@pytest.mark.parametrize("bad", ["cond", 3, True, ["exact"]])
def test_bad_estimator(bad):
    with pytest.raises(ValueError, match=r"Argument `estimator` must be one of 'exact'.*Received"):
        Scheduler(estimator=bad)


def test_a_loose_estimate_explains_no_residual():
    """What rounding may leave goes by the matrix, not by a bound on κ of any size."""

    class Sloppy:
        name, host = "sloppy", False

        def solve(self, matrix, rhs):
            x = 1.02 * tf.linalg.solve(matrix, rhs[:, None])[:, 0]
            return Solution(x, tf.constant(0.02, tf.float64), self.name)

    size = 60
    matrix = tf.linalg.diag(tf.constant(np.geomspace(1e-3, 1, size)))
    prices = {"sloppy": lambda *_: 1e-9, "lu": lambda *_: 1.0}
    scheduler = Scheduler(
        classical=(Sloppy(), "lu"), quantum=None, classical_cost=prices, estimator="norm_det"
    )
    block = ScheduledBlock(matrix, tf.ones([size], tf.float64), scheduler=scheduler)
    step = tf.function(block.solve, autograph=False)(tf.constant(1e-3, tf.float64))
    # 8 u κ, by the bound, is beyond the limit of what rounding is taken for.
    assert float(step.condition_number) * 2.0**-50 > 0.02
    routes = (*FIXED_ROUTES, *scheduler.routes)
    assert (routes[int(step.route)], routes[int(step.solved_by)]) == ("sloppy", "lu")
