"""`NewtonLog`: keeps every decision of a training run."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_qnewton.decision_log import Decisions
from keras_qnewton.optimizer import QNewton
from keras_qnewton.types import Decision


class NewtonLog(keras.callbacks.Callback):
    """Collects the decisions of `QNewton` during `fit`, beyond the optimizer's last 1,024.

    Args:
        path: File to append each decision to, one JSON object a line; None for none.
        on_step: Called after each batch with that batch's decisions, one a block.

    Attributes:
        decisions: All decisions of the run, oldest first; `decisions.to_jsonl(path)` writes
            them.

    Raises:
        ValueError: At the start of training, if the model's optimizer is not a `QNewton`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        on_step: Callable[[Sequence[Decision]], Any] | None = None,
    ):
        super().__init__()
        self.path = path
        self.on_step = on_step
        self.decisions = Decisions()
        self._seen = 0

    def on_train_begin(self, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        if not isinstance(optimizer, QNewton):
            raise ValueError(
                "`NewtonLog` needs a model compiled with `QNewton`. "
                f"Received: optimizer={optimizer!r}"
            )
        self._seen = optimizer.decision_count

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        new = optimizer.decisions_since(self._seen)
        made, self._seen = optimizer.decision_count - self._seen, optimizer.decision_count
        if made > len(new):
            warnings.warn(
                f"{made - len(new)} decisions were overwritten before `NewtonLog` could read them: "
                "use a smaller `steps_per_execution`.",
                stacklevel=2,
            )
        self.decisions.extend(new)
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(d.to_dict(), allow_nan=False) + "\n" for d in new)
        if self.on_step is not None and new:
            self.on_step(new)
