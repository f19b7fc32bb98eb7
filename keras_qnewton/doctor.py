"""What of a machine the package would use, in plain words: `python -m keras_qnewton doctor`.

Each check looks at one thing and tells what it found, one sentence a line; what is wrong comes with
its remedy. A check imports what it looks at by itself: a library that cannot be imported is a
finding, and the checks after it are made all the same.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_DISTRIBUTION = "keras-qnewton"
# Libraries that are good to know of, though nothing requires them.
_OPTIONAL = ("tensorflow-quantum", "matplotlib", "scikit-learn", "jax")
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9), ("ps", 1e-12), ("fs", 1e-15))
# Unknowns and condition number of the systems whose prices are told.
_SIZES = (64, 256, 1024)
_CONDITION_NUMBER = 100.0


class Finding(NamedTuple):
    """What one check came to.

    Attributes:
        title: What was looked at.
        facts: Sentences.
        problems: Sentences, each with its remedy; none if all is well.
    """

    title: str
    facts: Sequence[str]
    problems: Sequence[str] = ()


def examine(quick: bool = False) -> Iterator[Finding]:
    """Looks at versions, Keras, devices, circuits, calibration and prices, and trains a model.

    Args:
        quick: Leaves out what takes more than a second or two: prices, which may have to be
            measured on this machine, and the training.
    """
    for title, check, is_slow in _CHECKS:
        if quick and is_slow:
            continue
        try:
            yield Finding(title, *check())
        except Exception as error:  # whatever it is, it is what the user has to be told
            lines = str(error).splitlines() or [""]
            yield Finding(title, (), [f"This check ended with {type(error).__name__}: {lines[0]}"])


def written(finding: Finding) -> str:
    """The finding as a paragraph for a terminal."""
    facts = [f"  {fact}" for fact in finding.facts]
    problems = [f"  PROBLEM: {problem}" for problem in finding.problems]
    return "\n".join([finding.title, *facts, *problems])


def verdict(problems: int) -> str:
    """The last line."""
    if problems:
        return f"{problems} problem{'s' if problems > 1 else ''} found: see PROBLEM above."
    return "No problem found."


# --- the checks: facts and problems -------------------------------------------------------


def _versions() -> tuple[list[str], list[str]]:
    from packaging.requirements import Requirement

    system = f"{platform.system()} on {platform.machine()}"
    facts, problems = [f"Python {platform.python_version()}, {system}."], []
    try:
        required = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return facts, [
            "keras_qnewton is not installed. Run in its checkout: python -m pip install ."
        ]
    for line in required:
        needed = Requirement(line)
        if needed.marker is not None:  # of an extra
            continue
        version = _version(needed.name)
        remedy = f'Run: python -m pip install "{needed.name}{needed.specifier}"'
        if version is None:
            problems.append(f"{needed.name} is not installed. {remedy}")
        elif not needed.specifier.contains(version, prereleases=True):
            problems.append(f"{needed.name} is {version}, not {needed.specifier}. {remedy}")
        else:
            facts.append(f"{needed.name} {version}.")
    for name in _OPTIONAL:
        version = _version(name)
        facts.append(
            f"{name} {'is not installed; it is optional' if version is None else version}."
        )
    return facts, problems


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _keras() -> tuple[list[str], list[str]]:
    import keras

    backend, policy = keras.backend.backend(), keras.config.dtype_policy().name
    facts = [f"Keras runs on {backend}, with the dtype policy {policy}."]
    if backend == "tensorflow":
        return facts, []
    return facts, [
        "The package needs Keras on TensorFlow. Set the environment variable "
        "KERAS_BACKEND=tensorflow before keras is imported."
    ]


def _devices() -> tuple[list[str], list[str]]:
    import tensorflow as tf

    from keras_qnewton.scheduling import calibration

    cores = calibration.usable_cores()
    facts = [f"TensorFlow may use {cores} processor core{'s' if cores != 1 else ''}."]
    graphic = tf.config.list_physical_devices("GPU")
    if graphic:
        facts.append(f"It sees {len(graphic)} GPU(s). The package has not been tested on any.")
    else:
        facts.append("It sees no GPU. The package has not been tested on any.")
    return facts, []


def _circuits() -> tuple[list[str], list[str]]:
    from keras_qnewton import registry
    from keras_qnewton.solvers.quantum import backends

    facts = []
    for name in registry.registered("backend"):
        try:
            backends.load(name)
        except ImportError as error:
            facts.append(f"{name} cannot be used: {error}")
        else:
            facts.append(f"{name} can be used.")
    facts.append('By default ("auto") each matrix goes to whichever simulates it fastest.')
    return facts, []


def _calibration() -> tuple[list[str], list[str]]:
    from keras_qnewton.scheduling import calibration

    path = calibration.cache_file()
    measured = calibration.known()
    facts = [f"Times of solvers on this machine are kept in {path}."]
    if measured:
        facts.append(f"Measured already: {', '.join(sorted(measured))}.")
    else:
        facts.append("None was measured yet. The first price that is asked for takes seconds.")
    folder = next(parent for parent in path.parents if os.path.exists(parent))
    if folder.is_dir() and os.access(folder, os.W_OK):
        return facts, []
    return facts, [
        f"{folder} is no folder that can be written, so that every process measures again. Set the "
        "environment variable XDG_CACHE_HOME to one that is."
    ]


def _prices() -> tuple[list[str], list[str]]:
    from keras_qnewton.scheduling import Scheduler

    scheduler = Scheduler(classical=("cholesky", "lu"), cost="circuit")
    facts = [f"Systems with the condition number {_CONDITION_NUMBER:.0f}, dense and definite:"]
    for size in _SIZES:
        choice = scheduler.choose(size, _CONDITION_NUMBER, size, definite=True)
        *classical, quantum = scheduler.routes
        fastest = min(classical, key=lambda route: choice.predicted[route])
        seconds = choice.predicted[fastest]
        gate = scheduler.gate_time * seconds / choice.predicted[quantum]
        facts.append(
            f"  {size:>5} unknowns: {choice.route} is chosen. {fastest} takes {_time(seconds)}; a "
            f"circuit would be as fast with gates of {_time(gate)}."
        )
    return facts, []


def _training() -> tuple[list[str], list[str]]:
    import keras
    import numpy as np

    if keras.backend.backend() != "tensorflow":
        return ["No model was trained, since Keras runs on another backend."], []

    from keras_qnewton.optimizer import QNewton

    x = np.linspace(-1.0, 1.0, 128, dtype="float32")[:, None]
    layers = [keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((1,)), *layers])
    model.compile(optimizer=QNewton(), loss="mse")
    ends = [time.perf_counter()]
    for _ in range(10):
        model.train_on_batch(x, np.sin(4 * x))
        ends.append(time.perf_counter())
    first, last = model.optimizer.decisions[0], model.optimizer.decisions[-1]
    took = [end - start for start, end in itertools.pairwise(ends)]
    facts = [
        f"A network of {model.count_params()} weights took {_time(took[0])} for its first step, "
        f"which traces it, and {_time(min(took[1:]))} for a later one.",
        f"Its loss went from {first.loss:.1e} to {last.loss_after:.1e} in {len(took)} steps, "
        f"solved by {last.solved_by}.",
    ]
    if last.loss_after < first.loss:
        return facts, []
    return facts, ["The loss did not fall. Please report it with what is printed here."]


def _time(seconds: float) -> str:
    """Seconds in the unit that people would say them in."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.1e} s"


_Check = Callable[[], tuple[list[str], list[str]]]
# What is looked at, by what, and whether it takes more than a second or two.
_CHECKS: tuple[tuple[str, _Check, bool], ...] = (
    ("Versions", _versions, False),
    ("Keras", _keras, False),
    ("Devices", _devices, False),
    ("Simulators of circuits", _circuits, False),
    ("Calibration", _calibration, False),
    ("What would run where", _prices, True),
    ("Training", _training, True),
)
