"""Routes tried one after the other, until the residual of one passes.

    circuit              if the scheduler chose it; residual ≤ its tolerance, or a forcing term
    classical solvers    the fastest first, LU last; residual ≤ the tolerance, or what rounding
                         explains
    ldl                  if the last of them needs a definite system, and this is not
    eigen                the last resort: what no linear solver can take

Under adaptive damping the last two are left out: the step is tried again at a larger λ, at which
the system is definite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning.lanczos import EPSILON
from keras_qnewton.directions.block_step import FIXED_ROUTES
from keras_qnewton.scheduling import Scheduler
from keras_qnewton.solvers import LDL, Eigen, on_host
from keras_qnewton.solvers.checks import passes
from keras_qnewton.state import FactorKind
from keras_qnewton.types import CarryingSolver, Solution, Solver

# c in ‖Ax - b‖ ≤ c u κ ‖b‖, the residual of a backward stable solve (Higham 2002, section 7.1).
_ROUNDING = 8.0
# x = 0 has the residual 1.
_NO_SOLUTION = 0.1


class Answer(NamedTuple):
    """What a system came to.

    Attributes:
        x: `[N]`, float64.
        residual: ``||A x - b|| / ||b||``, float64 scalar; NaN where there is no solution.
        route: Solver that gave it, int32 index into `FIXED_ROUTES` + the scheduler's routes.
        lengths: As a circuit found them, or as they were guessed, float64 `[2]`; empty where no
            solver is told.
    """

    x: tf.Tensor
    residual: tf.Tensor
    route: tf.Tensor
    lengths: tf.Tensor | tuple[()] = ()


class System(NamedTuple):
    """A x = b, and what is known of it.

    Attributes:
        matrix: A, `[N, N]`, float64.
        rhs: b, `[N]`, float64.
        condition_number: κ, float64 scalar.
        definite: Whether A is known to be positive definite while the graph is traced.
        indefinite: Whether it is known not to be when the step runs, scalar bool.
        tolerance: Of a circuit's solution, float64 scalar; None for the scheduler's.
        lengths: Of solutions as they are guessed, float64 `[2]`; None where no solver is told.
        by_rows: From a tolerance to the solution by the Jacobian's rows; None where there are none.
    """

    matrix: tf.Tensor
    rhs: tf.Tensor
    condition_number: tf.Tensor
    definite: bool
    indefinite: tf.Tensor
    tolerance: tf.Tensor | None = None
    lengths: tf.Tensor | None = None
    by_rows: Callable[[tf.Tensor | float], Solution] | None = None


class Attempts:
    """The solvers of one system.

    Args:
        system: `System`.
        scheduler: Its solvers are tried.
        solved: From a solver, and the kind of its factors (`state.FactorKind`), to its solution.
        tried_again: Whether a step that fails is tried again with another system.
    """

    def __init__(
        self,
        system: System,
        scheduler: Scheduler,
        solved: Callable[[Solver, int], Solution],
        tried_again: bool,
    ):
        self._system, self._scheduler, self._solved = system, scheduler, solved
        self._tried_again = tried_again
        # Another factorisation does not lower a residual that rounding explains.
        kappa = system.condition_number
        rounding = tf.minimum(_ROUNDING * EPSILON[tf.float64] * kappa, _NO_SOLUTION)
        rounding = tf.where(tf.math.is_finite(kappa), rounding, tf.zeros_like(rounding))
        self._sound = tf.maximum(rounding, scheduler.tolerance)
        given = system.tolerance
        self._of_circuits = scheduler.tolerance if given is None else given

    def answer(self, index: tf.Tensor, predicted: tf.Tensor) -> Answer:
        """The first that passes, or the one with the smallest residual.

        Args:
            index: Of the route that was chosen, into the scheduler's.
            predicted: Seconds by route.
        """
        scheduler, definite = self._scheduler, self._system.definite
        # A circuit is a host call: it must not be in a graph that could never choose it.
        quantum, size = scheduler.quantum, int(self._system.rhs.shape[0])
        guessed = () if self._system.lengths is None else self._system.lengths
        possible = quantum is not None and quantum.name in scheduler.possible(size, definite)
        if quantum is None or not possible or (scheduler.by_rows and not self._system.by_rows):
            return self._classical(predicted)._replace(lengths=guessed)
        circuit = scheduler.routes.index(quantum.name)
        answer = _tf_private.cond(
            tf.equal(index, circuit),
            lambda: self._by_circuit(circuit),
            lambda: self._unsolved(len(FIXED_ROUTES) + circuit)._replace(lengths=guessed),
        )
        solved = _tf_private.cond(
            passes(answer.residual, self._of_circuits),
            lambda: answer._replace(lengths=()),
            lambda: self._classical(predicted),
        )
        return solved._replace(lengths=answer.lengths)

    def _classical(self, predicted: tf.Tensor) -> Answer:
        scheduler, definite = self._scheduler, self._system.definite
        first = scheduler.fastest(predicted, definite)
        if isinstance(first, int):
            return self._in_turn(*scheduler.attempts(first, definite))
        orders = [
            scheduler.attempts(k, definite) for k in range(len(scheduler.candidates(definite)))
        ]
        return tf.switch_case(
            first, [lambda order=order: self._in_turn(*order) for order in orders]
        )

    def _in_turn(self, route: int, *others: int) -> Answer:
        if self._system.definite or not self._needs_definite(route):
            answer = self._by(route)
        else:
            answer = _tf_private.cond(
                self._system.indefinite,
                lambda: self._unsolved(len(FIXED_ROUTES) + route),
                lambda: self._by(route),
            )
        if others:
            return _tf_private.cond(
                passes(answer.residual, self._sound),
                lambda: answer,
                lambda: _better(answer, self._in_turn(*others)),
            )
        if self._tried_again:
            return answer
        last = self._not_definite if self._needs_definite(route) else self._last_resort
        return _tf_private.cond(
            passes(answer.residual, self._sound), lambda: answer, lambda: _better(answer, last())
        )

    def _needs_definite(self, route: int) -> bool:
        return bool(getattr(self._scheduler.solvers[route], "definite", False))

    def _by(self, route: int) -> Answer:
        solution = self._solved(self._scheduler.solvers[route], FactorKind.FIRST_ROUTE + route)
        return Answer(solution.x, solution.residual, tf.constant(len(FIXED_ROUTES) + route))

    def _by_circuit(self, route: int) -> Answer:
        """By the quantum solver, which is told lengths if it takes them."""
        system, solver = self._system, self._scheduler.quantum
        if system.by_rows is not None:
            solution, index = system.by_rows(self._of_circuits), len(FIXED_ROUTES) + route
            return Answer(solution.x, solution.residual, tf.constant(index))
        if system.lengths is None or not isinstance(solver, CarryingSolver):
            return self._by(route)
        given = system.matrix, system.rhs, system.lengths, system.tolerance
        solution, lengths = on_host.solve_from(solver, *given)
        found = tf.constant(len(FIXED_ROUTES) + route)
        return Answer(solution.x, solution.residual, found, lengths)

    def _unsolved(self, route: int) -> Answer:
        nan = tf.constant(math.nan, tf.float64)
        return Answer(tf.zeros_like(self._system.rhs), nan, tf.constant(route))

    def _not_definite(self) -> Answer:
        answer = self._fixed(self._solved(LDL(), FactorKind.LDL))
        return _tf_private.cond(
            passes(answer.residual, self._sound),
            lambda: answer,
            lambda: _better(answer, self._last_resort()),
        )

    def _last_resort(self) -> Answer:
        return self._fixed(Eigen().solve(self._system.matrix, self._system.rhs))

    def _fixed(self, solution: Solution) -> Answer:
        route = tf.constant(FIXED_ROUTES.index(solution.solver))
        return Answer(solution.x, solution.residual, route)


def _better(first: Answer, second: Answer) -> Answer:
    """The answer with the smaller residual; the second if the first has none."""
    take = (second.residual < first.residual) | ~tf.math.is_finite(first.residual)
    pairs = zip(first[:3], second[:3], strict=True)
    return Answer(*(tf.where(take, b, a) for a, b in pairs))
