"""Cost models: check values, and the same numbers in a graph."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import registry
from keras_qnewton.scheduling import (
    AsymptoticQLSA,
    CircuitQLSA,
    DetailedQLSA,
    FewPreparationsQLSA,
    LUTime,
    Scheduler,
    ShortcutQLSA,
    SolverTime,
)
from keras_qnewton.scheduling.cost import CostModel
from keras_qnewton.scheduling.function_cost import FunctionCost
from keras_qnewton.solvers import QSVT

MODELS = {
    "asymptotic": AsymptoticQLSA(1e-3),
    "asymptotic, readout": AsymptoticQLSA(1e-3, readout=True),
    "detailed": DetailedQLSA(1e-3),
    "detailed, readout": DetailedQLSA(1e-3, readout=True),
    "shortcut": ShortcutQLSA(1e-3, known_norm=False, norm_ratio=2.0),
    "few preparations": FewPreparationsQLSA(1e-3),
    "setup": AsymptoticQLSA(setup=LUTime(coefficients=(1e-11, 1e-9, 1e-5))),
    "circuit, setup": CircuitQLSA("qsvt", setup=SolverTime("eigen", coefficients=(1e-10, 0, 0))),
    "circuit": CircuitQLSA("qsvt"),
    "circuit, sparse": CircuitQLSA(QSVT(encoding="sparse"), readout=True, parallel=9),
    "coefficients": LUTime(coefficients=(1e-11, 1e-9, 1e-5)),
    "another solver": SolverTime("eigen", coefficients=(1e-10, 1e-9, 1e-5)),
    "table": LUTime(table={10: 1e-5, 100: 1e-4, 1000: 3e-2}),
}


@pytest.mark.parametrize(
    "kappa, queries, expected", [(10, 2573, 6597), (50, 11663, 29908), (200, 48393, 124091)]
)
def test_detailed_query_counts(kappa, queries, expected):
    """Check values of arXiv:2305.11352's formula at α = 1, ε = 1e-4."""
    model = DetailedQLSA(epsilon=1e-4)
    assert round(float(model.queries(kappa))) == queries
    assert round(float(model.expected_queries(kappa))) == expected


@pytest.mark.parametrize(
    "kappa, known, unknown", [(10, 102.5, 656.7), (50, 512.5, 3283.5), (200, 2050, 13134)]
)
def test_shortcut_query_counts(kappa, known, unknown):
    """Check values of arXiv:2406.12086's leading terms at ε = 1e-4."""
    assert float(ShortcutQLSA().queries(kappa)) == pytest.approx(known, rel=1e-4)
    assert float(ShortcutQLSA(known_norm=False).queries(kappa)) == pytest.approx(unknown, rel=1e-4)
    for ratio, factor in ((2, 1.5625), (0.5, 1.5625), (8, 16.5)):
        wrong = float(ShortcutQLSA(norm_ratio=ratio).queries(kappa))
        assert wrong == pytest.approx(known * factor, rel=1e-2)
    with pytest.raises(ValueError, match=r"`norm_ratio` must be a positive number.*Received"):
        ShortcutQLSA(norm_ratio=0)


def test_detailed_seconds_charge_the_sparse_oracle():
    model = DetailedQLSA(epsilon=1e-4)
    expected = 1e-9 * float(model.expected_queries(50)) * 7 * 8
    assert float(model.seconds(256, 50, 7, 1e-9)) == pytest.approx(expected, rel=1e-12)
    assert float(model.seconds(1, 50, 7, 1e-9)) > 0


def test_block_encoding_normalisation_multiplies_its_terms():
    model = DetailedQLSA()
    once, twice, thrice = (float(model.queries(20.0, alpha)) for alpha in (1, 2, 3))
    assert twice > once
    assert thrice - twice == pytest.approx(twice - once, rel=1e-12)


@pytest.mark.parametrize("p", [0.3, 1e-2, 1e-4])
@pytest.mark.parametrize("kappa", [50.0, 1000.0])
def test_few_preparations_are_low_and_sus_joint_rate(p, kappa):
    """Θ(1/√p) and O(κ log(1/p) (log log(1/p) + log(1/ε))) of arXiv:2410.18178, constants 1."""
    size, d, epsilon = 64, 5, 1e-4
    long = math.log2(1 / p)
    queries = kappa * long * (math.log2(long) + math.log2(1 / epsilon))
    layers = 2**7 - 6 - 2  # of a state on six qubits
    expected = 1e-9 * (queries * d * 6 + layers / math.sqrt(p))
    model = FewPreparationsQLSA(epsilon, success_probability=p)
    assert float(model.seconds(size, kappa, d, 1e-9)) == pytest.approx(expected, rel=1e-12)
    # α multiplies κ, and no solution becomes shorter by it.
    with_alpha = float(model.seconds(size, kappa, d, 1e-9, alpha=3.0))
    assert with_alpha == pytest.approx(
        1e-9 * (3 * queries * d * 6 + layers / math.sqrt(p)), rel=1e-12
    )
    least = FewPreparationsQLSA(epsilon)
    assert float(least.preparations(kappa)) == pytest.approx(kappa)
    worst = FewPreparationsQLSA(epsilon, success_probability=kappa**-2)
    given = size, kappa, d, 1e-9
    assert float(least.seconds(*given, alpha=3.0)) == pytest.approx(
        float(worst.seconds(*given, alpha=3.0)), rel=1e-12
    )


