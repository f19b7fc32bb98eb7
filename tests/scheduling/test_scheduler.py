"""The choice of a route: rules, crossing, graph, explanation, serialisation, errors."""

import json
import math
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import registry
from keras_qnewton.scheduling import AsymptoticQLSA, DetailedQLSA, LUTime, Scheduler, calibration
from keras_qnewton.scheduling.reasons import Rule
from keras_qnewton.types import Decision


@keras.saving.register_keras_serializable(package="test_scheduler")
class Classical:
    name = "classical"
    host = False

    def solve(self, matrix, rhs):
        raise AssertionError("a scheduler solves nothing")

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="test_scheduler")
class Quantum(Classical):
    name = "quantum"
    host = True

    def __init__(self, extra=2):
        self.extra = extra

    def qubits(self, size):
        return math.ceil(math.log2(size)) + self.extra

    def get_config(self):
        return {"extra": self.extra}


LU_SECONDS = LUTime(coefficients=(2e-11, 3e-9, 1e-5))


def scheduler(**arguments):
    defaults = {
        "classical": Classical(),
        "quantum": Quantum(),
        "cost": AsymptoticQLSA(),
        "classical_cost": LU_SECONDS,
    }
    return Scheduler(**{**defaults, **arguments})


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(2, 5000),
    log_kappa=st.floats(0, 6),
    d=st.integers(1, 5000),
    log_gate_time=st.floats(-15, -5),
    max_kappa=st.floats(1, 1e6),
    max_qubits=st.integers(1, 15),
)
def test_quantum_iff_all_three_conditions(size, log_kappa, d, log_gate_time, max_kappa, max_qubits):
    kappa = 10.0**log_kappa
    chooser = scheduler(
        gate_time=10.0**log_gate_time, max_condition_number=max_kappa, max_qubits=max_qubits
    )
    decision = chooser.choose(size, kappa, d)
    quantum = AsymptoticQLSA().seconds(size, kappa, d, 10.0**log_gate_time)
    classical = LU_SECONDS.seconds(size)
    assert decision.predicted == {"classical": float(classical), "quantum": float(quantum)}
    expected = (
        kappa <= max_kappa
        and Quantum().qubits(size) <= max_qubits
        and float(quantum) < float(classical)
    )
    assert (decision.route == "quantum") == expected
    if decision.route == "quantum":
        assert "quantum" in chooser.possible(size)


@pytest.mark.parametrize("cost", [AsymptoticQLSA(), DetailedQLSA(), AsymptoticQLSA(readout=True)])
@pytest.mark.parametrize("size, kappa, d", [(8, 2.0, 3), (64, 50.0, 64), (1000, 900.0, 10)])
def test_route_flips_where_the_predictions_cross(cost, size, kappa, d):
    def route(gate_time):
        return scheduler(cost=cost, gate_time=gate_time).choose(size, kappa, d).route

    fast, slow = 1e-30, 1.0
    assert (route(fast), route(slow)) == ("quantum", "classical")
    while slow / fast > 1 + 1e-14:
        middle = math.sqrt(fast * slow)
        if middle in (fast, slow):
            break
        fast, slow = (middle, slow) if route(middle) == "quantum" else (fast, middle)
    crossing = float(LU_SECONDS.seconds(size)) / float(cost.seconds(size, kappa, d, 1.0))
    assert fast == pytest.approx(crossing, rel=1e-12)
    assert slow == pytest.approx(crossing, rel=1e-12)


def test_equal_predictions_stay_classical():
    decision = scheduler(
        cost=lambda *_: 1.0, classical_cost=LUTime(coefficients=(0, 0, 1.0))
    ).choose(10, 5.0, 3)
    assert decision.route == "classical"


