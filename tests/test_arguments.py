"""Arguments that are not what they must be: a clear error, before anything is made of them.

Every argument of every public class gets values of every kind. Each is either taken or refused by a
`ValueError` that says which argument, what it must be, and what it got.
"""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies

import keras_qnewton
from keras_qnewton import (
    Adaptive,
    Constant,
    Pruning,
    QNewton,
    audit,
    explain,
    project,
    scheduling,
    solvers,
)
from keras_qnewton.arguments import as_number, check_choice, check_count, check_number, check_switch
from keras_qnewton.curvature import EmpiricalFisher, ExactHessian, GaussNewton, hessian
from keras_qnewton.report import report

# What every call needs.
NEEDED: dict[str, dict[str, Any]] = {"Pruning": {"sparsity": 2}}
# Made by the package, not by its users.
RECORDS = {"Decision", "Solution"}
# Keras's own arguments of an optimizer.
KERAS = (
    "weight_decay",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)
VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "zero": 0,
    "minus one": -1,
    "a fraction": 0.5,
    "a negative fraction": -0.5,
    "infinity": math.inf,
    "NaN": math.nan,
    "a large integer": 10**30,
    "a larger integer": 10**400,
    "a complex number": 1 + 2j,
    "a word": "nonsense",
    "nothing": "",
    "bytes": b"x",
    "a list": [],
    "a list of numbers": [1, 2],
    "a dictionary": {"a": 1},
    "a set": set(),
    "a class": object,
    "an object": object(),
    "a function": len,
    "an array": np.array([1.0, 2.0]),
    "a NumPy number": np.float64(0.3),
    "a NumPy integer": np.int64(3),
    "a tensor": tf.constant([1, 2]),
    "a tensor of one number": tf.constant(1.5),
}


def public_classes() -> list[type]:
    found = [
        getattr(module, name)
        for module in (keras_qnewton, scheduling, solvers)
        for name in module.__all__
    ]
    classes = {cls for cls in found if isinstance(cls, type) and not inspect.isabstract(cls)}
    classes |= {ExactHessian, GaussNewton, EmpiricalFisher}
    return sorted(classes, key=lambda cls: cls.__name__)


def arguments() -> list[Any]:
    cases = []
    for cls in public_classes():
        if cls.__name__ in RECORDS:
            continue
        names = [n for n in inspect.signature(cls).parameters if n not in ("args", "kwargs")]
        for name in (*names, *(KERAS if cls is QNewton else ())):
            cases.append(pytest.param(cls, name, id=f"{cls.__name__}-{name}"))
    return cases


def check(cls: type, argument: str, value: Any) -> None:
    """Whether it is taken, or refused in the form of all errors."""
    try:
        cls(**{**NEEDED.get(cls.__name__, {}), argument: value})
    except ValueError as error:
        # One that is to be below another is named with it.
        assert str(error).startswith("Argument `") and "Received: " in str(error)
        assert f"`{argument}`" in str(error)


