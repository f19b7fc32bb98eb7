"""One matrix of tests for every solver: what the step may rely on whichever is chosen."""

import json

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keras_qnewton import registry
from keras_qnewton.solvers import (
    HHL,
    LDL,
    LU,
    QSVT,
    AdiabaticWalk,
    Cholesky,
    ConjugateGradient,
    Eigen,
    Lapack,
    Shortcut,
    SparseLU,
)
from keras_qnewton.solvers.packing import Packable
from keras_qnewton.types import Solver

from .systems import relative_error, symmetric, vector

SOLVERS = {
    "lu": LU(),
    "ldl": LDL(),
    "lapack": Lapack(),
    "sparse_lu": SparseLU(),
    "cholesky": Cholesky(),
    "eigen": Eigen(),
    "cg": ConjugateGradient(tolerance=1e-12),
    "qsvt": QSVT(),
    "shortcut": Shortcut(),
    "hhl": HHL(),
    "adiabatic_walk": AdiabaticWalk(),
}
QUANTUM = ("qsvt", "shortcut", "hhl", "adiabatic_walk")
CLASSICAL = [name for name in SOLVERS if name not in QUANTUM]
DEFINITE_ONLY = ("cholesky", "cg")
# Of x against SciPy in float64, at κ = 10.
BARS = {"float64": 1e-10, "float32": 2e-6}
CASES = [
    pytest.param(name, definite, id=f"{name}-{'definite' if definite else 'indefinite'}")
    for name in SOLVERS
    for definite in (True, False)
    if definite or name not in DEFINITE_ONLY
]
# HHL's clock makes a simulation of every example.
MANY_SYSTEMS = [
    pytest.param(*case.values, id=case.id, marks=[pytest.mark.slow] * (case.values[0] == "hhl"))
    for case in CASES
]


def run(solver, matrix, rhs, graph):
    """Solves eagerly from NumPy arrays, or inside a tf.function from tensors."""
    if not graph:
        solution = solver.solve(matrix, rhs)
        return solution.x, solution.residual

    @tf.function
    def traced(matrix, rhs):
        solution = solver.solve(matrix, rhs)
        assert solution.x.shape == rhs.shape
        return solution.x, solution.residual

    return traced(tf.constant(matrix), tf.constant(rhs))


graph_or_eager = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])


