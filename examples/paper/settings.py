"""What the study runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from . import data, models

GATE_TIMES = tuple(10.0**exponent for exponent in range(-6, -19, -1))
# At which loss is drawn against time.
SHOWN_GATE_TIMES = (1e-6, 1e-9, 1e-12, 1e-15, 1e-18)
# Shares of a row whose mass is measured.
ROW_SHARES = (0.5, 0.25, 0.1, 0.05, 0.025)


@dataclasses.dataclass(frozen=True)
class Family:
    """A model, its data, and how it is trained.

    Attributes:
        name: For files and headings.
        data: Makes the data.
        model: From the data and the hidden size to a model.
        curvature: "hessian" or "fisher".
        hidden: Hidden size.
        batch: Examples a batch.
        steps: Newton steps.
        learning_rate: Newton's, at its largest: it rises over a tenth of the steps and falls
            to 0 linearly.
        adam, sgd: Learning rates of the baselines; usual ones, not searched for.
        baseline_factor: How many steps a baseline takes for one of Newton's.
    """

    name: str
    data: Callable[[], data.Data]
    model: Callable
    curvature: str
    hidden: int
    batch: int
    steps: int
    learning_rate: float = 1e-2
    adam: float = 1e-2
    sgd: float = 0.3
    baseline_factor: int = 5


@dataclasses.dataclass(frozen=True)
class Study:
    """A profile.

    Attributes:
        families: The first is the perceptron, of which the sweeps are made.
        sweep_steps: Newton steps of each run of a sweep.
        sparsities, epsilons, hidden_sizes: The sweeps.
        probes: At how many steps the exact spectrum is taken.
        gate_time: Seconds of a gate with which runs schedule while they train.
    """

    families: tuple[Family, ...]
    sweep_steps: int
    sparsities: tuple[float, ...]
    epsilons: tuple[float, ...]
    hidden_sizes: tuple[int, ...]
    probes: int = 5
    gate_time: float = 1e-6


SPARSITIES = (1.0, 0.5, 0.1, 0.05, 0.025)
# The paper's range; the first, below it, is where κ passes 1e4.
EPSILONS = (1e-5, 1e-3, 1e-1, 1e1, 1e4)
HIDDEN_SIZES = (34, 44, 54)


def study(profile: str, text: str | None = None, only: str | None = None) -> Study:
    """The runs of a profile.

    Args:
        profile: "offline", "online" (downloads MNIST and IMDB), or "smoke".
        text: A file for the language model, or None.
        only: A family's name, to leave the others out; the sweeps are the perceptron's.
    """
    whole = _study(profile, text)
    if only is None:
        return whole
    families = tuple(f for f in whole.families if f.name == only)
    if not families:
        raise ValueError(f"Argument `only` must be a family of the profile. Received: {only!r}")
    if only == "mlp":
        return dataclasses.replace(whole, families=families)
    return dataclasses.replace(
        whole, families=families, sparsities=(), epsilons=(), hidden_sizes=()
    )


def _study(profile: str, text: str | None) -> Study:
    perceptron = Family("mlp", data.digits, models.perceptron, "hessian", 16, 512, 150)
    bert = Family(
        "bert",
        lambda: data.docstring_lines(words=60, length=16),
        models.bert,
        "fisher",
        hidden=8,
        batch=64,
        steps=40,
        learning_rate=0.1,
    )
    gpt = Family(
        "gpt",
        lambda: data.characters(tokens=48, length=24, path=text),
        models.gpt,
        "fisher",
        hidden=8,
        batch=32,
        steps=40,
        learning_rate=0.1,
    )
    offline = Study((perceptron, bert, gpt), 20, SPARSITIES, EPSILONS, HIDDEN_SIZES)
    if profile == "offline":
        return offline
    if profile == "online":
        perceptron = dataclasses.replace(perceptron, data=data.mnist)
        bert = dataclasses.replace(bert, data=lambda: data.imdb(words=60, length=64))
        return dataclasses.replace(offline, families=(perceptron, bert, gpt))
    if profile == "smoke":
        small = dataclasses.replace(perceptron, hidden=4, steps=8, batch=256, baseline_factor=1)
        of_rows = dataclasses.replace(bert, hidden=4, steps=3, batch=16, baseline_factor=1)
        return Study((small, of_rows), 3, (0.1,), (), (), probes=2)
    raise ValueError(f"Argument `profile` must be one of the three. Received: {profile!r}")
