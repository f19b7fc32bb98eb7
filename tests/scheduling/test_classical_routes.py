"""The choice among several classical solvers, by injected times."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.scheduling import AsymptoticQLSA, LUTime, Scheduler, SolverTime, calibration
from keras_qnewton.scheduling.reasons import Rule
from keras_qnewton.solvers import LU, Cholesky, Lapack

ROUTES = ("lapack", "cholesky", "lu")
NEED_DEFINITE = {"cholesky"}
SIZES = (10, 100, 1000)


def tables(seconds):
    """A cost model a route, from their times at `SIZES`."""
    return {
        name: SolverTime(name, table=dict(zip(SIZES, times, strict=True)))
        for name, times in zip(ROUTES, seconds, strict=True)
    }


TABLES = tables([(1e-4, 2e-4, 9e-3), (2e-5, 4e-4, 2e-2), (3e-5, 1e-3, 6e-2)])

times = st.floats(1e-7, 1.0)


@settings(max_examples=100, deadline=None)
@given(
    seconds=st.tuples(*[st.tuples(times, times, times)] * 3),
    names=st.permutations(ROUTES),
    count=st.integers(1, 3),
    size=st.sampled_from(SIZES),
    log_kappa=st.floats(0, 6),
    log_gate_time=st.floats(-18, -5),
    quantum=st.booleans(),
    definite=st.booleans(),
)
def test_the_fastest_that_may_take_the_system(
    seconds, names, count, size, log_kappa, log_gate_time, quantum, definite
):
    names, costs = tuple(names[:count]), tables(seconds)
    chooser = Scheduler(
        classical=names,
        quantum="qsvt" if quantum else None,
        gate_time=10.0**log_gate_time,
        classical_cost={name: costs[name] for name in names},
    )
    at = {name: times[SIZES.index(size)] for name, times in zip(ROUTES, seconds, strict=True)}
    able = [n for n in names if definite or n not in NEED_DEFINITE] or list(names)
    # The one that is named first, of equally fast ones.
    prices = {name: at[name] for name in able}
    kappa = 10.0**log_kappa
    if quantum:
        prices["qsvt"] = float(AsymptoticQLSA().seconds(size, kappa, 5, 10.0**log_gate_time))
        if kappa > chooser.condition_limit or chooser.quantum.qubits(size) > chooser.max_qubits:
            expected = min(able, key=prices.__getitem__)
        else:
            expected = min((*able, "qsvt"), key=prices.__getitem__)
    else:
        expected = min(able, key=prices.__getitem__)
    decision = chooser.choose(size, kappa, 5, definite=definite)
    close = sorted(prices.values())
    if len(close) > 1 and close[1] <= close[0] * (1 + 1e-9):
        return  # a table's logarithms round
    assert decision.route == expected
    if quantum or len(able) > 1:
        assert decision.predicted == pytest.approx(prices, rel=1e-9)
    else:
        assert decision.predicted == {}
    assert chooser.routes == (*names, *(["qsvt"] if quantum else []))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    size=st.sampled_from(SIZES),
    log_kappa=st.floats(-1, 6),
    log_gate_time=st.sampled_from([-16.0, -9.0]),
    quantum=st.booleans(),
    definite=st.booleans(),
)
def test_a_graph_decides_as_eagerly(size, log_kappa, log_gate_time, quantum, definite):
    chooser = Scheduler(
        classical=ROUTES,
        quantum="qsvt" if quantum else None,
        gate_time=10.0**log_gate_time,
        classical_cost=TABLES,
    )
    fastest = []

    @tf.function
    def run(kappa, sparsity):
        index, predicted, rule = chooser.choose_index(size, kappa, sparsity, definite)
        fastest.append(chooser.fastest(predicted, definite))
        return index, predicted, rule

    kappa = 10.0**log_kappa
    in_graph = run(tf.constant(kappa, tf.float64), tf.constant(7))
    eager = chooser.choose_index(size, kappa, 7, definite)
    assert [x.dtype for x in in_graph] == [tf.int32, tf.float64, tf.int32]
    assert in_graph[1].shape == len(chooser.routes)
    for a, b in zip(in_graph, eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    # Known while tracing, with or without a price that is not.
    assert isinstance(fastest[0], int)
    assert fastest[0] == chooser.fastest(eager[1], definite)


@keras.saving.register_keras_serializable(package="test_classical_routes")
class GrowsWithKappa:
    """A price that is known when the step runs."""

    def seconds(self, size, condition_number, sparsity, gate_time):
        return 1e-6 * condition_number

    def get_config(self):
        return {}


def test_a_price_that_depends_on_kappa_is_compared_when_the_graph_runs():
    chooser = Scheduler(
        classical=("lu", "cholesky"),
        quantum=None,
        classical_cost={"lu": LUTime(table={1: 1e-3}), "cholesky": GrowsWithKappa()},
    )
    run = tf.function(lambda kappa: chooser.choose_index(2, kappa, 2, definite=True)[0])
    chosen = {k: int(run(tf.constant(k, tf.float64))) for k in (1.0, 9e3, 1e5, math.nan)}
    # 1e-3 · 8 s of LU.
    assert chosen == {1.0: 1, 9e3: 0, 1e5: 0, math.nan: 0}
    for kappa, index in chosen.items():
        assert chooser.choose(2, kappa, 2, definite=True).route == chooser.routes[index]


@pytest.mark.parametrize(
    "classical, first, definite, expected",
    [
        (("lu", "lapack", "cholesky"), 0, True, ["lu", "lapack", "cholesky"]),
        (("lu", "lapack", "cholesky"), 2, True, ["cholesky", "lapack", "lu"]),
        (("lu", "lapack", "cholesky"), 1, False, ["lapack", "lu"]),
        ("auto", 0, True, ["cholesky", "lu"]),
        ("auto", 0, False, ["lu"]),
        # Nothing else to take.
        ("cholesky", 0, False, ["cholesky"]),
    ],
)
def test_lu_is_tried_last(classical, first, definite, expected):
    chooser = Scheduler(classical=classical, quantum=None)
    assert [chooser.routes[k] for k in chooser.attempts(first, definite)] == expected
    assert set(chooser.possible(50, definite)) == set(expected)


def test_auto_stays_in_the_graph_and_possible_names_the_circuit():
    chooser = Scheduler(classical="auto", max_qubits=12)
    assert chooser.routes == ("cholesky", "lu", "qsvt")
    assert not any(solver.host for solver in chooser.classical)
    assert chooser.possible(64) == ("lu", "qsvt")
    assert chooser.possible(65, definite=True) == ("cholesky", "lu")
    assert chooser.leaves_graph(64) and not chooser.leaves_graph(65, definite=True)


@pytest.mark.parametrize(
    "arguments, size, kappa, definite, rule, sentence",
    [
        (
            {"quantum": None},
            100,
            10.0,
            True,
            Rule.CLASSICAL_FASTER,
            "lapack: 0.0002 s predicted, cholesky: 0.0004 s, lu: 0.001 s (N = 100, κ = 10, d = 4)",
        ),
        (
            {"quantum": None},
            100,
            math.nan,
            False,
            Rule.CLASSICAL_FASTER,
            "lapack: 0.0002 s predicted, lu: 0.001 s (N = 100, κ = nan, d = 4)",
        ),
        (
            {},
            10,
            3.2e5,
            True,
            Rule.CONDITION_TOO_LARGE,
            "κ = 3.2e+05 is above the solver's own max_condition_number = 2.06e+03; "
            "cholesky: 2e-05 s predicted, lu: 3e-05 s, lapack: 0.0001 s",
        ),
        (
            {"max_qubits": 4},
            1000,
            10.0,
            False,
            Rule.TOO_MANY_QUBITS,
            "qsvt needs 20 qubits for N = 1000, more than max_qubits = 4; "
            "lapack: 0.009 s predicted, lu: 0.06 s",
        ),
        (
            {"gate_time": 1e-15},
            10,
            10.0,
            True,
            Rule.QUANTUM_FASTER,
            "qsvt: 7.97e-13 s predicted, cholesky: 2e-05 s, lu: 3e-05 s, lapack: 0.0001 s "
            "(N = 10, κ = 10, d = 4)",
        ),
    ],
)
def test_sentences_name_the_prices(arguments, size, kappa, definite, rule, sentence):
    chooser = Scheduler(classical=ROUTES, classical_cost=TABLES, **arguments)
    index, predicted, code = chooser.choose_index(size, kappa, 4, definite)
    assert int(code) == rule
    decision = chooser.choose(size, kappa, 4, definite)
    assert decision.route == chooser.routes[int(index)]
    if rule is Rule.CONDITION_TOO_LARGE:
        limit = f"{chooser.condition_limit:.3g}"
        sentence = sentence.replace("2.06e+03", limit)
    assert decision.reason == sentence
    assert chooser.explain(int(code), size, kappa, 4.0, predicted) == sentence


def test_the_only_one_for_an_indefinite_system_is_not_priced(monkeypatch):
    def fail(*_):
        raise AssertionError("calibrated")

    monkeypatch.setattr(calibration, "coefficients", fail)
    chooser = Scheduler(classical="auto", quantum=None)
    decision = chooser.choose(50, 10.0, 5)
    assert decision.route == "lu" and decision.predicted == {}
    assert decision.reason == (
        "lu is the only solver for a system not known to be positive definite"
    )
    index, predicted, rule = chooser.choose_index(50, 10.0, 5)
    assert (int(index), int(rule)) == (1, Rule.NOT_KNOWN_DEFINITE)
    assert predicted.shape == (2,) and np.isnan(predicted).all()


def test_each_route_is_calibrated_by_its_own_name(monkeypatch):
    asked = []

    def coefficients(solver, dtype):
        asked.append((solver, dtype))
        return {"lu": (1e-9, 0.0, 1e-5), "cholesky": (1e-10, 0.0, 1e-4)}[solver]

    monkeypatch.setattr(calibration, "coefficients", coefficients)
    chooser = Scheduler(classical="auto", quantum=None)
    assert asked == []  # not before it is needed
    assert chooser.choose(10, 5.0, 5, definite=True).route == "lu"
    assert chooser.choose(1000, 5.0, 5, definite=True).route == "cholesky"
    assert set(asked) == {("lu", "float64"), ("cholesky", "float64")}


@pytest.mark.parametrize(
    "classical, costs",
    [
        ("auto", None),
        (ROUTES, TABLES),
        (["lapack", LU(refinements=2), Cholesky(tolerance=0.0)], {"lapack": "lu_time"}),
        (Lapack(), LUTime(table={3: 1.0})),
    ],
)
def test_config_round_trip(classical, costs):
    original = Scheduler(classical=classical, classical_cost=costs, gate_time=1e-12)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == original.get_config()
    assert again.routes == original.routes
    for a, b in zip(again.classical, original.classical, strict=True):
        assert type(a) is type(b) and a.get_config() == b.get_config()
    for a, b in zip(again.classical_cost, original.classical_cost, strict=True):
        assert type(a) is type(b) and a.get_config() == b.get_config()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"classical": ()}, "`classical` must name at least one solver"),
        ({"classical": ("lu", "lu")}, "`classical` must name at least one solver, and none twice"),
        ({"classical": ("lu", 3)}, "`classical` must be a registered name or an object"),
        ({"classical": ("lu", "lo")}, "`classical` must be one of"),
        ({"classical": ("lu", "qsvt")}, "`quantum` must be another solver than `classical`"),
        ({"classical": ("lu", "cg")}, "`classical_cost` must have a cost model for 'cg'"),
        ({"classical_cost": {"qsvt": LUTime()}}, "`classical_cost` must price only the classical"),
        (
            {"classical_cost": {"lu": 3}},
            "`classical_cost` must be a registered name, a function or",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"Argument {message}.*Received"):
        Scheduler(**arguments)


def test_a_solver_whose_time_is_not_known_may_be_priced():
    chooser = Scheduler(
        classical=("lu", "cg"),
        quantum=None,
        classical_cost={"lu": LUTime(table={1: 1e-3}), "cg": GrowsWithKappa()},
    )
    assert chooser.choose(1, 10.0, 1, definite=True).route == "cg"
    assert chooser.choose(1, 1e6, 1, definite=True).route == "lu"
    # Conjugate gradients need a definite system.
    assert chooser.choose(1, 10.0, 1).route == "lu"
