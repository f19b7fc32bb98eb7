"""`NewtonLog`: what each Newton step did, to a list, Keras's logs, a JSONL file, TensorBoard."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import platform
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_path
from keras_qnewton.decision_log import Decisions
from keras_qnewton.optimizer import QNewton, qnewton_in
from keras_qnewton.registry import call_text
from keras_qnewton.run_file import Epoch, end_line, write_decisions, write_epoch, write_run
from keras_qnewton.types import Decision, is_known
from keras_qnewton.version import __version__

# Keras's logs of a batch or an epoch.
Logs = dict[str, float | None]
# What TensorFlow says its seed is where none was set.
_NO_SEED = 87654321
# A step's own numbers, equal in each of its blocks' decisions; and a block's.
_STEP_SCALARS = (
    "loss",
    "loss_after",
    "damping",
    "trust_ratio",
    "accepted",
    "attempts",
    "length",
    "step_seconds",
)
_BLOCK_SCALARS = ("condition_number", "sparsity", "residual", "fallback")


class NewtonLog(keras.callbacks.Callback):
    """Collects the decisions of `QNewton` during `fit`, beyond the optimizer's last 1,024.

    Each `Decision` gets `step_seconds`: wall seconds from the batch's begin to its end, Keras's
    part included, divided by the steps in between where `steps_per_execution` is above 1. The
    first step's are those of tracing.

    The epoch's logs, and so `History` and the progress bar, get "damping", "trust_ratio" (mean
    of the epoch where it is known) and "accepted_steps" (share of the epoch). Quasi-Newton steps
    have no λ and no ρ; they get "evaluations", the mean of a step.

    Args:
        path: File to append each decision to, one JSON object a line, after a line about the run
            (versions, date, seeds, settings, model); None for none. A line of Keras's logs follows
            each epoch. `python -m keras_qnewton report FILE -o PAGE.html` makes a page of it.
        on_step: Called after each batch with that batch's decisions, one a block.
        tensorboard: Directory for TensorBoard's scalars, by optimizer step, with a summary of
            the optimizer's settings for its HParams tab; None for none.

    Attributes:
        decisions: All decisions of the run, oldest first; `decisions.to_jsonl(path)` writes
            them.

    Raises:
        ValueError: If an argument is of another kind. At the start of training, if the model's
            optimizer is no `QNewton`, and no `LossScaleOptimizer` of one, or the file is there and
            is no log.
        OSError: At the start of training, if the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        on_step: Callable[[Sequence[Decision]], object] | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
    ):
        super().__init__()
        for name, value in (("path", path), ("tensorboard", tensorboard)):
            if value is not None:
                check_path(name, value)
        if on_step is not None and not callable(on_step):
            raise ValueError(f"Argument `on_step` must be callable. Received: on_step={on_step!r}")
        self.path = path
        self.on_step = on_step
        self.tensorboard = tensorboard
        self.decisions = Decisions()
        self._optimizer: QNewton | None = None
        self._seen = 0
        self._writer: tf.summary.SummaryWriter | None = None
        self._started = math.nan
        self._epoch: list[Decision] = []

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name in ("path", "on_step", "tensorboard")}
        return call_text(self, given)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        optimizer = qnewton_in(self.model.optimizer)
        if optimizer is None:
            raise ValueError(
                "`NewtonLog` needs a model compiled with `QNewton`. "
                f"Received: optimizer={self.model.optimizer!r}"
            )
        self._optimizer = optimizer
        self._seen = optimizer.decision_count
        if self.path is not None:
            # Before the first step: a path that cannot be written is found out now.
            with open(self.path, "a", encoding="utf-8") as file:
                end_line(file)
                write_run(file, _about(self.model, optimizer) | {"fit": _fit(self.params)})
        if self.tensorboard is not None:
            self._writer = tf.summary.create_file_writer(os.fspath(self.tensorboard))
            _write_settings(self._writer, optimizer)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = []

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        optimizer = self._optimizer
        assert optimizer is not None  # since `on_train_begin`
        new = optimizer.decisions_since(self._seen)
        made, self._seen = optimizer.decision_count - self._seen, optimizer.decision_count
        if made > len(new):
            warnings.warn(
                f"{made - len(new)} decisions were overwritten before `NewtonLog` could read them: "
                "use a smaller `steps_per_execution`.",
                stacklevel=2,
            )
        steps = len({d.step for d in new})
        seconds = (time.perf_counter() - self._started) / max(steps, 1)
        new = Decisions(dataclasses.replace(d, step_seconds=seconds) for d in new)
        self.decisions.extend(new)
        self._epoch.extend(new)
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                write_decisions(file, new)
        if self._writer is not None:
            _write_scalars(self._writer, new)
        if self.on_step is not None and new:
            self.on_step(new)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        steps = list({d.step: d for d in self._epoch}.values())
        if self.path is not None:
            # Before this callback adds numbers that each decision has.
            last = steps[-1].step if steps else None
            with open(self.path, "a", encoding="utf-8") as file:
                write_epoch(file, Epoch(epoch, last, _numbers(logs)))
        if logs is None or not steps:
            return
        ratios = [ratio for ratio in (d.trust_ratio for d in steps) if is_known(ratio)]
        if is_known(steps[-1].damping):
            logs["damping"] = steps[-1].damping
        evaluations = [d.evaluations for d in steps if d.evaluations is not None]
        if evaluations:
            logs["evaluations"] = sum(evaluations) / len(evaluations)
        if ratios:
            logs["trust_ratio"] = sum(ratios) / len(ratios)
        logs["accepted_steps"] = sum(bool(d.accepted) for d in steps) / len(steps)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _write_scalars(writer: tf.summary.SummaryWriter, decisions: Sequence[Decision]) -> None:
    """A step's scalars under qnewton/, its blocks' under qnewton/<block>/."""
    with writer.as_default():
        for k, d in enumerate(decisions):
            if k == 0 or decisions[k - 1].step != d.step:
                _write(d, _STEP_SCALARS, "qnewton")
            _write(d, _BLOCK_SCALARS, f"qnewton/{d.block}")
            for route, seconds in d.predicted.items():
                tf.summary.scalar(f"qnewton/{d.block}/predicted_{route}", seconds, step=d.step)
    writer.flush()


