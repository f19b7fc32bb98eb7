"""One training run, with everything the study wants to know of it."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton import Blocks, Constant, Decision, NewtonLog, Pruning, QNewton, Scheduler
from keras_qnewton.conditioning import log_condition_number
from keras_qnewton.curvature import fisher, hessian

from . import by_rows
from .data import Data
from .settings import ROW_SHARES, Family

# Of blocks up to this size all eigenvalues are computed.
_LARGEST_PROBE = 2048
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@dataclasses.dataclass
class Run:
    """What a training run came to.

    Attributes:
        losses: This batch's loss before each step.
        accuracy: On the test set.
        seconds: Median wall seconds of a step, the first two left out (tracing).
        decisions: Newton's; empty for a baseline.
        probes: Newton's: one record a probed step and block, see `spectrum`.
    """

    losses: list[float]
    accuracy: float
    seconds: float
    decisions: list[Decision] = dataclasses.field(default_factory=list)
    probes: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        return {
            "steps": len(self.losses),
            "first_loss": self.losses[0],
            # A batch's loss is noisy: the last few.
            "last_loss": statistics.mean(self.losses[-5:]),
            "test_accuracy": self.accuracy,
            "seconds_a_step": self.seconds,
        }


@keras.saving.register_keras_serializable(package="examples.paper")
class RiseAndFall(keras.optimizers.schedules.LearningRateSchedule):
    """Linearly up over a tenth of the steps, and down to 0 at the last."""

    def __init__(self, peak: float, steps: int):
        self.peak, self.steps = peak, steps

    def __call__(self, step: Any) -> Any:
        done, rise = tf.cast(step, tf.float32), max(self.steps // 10, 1)
        return self.peak * tf.minimum((done + 1) / rise, (self.steps - done) / (self.steps - rise))

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "steps": self.steps}


def newton(
    family: Family,
    own: Data,
    steps: int,
    scheduler: Scheduler,
    *,
    sparsity: float = 1.0,
    epsilon: float = 5e-3,
    probes: int = 0,
    on_step: Callable[[], None] = lambda: None,
) -> Run:
    """`steps` steps of QNewton with the paper's damping, layer by layer."""
    keras.utils.set_random_seed(0)
    model = family.model(own, family.hidden)
    optimizer = QNewton(
        RiseAndFall(family.learning_rate, steps),
        curvature=family.curvature,
        blocks=Blocks("layer", max_size=4096),
        damping=Constant(epsilon, definite=True),
        sparsity=None if sparsity == 1.0 else Pruning(sparsity, "either", compensate=True),
        scheduler=scheduler,
    )
    probe = Probe(family, own, epsilon, steps, probes)
    log = NewtonLog(on_step=lambda _: on_step())
    _fit(model, optimizer, family, own, steps, [log, probe])
    decisions = list(log.decisions)
    first = list({d.step: d for d in decisions}.values())
    return Run(
        [float(d.loss) for d in first],
        _accuracy(model, own),
        statistics.median(d.step_seconds for d in first[min(2, len(first) - 1) :]),
        decisions,
        probe.records,
    )


def baseline(
    family: Family, own: Data, name: str, on_step: Callable[[], None] = lambda: None
) -> Run:
    """SGD with momentum, or Adam, on the same model and batches."""
    keras.utils.set_random_seed(0)
    model = family.model(own, family.hidden)
    if name == "sgd":
        optimizer = keras.optimizers.SGD(family.sgd, momentum=0.9)
    else:
        optimizer = keras.optimizers.Adam(family.adam)
    clock = _Clock(on_step)
    _fit(model, optimizer, family, own, family.steps * family.baseline_factor, [clock])
    seconds = clock.seconds[min(2, len(clock.seconds) - 1) :]
    return Run(clock.losses, _accuracy(model, own), statistics.median(seconds))


def _fit(
    model: Any, optimizer: Any, family: Family, own: Data, steps: int, callbacks: list
) -> None:
    model.compile(optimizer=optimizer, loss=LOSS)
    # Whole batches only: a short one would be traced anew.
    batches = tf.data.Dataset.from_tensor_slices((own.x, own.y))
    batches = batches.shuffle(len(own.x), seed=0).batch(family.batch, drop_remainder=True).repeat()
    model.fit(
        batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=callbacks
    )


def _accuracy(model: Any, own: Data) -> float:
    found = model.predict(own.x_test, batch_size=512, verbose=0).argmax(-1)
    return float(np.mean(found == own.y_test))


