"""Which step an optimizer takes, and its state: Newton's, a quasi-Newton one, or either."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from keras_qnewton.conditioning import Adaptive
from keras_qnewton.curvature import AutoCurvature
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.memory import available_memory
from keras_qnewton.quasi_newton import DenseInverse, QuasiNewton
from keras_qnewton.quasi_newton.inverse import Initializer
from keras_qnewton.settings import Settings
from keras_qnewton.state import (
    Both,
    EitherState,
    Foreseen,
    Here,
    Memory,
    NewtonState,
    QuasiNewtonState,
    check_state,
)
from keras_qnewton.step.batch import Batch
from keras_qnewton.step.either import either_step
from keras_qnewton.step.newton import Step, newton_step
from keras_qnewton.step.quasi_newton import quasi_newton_step

# N up to which the inverse Hessian is dense that steps of more weights than a matrix is formed of
# learn by default: where the data are known to stay, and where it may be that they do not, and its
# memory and its place in saved files are never used.
_LARGEST_DENSE, _LARGEST_UNSURE = 10_000, 4096
# N up to which pairs are kept in such a case.
_LARGEST_LEARNED = 500_000

State = NewtonState | QuasiNewtonState | EitherState
Variables = Sequence[keras.Variable | tf.Variable]


class Arguments(Protocol):
    """An optimizer's policies, as they were given."""

    curvature: Any
    blocks: Any
    damping: Any
    sparsity: Any
    scheduler: Any
    update_every: int
    has_default_scheduler: bool


def check_arguments(given: Arguments) -> None:
    """Refuses policies that a quasi-Newton step has no use for.

    Raises:
        ValueError: With the argument, and what there is instead.
    """
    if not isinstance(given.curvature, QuasiNewton):
        return
    for name in _of_linear_systems(given):
        raise ValueError(
            f"Argument `{name}` has no effect with curvature='quasi_newton', whose steps solve "
            "no linear system: one inverse Hessian of all weights is learned, and a line "
            f"search finds the length. Leave it out, or choose another curvature. "
            f"Received: {name}={getattr(given, name)!r}"
        )


def learned_policy(given: Arguments, data_stay: bool) -> QuasiNewton | None:
    """The policy of quasi-Newton steps: what was asked for, or that of many weights by default.

    None where another curvature was asked for, or anything that is about linear systems.

    Args:
        given: The optimizer's policies.
        data_stay: Whether the data are known to be the same in all steps.
    """
    if isinstance(given.curvature, QuasiNewton):
        return given.curvature
    if not isinstance(given.curvature, AutoCurvature) or _of_linear_systems(given):
        return None
    return QuasiNewton(max_size=_LARGEST_DENSE if data_stay else _LARGEST_UNSURE)


def _of_linear_systems(given: Arguments) -> list[str]:
    """Arguments about linear systems that are not at their defaults."""
    set_by_user = {
        "blocks": getattr(given.blocks, "partition", None) not in ("auto", "full"),
        "damping": repr(given.damping) != repr(Adaptive()),
        "sparsity": given.sparsity is not None,
        "scheduler": not given.has_default_scheduler,
        "update_every": given.update_every != 1,
    }
    return [name for name, is_set in set_by_user.items() if is_set]


def check_method(parts: Sequence[Part], variables: Variables, settings: Settings) -> None:
    """Refuses what would not fit into memory, before anything is made.

    Raises:
        ValueError: With the number of weights that would fit, and the setting to change.
    """
    if isinstance(settings.curvature, QuasiNewton):
        _check_inverse(settings.curvature, _size(parts), available_memory())
    else:
        check_state(parts, variables, settings)


def new_state(
    optimizer: keras.optimizers.Optimizer,
    damping: keras.Variable,
    parts: Sequence[Part],
    variables: Variables,
    settings: Settings,
    foreseen: Callable[[], Foreseen],
) -> State:
    """New variables of `optimizer` for its method; see `NewtonState.create`."""
    if isinstance(settings.curvature, QuasiNewton):
        return _learned_state(optimizer, settings.curvature, parts, variables, foreseen)
    newton = NewtonState.create(optimizer, damping, parts, variables, settings, foreseen)
    learned = settings.learned
    if learned is None or any(part.dense for part in parts) or _size(parts) > _LARGEST_LEARNED:
        return newton
    first = len(optimizer.variables)
    return EitherState(
        newton, _learned_state(optimizer, learned, parts, variables, foreseen), first
    )


def _learned_state(
    optimizer: keras.optimizers.Optimizer,
    policy: QuasiNewton,
    parts: Sequence[Part],
    variables: Variables,
    foreseen: Callable[[], Foreseen],
) -> QuasiNewtonState:
    add_variable = functools.partial(_add_variable, optimizer)
    inverse = policy.inverse(_size(parts), add_variable)
    return QuasiNewtonState.create(optimizer, inverse, variables, foreseen)


def next_step(batch: Batch, settings: Settings, state: State) -> Step:
    """The step of `batch`, not yet taken."""
    if isinstance(state, QuasiNewtonState):
        return quasi_newton_step(batch, settings, state)
    if isinstance(state, EitherState):
        return either_step(batch, settings, state)
    return newton_step(batch, settings, state)


def remember(state: State, step: Step) -> None:
    """Assigns what the step leaves to the next."""
    if isinstance(state, QuasiNewtonState):
        assert isinstance(step.memory, Here)
        state.remember(step.memory)
    elif isinstance(state, EitherState):
        assert isinstance(step.memory, Both)
        state.remember(step.memory)
    else:
        assert isinstance(step.memory, Memory)
        state.remember(step.memory)


def _add_variable(
    optimizer: keras.optimizers.Optimizer,
    shape: Sequence[int],
    dtype: str,
    name: str,
    initializer: Initializer,
) -> keras.Variable:
    return optimizer.add_variable(shape, initializer=initializer, dtype=dtype, name=name)


def _size(parts: Sequence[Part]) -> int:
    return sum(part.size for part in parts)


def _check_inverse(policy: QuasiNewton, size: int, available: float) -> None:
    needed = policy.bytes(size)
    if needed <= available:
        return
    fits = math.isqrt(int(available / DenseInverse.BYTES_PER_ENTRY))
    raise ValueError(
        f"The inverse Hessian of N = {size:,} weights takes {needed / 1e9:,.1f} GB, and "
        f"{available / 1e9:,.1f} GB are available, enough for a dense one of {fits:,} weights. "
        'Pass curvature=QuasiNewton(update="lbfgs"), or a smaller `history`. '
        f"Received: curvature={policy!r}"
    )