def _write(decision: Decision, fields: Sequence[str], prefix: str) -> None:
    for field in fields:
        value = getattr(decision, field)
        if is_known(value):
            tf.summary.scalar(f"{prefix}/{field}", float(value), step=decision.step)


def _write_settings(writer: tf.summary.SummaryWriter, optimizer: QNewton) -> None:
    """The optimizer's settings for the HParams tab."""
    from tensorboard.plugins.hparams import api  # comes with TensorFlow

    with writer.as_default():
        api.hparams(_settings(optimizer))


def _settings(optimizer: QNewton) -> dict[str, Any]:
    """The optimizer's settings: plain numbers and strings."""
    return {
        "learning_rate": float(optimizer.learning_rate),
        "curvature": str(optimizer.curvature),
        "blocks": str(optimizer.blocks),
        "damping": str(optimizer.damping),
        "sparsity": "all" if optimizer.sparsity is None else str(optimizer.sparsity),
        "update_every": optimizer.update_every,
        "seed": optimizer.seed or 0,
        "gate_time": optimizer.scheduler.gate_time,
        "routes": ", ".join(optimizer.scheduler.routes),
    }


def _about(model: keras.Model, optimizer: QNewton) -> dict[str, Any]:
    """A run's first line in the file."""
    layers = [
        {"name": layer.name, "class": type(layer).__name__, "weights": _count(layer)}
        for layer in getattr(model, "layers", [])
    ]
    return {
        "id": uuid.uuid4().hex[:12],
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
        "seed": _seed(),
        "settings": _settings(optimizer),
        "model": {"name": model.name, "weights": _count(model), "layers": layers},
    }


def _seed() -> int | None:
    """TensorFlow's global seed, which `keras.utils.set_random_seed` sets; None where it is not."""
    # An operation's seed is passed, or else one would be drawn.
    seed, _ = tf.compat.v1.get_seed(1)
    return None if seed == _NO_SEED else int(seed)


def _fit(params: Mapping[str, Any] | None) -> dict[str, int]:
    """Epochs and steps an epoch that `fit` was asked for, where they are known."""
    known = {key: (params or {}).get(key) for key in ("epochs", "steps")}
    return {key: value for key, value in known.items() if isinstance(value, int)}


def _numbers(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """What is a number of Keras's logs; metrics may return other things."""
    out = {}
    for name, value in (logs or {}).items():
        try:
            out[str(name)] = float(value)
        except (TypeError, ValueError):
            continue
    return out


def _count(of: keras.Layer) -> int:
    """Number of trainable weights."""
    return sum(math.prod(v.shape) for v in of.trainable_variables)
