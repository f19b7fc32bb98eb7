"""A user's own solver in NumPy, by its three members alone: no base class, no registration."""

import numpy as np
import pytest

from keras_qnewton import QNewton, Scheduler, Solution
from keras_qnewton.scheduling import LUTime
from keras_qnewton.solvers import LinearSolver
from tests.optimizer.models import compiled, fit

FAST = LUTime(coefficients=(0.0, 0.0, 1e-3))


class Mine:
    name, host = "mine", True

    def __init__(self):
        self.calls = 0

    def qubits(self, size):
        return 3

    def solve(self, matrix, rhs):
        assert isinstance(matrix, np.ndarray) and isinstance(rhs, np.ndarray)
        self.calls += 1
        x = np.linalg.solve(matrix, rhs)
        return Solution(x, np.linalg.norm(matrix @ x - rhs) / np.linalg.norm(rhs), self.name)


class Failing(Mine):
    def solve(self, matrix, rhs):
        raise ConnectionError("the machine is away")


class OnTheBase(LinearSolver):
    """`init` and `compute` in NumPy."""

    name, host = "on_the_base", True

    def qubits(self, size):
        return 3

    def init(self, matrix):
        return np.asarray(matrix), np.linalg.inv(matrix)

    def compute(self, state, rhs):
        x = state[1] @ rhs
        return Solution(x, np.linalg.norm(state[0] @ x - rhs) / np.linalg.norm(rhs), self.name)


def trained(solver, curvature="auto"):
    scheduler = Scheduler(quantum=solver, gate_time=1e-18, classical_cost=FAST)
    model = compiled(QNewton(blocks="full", scheduler=scheduler, curvature=curvature))
    return fit(model, steps=3), model.optimizer.decisions


@pytest.mark.parametrize("solver", [Mine(), OnTheBase()], ids=lambda solver: solver.name)
def test_it_solves_every_step_of_fit(solver):
    losses, decisions = trained(solver)
    assert losses[-1] < losses[0]
    assert {decision.solved_by for decision in decisions} == {solver.name}
    assert max(decision.residual for decision in decisions) <= 1e-9


def test_a_failure_goes_to_lu():
    with pytest.warns(RuntimeWarning, match="'mine' failed.*ConnectionError: the machine is away"):
        losses, decisions = trained(Failing())
    assert losses[-1] < losses[0]
    assert {decision.solved_by for decision in decisions} == {"lu"}
    assert all(decision.fallback for decision in decisions)


def test_a_classical_solver_of_ones_own_is_called_on_the_host_too():
    mine = Mine()
    model = compiled(QNewton(scheduler=Scheduler(classical=mine, quantum=None)))
    losses = fit(model, steps=2)
    assert losses[-1] < losses[0] and mine.calls >= 2


class Careless(Mine):
    """Writes into what it is given."""

    def solve(self, matrix, rhs):
        solution = super().solve(matrix, rhs)
        matrix[:] = 0
        rhs[:] = 0
        return solution


class Odd(Mine):
    """Answers in another form."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def solve(self, matrix, rhs):
        return Solution(self.form(super().solve(matrix, rhs).x), 0.0, self.name)


def test_what_it_is_given_is_its_own():
    _, decisions = trained(Careless())
    assert {d.solved_by for d in decisions} == {"mine"}
    assert max(d.residual for d in decisions) < 1e-12


@pytest.mark.parametrize(
    "form, solved_by",
    [
        (list, "mine"),
        (lambda x: x.astype(complex), "mine"),
        (lambda x: x[:, None], "lu"),
        (lambda x: np.append(x, 0.0), "lu"),
        (lambda x: np.full_like(x, np.nan), "lu"),
        (lambda x: np.full_like(x, np.inf), "lu"),
        (lambda x: None, "lu"),
    ],
    ids=["list", "complex", "column", "too long", "NaN", "Inf", "None"],
)
@pytest.mark.filterwarnings("ignore")
def test_answers_of_any_form_are_used_or_replaced(form, solved_by):
    losses, decisions = trained(Odd(form))
    assert {d.solved_by for d in decisions} == {solved_by}
    assert losses[-1] < losses[0]


def test_what_is_missing_is_named():
    class WithoutHost:
        name = "mine"

        def qubits(self, size):
            return 3

        def solve(self, matrix, rhs):
            return Solution(np.linalg.solve(matrix, rhs), 0.0, self.name)

    with pytest.raises(ValueError, match=r"Argument `quantum` must be .*`host`"):
        trained(WithoutHost())
