"""What is particular to LU, Cholesky, eigen and conjugate gradients."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.solvers import LU, Cholesky, ConjugateGradient, Eigen, Lapack

from .systems import relative_error, symmetric, vector


@pytest.mark.parametrize(
    ("solver", "definite"), [(LU, True), (Cholesky, True), (Lapack, True), (Lapack, False)]
)
def test_refinement_reaches_the_limit_of_float32(solver, definite):
    matrix = symmetric(40, 1e4, definite, dtype="float32")
    rhs = vector(40, dtype="float32")
    expected = np.linalg.solve(matrix.astype("float64"), rhs.astype("float64"))
    errors = [
        relative_error(solver(refinements=steps, tolerance=0).solve(matrix, rhs).x, expected)
        for steps in (0, 1, 3)
    ]
    assert errors[0] > 1e-5
    assert errors[1] < errors[0] / 10
    assert errors[2] < 2e-7


@pytest.mark.parametrize("solver", [LU, Cholesky])
@pytest.mark.parametrize("refinements", [-1, 0.5])
def test_refinements_are_a_count(solver, refinements):
    with pytest.raises(ValueError, match="Argument `refinements` must be a non-negative integer"):
        solver(refinements=refinements)


@pytest.mark.parametrize("solver", [LU, Cholesky, Lapack])
def test_only_a_residual_that_asks_for_it_is_refined(solver):
    matrix, rhs = symmetric(40, 1e4, dtype="float32"), vector(40, dtype="float32")
    plain = solver(refinements=0).solve(matrix, rhs)
    residual = float(plain.residual)
    run = tf.function(lambda tolerance: solver(tolerance=tolerance).solve(matrix, rhs).x)
    np.testing.assert_array_equal(run(residual * 1.01), plain.x)
    assert np.any(run(residual / 1.01) != plain.x)
    # By default half of the digits: 2.4e-4 in float32.
    np.testing.assert_array_equal(solver().solve(matrix, rhs).x, run(2.0**-12))


@pytest.mark.parametrize("solver", [LU, Cholesky, Lapack])
@pytest.mark.parametrize("tolerance", [-1e-9, float("nan")])
def test_tolerance_is_not_negative(solver, tolerance):
    with pytest.raises(ValueError, match="Argument `tolerance` must be None or a number"):
        solver(tolerance=tolerance)


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(2, 40),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(["float32", "float64"]),
    integers=st.booleans(),
)
def test_lu_never_raises_on_a_rank_deficient_matrix(size, seed, dtype, integers):
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, size))
    shape = (size, rank)
    factor = rng.integers(-2, 3, size=shape) if integers else rng.normal(size=shape)
    matrix = (factor * rng.choice([-1, 1], rank)) @ factor.T
    matrix = ((matrix + matrix.T) / 2).astype(dtype)
    rhs = vector(size, seed, dtype)
    solution = LU().solve(matrix, rhs)
    x = solution.x.numpy().astype("float64")
    if np.any(np.isnan(x)):
        assert np.isnan(solution.residual)
        return
    truth = np.linalg.norm(matrix @ x - rhs) / np.linalg.norm(rhs)
    # x may be 1e16 long here, and the product is then known to so many digits only.
    rounding = 1e-14 * np.linalg.norm(matrix) * np.linalg.norm(x) / np.linalg.norm(rhs)
    np.testing.assert_allclose(solution.residual, truth, rtol=1e-9, atol=rounding)


# From 512 unknowns on the graph factorises once; below, and eagerly, in other ways.
@pytest.mark.parametrize("size", [511, 512])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lu_in_a_graph_tells_what_it_cannot_factorise(size, dtype):
    good, rhs = symmetric(size, 100, False, dtype=dtype), vector(size, dtype=dtype)
    dead, bad, infinite = good.copy(), good.copy(), good.copy()
    dead[:, 7] = dead[7] = 0
    bad[3, 400] = bad[400, 3] = np.nan
    infinite[0, 0] = np.inf

    @tf.function
    def solve(matrix):
        solution = LU().solve(matrix, rhs)
        return solution.x, solution.residual

    for matrix in (dead, bad, infinite):
        x, residual = solve(tf.constant(matrix))
        assert np.all(np.isnan(x)) and np.isnan(residual)
    x, residual = solve(tf.constant(good))
    assert relative_error(x, np.linalg.solve(good.astype("float64"), rhs)) <= 1e-4
    assert residual <= 1e-4


def test_large_lu_in_a_loop_and_in_a_saved_model(tmp_path):
    rhs = vector(512)
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([512, 512], tf.float64)])
    def residuals(matrix):
        """Of A, 0·A and A again."""

        def body(k, found):
            solution = LU().solve(matrix * tf.cast(k != 1, tf.float64), rhs)
            return k + 1, found.write(k, solution.residual)

        found = tf.TensorArray(tf.float64, 3)
        return tf.while_loop(lambda k, _: k < 3, body, (0, found))[1].stack()

    module.residuals = residuals
    tf.saved_model.save(module, str(tmp_path))
    for run in (residuals, tf.saved_model.load(str(tmp_path)).residuals):
        first, singular, last = run(tf.constant(symmetric(512, definite=False))).numpy()
        assert first == last < 1e-12 and np.isnan(singular)


def by_cholesky(matrix, rhs):
    solution = Cholesky().solve(matrix, rhs)
    return solution.x, solution.residual


def cholesky_in_a_graph(matrix, rhs):
    return tf.function(by_cholesky)(tf.constant(matrix), tf.constant(rhs))


@pytest.mark.parametrize("solve", [by_cholesky, cholesky_in_a_graph])
def test_cholesky_of_an_indefinite_matrix_is_nan(solve):
    x, residual = solve(symmetric(6, definite=False), vector(6))
    assert np.all(np.isnan(x)) and np.isnan(residual)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cholesky_of_large_numbers_beside_a_small_diagonal_is_nan(dtype):
    large = np.sqrt(np.finfo(dtype).max).astype(dtype)
    matrix = np.array([[1, large, 0], [large, 1, 0], [0, 0, 1]], dtype)
    x, residual = cholesky_in_a_graph(matrix, np.ones(3, dtype))
    assert np.all(np.isnan(x)) and np.isnan(residual)


@pytest.mark.parametrize("exponent", [-900, -120, 0, 120, 900])
def test_cholesky_solves_numbers_of_any_size(exponent):
    matrix, rhs, unit = symmetric(9, 1e3), vector(9), 2.0**exponent
    x, residual = cholesky_in_a_graph(unit * matrix, rhs)
    assert residual <= 1e-12
    assert relative_error(x * unit, np.linalg.solve(matrix, rhs)) <= 1e-12


def absolute(matrix, rhs, damping):
    """``(A² + λ²I)^(-1/2) b`` by SciPy's matrix square root."""
    square = matrix @ matrix + damping**2 * np.eye(len(matrix))
    return np.linalg.solve(scipy.linalg.sqrtm(square).real, rhs)


