"""Training whose systems go to a circuit of the Jacobian's rows, where that is the cheaper one."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton, Scheduler
from keras_qnewton.scheduling import CircuitQLSA
from keras_qnewton.scheduling.reasons import Rule
from keras_qnewton.solvers import LU, DampedLeastSquares
from keras_qnewton.types import RowSolver, RowSystem, Solution
from tests.derivatives import set_precision

L = keras.layers
ROUTE = "damped_least_squares"
FREE = 1e-30


class Recording(DampedLeastSquares):
    """Keeps the systems that it was handed, with what it found; by step, those of the last one."""

    def __init__(self, **settings):
        super().__init__("emulator", **settings)
        self.seen, self.by_step, self.step = [], {}, 0

    def solve_rows(self, system, tolerance):
        solution = super().solve_rows(system, tolerance)
        kept = RowSystem(*(np.array(value) for value in system))
        self.seen.append((kept, float(tolerance), solution))
        self.by_step[self.step] = solution
        return solution


def data(examples, outputs=1, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(examples, 3))
    y = np.sin(x @ rng.normal(size=(3, outputs))) + 0.3 * rng.normal(size=(examples, outputs))
    return x.astype(dtype), y.astype(dtype)


@dataclasses.dataclass(frozen=True)
class Task:
    """A small network and its data."""

    examples: int = 12
    outputs: int = 1
    hidden: int = 5
    dtype: str = "float64"
    penalty: float | None = None
    classes: bool = False


SIMPLE = Task()


def trained(scheduler, task=SIMPLE, steps=6, **settings):
    """(losses, decisions, weights) of full batches."""
    keras.utils.set_random_seed(3)
    decay = None if task.penalty is None else keras.regularizers.L2(task.penalty)
    given = {"activation": "tanh", "dtype": task.dtype, "kernel_regularizer": decay}
    model = keras.Sequential([L.Input((3,), dtype=task.dtype), L.Dense(task.hidden, **given)])
    model.add(L.Dense(task.outputs, dtype=task.dtype))
    settings = {"curvature": "gauss_newton", **settings}
    if scheduler is not None:
        settings["scheduler"] = scheduler
    # A Keras loss computes in the precision of its construction.
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(QNewton(**settings), entropy if task.classes else "mse")
    x, y = data(task.examples, task.outputs, task.dtype)
    y = np.argmax(y, 1) if task.classes else y
    solver = getattr(scheduler, "quantum", None)

    def begin(batch, logs=None):
        del batch, logs
        if isinstance(solver, Recording):
            solver.step += 1

    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=begin)
    full = {"batch_size": len(x), "epochs": steps, "shuffle": False, "verbose": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        history = model.fit(x, y, callbacks=[watch], **full)
    weights = np.concatenate([w.ravel() for w in model.get_weights()])
    return history.history["loss"], model.optimizer.decisions, weights


@pytest.fixture(autouse=True)
def double_precision():
    """Keras computes losses, and penalties, in its default precision."""
    set_precision("float64")
    yield
    set_precision("float32")


def by_circuit(quantum=None, gate_time=FREE, **settings):
    return Scheduler(LU(), quantum or Recording(), "circuit", gate_time, **settings)


TASKS = {
    "fewer rows": SIMPLE,
    "more rows": Task(examples=60),
    "several outputs": Task(outputs=3),
    "penalty": Task(penalty=1e-3),
    "cross-entropy": Task(outputs=3, classes=True),
}
KINDS = {
    **{name: (task, {}, "dilation") for name, task in TASKS.items()},
    "layers": (SIMPLE, {"blocks": "layer"}, "dilation"),
    "Fisher": (SIMPLE, {"curvature": "fisher"}, "dilation"),
    "frobenius": (SIMPLE, {}, "frobenius"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_a_classical_solver(kind):
    task, given, encoding = KINDS[kind]
    solver = Recording(encoding=encoding)
    losses, decisions, weights = trained(by_circuit(solver, tolerance=1e-10), task, **given)
    assert {d.solved_by for d in decisions} == {ROUTE} == {d.route for d in decisions}
    assert len(decisions) >= 6 and all(d.residual <= 1e-10 for d in decisions)
    reference, _, same = trained(Scheduler(LU(), None), task, **given)
    # What a step is off by, later ones multiply.
    np.testing.assert_allclose(losses[:3], reference[:3], rtol=1e-9)
    np.testing.assert_allclose(losses, reference, rtol=1e-6)
    np.testing.assert_allclose(weights, same, rtol=1e-3, atol=1e-6)


def test_steps_are_woodburys():
    """Rows that are few are solved by Woodbury's formula where no scheduler has a choice."""
    wide = Task(hidden=64)
    limits = {"tolerance": 1e-10, "max_condition_number": 1e9}
    losses, decisions, weights = trained(by_circuit(**limits), wide)
    assert {d.solved_by for d in decisions} == {ROUTE}
    reference, others, same = trained(None, wide)
    assert {d.solved_by for d in others} == {"woodbury"}
    np.testing.assert_allclose(losses[:3], reference[:3], rtol=1e-9)
    np.testing.assert_allclose(losses, reference, rtol=1e-6)
    np.testing.assert_allclose(weights, same, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["more rows", "cross-entropy", "penalty"])
