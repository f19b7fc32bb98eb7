"""The log of decisions: numbers kept by the graph, sentences made when somebody reads them.

A step appends one row a block to a ring buffer of numbers, an optimizer variable: no Python
runs in the train step, so it exports and survives saving. `Decision`s are made from the rows
outside the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton import directions
from keras_qnewton.curvature import formation
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.run_file import Decisions as Decisions
from keras_qnewton.scheduling import CGTime, Scheduler
from keras_qnewton.state import Foreseen
from keras_qnewton.step import Step
from keras_qnewton.types import Decision

# Rows of the log kept in the optimizer's state; `NewtonLog` keeps all.
CAPACITY = 1024

# The route of a step for which no system was solved.
_LEARNED = "quasi_newton"
# Numbers that are the bits of a float32.
_BITS = 2.0**32
_INDEFINITE = directions.FIXED_ROUTES.index("ldl")
FIELDS = (
    "step",
    "block",
    "size",
    "condition_number",
    "sparsity",
    "damping",
    "trust_ratio",
    "loss",
    "loss_after",
    "accepted",
    "length",
    "residual",
    "route",
    "solved_by",
    "rule",
    "products",
    "sparsity_before",
    "added_shift",
    "error_bound",
    "formation",
)


class StepColumns(NamedTuple):
    """Numbers of steps, `[S]` float64 each; see `Decision`.

    Attributes:
        step: Optimizer iteration.
        condition_number: The largest κ of the step's blocks.
        damping: λ.
        loss: Before the step.
        loss_after: At the candidate weights.
        accepted: Positive if the step was taken: 1 + its attempts; see `_verdict`.
    """

    step: np.ndarray
    condition_number: np.ndarray
    damping: np.ndarray
    loss: np.ndarray
    loss_after: np.ndarray
    accepted: np.ndarray


class DecisionLog:
    """The ring buffer of an optimizer, and the names that its numbers stand for.

    Args:
        optimizer: Its variables hold the numbers.
        scheduler: Chooses among the routes.
        block_names: Those of the blocks; others are added as they come.

    Attributes:
        buffer: The rows, `[CAPACITY, width]`.
        count: How many were appended so far, int64 scalar.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        scheduler: Scheduler,
        block_names: Sequence[str],
    ):
        self._scheduler, self._block_names = scheduler, list(block_names)
        self.buffer = optimizer.add_variable(
            (CAPACITY, width(scheduler)), dtype="float64", name="log"
        )
        self.count = optimizer.add_variable((), dtype="int64", name="log_count")

    def append(
        self, step: Step, parts: Sequence[Part], iteration: tf.Tensor, marks: tf.Tensor
    ) -> None:
        """Adds one row a block, in the graph."""
        new = rows(step, parts, self._numbers(parts), iteration, marks)
        count = tf.convert_to_tensor(self.count)
        append(self.buffer.value, count, new)
        self.count.assign(count + len(parts))

    def last_marks(self, parts: Sequence[Part]) -> tf.Tensor:
        """The marks of the last step, int64 `[K]`: of the same blocks, else zeros.

        Before the first step all bits are set.
        """
        count, blocks = tf.convert_to_tensor(self.count), len(parts)
        places = tf.cast(count, tf.int32) - blocks + tf.range(blocks)
        last = tf.gather(self.buffer.value, places % CAPACITY)
        numbers = tf.floor(last[:, FIELDS.index("block")])
        same = tf.reduce_all(tf.equal(numbers, np.array(self._numbers(parts), float)))
        known = tf.where(same, marks_in(last), 0)
        return tf.where(count > 0, known, tf.constant(int(_BITS) - 1, tf.int64))

    def _numbers(self, parts: Sequence[Part]) -> list[int]:
        """What blocks are called in the log."""
        for part in parts:  # variables without a gradient may have changed the partition
            if part.name not in self._block_names:
                self._block_names.append(part.name)
        return [self._block_names.index(part.name) for part in parts]

    def foreseen(self) -> Foreseen:
        """What the last step knew of the next."""
        count = tf.convert_to_tensor(self.count)
        # Of the variable itself: a value that was read would be copied by `append`.
        row = tf.gather(self.buffer.value, tf.cast(count - 1, tf.int32) % CAPACITY)
        loss, after, accepted, block = (
            row[FIELDS.index(name)] for name in ("loss", "loss_after", "accepted", "block")
        )
        ahead = tf.where(count > 0, tf.where(accepted > 0, after, loss), math.nan)
        return Foreseen(ahead, _of_fraction(block))

    def since(self, number: int) -> Decisions:
        """The decisions from the given one on that the buffer still holds."""
        return decode(self.buffer.numpy(), len(self), number, self._scheduler, self._block_names)

    def steps(self) -> StepColumns:
        """Numbers of the steps that the buffer still holds, oldest first."""
        count, rows = len(self), self.buffer.numpy()
        held = np.arange(max(count - CAPACITY, 0), count) % CAPACITY
        columns = rows[held][:, [FIELDS.index(name) for name in StepColumns._fields]]
        # A step has a row for each block.
        first = np.flatnonzero(np.diff(columns[:, 0], prepend=-1) != 0)
        steps = StepColumns(*columns[first].T)
        if not len(first):
            return steps
        largest = np.maximum.reduceat(
            columns[:, StepColumns._fields.index("condition_number")], first
        )
        return steps._replace(condition_number=largest)

    def __len__(self) -> int:
        return int(self.count.numpy())