@settings(deadline=None, max_examples=20)
@given(
    size=st.integers(1, 12),
    definite=st.booleans(),
    damping=st.floats(0.01, 10),
    seed=st.integers(0, 10**6),
)
def test_absolute_inverse_is_scipys(size, definite, damping, seed):
    matrix, rhs = symmetric(size, 50, definite, seed), vector(size, seed)
    solution = Eigen().solve_absolute(matrix, rhs, damping)
    assert relative_error(solution.x, absolute(matrix, rhs, damping)) <= 1e-9
    assert solution.residual < 1e-9
    # Saddle-free: a descent direction, no longer than ||b|| / λ.
    assert solution.x.numpy() @ rhs > 0
    assert np.linalg.norm(solution.x) <= np.linalg.norm(rhs) / damping * (1 + 1e-12)


def test_absolute_inverse_without_damping_is_that_of_the_absolute_value():
    matrix, rhs = symmetric(6, definite=False), vector(6)
    values, vectors = np.linalg.eigh(matrix)
    expected = vectors @ ((vectors.T @ rhs) / np.abs(values))
    assert relative_error(Eigen().solve_absolute(matrix, rhs, 0.0).x, expected) <= 1e-12


def test_one_decomposition_serves_many_dampings():
    matrix, rhs = symmetric(8, definite=False), vector(8)
    eigen = Eigen()
    state = eigen.init(matrix)
    np.testing.assert_allclose(state.eigenvalues, np.linalg.eigvalsh(matrix), atol=1e-12)
    for damping in (0.1, 1.0):
        got = eigen.compute_absolute(state, rhs, tf.constant(damping))
        assert relative_error(got.x, absolute(matrix, rhs, float(np.float32(damping)))) <= 1e-11


def test_absolute_inverse_in_a_graph_with_a_tensor_damping():
    matrix, rhs = symmetric(8, definite=False, dtype="float32"), vector(8, dtype="float32")

    @tf.function
    def solve(matrix, rhs, damping):
        solution = Eigen().solve_absolute(matrix, rhs, damping)
        return solution.x, solution.residual

    x, residual = solve(tf.constant(matrix), tf.constant(rhs), tf.constant(0.5))
    assert x.dtype == tf.float32
    assert relative_error(x, absolute(matrix.astype("float64"), rhs, 0.5)) <= 1e-6
    assert residual < 1e-4


@pytest.mark.parametrize("damping", [1e-1, 1e-2, 1e-3])
def test_absolute_residual_is_of_the_size_of_the_error_in_float32(damping):
    matrix = symmetric(32, 1e6, False, dtype="float32", norm=1.0)
    rhs = vector(32, dtype="float32")
    solution = Eigen().solve_absolute(matrix, rhs, damping)
    values, vectors = np.linalg.eigh(matrix.astype("float64"))
    expected = vectors @ ((vectors.T @ rhs) / np.sqrt(values**2 + damping**2))
    assert relative_error(solution.x, expected) <= 1e-6 / damping
    assert solution.residual <= 1e-6 / damping


