"""Our steps and their peers on one loss, each as a `turns.Method`.

Methods with a line search also evaluate points that they do not take: their answer is the lowest
so far. Peers get TensorFlow's loss and gradient as one compiled function of a flat vector.
"""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Callable
from typing import Any, ClassVar

import common
import keras
import numpy as np
import scipy.optimize
import tensorflow as tf
from problems import Task
from self_scaled import self_scaled_bfgs

from keras_qnewton import QNewton, QuasiNewton

Tick = Callable[[], None]
PAIRS = 50
# SciPy's BFGS forms products of N x N matrices at each update.
LARGEST_DENSE_SCIPY = 1000
# Of the seconds, before L-BFGS begins: Rathore et al. switch after 1,000 to 31,000 of 41,000 steps.
ADAMS_SHARE = 0.25
# Steps that are taken to compile one, and seconds after which no more are.
COMPILING, COMPILING_SECONDS = 40, 10.0


class Flat:
    """A task's weights as one vector, with the loss and gradient there.

    `lowest` and `lowest_at` are the lowest finite loss that was seen, and where.
    """

    def __init__(self, task: Task):
        self.variables = [v.value for v in task.variables]
        sizes = [math.prod(v.shape) for v in self.variables]
        self._dtype = self.variables[0].dtype

        def value_and_gradient(flat: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            for v, piece in zip(self.variables, tf.split(flat, sizes), strict=True):
                v.assign(tf.reshape(piece, v.shape))
            with tf.GradientTape() as tape:
                value = task.loss()
            gradients = tape.gradient(value, self.variables)
            return value, tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

        # For other libraries' graphs, and compiled on its own.
        self.traceable = value_and_gradient
        self._compiled = tf.function(value_and_gradient, autograph=False)
        self.evaluations = 0
        self.lowest, self.lowest_at = math.inf, self.weights()

    def weights(self) -> np.ndarray:
        return np.concatenate([v.numpy().ravel() for v in self.variables]).astype("float64")

    def tensor(self, weights: np.ndarray) -> tf.Tensor:
        return tf.constant(weights, self._dtype)

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self._compiled(self.tensor(weights))
        loss = float(value)
        self.evaluations += 1
        if loss < self.lowest:
            self.lowest, self.lowest_at = loss, weights.copy()
        return loss, gradient.numpy().astype("float64")


class _Counts:
    """What counts its losses with gradients as it goes: a mark is their number."""

    def evaluations(self, mark: int) -> int:
        return mark


class _OnFlat(_Counts):
    """A peer on `Flat`; its answer is the lowest."""

    def __init__(self, task: Task):
        self.flat = Flat(task)
        self.begin = self.flat.weights()
        self.flat(self.begin)

    def weights(self) -> np.ndarray:
        return self.flat.lowest_at

    def mark(self) -> int:
        return self.flat.evaluations

    def timed(self, tick: Tick) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        def evaluate(weights: np.ndarray) -> tuple[float, np.ndarray]:
            out = self.flat(weights)
            tick()
            return out

        return evaluate


class SelfScaled(_OnFlat):
    def run(self, tick: Tick) -> str:
        return self_scaled_bfgs(self.timed(tick), self.begin)


class _SciPy(_OnFlat):
    """Begun again from its lowest where it ends, as long as that lowers the loss."""

    method: str
    options: ClassVar[dict[str, Any]]

    def run(self, tick: Tick) -> str:
        evaluate, runs, before = self.timed(tick), 0, math.inf
        while self.flat.lowest < before:
            before, runs = self.flat.lowest, runs + 1
            result = scipy.optimize.minimize(
                evaluate,
                self.flat.lowest_at,
                jac=True,
                method=self.method,
                options={"maxiter": 10**8, **self.options},
            )
        return f"begun {runs} times: {result.message}"


class SciPyLBFGSB(_SciPy):
    method = "L-BFGS-B"
    options: ClassVar = {"maxfun": 10**8, "maxcor": PAIRS, "ftol": 0, "gtol": 0}


class SciPyBFGS(_SciPy):
    method = "BFGS"
    options: ClassVar = {"gtol": 0}

    def __init__(self, task: Task):
        if task.size > LARGEST_DENSE_SCIPY:
            raise common.SkippedError(f"SciPy BFGS: only up to {LARGEST_DENSE_SCIPY} weights")
        super().__init__(task)


class TorchLBFGS(_OnFlat):
    """On a vector of PyTorch's, whose gradient is TensorFlow's."""

    def __init__(self, task: Task):
        self.torch = common.optional("torch")
        if self.torch is None:
            raise common.SkippedError("torch L-BFGS: torch is not installed")
        super().__init__(task)

    def run(self, tick: Tick) -> str:
        torch, evaluate = self.torch, self.timed(tick)
        weights = torch.tensor(self.begin, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weights],
            history_size=PAIRS,
            max_iter=100,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Any:
            loss, gradient = evaluate(weights.detach().numpy())
            weights.grad = torch.from_numpy(gradient)
            return torch.tensor(loss, dtype=torch.float64)

        while True:
            optimizer.step(closure)


class TFPLBFGS(_OnFlat):
    """Iterations inside one graph; out of it every few, to look at the clock."""

    each = 10

    def __init__(self, task: Task):
        tfp = common.optional("tensorflow_probability")
        if tfp is None:
            raise common.SkippedError("TFP L-BFGS: tensorflow_probability is not installed")
        super().__init__(task)

        def iterations(number: Any, state: Any = None) -> Any:
            return tfp.optimizer.lbfgs_minimize(
                self.flat.traceable,
                None if state else self.flat.tensor(self.begin),
                previous_optimizer_results=state,
                num_correction_pairs=PAIRS,
                tolerance=0,
                max_iterations=number,
            )

        self._first = tf.function(lambda: iterations(0), autograph=False)
        self._more = tf.function(lambda state, n: iterations(n, state), autograph=False)
        self._state = self._first()
        self._more(self._state, tf.constant(1))  # compiles; its result is thrown away

    def weights(self) -> np.ndarray:
        return self._state.position.numpy().astype("float64")

    def mark(self) -> int:
        return int(self._state.num_objective_evaluations)

    def run(self, tick: Tick) -> str:
        iterations = 0
        while not (bool(self._state.converged) or bool(self._state.failed)):
            iterations += self.each
            self._state = self._more(self._state, tf.constant(iterations))
            bool(self._state.failed)  # waits for it
            tick()
        return "converged" if bool(self._state.converged) else "its line search failed"


# --- steps of Keras optimizers ----------------------------------------------------------------


class _Steps(_Counts, abc.ABC):
    """A step compiled as a `tf.function`."""

    def __init__(self, task: Task):
        self.task = task
        self.optimizer = self.make_optimizer()
        self._compiled = tf.function(self.update, autograph=False)
        self.steps = 0
        self._compile()

    def _compile(self) -> None:
        """Takes steps and puts everything back.

        TensorFlow prepares a branch when it is first taken, as peers' code is before it is called.
        """
        self.optimizer.build(list(self.task.variables))
        variables = [*self.task.variables, *self.optimizer.variables]
        start = [v.numpy() for v in variables]
        began = time.perf_counter()
        while self.steps < COMPILING and time.perf_counter() - began < COMPILING_SECONDS:
            self.step()
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        self.steps = 0

    @abc.abstractmethod
    def make_optimizer(self) -> Any:
        """A new one."""

    @abc.abstractmethod
    def update(self) -> tf.Tensor:
        """One step, traced once."""

    def step(self) -> None:
        float(self._compiled())  # waits for it
        self.steps += 1

    def mark(self) -> int:
        return self.steps

    def weights(self) -> np.ndarray:
        return np.concatenate([v.numpy().ravel() for v in self.task.variables]).astype("float64")

    def run(self, tick: Tick) -> str:
        while True:
            self.step()
            tick()


class Adam(_Steps):
    def make_optimizer(self) -> Any:
        return keras.optimizers.Adam()

    def update(self) -> tf.Tensor:
        variables = list(self.task.variables)
        with tf.GradientTape() as tape:
            value = self.task.loss()
        gradients = tape.gradient(value, [v.value for v in variables])
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value


class AdamThenLBFGS(SciPyLBFGSB):
    """Adam for a quarter of the seconds, and L-BFGS-B from where it came to."""

    def __init__(self, task: Task, seconds: float):
        super().__init__(task)
        self._adam, self._is_adam = Adam(task), True
        self._adams_seconds = ADAMS_SHARE * seconds

    def weights(self) -> np.ndarray:
        return self._adam.weights() if self._is_adam else super().weights()

    def mark(self) -> int:
        return self._adam.mark() + super().mark()

    def run(self, tick: Tick) -> str:
        spent = 0.0
        while spent < self._adams_seconds:
            began = time.perf_counter()
            self._adam.step()
            spent += time.perf_counter() - began
            tick()
        self.flat.lowest = math.inf
        self.flat(self._adam.weights())
        self._is_adam = False
        tick()
        return super().run(tick)


class Newton(_Steps):
    """Ours at its defaults; a Newton step counts as one gradient, whatever its curvature costs."""

    def __init__(self, task: Task):
        self._totals = [1]  # after each step; the first is that of the start
        super().__init__(task)

    def make_optimizer(self) -> Any:
        return QNewton()

    def update(self) -> tf.Tensor:
        return self.optimizer.minimize(self.task.loss, list(self.task.variables))

    def _compile(self) -> None:
        super()._compile()
        self._totals = [1]

    def evaluations(self, mark: int) -> int:
        """Those of line searches, which the log of decisions has, and the first."""
        new = self.steps + 1 - len(self._totals)
        for decision in self.optimizer.decisions[-new:] if new else []:
            self._totals.append(self._totals[-1] + (decision.evaluations or 1))
        return self._totals[mark]


class GaussNewtonSteps(Newton):
    """Ours, the Gauss-Newton matrix at any size."""

    def make_optimizer(self) -> Any:
        return QNewton(curvature="gauss_newton")


class QuasiNewtonSteps(Newton):
    """Ours, quasi-Newton by one of its updates."""

    rule: str

    def make_optimizer(self) -> Any:
        return QNewton(curvature=QuasiNewton(update=self.rule))


class _TaskModel(keras.Model):
    """A task as a model for `fit`: its data are constants, and what `fit` passes in is not read."""

    def __init__(self, task: Task):
        super().__init__()
        self.task, self.tracker = task, keras.metrics.Mean("loss")

    @property
    def trainable_variables(self) -> list[Any]:
        return list(self.task.variables)

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker]

    def train_step(self, data: Any) -> dict[str, Any]:
        del data
        with tf.GradientTape() as tape:
            loss = self.optimizer.scale_loss(self.task.loss())
        variables = self.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        self.optimizer.apply(gradients, variables)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