def test_few_preparations_are_fewer_than_one_a_query():
    few, usual = FewPreparationsQLSA(success_probability=1e-2), AsymptoticQLSA(preparation=True)
    for kappa in (100.0, 1e4):
        assert float(few.preparations(kappa)) == pytest.approx(10.0)
        assert float(usual.preparations(kappa)) > 10 * kappa


def test_a_likely_solution_keeps_its_logarithms():
    for p in (0.5, 0.9, 1.0):
        model = FewPreparationsQLSA(success_probability=p)
        assert float(model.charged_queries(10.0)) == pytest.approx(10 * math.log2(1e4))
    for p in (0.0, -1.0, 1.5, math.nan, "likely"):
        with pytest.raises(ValueError, match=r"`success_probability` must be.*Received"):
            FewPreparationsQLSA(success_probability=p)


def test_classical_preparation_is_an_eigendecomposition(cache, measurements):
    bare, charged = DetailedQLSA(), DetailedQLSA(setup=True)
    given = 300, 20.0, 300, 1e-9
    seconds = 2e-11 * 300**3 + 3e-9 * 300**2 + 4e-5
    added = float(charged.seconds(*given)) - float(bare.seconds(*given))
    assert measurements == ["eigen float64"] and added == pytest.approx(seconds, rel=1e-6)
    # Once a solve, however often a circuit runs.
    reading, both = (DetailedQLSA(readout=True, setup=s) for s in (False, True))
    added = float(both.seconds(*given)) - float(reading.seconds(*given))
    assert added == pytest.approx(seconds, rel=1e-6)
    with pytest.raises(ValueError, match=r"Argument `setup` must be True.*Received: setup='eigen'"):
        DetailedQLSA(setup="eigen")


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"coefficients", "another solver", "table"}))
def test_a_tolerance_makes_a_price_lower(name):
    model, given = MODELS[name], (100, 30.0, 7, 1e-9)
    prices = [float(model.seconds(*given, tolerance=t)) for t in (1e-9, 1e-2, 1e-1, 0.4)]
    assert prices == sorted(prices, reverse=True) and prices[0] > prices[-1]
    if "circuit" not in name:
        # What is finer than ε is ε.
        assert prices[0] == float(model.seconds(*given))
    in_graph = tf.function(lambda t: model.seconds(*given, tolerance=t))
    assert float(in_graph(tf.constant(0.1, tf.float64))) == pytest.approx(prices[2], rel=1e-13)


def test_asymptotic_is_the_papers_formula():
    seconds = AsymptoticQLSA(epsilon=1e-2).seconds(64, 100.0, 5, 1e-9)
    assert float(seconds) == pytest.approx(1e-9 * 5 * 100 * math.log2(64 * 100 / 1e-2))


@pytest.mark.parametrize("model", [AsymptoticQLSA, DetailedQLSA])
def test_readout_multiplies_by_the_runs_of_refinement(model):
    """Three runs to 1e-2 at 10 successes an amplitude, 0.158: 3 · 10 N' / p."""
    arguments = (100, 30.0, 4, 1e-9)
    without = float(model(1e-2).seconds(*arguments))
    reading = float(model(1e-2, readout=True).seconds(*arguments, success=0.05))
    assert reading == pytest.approx(without * 3 * 10 * 128 / 0.05, rel=1e-12)
    assert without == float(model(1e-2).seconds(*arguments, success=0.05))


@settings(max_examples=25, deadline=None)
@given(kappa=st.floats(1, 1e4), alpha=st.floats(1, 100), size=st.integers(2, 500))
def test_published_counts_are_of_alpha_one(kappa, alpha, size):
    for name in ("asymptotic", "detailed"):
        model = MODELS[name]
        price = float(model.seconds(size, kappa, 3, 1e-9, alpha=alpha))
        assert price == pytest.approx(float(model.seconds(size, kappa * alpha, 3, 1e-9)), rel=1e-12)
        assert float(model.seconds(size, kappa, 3, 1e-9, alpha=1.0)) == pytest.approx(
            float(model.seconds(size, kappa, 3, 1e-9)), rel=1e-12
        )


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(sorted(MODELS)),
    size=st.integers(1, 5000),
    kappa=st.floats(1, 1e12),
    d=st.integers(1, 5000),
    gate_time=st.floats(1e-15, 1e-3),
)
def test_same_numbers_eagerly_and_in_a_graph(name, size, kappa, d, gate_time):
    model = MODELS[name]
    eager = model.seconds(size, kappa, d, gate_time)
    assert eager.dtype == tf.float64 and eager.shape == () and float(eager) > 0
    run = tf.function(lambda k, s: model.seconds(size, k, s, gate_time))
    in_graph = run(tf.constant(kappa, tf.float64), tf.constant(d))
    assert float(in_graph) == pytest.approx(float(eager), rel=1e-13)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(MODELS)),
    size=st.integers(2, 2000),
    kappa=st.floats(1, 1e9),
    d=st.integers(1, 2000),
)
def test_harder_is_never_cheaper(name, size, kappa, d):
    model = MODELS[name]
    base = float(model.seconds(size, kappa, d, 1e-9)) * (1 - 1e-12)
    assert float(model.seconds(2 * size, kappa, d, 1e-9)) >= base
    assert float(model.seconds(size, 2 * kappa, d, 1e-9)) >= base
    assert float(model.seconds(size, kappa, 2 * d, 1e-9)) >= base