def test_what_it_is_handed_is_the_system(kind):
    solver = Recording()
    _, decisions, _ = trained(by_circuit(solver), TASKS[kind])
    assert len(solver.seen) >= len(decisions)
    for (rows, rhs, damping, residuals), _, solution in solver.seen:
        assert rows.shape[1] == len(rhs) and residuals.shape == rows.shape[:1] and damping > 0
        exact = np.linalg.solve(rows.T @ rows + damping * np.eye(len(rhs)), rhs)
        np.testing.assert_allclose(solution.x, exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())
        if kind == "penalty":
            assert not np.any(residuals)
        else:
            off = np.linalg.norm(rows.T @ residuals - rhs)
            assert off <= 1e-9 * np.linalg.norm(rhs)


@pytest.mark.parametrize(
    "kind, encoding",
    [("fewer rows", "dilation"), ("more rows", "frobenius"), ("penalty", "dilation")],
)
def test_price_is_that_of_the_circuit_that_ran(kind, encoding):
    """Layers exactly, and the success probability as far as a few products tell it."""
    solver, gate_time = Recording(encoding=encoding), 1e-20
    _, decisions, _ = trained(by_circuit(solver, gate_time=gate_time), TASKS[kind], steps=10)
    ratios = []
    for decision in decisions:
        solution = solver.by_step[decision.step + 1]
        resources, p = (solution.details[k] for k in ("resources", "success_probability"))
        ratios.append(decision.predicted[ROUTE] / (gate_time * resources.depth / p))
    # Of the few systems that the products do not solve, p is a lower bound.
    assert np.median(ratios) == pytest.approx(1.0, abs=0.05)
    assert min(ratios) > 0.9 and max(ratios) < 1.6


def test_the_likelier_start_is_taken():
    solver = Recording()
    trained(by_circuit(solver), Task(examples=60), steps=12)
    starts = {solution.details["start"] for *_, solution in solver.seen}
    for (rows, rhs, damping, residuals), _, solution in solver.seen:
        found = {}
        for name, run in (("gradient", solver.solve), ("residuals", solver.solve_residuals)):
            vector = rhs if name == "gradient" else residuals
            found[name] = run(rows, vector, float(damping)).details["success_probability"]
        taken = solution.details["start"]
        assert found[taken] >= 0.99 * max(found.values())
    assert starts


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_penalties_far_above_the_damping_leave_the_residual_that_was_asked_for(penalty):
    solver = Recording()
    task = Task(penalty=penalty)
    _, decisions, _ = trained(by_circuit(solver, max_condition_number=1e9), task, steps=8)
    assert {d.solved_by for d in decisions} == {ROUTE}
    assert all(d.residual <= 1e-6 for d in decisions)


@pytest.mark.parametrize("quantum", [None, "own price"])
def test_rows_of_zeros_are_solved_classically(quantum):
    """Nothing of the network's output depends on the weights where all units are dead."""
    solver = Recording()
    price = "circuit" if quantum is None else (lambda n, kappa, d, gate_time: 0.0 * kappa)
    model = keras.Sequential([L.Input((3,)), L.Dense(4, activation="relu")])
    model.layers[0].set_weights([np.zeros((3, 4)), np.full(4, -1.0)])
    scheduler = Scheduler(LU(), solver, price, FREE)
    model.compile(QNewton(curvature="gauss_newton", scheduler=scheduler), "mse")
    x, _ = data(12)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model.fit(x, np.ones((12, 4)), batch_size=12, epochs=2, verbose=0)
    assert not solver.seen
    for decision in model.optimizer.decisions:
        assert decision.solved_by != ROUTE and ROUTE not in decision.predicted


def test_it_is_not_chosen_where_it_loses():
    losses, decisions, _ = trained(by_circuit(gate_time=1e-3))
    assert {d.route for d in decisions} == {"lu"}
    assert all(ROUTE in d.reason and d.predicted[ROUTE] > d.predicted["lu"] for d in decisions)
    np.testing.assert_allclose(losses, trained(Scheduler(LU(), None))[0], rtol=1e-12)


@pytest.mark.parametrize(
    "task, given",
    [
        (SIMPLE, {"curvature": "hessian"}),
        (SIMPLE, {"sparsity": 0.5}),
        (Task(examples=2100), {"steps": 2}),
    ],
    ids=["hessian", "pruned", "too many rows"],
)
def test_without_rows_a_system_goes_elsewhere_and_says_why(task, given):
    solver = Recording()
    _, decisions, _ = trained(by_circuit(solver), task, **given)
    assert not solver.seen and decisions
    for decision in decisions:
        assert decision.solved_by != ROUTE and ROUTE not in decision.predicted
        assert decision.route == "eigen" or "encodes the Jacobian's rows" in decision.reason


