"""What a report says in words: its first paragraph, its advice, and whose doing κ is."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.decision import Decision
from keras_qnewton.report.advice import MOST, advice
from keras_qnewton.report.condition import NO, PARTLY, UNTOLD, YES, follows_damping, highest
from keras_qnewton.report.reading import Reading
from keras_qnewton.report.tables import blocks, routes
from keras_qnewton.report.verdict import verdict
from keras_qnewton.report.words import count, listed, number, seconds
from keras_qnewton.run_file import Decisions, Epoch, Run

TAKEN = {"accepted": True, "damping": 1e-3, "trust_ratio": 1.0, "attempts": 1, "length": 1.0}


def decision(step, loss, after, **values):
    solver = values.pop("solver", "lu")
    kappa, reason = values.pop("kappa", 50.0), values.pop("reason", "r")
    values = TAKEN | {"loss": loss, "loss_after": after, "block": "b"} | values
    return Decision("lu", reason, {"lu": 1e-3}, 8, kappa, 8, step=step, solved_by=solver, **values)


def reading(decisions, about=None, epochs=()):
    return Reading.of(Run(about or {}, Decisions(decisions), list(epochs)))


def descent(steps=20, rate=0.5, first=0, **values):
    """Full batches that converge."""
    return [decision(first + k, rate**k, rate ** (k + 1), **values) for k in range(steps)]


def damped(dampings):
    """Short steps at these λ, with a condition number near 1."""
    return [
        decision(k, 0.99**k, 0.99 ** (k + 1), kappa=1.01, damping=float(damping))
        for k, damping in enumerate(dampings)
    ]


def refused(first, steps, rise=1.0):
    return [
        decision(first + k, 1.0, 1.0 + rise, accepted=False, trust_ratio=math.nan)
        for k in range(steps)
    ]


def epochs(**series):
    numbers = zip(*series.values(), strict=True)
    return [Epoch(k, k, dict(zip(series, values, strict=True))) for k, values in enumerate(numbers)]


def test_the_first_paragraph_says_how_it_went():
    steps = [dataclasses.replace(d, step_seconds=0.01) for d in descent(9)]
    steps[0] = dataclasses.replace(steps[0], step_seconds=2.0)
    steps += [decision(9, 0.5**9, 1.0, accepted=False, solver="qsvt", step_seconds=0.01)]
    said = verdict(reading(steps, epochs=epochs(val_loss=[3.0, 1.0, 2.0])))
    for sentence in (
        "The run had 10 steps, of which 1 was refused.",
        "The final loss is 0.00195, after 1 at the beginning",
        "The validation loss ended at 2; it was least, 1, in epoch 2.",
        "Of 10 linear systems, lu took 9 (90\u00a0%) and qsvt 1 (10\u00a0%).",
        "The first step took 2 s, most of it TensorFlow's tracing",
        "a later step took 10 ms (median)",
    ):
        assert sentence in said


def test_what_the_log_does_not_have_is_not_said():
    said = verdict(reading([decision(0, math.nan, math.nan)]))
    assert (
        said == "The run had 1 step, and none was refused. The solver lu took all 1 linear system."
    )


DONE = "The training is done"
ADVICE = {
    "nothing": (descent(40), {}, (), None),
    "not a number": ([*descent(5), decision(5, math.nan, math.nan)], {}, (), "finite number"),
    "done": ([*descent(25), *refused(25, 12, rise=1e-7)], {}, (), DONE),
    "stands still": ([*descent(5), *refused(5, 12)], {}, (), "the weights stood still"),
    "rose": ([decision(k, k + 1.0, k + 2.0) for k in range(9)], {}, (), "The loss rose from 1 to"),
    "rose without judgement": (
        [decision(k, k + 1.0, k + 2.0) for k in range(9)],
        {"settings": {"damping": "Constant(epsilon=0.005)"}},
        (),
        'damping="adaptive"',
    ),
    "overfits": (
        descent(6),
        {},
        epochs(loss=[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], val_loss=[3.0, 2.0, 2.1, 2.5, 2.8, 3.0]),
        "least, 2, in epoch 2",
    ),
    "many refused": ([*refused(0, 4), *descent(10, first=4)], {}, (), "Begin with more damping"),
    "many refused of small batches": (
        [*refused(0, 4), *descent(10, first=4)],
        {"fit": {"steps": 7}},
        (),
        "steps were refused. Take larger batches",
    ),
    "overdamped": (damped(range(1, 13)), {}, (), "larger than all of the curvature"),
    "even curvature": (damped(range(12, 0, -1)), {}, (), None),
    "a loss of zero on the way": (
        [decision(k, 1.0, 0.0 if k == 9 else 1.0) for k in range(12)],
        {},
        (),
        None,
    ),
    "losses below zero": (
        [decision(k, 1.0, -0.5 if k == 9 else 1.0) for k in range(12)],
        {},
        (),
        None,
    ),
    "poor model": (descent(12, trust_ratio=0.1), {}, (), "quadratic model of the loss was poor"),
    "fell back": (
        descent(40, fallback=True, reason="qsvt failed its residual check, lu took over"),
        {},
        (),
        "40 of 40 (100\u00a0%) solutions of lu failed their residual check",
    ),
    "took over": (
        descent(40, fallback=True, reason="not positive definite, so that ldl took over"),
        {},
        (),
        None,
    ),
    "still falling": (descent(12, 0.8), {}, (), "Train for more steps"),
    "still falling, validated": (
        descent(12, 0.8),
        {},
        epochs(loss=[0.8**k for k in range(12)], val_loss=[0.9**k for k in range(12)]),
        "Train for more steps",
    ),
    "still falling, but not where it is validated": (
        descent(12, 0.8),
        {},
        epochs(loss=[0.8**k for k in range(12)], val_loss=[0.4, *[0.3] * 11]),
        None,
    ),
}


@pytest.mark.parametrize("name", ADVICE)
def test_advice_follows_from_the_data(name):
    decisions, about, logged, expected = ADVICE[name]
    said = advice(reading(decisions, about, logged))
    assert len(said) <= MOST
    if expected is None:
        assert said == []
    else:
        assert any(expected in text for text in said), said


def test_advice_by_refusals_does_not_speak_of_rounding_as_a_fault():
    (said,) = advice(reading([*descent(25), *refused(25, 12, rise=1e-7)]))
    assert DONE in said


def conditioned(smallest, dampings):
    """Decisions of a block with eigenvalues from `smallest` to 1."""
    return [
        decision(k, 1.0, 0.5, damping=lam, kappa=(1 + lam) / (smallest + lam))
        for k, lam in enumerate(dampings)
    ]


FALLING = [2.0**-k for k in range(2, 16)]


@pytest.mark.parametrize(
    ("smallest", "dampings", "expected"),
    [
        (0.0, FALLING, YES),
        (1e-12, FALLING, YES),
        (0.2, [lam * 1e-3 for lam in FALLING], NO),
        (1e-3, FALLING, PARTLY),
        (0.0, FALLING[:3], UNTOLD),
        (0.0, [1e-3] * 20, UNTOLD),
    ],
)
def test_a_condition_number_that_follows_damping_is_told(smallest, dampings, expected):
    assert follows_damping(conditioned(smallest, dampings)) == expected


def averaged(smallest, scales):
    """Decisions on mini-batches: λ is a hundredth of the largest eigenvalue over m, at most 20."""
    return [
        decision(
            k,
            1.0,
            0.5,
            damping=0.01 * scale / min(k + 1, 20),
            kappa=(1 + 0.01 / min(k + 1, 20)) / (smallest + 0.01 / min(k + 1, 20)),
        )
        for k, scale in enumerate(scales)
    ]


@pytest.mark.parametrize(
    ("smallest", "steps", "expected"),
    [(0.0, 40, YES), (1e-9, 12, YES), (1e-6, 40, YES), (3e-4, 40, PARTLY), (0.1, 40, NO)],
)
def test_a_condition_number_that_is_a_share_of_itself_is_the_dampings(smallest, steps, expected):
    """Whatever the largest eigenvalue does meanwhile."""
    falling = [0.98**k for k in range(steps)]
    assert follows_damping(averaged(smallest, falling)) == expected


def test_a_condition_number_that_stays_is_no_share_of_the_dampings():
    """As of least squares, whose curvature is one for all steps."""
    stays = [decision(k, 1.0, 0.5, damping=lam, kappa=2001.0) for k, lam in enumerate(FALLING)]
    assert follows_damping(stays) == NO


def test_what_damping_alone_gives_bounds_every_condition_number():
    own = conditioned(1e-3, FALLING)
    bounds = dict(highest(own))
    assert all(d.condition_number <= bounds[d.damping] * (1 + 1e-12) for d in own)
    exact = conditioned(0.0, FALLING)
    bounds = dict(highest(exact))
    assert all(d.condition_number == pytest.approx(bounds[d.damping]) for d in exact)


def test_reasons_that_differ_in_numbers_are_one_row():
    own = [
        dataclasses.replace(
            d, reason=f"qsvt: {k}.5e-1{k} s predicted (N = 1,00{k}, κ = {k}, d = 5)"
        )
        for k, d in enumerate(descent(9))
    ]
    assert routes(reading(own)).count("<tr>") == 2  # with its head
    assert "9 of 9" in routes(reading(own))


def test_alpha_has_a_column_where_it_is_known():
    plain = descent(3)
    assert "α" not in blocks(reading(plain))
    measured = [dataclasses.replace(d, alpha=2.5, encoding="frobenius") for d in plain]
    page = blocks(reading(measured))
    assert "α, median" in page and "<td>2.5</td>" in page.replace(' class="number"', "")
    assert "frobenius" in page


FLOATS = st.floats() | st.none() | st.floats(-1, 1)
ANY = st.builds(
    decision,
    step=st.integers(0, 30) | st.none(),
    loss=FLOATS,
    after=FLOATS,
    kappa=st.floats(),
    damping=FLOATS,
    trust_ratio=FLOATS,
    accepted=st.booleans() | st.none(),
    step_seconds=FLOATS,
    residual=FLOATS,
    fallback=st.booleans() | st.none(),
    alpha=FLOATS,
    encoding=st.text() | st.none(),
)
LOGS = st.builds(
    Epoch,
    st.integers(0, 9),
    st.none(),
    st.dictionaries(st.sampled_from(["loss", "val_loss"]), FLOATS),
)


@settings(deadline=None, max_examples=300)
@given(decisions=st.lists(ANY, min_size=1, max_size=30), logged=st.lists(LOGS, max_size=9))
def test_any_log_is_put_into_words(decisions, logged):
    logged = [dataclasses.replace(e, logs={k: v or 0.0 for k, v in e.logs.items()}) for e in logged]
    read = reading(decisions, epochs=logged)
    assert verdict(read).startswith("The run had")
    assert len(advice(read)) <= MOST
    assert follows_damping(decisions) in (YES, PARTLY, NO, UNTOLD)
    assert routes(read)


def test_numbers_are_written_for_readers():
    assert [number(v) for v in (None, math.nan, 0.0123456, 2000.0, 3e7)] == [
        "–",
        "–",
        "0.0123",
        "2,000",
        "3e+07",
    ]
    assert [seconds(v) for v in (2.5, 0.01, 2e-6, 3e-9, 1e-15)] == [
        "2.5 s",
        "10 ms",
        "2 µs",
        "3 ns",
        "1e-15 s",
    ]
    assert (count(1, "step"), count(2000, "step")) == ("1 step", "2,000 steps")
    assert listed(["a", "b", "c"]) == "a, b and c" and listed(["a"]) == "a"