def test_absolute_residual_tells_of_a_wrong_decomposition():
    matrix, rhs = symmetric(6), vector(6)
    state = Eigen().init(matrix)
    wrong = state._replace(eigenvalues=state.eigenvalues * 1.1)
    assert Eigen().compute_absolute(wrong, rhs, 0.1).residual > 0.1


@pytest.mark.parametrize("damping", [-1.0, np.nan, np.inf])
def test_damping_must_be_a_size(damping):
    with pytest.raises(ValueError, match="Argument `damping` must be a finite number"):
        Eigen().solve_absolute(np.eye(2), np.ones(2), damping)


def test_cg_takes_no_more_iterations_than_distinct_eigenvalues():
    matrix = np.diag([1.0, 1.0, 2.0, 2.0, 5.0])
    solution = ConjugateGradient(tolerance=1e-10).solve(matrix, np.ones(5))
    assert solution.details == {"iterations": 3, "negative_curvature": False}


@settings(deadline=None, max_examples=20)
@given(size=st.integers(2, 12), seed=st.integers(0, 10**6), tolerance=st.floats(1e-9, 1e-1))
def test_cg_stops_at_its_tolerance(size, seed, tolerance):
    matrix, rhs = symmetric(size, 30, seed=seed), vector(size, seed)
    solution = ConjugateGradient(tolerance).solve(matrix, rhs)
    assert solution.residual <= tolerance * (1 + 1e-6)
    if solution.details["iterations"] > 1:
        capped = ConjugateGradient(tolerance, solution.details["iterations"] - 1)
        assert capped.solve(matrix, rhs).residual > tolerance * (1 - 1e-6)


def test_cg_returns_b_at_negative_curvature_at_once():
    rhs = vector(4)
    solution = ConjugateGradient().solve(-np.eye(4), rhs)
    np.testing.assert_allclose(solution.x, rhs, rtol=1e-15)
    assert solution.details == {"iterations": 1, "negative_curvature": True}
    np.testing.assert_allclose(solution.residual, 2.0)


def test_cg_returns_the_iterate_before_negative_curvature():
    matrix, rhs = np.diag([4.0, 1.0, -0.5]), np.ones(3)
    solution = ConjugateGradient().solve(matrix, rhs)
    assert solution.details["negative_curvature"]
    assert solution.details["iterations"] == 2
    # One step of steepest descent with the exact length b'b / b'Ab.
    np.testing.assert_allclose(solution.x, rhs * (3 / 4.5))


def test_cg_solves_tiny_float32_gradients():
    matrix, rhs = symmetric(5, dtype="float32"), vector(5, dtype="float32") * np.float32(1e-30)
    solution = ConjugateGradient(1e-5).solve(matrix, rhs)
    assert solution.residual < 1e-4
    assert not solution.details["negative_curvature"]


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_cg_with_hessian_products_of_a_persistent_tape(graph):
    data = tf.constant(symmetric(6, 20))
    weights = tf.Variable(vector(6, seed=3))

    def newton(weights):
        with tf.GradientTape(persistent=True) as outer:
            with tf.GradientTape() as inner:
                loss = 0.5 * tf.reduce_sum(weights * tf.linalg.matvec(data, weights))
                loss += tf.reduce_sum(tf.math.softplus(weights))
            gradient = inner.gradient(loss, weights)

        def product(v):
            return outer.gradient(gradient, weights, output_gradients=v)

        solution = ConjugateGradient(1e-11).solve_operator(product, gradient)
        return solution.x, solution.residual, solution.details, gradient

    x, residual, details, gradient = (tf.function(newton) if graph else newton)(weights)
    sigmoid = 1 / (1 + np.exp(-weights.numpy()))
    hessian = data.numpy() + np.diag(sigmoid * (1 - sigmoid))
    assert relative_error(x, np.linalg.solve(hessian, gradient)) <= 1e-9
    assert residual <= 1e-10
    assert isinstance(details["iterations"], tf.Tensor if graph else int)
    assert 0 < int(details["iterations"]) <= 12


@pytest.mark.parametrize("arguments", [{"tolerance": 0.0}, {"max_iterations": 0}])
def test_cg_refuses_bad_settings(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Argument `{name}` must be"):
        ConjugateGradient(**arguments)


@pytest.mark.parametrize("solver", [Cholesky(), Eigen(), ConjugateGradient()], ids=repr)
def test_compiles_with_xla(solver):
    matrix, rhs = symmetric(6, dtype="float32"), vector(6, dtype="float32")

    @tf.function(jit_compile=True)
    def solve(matrix, rhs):
        solution = solver.solve(matrix, rhs)
        return solution.x, solution.residual

    x, residual = solve(tf.constant(matrix), tf.constant(rhs))
    assert relative_error(x, np.linalg.solve(matrix.astype("float64"), rhs)) <= 1e-5
    assert residual < 1e-5