def width(scheduler: Scheduler) -> int:
    """Numbers in a row: the fields, and the predicted seconds of each scheduler route."""
    return len(FIELDS) + len(scheduler.routes)


def rows(
    step: Step,
    parts: Sequence[Part],
    block_numbers: Sequence[int],
    iteration: tf.Tensor,
    marks: tf.Tensor,
) -> tf.Tensor:
    """The rows `[K, width]` of one step, float64; marks of 32 bits are int64 `[K]`."""
    trial = step.trial
    shared = {
        "step": iteration,
        "damping": trial.damping,
        "trust_ratio": trial.ratio,
        "loss": step.loss,
        "loss_after": trial.loss_after,
        "accepted": _verdict(trial.accepted, step.attempts),
        "length": trial.length,
    }
    out = []
    # Numbers that came later are kept with integers: a variable, or a column, of its own would make
    # files of earlier versions those of another optimizer.
    full = 0.0 if step.full is None else _fraction(step.full)
    marked = tf.unstack(tf.cast(marks, tf.float64) / _BITS, len(parts))
    for part, number, block, how, mark in zip(
        parts, block_numbers, trial.blocks, step.formations, marked, strict=True
    ):
        alpha = tf.where(tf.math.is_finite(block.alpha), block.alpha, tf.zeros_like(block.alpha))
        values = shared | {
            "block": number + full,
            "size": part.size + _fraction(alpha),
            "formation": tf.cast(how, tf.float64) + mark,
        }
        numbers = [
            tf.cast(values[name] if name in values else getattr(block, name), tf.float64)
            for name in FIELDS
        ]
        out.append(tf.concat([tf.stack(numbers), block.predicted], 0))
    return tf.stack(out)


def _fraction(value: tf.Tensor) -> tf.Tensor:
    """A number as another in [0, 1), the bits of a float32; float64 scalar."""
    bits = tf.bitcast(tf.cast(value, tf.float32), tf.uint32)
    return tf.cast(tf.cast(bits, tf.int64), tf.float64) / _BITS


def _of_fraction(integer: tf.Tensor) -> tf.Tensor:
    """The inverse of `_fraction`, of an integer with it; 0 where there is none."""
    bits = tf.cast(_BITS * (integer - tf.floor(integer)), tf.int64)
    return tf.cast(tf.bitcast(tf.cast(bits, tf.uint32), tf.float32), tf.float64)


def marks_in(rows: tf.Tensor) -> tf.Tensor:
    """The marks in rows of the log `[..., width]`, int64."""
    formation = rows[..., FIELDS.index("formation")]
    return tf.cast(_BITS * (formation - tf.floor(formation)), tf.int64)


def _verdict(accepted: tf.Tensor, attempts: tf.Tensor | None) -> tf.Tensor:
    """One number for both: 1 + attempts of a step that was taken, -attempts of one that was not.

    1 and 0 are of steps whose attempts are not known, as in logs that were saved earlier.
    """
    if attempts is None:
        return accepted
    return tf.where(accepted, 1 + attempts, -attempts)


def _attempts(verdict: int) -> int | None:
    """The attempts that `_verdict` says; None where they are not known."""
    if verdict in (0, 1):
        return None
    return verdict - 1 if verdict > 0 else -verdict


