"""What is known of where a tensor has its examples; see `example_axes`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Rows(NamedTuple):
    """Where a tensor has its examples.

    Attributes:
        axis: That of examples.
        each: Entries of that axis an example, side by side.
    """

    axis: int
    each: int


# Of tensors that depend on weights, but on no use of one; and of those that are not understood.
OF_WEIGHTS, MIXED = "of weights", "mixed"
State = Rows | str
# From an operation, its inputs, their states and a result to the result's state, if that is known.
Rule = Callable[[tf.Operation, Sequence[Any], Sequence[State | None], Any], "State | None"]


def rows_of(states: Sequence[State | None]) -> list[Rows]:
    """The states of those inputs that have rows."""
    return [s for s in states if isinstance(s, Rows)]


def rules(names: str, rule: Rule) -> dict[str, Rule]:
    """One rule for operations of several types."""
    return dict.fromkeys(names.split(), rule)
