"""What an optimizer is of several replicas: state in one place, and settings that go with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature import Curvature


@contextlib.contextmanager
def one_copy(optimizer: Any) -> Iterator[None]:
    """Where variables that an optimizer adds have one copy, and not one a replica."""
    strategy = optimizer._distribution_strategy
    with _tf_private.outside_of_strategies():
        # By it Keras places what it makes of a reference.
        optimizer._distribution_strategy = tf.distribute.get_strategy()
        try:
            yield
        finally:
            optimizer._distribution_strategy = strategy


@contextlib.contextmanager
def only_if(taken: tf.Tensor, optimizer: Any, variables: Sequence[Any]) -> Iterator[None]:
    """Where Keras changes weights and their averages, which go back to what they were if not.

    Mirrored variables cannot be assigned in a branch of a graph. A step of zeros changes nothing
    by itself; weight decay and averages do.

    Args:
        taken: Whether a step is taken, boolean scalar.
        optimizer: Its settings say what changes beside the step.
        variables: The weights.
    """
    changed = list(variables) if optimizer.weight_decay is not None else []
    if optimizer.use_ema:
        changed = [*variables, *optimizer._model_variables_moving_average]
    before = [tf.identity(v) for v in changed]
    yield
    for variable, value in zip(changed, before, strict=True):
        variable.assign(tf.where(taken, tf.convert_to_tensor(variable), value))


def check_replicated(optimizer: Any) -> None:
    """Refuses settings that a step of several replicas cannot be made with.

    Raises:
        ValueError: With the setting, and what to do instead.
    """
    refused = {
        f"`curvature={optimizer.curvature!r}`": (
            _counts_examples_of_one(optimizer.curvature),
            "It depends on what an example is (`of_examples`), and has no `of_replicas` that "
            'counts those of all. Define one, or pass `curvature="auto"` or `"hessian"`',
        ),
        "`jit_compile=True`": (
            _tf_private.compiled_by_xla(),
            "XLA compiles a replica by itself. Pass `jit_compile=False` to `compile`, or make "
            "model and optimizer outside of the strategy's scope, for one device",
        ),
    }
    strategy = tf.distribute.get_strategy()
    for name, (given, advice) in refused.items():
        if given:
            raise ValueError(
                f"{name} does not go with several replicas, of which "
                f"`{type(strategy).__name__}` has {strategy.num_replicas_in_sync}. {advice}. "
                "No weight was changed."
            )


def _counts_examples_of_one(curvature: Any) -> bool:
    """Whether a kind of curvature depends on examples, and knows nothing of other replicas'."""
    overridden = getattr(type(curvature), "of_replicas", None)
    unaware = overridden in (None, Curvature.of_replicas)
    return unaware and bool(getattr(curvature, "of_examples", False))