def test_single_precision_is_solved_to_its_rounding():
    solver = Recording()
    single = Task(dtype="float32")
    losses, decisions, _ = trained(by_circuit(solver), single)
    assert {d.solved_by for d in decisions} == {ROUTE}
    np.testing.assert_allclose(losses, trained(Scheduler(LU(), None), single)[0], rtol=1e-4)


def test_a_forcing_term_asks_for_less():
    solver = Recording()
    _, decisions, _ = trained(by_circuit(solver, forcing=True), steps=8)
    assert {d.solved_by for d in decisions} == {ROUTE}
    assert solver.seen[0][1] == pytest.approx(0.1)
    degrees = [solution.details["degree"] for *_, solution in solver.seen]
    exact = Recording()
    trained(by_circuit(exact), steps=8)
    # Of the same first system.
    assert degrees[0] < exact.seen[0][2].details["degree"]


class Elsewhere:
    """A user's own solver by rows, of no base class."""

    name = "elsewhere"
    host = True
    by_rows = True

    def qubits(self, size):
        return 10

    def solve(self, matrix, rhs):
        raise AssertionError("It has no matrix.")

    def solve_rows(self, system, tolerance):
        rows, rhs, damping, _ = system
        x = np.linalg.solve(rows.T @ rows + damping * np.eye(len(rhs)), rhs)
        return Solution(x, 0.0, self.name)

    def success(self, length, damping, root, gradient, residuals):
        return tf.ones([], tf.float64)


def test_a_solver_of_ones_own():
    solver = Elsewhere()
    assert isinstance(solver, RowSolver)
    scheduler = Scheduler(LU(), solver, lambda n, kappa, d, gate_time: 0.0 * kappa)
    losses, decisions, _ = trained(scheduler)
    assert {d.solved_by for d in decisions} == {"elsewhere"}
    np.testing.assert_allclose(losses, trained(Scheduler(LU(), None))[0], rtol=1e-9)


def test_what_a_solver_by_rows_lacks_is_named():
    class Half:
        name, host, by_rows = "half", True, True

        def qubits(self, size):
            return 1

        def solve(self, matrix, rhs):
            return None

    with pytest.raises(ValueError, match="`quantum` must have `solve_rows`"):
        Scheduler(quantum=Half())


def test_a_failure_is_solved_classically():
    class Broken(Recording):
        def solve_rows(self, system, tolerance):
            raise MemoryError("no room")

    keras.utils.set_random_seed(3)
    model = keras.Sequential([L.Input((3,)), L.Dense(4, activation="tanh"), L.Dense(1)])
    model.compile(QNewton(curvature="gauss_newton", scheduler=by_circuit(Broken())), "mse")
    x, y = data(12, dtype="float32")
    with pytest.warns(RuntimeWarning, match="no room"):
        model.fit(x, y, batch_size=12, epochs=2, verbose=0)
    assert {d.route for d in model.optimizer.decisions} == {ROUTE}
    assert {d.solved_by for d in model.optimizer.decisions} == {"lu"}


def test_reshaping_is_refused():
    with pytest.raises(ValueError, match="`reshape` changes a matrix"):
        trained(by_circuit(reshape=True))


def test_it_is_no_classical_solver():
    with pytest.raises(ValueError, match="`classical` must be a solver of matrices"):
        Scheduler(classical="damped_least_squares")


def test_round_trip(tmp_path):
    scheduler = Scheduler(LU(), "damped_least_squares", "circuit", FREE)
    assert scheduler.by_rows
    model = keras.Sequential([L.Input((3,)), L.Dense(4, activation="tanh"), L.Dense(1)])
    model.compile(QNewton(curvature="gauss_newton", scheduler=scheduler), "mse")
    x, y = data(12, dtype="float32")
    model.fit(x, y, batch_size=12, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.scheduler.routes == ("lu", ROUTE)
    for each in (model, again):
        each.fit(x, y, batch_size=12, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_array_equal(model.get_weights()[0], again.get_weights()[0])


def test_the_scheduler_prices_the_root_of_the_condition_number():
    solver = DampedLeastSquares("emulator")
    scheduler = Scheduler(LU(), solver, CircuitQLSA(solver), 1e-9)
    kappa = 101.0
    predicted = scheduler.predict(8, kappa, 8, definite=True, measured={"rows": 5.0, "alpha": 1.0})
    assert float(predicted[-1]) == pytest.approx(
        1e-9 * float(solver.circuit_depth(8, np.sqrt(kappa), 8, alpha=1.0, rows=5.0))
        + 1e-9 * (2**4 - 3 - 2)
    )
    *_, rule = scheduler.choose_index(8, kappa, 8, definite=True, measured={"rows": 0.0})
    assert int(rule) == Rule.NO_ROWS


@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
def test_largest_condition_number_is_the_one_that_the_degree_allows(epsilon):
    solver = DampedLeastSquares(epsilon=epsilon, max_degree=100)
    most = solver.max_condition_number
    assert np.isfinite(solver.circuit_depth(8, np.sqrt(0.999 * most), 8, alpha=1.0))
    assert np.isinf(solver.circuit_depth(8, np.sqrt(1.001 * most), 8, alpha=1.0))
