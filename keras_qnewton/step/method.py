"""Which step an optimizer takes, and the state that it needs: Newton's, or a quasi-Newton one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from keras_qnewton.conditioning import Adaptive
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.memory import available_memory
from keras_qnewton.quasi_newton import DenseInverse, QuasiNewton
from keras_qnewton.quasi_newton.inverse import Initializer
from keras_qnewton.settings import Settings
from keras_qnewton.state import Here, Memory, NewtonState, QuasiNewtonState, check_state
from keras_qnewton.step.batch import Batch
from keras_qnewton.step.newton import Step, newton_step
from keras_qnewton.step.quasi_newton import quasi_newton_step

State = NewtonState | QuasiNewtonState
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
    unused = {
        "blocks": getattr(given.blocks, "partition", None) not in ("auto", "full"),
        "damping": repr(given.damping) != repr(Adaptive()),
        "sparsity": given.sparsity is not None,
        "scheduler": not given.has_default_scheduler,
        "update_every": given.update_every != 1,
    }
    for name, set_by_user in unused.items():
        if set_by_user:
            raise ValueError(
                f"Argument `{name}` has no effect with curvature='quasi_newton', whose steps solve "
                "no linear system: one inverse Hessian of all weights is learned, and a line "
                f"search finds the length. Leave it out, or choose another curvature. "
                f"Received: {name}={getattr(given, name)!r}"
            )


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
    foreseen_loss: Callable[[], tf.Tensor],
) -> State:
    """New variables of `optimizer` for its method; see `NewtonState.create`."""
    policy = settings.curvature
    if not isinstance(policy, QuasiNewton):
        return NewtonState.create(optimizer, damping, parts, variables, settings, foreseen_loss)
    add_variable = functools.partial(_add_variable, optimizer)
    inverse = policy.inverse(_size(parts), add_variable)
    return QuasiNewtonState.create(optimizer, inverse, variables)


def next_step(batch: Batch, settings: Settings, state: State) -> Step:
    """The step of `batch`, not yet taken."""
    if isinstance(state, QuasiNewtonState):
        return quasi_newton_step(batch, settings, state)
    return newton_step(batch, settings, state)


def remember(state: State, step: Step) -> None:
    """Assigns what the step leaves to the next."""
    if isinstance(state, QuasiNewtonState):
        assert isinstance(step.memory, Here)
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