@pytest.mark.parametrize(("cls", "argument"), arguments())
def test_an_argument_is_taken_or_refused_by_its_name(cls, argument):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small learning rates
        for value in VALUES.values():
            check(cls, argument, value)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    value=strategies.one_of(
        strategies.none(),
        strategies.booleans(),
        strategies.integers(),
        strategies.floats(),
        strategies.complex_numbers(),
        strategies.text(max_size=5),
        strategies.lists(strategies.floats(), max_size=3),
        strategies.dictionaries(strategies.text(max_size=3), strategies.integers(), max_size=2),
    )
)
def test_whatever_is_given_is_taken_or_refused_by_its_name(value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in arguments():
            check(*case.values, value)


@pytest.mark.parametrize(
    ("cls", "given"),
    [
        (Adaptive, {"initial": "0.1"}),
        (Adaptive, {"initial": math.inf}),
        (Adaptive, {"retries": 1.5}),
        (Constant, {"definite": "no"}),
        (Constant, {"epsilon": math.inf}),
        (Pruning, {"sparsity": 2, "compensate": 0}),
        (QNewton, {"clipnorm": "1"}),
        (QNewton, {"clipvalue": -1.0}),
        (QNewton, {"weight_decay": -0.1}),
        (QNewton, {"use_ema": "yes"}),
        (QNewton, {"ema_momentum": 1.5}),
        (QNewton, {"ema_overwrite_frequency": -1}),
        (QNewton, {"loss_scale_factor": 0.0}),
        (QNewton, {"gradient_accumulation_steps": 2.5}),
        (QNewton, {"gradient_accumulation_steps": 1}),
        (QNewton, {"update_every": 10**30}),
        (QNewton, {"name": []}),
        (QNewton, {"blocks": b"layer"}),
        (QNewton, {"sparsity": Pruning}),
        (scheduling.Scheduler, {"reshape": 2.5}),
        (scheduling.CircuitQLSA, {"readout": "no"}),
        (scheduling.Reshape, {"sparsities": 0.5}),
        (scheduling.CGTime, {"seconds_per_entry": "1"}),
        (solvers.HHL, {"clock_qubits": 8.5}),
        (solvers.Shots, {"seed": -1}),
        (solvers.ConjugateGradient, {"max_iterations": 2.5}),
        (GaussNewton, {"memory": -1}),
        (QNewton, {"learning_rate": tf.Variable(0.5)}),
        (QNewton, {"learning_rate": np.complex128(1 + 1j)}),
    ],
)
def test_what_would_fail_later_is_refused_at_once(cls, given):
    argument = list(given)[-1]
    with pytest.raises(ValueError, match=f"Argument `{argument}` must be.*Received: {argument}="):
        cls(**given)


@pytest.mark.parametrize(
    ("cls", "given", "kept"),
    [
        (QNewton, {"gradient_accumulation_steps": 0}, None),
        (QNewton, {"ema_overwrite_frequency": 0}, None),
        (QNewton, {"update_every": 2.0}, 2),
        (solvers.Shots, {"shots": 1e5}, 100_000),
        (solvers.Shots, {"seed": 2**100}, 2**100),
        (solvers.LU, {"tolerance": math.inf}, math.inf),
        (GaussNewton, {"memory": math.inf}, math.inf),
    ],
)
def test_what_has_a_meaning_is_taken(cls, given, kept):
    (argument,) = given
    assert getattr(cls(**given), argument) == kept


def test_a_name_is_numbered_by_optimizers_that_are_made():
    first = QNewton()
    with pytest.raises(ValueError, match="update_every"):
        QNewton(update_every=0)
    names = [first.name, QNewton().name]
    numbers = [int(name.partition("_")[2] or 0) for name in names]
    assert numbers[1] == numbers[0] + 1


@pytest.fixture(scope="module")
def trained():
    """A model after two steps, its data, and its log."""
    keras.utils.set_random_seed(0)
    x = np.random.normal(size=(20, 2)).astype("float32")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(QNewton(), "mse")
    model.fit(x, x[:, :1], batch_size=20, epochs=2, verbose=0)
    return model, x, model.optimizer.decisions


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("model", lambda model, x, log: audit(None, x, x)),
        ("x", lambda model, x, log: audit(model, None, x)),
        ("loss", lambda model, x, log: audit(model, x, x[:, :1], loss=3)),
        ("tolerance", lambda model, x, log: audit(model, x, x[:, :1], tolerance="small")),
        ("seed", lambda model, x, log: audit(model, x, x[:, :1], seed=None)),
        ("model", lambda model, x, log: explain("model", x, x)),
        ("variables", lambda model, x, log: explain(model, x, x[:, :1], variables=3)),
        ("optimizer", lambda model, x, log: explain(model, x, x[:, :1], optimizer="adam")),
        ("log", lambda model, x, log: project(3)),
        ("log", lambda model, x, log: project([1, 2])),
        ("gate_time", lambda model, x, log: project(log, "fast")),
        ("scheduler", lambda model, x, log: project(log, scheduler="lu")),
        ("run", lambda model, x, log: project(log, run="last")),
        ("source", lambda model, x, log: report(1, "page.html")),
        ("path", lambda model, x, log: report(log, 1)),  # stdout is a file, too
        ("path", lambda model, x, log: log.to_jsonl(1)),
        ("path", lambda model, x, log: type(log).from_jsonl(0)),
        ("number", lambda model, x, log: model.optimizer.decisions_since("first")),
        ("variables", lambda model, x, log: QNewton().build(3)),
        ("variables", lambda model, x, log: QNewton().build(["w"])),
        ("grads", lambda model, x, log: model.optimizer.apply(None)),
        ("loss_fn", lambda model, x, log: QNewton().minimize(3, model.trainable_variables)),
        ("condition_number", lambda model, x, log: scheduling.Scheduler().choose(3, "high", 2)),
        ("blocks", lambda model, x, log: hessian(lambda: 0.0, model.trainable_variables, 3)),
    ],
)
def test_functions_name_the_argument_and_change_no_weight(trained, argument, call):
    before = trained[0].get_weights()
    with pytest.raises(ValueError, match=f"rgument `{argument}` must .*Received"):
        call(*trained)
    for old, new in zip(before, trained[0].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_numpys_numbers_are_kept_as_pythons():
    """So that a saved model's settings are JSON."""
    optimizer = QNewton(
        learning_rate=np.float32(1),
        clipnorm=np.float32(0.5),
        gradient_accumulation_steps=np.int64(2),
        damping=Adaptive(retries=np.int64(3), memory=np.int32(4)),
    )
    assert type(optimizer.clipnorm) is float and type(optimizer.gradient_accumulation_steps) is int
    assert optimizer.damping.get_config()["retries"] == 3
    assert type(optimizer.damping.memory) is int


def test_ends_of_an_interval():
    """Each end is in or out as the brackets say."""
    for ends, taken in (("()", []), ("(]", [1.0]), ("[)", [0.0]), ("[]", [0.0, 1.0])):
        for value in (0.0, 1.0):
            if value in taken:
                assert check_number("x", value, "so", most=1.0, ends=ends) == value
            else:
                with pytest.raises(ValueError, match=r"Argument `x` must be so\. Received: x="):
                    check_number("x", value, "so", most=1.0, ends=ends)


def test_numbers_names_and_switches():
    assert as_number(np.float32(0.5)) == 0.5 and as_number(tf.constant(2)) == 2
    assert all(math.isnan(as_number(value)) for value in ("1", True, [1.0], None, 1j, 10**400))
    assert check_count("n", np.int32(3)) == 3 and check_count("n", 2**63 - 1) == 2**63 - 1
    assert check_choice("c", "a", ("a", "b")) == "a" and check_switch("s", np.True_) is True
    with pytest.raises(ValueError, match="`n` must be an integer, at least 2, or None"):
        check_count("n", 1, least=2, what="or None")
    with pytest.raises(ValueError, match=r"`c` must be one of 'a', 'b'\. Received: c=1"):
        check_choice("c", 1, ("a", "b"))