@pytest.mark.parametrize("name", sorted(MODELS))
def test_config_round_trip(name):
    model = MODELS[name]
    assert isinstance(model, CostModel)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    again = keras.saving.deserialize_keras_object(saved)
    assert type(again) is type(model) and again.get_config() == model.get_config()
    arguments = (300, 40.0, 9, 1e-9)
    assert float(again.seconds(*arguments)) == float(model.seconds(*arguments))


@pytest.mark.parametrize(
    "name, cls",
    [
        ("asymptotic", AsymptoticQLSA),
        ("detailed", DetailedQLSA),
        ("lu_time", LUTime),
        ("solver_time", SolverTime),
    ],
)
def test_registered(name, cls):
    assert type(registry.resolve("cost", name, "cost")) is cls


@pytest.mark.parametrize("epsilon", [0, 1, -0.1, float("nan"), True])
@pytest.mark.parametrize("model", [AsymptoticQLSA, DetailedQLSA])
def test_bad_epsilon(model, epsilon):
    with pytest.raises(ValueError, match=f"Argument `epsilon` must be.*epsilon={epsilon}"):
        model(epsilon)


def test_table_is_exact_at_its_sizes_and_cubic_beyond():
    model = MODELS["table"]
    for size, seconds in {10: 1e-5, 100: 1e-4, 1000: 3e-2}.items():
        assert float(model.seconds(size)) == pytest.approx(seconds, rel=1e-12)
    assert float(model.seconds(2)) == pytest.approx(1e-5, rel=1e-12)
    assert float(model.seconds(2000)) == pytest.approx(8 * 3e-2, rel=1e-12)
    assert 1e-4 < float(model.seconds(300)) < 3e-2
    assert float(LUTime(table={50: 2.0}).seconds(100)) == pytest.approx(16.0)


def test_a_known_size_is_priced_when_the_graph_is_traced():
    found = []

    @tf.function
    def run(n):
        model = MODELS["table"]
        found.extend(tf.get_static_value(model.seconds(size)) for size in (300, n))

    run(tf.constant(300))
    assert found == [MODELS["table"].seconds(300).numpy(), None]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"coefficients": (1, 2)}, "`coefficients` must be three"),
        ({"coefficients": (-1e-9, 0, 1)}, "`coefficients` must be three"),
        ({"coefficients": (0, 0, 0)}, "`coefficients` must be three"),
        ({"table": {}}, "`table` must map sizes"),
        ({"table": {10: -1.0}}, "`table` must map sizes"),
        ({"table": {1: 1.0}, "coefficients": (1, 1, 1)}, "`table` must not be given together"),
        ({"dtype": "float16"}, "`dtype` must be"),
    ],
)
def test_bad_lu_time(arguments, message):
    with pytest.raises(ValueError, match=f"Argument {message}.*Received"):
        LUTime(**arguments)


@keras.saving.register_keras_serializable(package="keras_qnewton_tests")
def one_gate_a_query(size, condition_number, sparsity, gate_time):
    return gate_time * condition_number * sparsity


def test_a_function_is_a_cost_model():
    scheduler = Scheduler(cost=one_gate_a_query, classical_cost=lambda n, *_: 1e-9 * n)
    decision = scheduler.choose(100, 7.0, 3)
    assert decision.predicted == pytest.approx({"lu": 1e-7, "qsvt": 21e-9})
    assert decision.route == "qsvt"
    graph = tf.function(lambda k: scheduler.choose_index(100, k, 3)[1])
    np.testing.assert_allclose(graph(tf.constant(7.0, tf.float64)), [1e-7, 21e-9])
    saved = Scheduler(cost=one_gate_a_query, classical_cost=LUTime(coefficients=(1e-13, 0, 0)))
    again = Scheduler.from_config(saved.get_config())
    assert again.choose(100, 7.0, 3).predicted == pytest.approx(decision.predicted)
    with pytest.raises(ValueError, match="Argument `function` must be callable"):
        FunctionCost(3)