class Fit(Newton):
    """Quasi-Newton steps in stock `fit`: a hundred an epoch, ten an execution."""

    steps_per_epoch, steps_per_execution = 100, 10

    def __init__(self, task: Task):
        self._totals, self.steps = [1], 0
        self.task, self._model = task, _TaskModel(task)
        self.optimizer = QNewton(curvature="quasi_newton")
        self._model.compile(optimizer=self.optimizer, steps_per_execution=self.steps_per_execution)
        self._data = tf.data.Dataset.from_tensors(np.zeros((1, 1), "float32")).repeat()
        self._compile()

    def step(self) -> None:
        self._fit(1, lambda: None)

    def _fit(self, epochs: int, tick: Tick) -> None:
        def taken(batch: int, logs: Any = None) -> None:
            del batch, logs
            self.steps += self.steps_per_execution
            if self.steps - len(self._totals) > 500:  # the log holds the last 1,024
                self.evaluations(0)
            tick()

        self._model.fit(
            self._data,
            steps_per_epoch=self.steps_per_epoch,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=taken)],
        )

    def run(self, tick: Tick) -> str:
        self._fit(10**9, tick)
        return "all epochs"


class FitByEpochs(Fit):
    """An epoch for each step, as of a full batch: with what Keras does between epochs."""

    steps_per_epoch = steps_per_execution = 1