def append(buffer: tf.Variable, count: tf.Tensor, new: tf.Tensor) -> None:
    """Writes `new` `[K, width]` after `count` earlier rows into the ring buffer, in place.

    Of more new rows than the buffer `[capacity, width]` holds, the last are kept. Assigning a
    changed copy would move 200 kB a step, a tenth of the time of a small model's.
    """
    capacity = buffer.shape[0]
    kept = min(int(new.shape[0]), capacity)
    skipped = int(new.shape[0]) - kept
    at = (tf.cast(count, tf.int32) + skipped + tf.range(kept)) % capacity
    buffer.scatter_nd_update(at[:, None], new[skipped:])


def decode(
    buffer: np.ndarray, count: int, since: int, scheduler: Scheduler, block_names: Sequence[str]
) -> Decisions:
    """The decisions number `since` to `count` that the ring buffer still holds."""
    capacity = len(buffer)
    first = max(since, count - capacity, 0)
    return Decisions(
        _decision(buffer[k % capacity], scheduler, block_names) for k in range(first, count)
    )


def _decision(row: np.ndarray, scheduler: Scheduler, block_names: Sequence[str]) -> Decision:
    values = dict(zip(FIELDS, row[: len(FIELDS)].tolist(), strict=True))
    seconds = row[len(FIELDS) :].tolist()
    predicted = {
        route: s for route, s in zip(scheduler.routes, seconds, strict=True) if not math.isnan(s)
    }
    rule, size = int(values["rule"]), int(values["size"])
    alpha = _alpha(values["size"])
    kappa = values["condition_number"]
    sparsity = size if math.isnan(values["sparsity"]) else int(values["sparsity"])
    routes = (*directions.FIXED_ROUTES, *scheduler.routes)
    learned = directions.is_learned(rule)
    if rule < 0:
        reason = directions.explain(rule)
    else:
        absolute, rule = divmod(rule, directions.RULE_ABSOLUTE)
        known = rule, size, kappa, sparsity, predicted
        reason = scheduler.explain(*known, absolute=bool(absolute))
        if absolute:
            reason = f"saddle-free, by eigendecomposition (priced as a solve) or circuit: {reason}"
    route, solved_by = routes[int(values["route"])], routes[int(values["solved_by"])]
    if learned:
        route = solved_by = _LEARNED
    if int(values["solved_by"]) == _INDEFINITE:
        reason += f"; not positive definite, so that {solved_by} took over from {route}"
    elif route != solved_by:
        reason += f"; {route} failed its residual check, {solved_by} took over"
    before, bound = _known(values["sparsity_before"]), _known(values["error_bound"])
    if before is not None:
        reason += (
            f"; reshaped: d {before:.0f} → {sparsity}, ε = {values['added_shift']:.3g}, "
            f"error of the step at most {bound:.2g}"
        )
    elif bound is not None:
        reason += f"; reshaping failed its check (error bound {bound:.2g}), solved as it is"
    products = _known(values["products"])
    evaluations = int(values["products"]) if learned else None
    if learned:
        products = None
    number = int(values["block"])
    return Decision(
        route=route,
        reason=reason,
        predicted=predicted,
        size=size,
        condition_number=kappa,
        sparsity=sparsity,
        evaluations=evaluations,
        step=int(values["step"]),
        block=block_names[number] if number < len(block_names) else str(number),
        damping=values["damping"],
        trust_ratio=values["trust_ratio"],
        loss=values["loss"],
        loss_after=values["loss_after"],
        accepted=values["accepted"] > 0,
        attempts=_attempts(int(values["accepted"])),
        length=values["length"],
        residual=values["residual"],
        fallback=route != solved_by,
        solved_by=solved_by,
        conditioning_seconds=None if products is None else _product_seconds(size) * products,
        sparsity_before=None if before is None else int(before),
        added_shift=_known(values["added_shift"]),
        error_bound=bound,
        formed_by=formation.explain(int(values["formation"])),
        alpha=alpha,
        encoding=None if alpha is None else scheduler.quantum_price.encoding,
    )


def _alpha(size: float) -> float | None:
    """What is kept with a block's size; None where nothing is."""
    bits = np.uint32(_BITS * (size % 1.0))
    return float(bits.view(np.float32)) or None


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _product_seconds(size: int) -> float:
    """Seconds of one product with an `[N, N]` matrix, on the machine that reads the log."""
    return CGTime().seconds_per_entry * size**2
