"""What is left of a step beside its loss, its curvature and its solve.

The same weights are trained twice by `QNewton()`, in turns: with the model's own loss, and with all
three replaced by next to nothing. The loss is then half the squared norm of the weights, its matrix
a constant multiple of the identity, and the solver divides by a number. So all the rest of a step
runs: damping, the condition number's estimate, the schedule, the trial's verdict, checks, the log.
A step is a call of a traced function, of a full batch. Each task has a process of its own.

    digits    64-16-16-10 tanh, 1,797 images, cross-entropy, as in `race`
    curve     1-24-24-1 tanh, 256 points, squared error, as there
    poisson   Poisson's equation in two dimensions by a tanh network, float64

python benchmarks/bookkeeping.py [--repeats 5] [--steps 20] [--json FILE]
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import common
import keras
import numpy as np
import race
import tensorflow as tf
from physics import PROBLEMS, keras_network, tf_loss

from keras_qnewton import QNewton
from keras_qnewton.curvature import Curvature
from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.scheduling import Scheduler
from keras_qnewton.solvers import LinearSolver
from keras_qnewton.types import Solution

# Of the stub's matrix, below the loss's own 1: its trust ratio is then in the range in which a step
# is taken as it is, neither tried again nor made longer.
CURVATURE = 0.8

Loss = Callable[[], tf.Tensor]


class Constant(Linearized):
    """A matrix that is there already."""

    positive_semidefinite = True

    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        return [CURVATURE * v for v in vectors]

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        return CURVATURE * vector

    def formed(self, k: int) -> Formed:
        matrix = CURVATURE * np.eye(self._parts[k].size)
        return Formed(tf.constant(matrix, self.dtype), tf.constant(Formation.PRODUCTS))


class ConstantCurvature(Curvature):
    def at(self, loss: Any, weights: Sequence[tf.Tensor], parts: Sequence[Any]) -> Constant:
        return Constant(loss, weights, parts, self.memory)


class Division(LinearSolver[tf.Tensor]):
    """Solves the stub's system at λ near 0."""

    name = "division"

    def init(self, matrix: tf.Tensor) -> tf.Tensor:
        return matrix[0, 0]

    def compute(self, state: tf.Tensor, rhs: tf.Tensor) -> Solution:
        zero = tf.constant(0.0, tf.float64)
        return Solution(rhs / tf.cast(state, rhs.dtype), zero, self.name)


class Task(NamedTuple):
    model: keras.Model
    loss: Loss


def of_the_race(name: str) -> Task:
    x, y, network, loss = race.task(name)
    model, inputs, labels = network(), tf.constant(x), tf.constant(y)
    return Task(model, lambda: loss(labels, model(inputs)))


def poisson() -> Task:
    problem = PROBLEMS["poisson2d"]
    drawn, weights = problem.start(0)
    model = keras_network(weights)
    points = [tf.constant(of) for of in drawn]
    return Task(model, lambda: tf_loss(problem, model, points))


TASKS: dict[str, Callable[[], Task]] = {
    "digits": functools.partial(of_the_race, "digits"),
    "curve": functools.partial(of_the_race, "curve"),
    "poisson": poisson,
}


def stepping(optimizer: QNewton, variables: Sequence[Any], loss: Loss) -> Callable[[int], float]:
    """A function that takes steps from the weights as they are now, and gives seconds a step."""
    start = [tf.identity(v) for v in variables]
    step = tf.function(lambda: optimizer.minimize(loss, variables), autograph=False)
    step()

    def taken(count: int) -> float:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        step()  # data are told to stay
        began = time.perf_counter()
        for _ in range(count):
            step().numpy()
        return (time.perf_counter() - began) / count

    return taken


def one_task(name: str, repeats: int, steps: int) -> dict[str, Any]:
    common.limit_threads()
    task = TASKS[name]()
    own = task.model.trainable_variables
    copies = [tf.Variable(v) for v in own]

    def trivial() -> tf.Tensor:
        return tf.add_n([tf.nn.l2_loss(v) for v in copies])

    scheduler = Scheduler(classical=Division(), quantum=None)
    stub = QNewton(curvature=ConstantCurvature(), scheduler=scheduler)
    whole = stepping(QNewton(), own, task.loss)
    rest = stepping(stub, copies, trivial)
    pairs = [(whole(steps), rest(steps)) for _ in range(repeats)]
    attempts = {decision.attempts for decision in stub.decisions}
    seconds, left = (statistics.median(times) for times in zip(*pairs, strict=True))
    share = statistics.median(b / a for a, b in pairs)
    print(
        f"{name:8} {1e3 * seconds:7.2f} ms a step, {1e3 * left:6.2f} ms beside loss, curvature and "
        f"solve: {share:.0%}   (attempts of the stub: {attempts})",
        flush=True,
    )
    size = sum(int(np.prod(v.shape)) for v in own)
    return {"task": name, "size": size, "seconds": seconds, "rest": left, "share": share}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="of one timing")
    common.add_output_options(parser, "bookkeeping")
    options = parser.parse_args()
    rows = [
        common.in_fresh_process(one_task, name, options.repeats, options.steps) for name in TASKS
    ]
    common.save("bookkeeping", rows, options.json)


if __name__ == "__main__":
    main()