def _ours(rule: str) -> type[QuasiNewtonSteps]:
    return type(f"Ours_{rule}", (QuasiNewtonSteps,), {"rule": rule})


# By the name on the command line: the label, and the class.
METHODS: dict[str, tuple[str, Callable[..., Any]]] = {
    "ssbfgs": ("QNewton, ssbfgs", _ours("ssbfgs")),
    "ssbroyden": ("QNewton, ssbroyden", _ours("ssbroyden")),
    "bfgs": ("QNewton, bfgs", _ours("bfgs")),
    "lbfgs": ("QNewton, lbfgs", _ours("lbfgs")),
    "fit": ("ssbroyden in fit", Fit),
    "fit_epochs": ("in fit, by epochs", FitByEpochs),
    "newton": ("QNewton()", Newton),
    "gauss_newton": ("QNewton, gauss_newton", GaussNewtonSteps),
    "self_scaled": ("self-scaled, BLAS", SelfScaled),
    "scipy_lbfgs": ("SciPy L-BFGS-B", SciPyLBFGSB),
    "scipy_bfgs": ("SciPy BFGS", SciPyBFGS),
    "torch_lbfgs": ("torch L-BFGS", TorchLBFGS),
    "tfp_lbfgs": ("TFP L-BFGS", TFPLBFGS),
    "adam": ("Adam(0.001)", Adam),
    "adam_lbfgs": ("Adam, L-BFGS-B", AdamThenLBFGS),
}


def make(name: str, task: Task, seconds: float) -> Any:
    """A method at its start, compiled.

    Raises:
        common.SkippedError: It is not installed, or the task is too large for it.
    """
    kind = METHODS[name][1]
    return kind(task, seconds) if kind is AdamThenLBFGS else kind(task)
