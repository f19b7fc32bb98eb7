"""What an optimizer is of several replicas: state in one place, and settings that go with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private


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


def check_replicated(optimizer: Any) -> None:
    """Refuses settings that a step of several replicas cannot be made with.

    Raises:
        ValueError: With the setting, and what to do instead.
    """
    refused = {
        "`gradient_accumulation_steps`": (
            optimizer.gradient_accumulation_steps is not None,
            "Pass None, and use a larger global batch",
        ),
        f"`curvature={optimizer.curvature!r}`": (
            bool(getattr(optimizer.curvature, "of_examples", False)),
            "It is made of each example's gradient, which the replicas' losses scale by their own "
            'number of examples. Pass `curvature="auto"` or `"hessian"`',
        ),
        "`jit_compile=True`": (
            _tf_private.compiled_by_xla(),
            "XLA compiles a replica by itself. Pass `jit_compile=False` to `compile`",
        ),
    }
    for name, (given, advice) in refused.items():
        if given:
            raise ValueError(
                f"{name} does not go with several replicas. {advice}. No weight was changed."
            )