@graph_or_eager
@pytest.mark.parametrize("size", [1, 2, 5, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, definite", CASES)
def test_solution_is_scipys(name, definite, dtype, size, graph):
    matrix = symmetric(size, 10, definite, dtype=dtype)
    rhs = vector(size, dtype=dtype)
    x, residual = run(SOLVERS[name], matrix, rhs, graph)
    expected = scipy.linalg.solve(matrix.astype("float64"), rhs.astype("float64"))
    assert x.dtype == dtype
    assert residual.dtype == tf.float64 and residual.shape == ()
    assert relative_error(x, expected) <= BARS[dtype]
    gap = matrix.astype("float64") @ x.numpy().astype("float64") - rhs
    np.testing.assert_allclose(residual, np.linalg.norm(gap) / np.linalg.norm(rhs), atol=1e-15)


@pytest.mark.parametrize("name, definite", MANY_SYSTEMS)
@settings(deadline=None, max_examples=10)
@given(
    size=st.integers(1, 9),
    condition_number=st.floats(1, 20),
    power=st.integers(-30, 30),
    seed=st.integers(0, 10**6),
)
def test_solution_scales_with_the_system(name, definite, size, condition_number, power, seed):
    matrix = symmetric(size, condition_number, definite, seed=seed)
    rhs = vector(size, seed)
    expected = np.linalg.solve(matrix, rhs)
    scale = 10.0**power
    assert relative_error(SOLVERS[name].solve(matrix * scale, rhs).x * scale, expected) <= 1e-9
    assert relative_error(SOLVERS[name].solve(matrix, rhs * scale).x / scale, expected) <= 1e-9


@graph_or_eager
@pytest.mark.parametrize("name", SOLVERS)
def test_zero_rhs_has_a_zero_solution(name, graph):
    x, residual = run(SOLVERS[name], symmetric(4), np.zeros(4), graph)
    np.testing.assert_array_equal(x, np.zeros(4))
    assert residual == 0


SINGULAR = {
    "zeros": np.zeros((3, 3)),
    "dead unit": np.diag([1.0, 0.0, 2.0]),
    "ones": np.ones((3, 3)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@graph_or_eager
@pytest.mark.parametrize("case", SINGULAR)
@pytest.mark.parametrize("name", CLASSICAL)
def test_singular_matrix_is_told_by_the_residual(name, case, graph, dtype):
    # b is outside the range of each of them: no x solves the system.
    matrix, rhs = SINGULAR[case].astype(dtype), np.array([1.0, 2.0, 4.0], dtype)
    _, residual = run(SOLVERS[name], matrix, rhs, graph)
    assert not residual.numpy() < 0.1


@pytest.mark.parametrize("name", SOLVERS)
def test_matrix_of_nan_is_nan_in_a_graph(name):
    if name in QUANTUM:
        with pytest.warns(RuntimeWarning, match="finite"):
            x, residual = run(SOLVERS[name], np.full((3, 3), np.nan), np.ones(3), graph=True)
        assert np.all(np.isnan(x))
    else:
        _, residual = run(SOLVERS[name], np.full((3, 3), np.nan), np.ones(3), graph=True)
    assert np.isnan(residual)


@pytest.mark.parametrize("name", SOLVERS)
def test_state_serves_several_right_hand_sides(name):
    solver, matrix = SOLVERS[name], symmetric(5)
    state = solver.init(matrix)
    for seed in range(3):
        rhs = vector(5, seed)
        solution = solver.compute(state, rhs)
        assert relative_error(solution.x, np.linalg.solve(matrix, rhs)) <= 1e-10
        assert solution.solver == name


@pytest.mark.parametrize("name", SOLVERS)
def test_bad_input_is_refused(name):
    with pytest.raises(ValueError, match="Argument `matrix` must be square"):
        SOLVERS[name].solve(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="Argument `rhs` must be a vector"):
        SOLVERS[name].solve(np.eye(2), np.ones(3))


@pytest.mark.parametrize("name", SOLVERS)
def test_contract(name):
    solver = registry.resolve("solver", name, "solver")
    assert isinstance(solver, Solver)
    assert type(solver) is type(SOLVERS[name])
    assert solver.name == name
    assert solver.host is (name in ("lapack", "sparse_lu", *QUANTUM))


@pytest.mark.parametrize(
    "solver",
    [
        LU(refinements=3),
        Lapack(refinements=2, tolerance=1e-3),
        SparseLU(refinements=0, tolerance=1e-3),
        Cholesky(refinements=0),
        LDL(refinements=2, tolerance=1e-3),
        Eigen(),
        ConjugateGradient(tolerance=1e-3, max_iterations=7),
        QSVT(
            epsilon=1e-2,
            dtype="complex128",
            tolerance=1e-6,
            max_refinements=2,
            max_degree=99,
        ),
        Shortcut(epsilon=1e-2, encoding="frobenius", backend="emulator", max_refinements=3),
        HHL(clock_qubits=5, dtype="complex128", tolerance=1e-6, max_refinements=2),
        AdiabaticWalk(steps_per_condition=3.0, epsilon=0.1, max_steps=50),
    ],
    ids=repr,
)
def test_config_round_trip(solver):
    stored = json.dumps(keras.saving.serialize_keras_object(solver))
    again = keras.saving.deserialize_keras_object(json.loads(stored))
    assert type(again) is type(solver)
    assert again.get_config() == solver.get_config()
    assert vars(again) == vars(solver)


def test_the_matrix_of_tests_has_every_registered_solver_and_no_other():
    """But for those of rows, which have tests of their own."""
    by_rows = {
        name
        for name, made in registry.registered("solver").items()
        if getattr(made, "by_rows", False)
    }
    assert by_rows == {"damped_least_squares"}
    assert set(SOLVERS) == set(registry.names("solver")) - by_rows


PACKING = [name for name, solver in SOLVERS.items() if isinstance(solver, Packable)]


@pytest.mark.parametrize("size", [1, 5, 384, 385, 700])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PACKING)
def test_packed_factors_solve_like_those_they_were(name, dtype, size):
    """Whatever block rows they are of; also when they were kept in double precision."""
    solver, rhs = SOLVERS[name], vector(size, dtype=dtype)
    matrix = tf.constant(symmetric(size, 10, name in DEFINITE_ONLY, dtype=dtype))

    @tf.function
    def traced():
        state = solver.init(matrix)
        packed = solver.pack(state)
        assert packed.numbers.shape == (size,) and packed.factor.shape == (size, size)
        kept = type(packed)(*(tf.cast(array, tf.float64) for array in packed))
        again = solver.unpack(matrix, kept)
        return solver.compute(state, rhs).x, solver.compute(again, rhs).x

    expected, x = traced()
    np.testing.assert_array_equal(x, expected)


@graph_or_eager
@pytest.mark.parametrize("name", ["lu", "cholesky"])
def test_packed_factors_say_that_there_are_none(name, graph):
    solver, rhs = SOLVERS[name], vector(3)

    def solved(matrix):
        packed = solver.pack(solver.init(matrix))
        return packed, solver.compute(solver.unpack(matrix, packed), rhs).x

    packed, x = (tf.function(solved) if graph else solved)(tf.constant(SINGULAR["dead unit"]))
    assert np.isnan(packed.numbers).all() and np.isnan(x).all()


# Largest powers of ten of both sides at which x and its parts are still normal numbers.
REACH = {"float64": 300, "float32": 36}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name, definite", MANY_SYSTEMS)
@settings(deadline=None, max_examples=10)
@given(data=st.data(), size=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_any_scale_of_both_sides(name, definite, dtype, data, size, seed):
    reach = REACH[dtype]
    of_matrix, of_rhs = (data.draw(st.integers(-reach, reach)) for _ in range(2))
    assume(abs(of_rhs - of_matrix) < reach)
    matrix = symmetric(size, 5, definite, seed=seed) * 10.0**of_matrix
    rhs = vector(size, seed) * 10.0**of_rhs
    matrix, rhs = matrix.astype(dtype), rhs.astype(dtype)
    # In ordinary units, of the very matrix and right side that are solved with.
    units = [np.ldexp(1.0, np.frexp(np.abs(side).max())[1]) for side in (matrix, rhs)]
    exact = scipy.linalg.solve(matrix / units[0], rhs / units[1])
    # TensorFlow takes subnormal numbers for zero.
    smallest = min(
        np.abs(matrix).min(), np.abs(rhs).min(), np.abs(exact).min() * (units[1] / units[0])
    )
    assume(smallest > np.finfo(dtype).tiny)
    solution = SOLVERS[name].solve(matrix, rhs)
    x = solution.x.numpy().astype("float64") / (units[1] / units[0])
    assert relative_error(x, exact) <= BARS[dtype]
    assert solution.residual <= BARS[dtype]


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("name", ["eigen", "qsvt"])
def test_saddle_free_steps_at_any_scale(name, scale):
    matrix, rhs = symmetric(4, 10, definite=False), vector(4)
    expected = scipy.linalg.fractional_matrix_power(matrix @ matrix + np.eye(4), -0.5) @ rhs
    solution = SOLVERS[name].solve_absolute(matrix * scale, rhs, scale)
    assert relative_error(solution.x.numpy() * scale, expected) <= 1e-8
    solution = SOLVERS[name].solve_absolute(matrix, rhs * scale, 1.0)
    assert relative_error(solution.x.numpy() / scale, expected) <= 1e-8


ILL_CONDITIONED = {
    **{f"hilbert {n}": scipy.linalg.hilbert(n) for n in (4, 9, 14, 120)},
    "pascal 12": scipy.linalg.pascal(12).astype("float64"),
    "indefinite": np.diag([1.0, -1e-13, 1e-6]) + 0.5 * np.ones((3, 3)),
    "two blocks": symmetric(192, 1e13, definite=False),
}


@pytest.mark.parametrize("case", ILL_CONDITIONED)
@pytest.mark.parametrize("name", ["ldl", "lapack", "eigen"])
def test_a_backward_stable_solution_of_an_ill_conditioned_system(name, case):
    """‖Ax - b‖ is rounding of ‖A‖‖x‖, whatever κ is (Higham 2002, section 7.1)."""
    matrix = ILL_CONDITIONED[case]
    rhs = matrix @ vector(len(matrix))
    x = SOLVERS[name].solve(matrix, rhs).x.numpy()
    size = np.linalg.norm(matrix, 2) * np.linalg.norm(x) + np.linalg.norm(rhs)
    bar = 50 * len(matrix) * np.finfo("float64").eps
    assert np.linalg.norm(matrix @ x - rhs) <= bar * size