@pytest.mark.parametrize("kappa", [1.0, 30.0, 1e4, 1.0001e4, 1e30, math.inf, math.nan, 0.0, -5.0])
@pytest.mark.parametrize("gate_time", [1e-14, 1e-3])
@pytest.mark.parametrize("size", [1, 2, 100, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_graph_decides_as_eagerly(kappa, gate_time, size, dtype):
    chooser = scheduler(gate_time=gate_time)
    kappa = float(np.asarray(kappa, dtype))
    eager = [x.numpy() for x in chooser.choose_index(size, kappa, 7)]
    run = tf.function(lambda k, d: chooser.choose_index(size, k, d))
    in_graph = run(tf.constant(kappa, dtype), tf.constant(7))
    assert [x.dtype for x in in_graph] == [tf.int32, tf.float64, tf.int32]
    assert int(in_graph[0]) == eager[0] and int(in_graph[2]) == eager[2]
    np.testing.assert_allclose(in_graph[1], eager[1], rtol=1e-13)
    assert chooser.choose(size, kappa, 7).route == chooser.routes[eager[0]]


def test_one_graph_takes_both_routes_at_run_time():
    chooser = scheduler(gate_time=1e-11)
    run = tf.function(lambda k: chooser.choose_index(100, k, 10)[0])
    kappas = [2.0, 1e3, 9e3, 1e5, math.nan]
    indices = [int(run(tf.constant(k, tf.float64))) for k in kappas]
    assert indices == [1, 1, 1, 0, 0]
    slow = scheduler(gate_time=1e-8)
    run_slow = tf.function(lambda k: slow.choose_index(100, k, 10)[0])
    assert [int(run_slow(tf.constant(k, tf.float64))) for k in kappas] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "arguments, size, kappa, rule, sentence",
    [
        ({"quantum": None}, 50, 10.0, Rule.CLASSICAL_ONLY, "classical is the only solver"),
        ({}, 1, 1.0, Rule.ONE_UNKNOWN, "N = 1 is a single division"),
        (
            {"max_qubits": 12},
            4096,
            10.0,
            Rule.TOO_MANY_QUBITS,
            "quantum needs 14 qubits for N = 4096, more than max_qubits = 12",
        ),
        ({}, 50, math.nan, Rule.CONDITION_UNKNOWN, "κ = nan is not a usable"),
        ({}, 50, math.inf, Rule.CONDITION_UNKNOWN, "κ = inf is not a usable"),
        ({}, 50, -3.0, Rule.CONDITION_UNKNOWN, "κ = -3 is not a usable"),
        (
            {},
            50,
            3.2e5,
            Rule.CONDITION_TOO_LARGE,
            "κ = 3.2e+05 is above max_condition_number = 1e+04",
        ),
        (
            {"gate_time": 1e-14},
            50,
            10.0,
            Rule.QUANTUM_FASTER,
            "quantum: 8.9e-12 s predicted, classical: 2e-05 s (N = 50, κ = 10, d = 4)",
        ),
        (
            {"gate_time": 1.0},
            50,
            10.0,
            Rule.CLASSICAL_FASTER,
            "classical: 2e-05 s predicted, quantum: 890 s (N = 50, κ = 10, d = 4)",
        ),
    ],
)
def test_every_rule_has_its_sentence(arguments, size, kappa, rule, sentence):
    chooser = scheduler(**arguments)
    index, predicted, code = chooser.choose_index(size, kappa, 4)
    assert int(code) == rule
    assert int(index) == (rule is Rule.QUANTUM_FASTER)
    decision = chooser.choose(size, kappa, 4)
    assert decision.reason.startswith(sentence)
    # From the log's numbers, later: an array and a mapping say the same.
    assert chooser.explain(int(code), size, kappa, 4.0, predicted) == decision.reason


def test_decision_is_complete_and_fit_for_json():
    decision = scheduler().choose(64, 12.5, 9)
    assert isinstance(decision, Decision)
    assert (decision.size, decision.condition_number, decision.sparsity) == (64, 12.5, 9)
    assert json.loads(json.dumps(decision.to_dict(), allow_nan=False))["route"] == decision.route
    json.dumps(scheduler().choose(64, math.nan, 9).to_dict(), allow_nan=False)


def test_classical_only_prices_and_calibrates_nothing(monkeypatch):
    def fail(*_):
        raise AssertionError("calibrated")

    monkeypatch.setattr(calibration, "coefficients", fail)
    chooser = Scheduler(classical=Classical(), quantum=None)
    assert chooser.routes == ("classical",) == chooser.possible(100)
    assert chooser.choose(100, 10.0, 5).predicted == {}
    index, predicted, _ = tf.function(lambda: chooser.choose_index(100, 10.0, 5))()
    assert int(index) == 0 and predicted.shape == (1,) and np.isnan(predicted).all()
    with pytest.raises(AssertionError, match="calibrated"):
        chooser.predict(100, 10.0, 5)  # asked for by name, it is


def test_possible_is_what_a_graph_must_hold():
    chooser = scheduler(max_qubits=8)
    assert chooser.routes == ("classical", "quantum")
    assert chooser.possible(64) == ("classical", "quantum")  # 6 + 2
    assert chooser.possible(65) == ("classical",)
    assert chooser.possible(1) == ("classical",)


def test_sparsity_and_condition_number_below_one_count_as_one():
    chooser = scheduler()
    expected = chooser.predict(16, 1.0, 1)
    np.testing.assert_array_equal(chooser.predict(16, 1 - 1e-9, 0), expected)


@pytest.mark.parametrize("quantum", [None, Quantum(extra=5)])
@pytest.mark.parametrize("cost", ["detailed", DetailedQLSA(1e-2, readout=True)])
def test_config_round_trip(quantum, cost):
    original = scheduler(
        quantum=quantum,
        cost=cost,
        gate_time=3e-12,
        max_condition_number=77.0,
        max_qubits=9,
        tolerance=1e-3,
    )
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == original.get_config()
    assert again.routes == original.routes and again.tolerance == 1e-3
    for size, kappa in ((8, 5.0), (8, 80.0), (256, 5.0)):
        assert again.choose(size, kappa, 3) == original.choose(size, kappa, 3)


def test_names_are_resolved_through_the_registry(monkeypatch):
    solvers = {"solver": {"classical": Classical, "quantum": Quantum}}
    monkeypatch.setattr(registry, "_REGISTRY", {**registry._REGISTRY, **solvers})
    chooser = Scheduler(classical="classical", quantum="quantum", cost="detailed")
    assert chooser.routes == ("classical", "quantum")
    assert type(chooser.cost) is DetailedQLSA
    assert [type(model) for model in chooser.classical_cost] == [LUTime]
    assert chooser.quantum is chooser.quantum
    with pytest.raises(ValueError, match="`quantum` must be one of 'classical', 'quantum'"):
        Scheduler(classical="classical", quantum="quatnum")


def test_names_wait_until_solvers_are_registered(monkeypatch):
    others = {kind: names for kind, names in registry._REGISTRY.items() if kind != "solver"}
    monkeypatch.setattr(registry, "_REGISTRY", others)
    chooser = Scheduler(classical="classical", quantum="quantum", classical_cost=LU_SECONDS)
    with pytest.raises(ValueError, match="Argument `classical` must be a registered name"):
        _ = chooser.classical
    registry.register("solver", "classical")(Classical)
    registry.register("solver", "quantum")(Quantum)
    assert chooser.choose(10, 3.0, 2).route in chooser.routes == ("classical", "quantum")


def test_a_cost_model_of_ones_own():
    class Free:
        seen: ClassVar[list] = []

        def seconds(self, size, condition_number, sparsity, gate_time):
            self.seen.append((size, float(condition_number), float(sparsity), gate_time))
            return 0.0

    decision = scheduler(cost=Free(), gate_time=1e-7).choose(20, 4.0, 3)
    assert decision.route == "quantum" and Free.seen[-1] == (20, 4.0, 3.0, 1e-7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"gate_time": 0}, "`gate_time` must be a positive number of seconds"),
        ({"gate_time": math.inf}, "`gate_time` must be a positive number of seconds"),
        ({"gate_time": "fast"}, "`gate_time` must be a positive number of seconds"),
        ({"gate_time": True}, "`gate_time` must be a positive number of seconds"),
        ({"max_condition_number": 0.5}, "`max_condition_number` must be a number, at least 1"),
        ({"max_condition_number": math.nan}, "`max_condition_number` must be"),
        ({"max_qubits": 0}, "`max_qubits` must be a positive integer"),
        ({"max_qubits": 2.5}, "`max_qubits` must be a positive integer"),
        ({"tolerance": -1.0}, "`tolerance` must be a positive number"),
        (
            {"cost": "free"},
            "`cost` must be one of 'asymptotic', 'cg_time', 'circuit', 'detailed', 'few_prep",
        ),
        ({"cost": 3}, "`cost` must be a registered name, a function or an object with `seconds`"),
        ({"classical": None}, "`classical` must be a registered name or an object"),
        ({"classical": Classical}, "`classical` must be a registered name or an object"),
        ({"quantum": Classical()}, "`quantum` must be .* with `name`, `host`, `solve`, `qubits`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match="Argument " + message + ".*Received"):
        scheduler(**arguments)


def test_two_routes_of_one_name():
    other = Quantum()
    other.name = "classical"
    with pytest.raises(ValueError, match="`quantum` must be another solver than `classical`"):
        scheduler(quantum=other)


@pytest.mark.parametrize("size, d, name", [(0, 1, "size"), (2.5, 1, "size"), (4, 0, "sparsity")])
def test_bad_systems(size, d, name):
    with pytest.raises(ValueError, match=f"Argument `{name}` must be a positive integer"):
        scheduler().choose(size, 10.0, d)


def test_choose_inside_a_graph_says_what_to_use():
    with pytest.raises(RuntimeError, match="choose_index"):
        tf.function(lambda: scheduler().choose(4, 2.0, 2).route)()