class _Clock(keras.callbacks.Callback):
    """Seconds and loss of each batch."""

    def __init__(self, on_step: Callable[[], None]):
        super().__init__()
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._on_step = on_step
        self._start = self._sum = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)
        # Keras gives the mean since the epoch's begin.
        total = float(logs["loss"]) * (batch + 1)
        self.losses.append(total - self._sum)
        self._sum = total
        self._on_step()


class Probe(keras.callbacks.Callback):
    """The exact spectrum of each block on one fixed batch, before training and on the way.

    Of a Fisher matrix, whose rows are known, the prices of its circuits, too.
    """

    def __init__(self, family: Family, own: Data, epsilon: float, steps: int, count: int):
        super().__init__()
        self.records: list[dict[str, Any]] = []
        self._batch = tf.constant(own.x[: family.batch]), tf.constant(own.y[: family.batch])
        self._curvature = hessian if family.curvature == "hessian" else fisher
        self._epsilon = epsilon
        self._at = (
            set(np.linspace(0, steps, count).round().astype(int).tolist()) if count else set()
        )
        self._blocks: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        x, y = self._batch
        weights = self.model.trainable_variables

        def compute() -> list[tuple[tf.Tensor, tf.Tensor]]:
            found = self._curvature(lambda: LOSS(y, self.model(x)), weights, blocks="layer")
            return [(block.matrix, block.gradient) for block in found]

        self._blocks = tf.function(compute, autograph=False)
        self._names = [part.name for part in Blocks("layer").split(weights)]
        self._take(0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._take(batch + 1)

    def _take(self, step: int) -> None:
        if step not in self._at:
            return
        for name, block in zip(self._names, self._blocks(), strict=True):
            matrix, gradient = (tensor.numpy().astype(float) for tensor in block)
            if len(matrix) <= _LARGEST_PROBE:
                found = {"step": step, "block": name} | spectrum(matrix, self._epsilon)
                if self._curvature is fisher:
                    found |= self._by_rows(matrix, gradient)
                self.records.append(found)

    def _by_rows(self, matrix: np.ndarray, gradient: np.ndarray) -> dict[str, Any]:
        """See `by_rows.record`; nothing of a block without a gradient, whose weights stay.

        A row of U is an example's gradient over √B, B the answers of the batch, each token's of a
        language model. So g = Uᵀc with c = 1/√B in all elements, of length 1.
        """
        if not (np.any(matrix) and np.any(gradient)):
            return {}
        damping, rows = self._epsilon * np.abs(matrix).max(), int(tf.size(self._batch[1]))
        system = by_rows.System.of(matrix, gradient, damping, rows, residuals=1.0)
        return by_rows.record(system)


def spectrum(matrix: np.ndarray, epsilon: float) -> dict[str, Any]:
    """κ and row mass of a block, exactly.

    Args:
        matrix: H, `[N, N]`.
        epsilon: Of the paper's regularisation.

    Returns:
        "size"; "alpha", ‖A‖_F/‖A‖₂ of the regularised A; "largest", "smallest" eigenvalue of H;
        "rank", eigenvalues above 1e-6 of the largest; "kappa" of the regularised H + ε max|H| I,
        max|λ|/min|λ|; "log10_bound", the paper's norm and determinant bound of that; "row_mass"
        by share s: what the s·N largest of each row's |H_ij| make up of it, the mean over rows
        that are not zero.
    """
    size = len(matrix)
    matrix = (matrix + matrix.T) / 2
    magnitudes = np.abs(matrix)
    values = np.linalg.eigvalsh(matrix)
    shift = epsilon * magnitudes.max()
    regularised = np.abs(values + shift)
    bound = log_condition_number(matrix + shift * np.eye(size), "norm_det")
    rows = -np.sort(-magnitudes, axis=1)
    totals = rows.sum(1)
    mass = rows.cumsum(1)[totals > 0] / totals[totals > 0, None]
    # Without the padding, which adds (N' - N)/κ² to its square.
    alpha = np.sqrt(np.sum(np.square(regularised))) / regularised.max()
    return {
        "size": size,
        "alpha": float(alpha),
        "largest": float(values[-1]),
        "smallest": float(values[0]),
        "rank": int((np.abs(values) > 1e-6 * np.abs(values).max()).sum()),
        "kappa": float(regularised.max() / regularised.min()) if regularised.min() > 0 else None,
        "log10_bound": float(bound) / np.log(10),
        "row_mass": {
            str(share): float(mass[:, max(round(share * size), 1) - 1].mean())
            for share in ROW_SHARES
        },
    }
