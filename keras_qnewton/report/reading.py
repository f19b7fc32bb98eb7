"""A run as a report needs it: its steps, blocks, seconds and epochs."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from keras_qnewton.decision import Decision, is_known
from keras_qnewton.run_file import Epoch, Run

# Rises of the loss by less than this share of the run's largest one may be rounding.
ROUNDING = 1e-5
# A first step this many times as long as the later ones was traced in it.
_TRACED = 5
# The route of steps for which no system was solved.
_LEARNED = "quasi_newton"


@dataclasses.dataclass(frozen=True)
class Reading:
    """A run's decisions, grouped.

    Attributes:
        about: What the file's first line says of the run; empty where it says nothing.
        decisions: All, oldest first; one at least.
        steps: One decision of each step, for the numbers that a step's blocks share.
        blocks: Decisions by block.
        epochs: What Keras logged; empty where the file does not have it.
    """

    about: Mapping[str, Any]
    decisions: Sequence[Decision]
    steps: Sequence[Decision]
    blocks: Mapping[str, Sequence[Decision]]
    epochs: Sequence[Epoch]

    @classmethod
    def of(cls, run: Run) -> Reading:
        steps = list({d.step: d for d in run.decisions}.values())
        blocks: dict[str, list[Decision]] = collections.defaultdict(list)
        for d in run.decisions:
            blocks[str(d.block)].append(d)
        return cls(run.about, run.decisions, steps, blocks, run.epochs)

    def said(self, *keys: str) -> Any:
        """What the file's first line says under nested keys; None where it does not."""
        value: Any = self.about
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def title(self) -> str:
        name = self.said("model", "name")
        return f"A Newton run of {name}" if isinstance(name, str) else "A Newton run"

    @property
    def refused(self) -> list[Decision]:
        """Steps that were not taken."""
        return [d for d in self.steps if not d.accepted]

    @functools.cached_property
    def step_losses(self) -> list[float]:
        """Loss after each step, of its own batch; NaN where it is not known."""
        return [math.nan if loss is None else loss for loss in map(loss_at_end, self.steps)]

    @functools.cached_property
    def losses(self) -> list[float]:
        """Losses that may be compared: those of epochs, where a step sees a part of the data."""
        of_epochs = [e.logs["loss"] for e in self.epochs if is_known(e.logs.get("loss"))]
        if len(of_epochs) > 1 and self.has_small_batches:
            return of_epochs
        known = [loss for loss in self.step_losses if is_known(loss)]
        first = self.steps[0].loss
        return [first, *known] if is_known(first) else known

    @property
    def has_small_batches(self) -> bool:
        """Whether a step sees a part of the data, as far as the log tells."""
        steps = self.said("fit", "steps")
        if isinstance(steps, int):
            return steps > 1
        # A run that was interrupted has a step more than epochs.
        return bool(self.epochs) and len(self.steps) > len(self.epochs) + 1

    @property
    def is_at_rounding(self) -> bool:
        """Whether the loss came down to where rounding hides what is left of it."""
        return bool(self.losses) and 0 <= self.losses[-1] <= ROUNDING * max(self.losses)

    @functools.cached_property
    def seconds(self) -> list[float] | None:
        """Seconds of each step; None where the log does not have them of all."""
        known = [d.step_seconds for d in self.steps if is_known(d.step_seconds)]
        return known if len(known) == len(self.steps) else None

    @property
    def elapsed(self) -> list[float] | None:
        """Seconds since the end of the first step, at the end of each; None where not known."""
        if self.seconds is None:
            return None
        return [0.0, *itertools.accumulate(self.seconds[1:])]

    @property
    def later_seconds(self) -> float:
        """Median seconds of the steps after the first; NaN where there are none."""
        return (
            statistics.median(self.seconds[1:]) if self.seconds and self.seconds[1:] else math.nan
        )

    @property
    def is_traced(self) -> bool:
        """Whether the first step took so long that TensorFlow traced the model in it."""
        return self.seconds is not None and self.seconds[0] > _TRACED * self.later_seconds

    @property
    def is_learned(self) -> bool:
        """Whether quasi-Newton steps alone were taken, which solve no system."""
        return all(solver_of(d) == _LEARNED for d in self.decisions)


def loss_at_end(d: Decision) -> float | None:
    """The batch's loss when the step was over: a step that was refused left it as it was."""
    return d.loss_after if d.accepted else d.loss


def solver_of(d: Decision) -> str:
    """What solved the block's system in the end."""
    return d.solved_by or d.route


def at(d: Decision) -> int:
    """The step's number; 0 where the log does not count steps."""
    return d.step or 0
