"""Dense solves: our solvers against SciPy's LAPACK, one process, two threads.

Each solves a damped Gauss-Newton matrix, JᵀJ/n + λI with κ about 1e6 in float64 and 1e4 in
float32, for n = 512 to 4,096. Ours are traced, and their time is that of factorisation, solution,
float64 residual, and one refinement where that residual asks for it; LAPACK's and TensorFlow's
have neither of the last two. Small systems are solved some in a row, ours in one graph, as in
training. The scheduler's choice is among LU, Cholesky and LAPACK, by their calibrated times; its
ratio is what counts. GF/s are n³/3 operations a solve (LU: 2n³/3), beside the best matrix
product's of this machine. Errors are relative to LAPACK's float64 solution, refined with residuals
in extended precision.

    python benchmarks/solve.py [--repeats 5]
"""

from __future__ import annotations

import os

# NumPy's and SciPy's BLAS count their threads when they are loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import common
import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_qnewton.scheduling import Scheduler, SolverTime, calibration
from keras_qnewton.solvers import LU, Cholesky, Lapack

SIZES = (512, 1024, 2048, 4096)
CONDITION_NUMBERS = {"float32": 1e4, "float64": 1e6}
PEAK_SIZE = 2048
# Below this size solves are timed some in a row, in one graph as in training: (this / n)³.
IN_A_ROW = 1024
ROUTES = ("lapack", "cholesky", "lu")
# A chosen route that takes longer than this times SciPy's Cholesky is reported as slower.
BAR = 1.2


def system(size, dtype):
    """The damped Gauss-Newton matrix `[n, n]` and a right-hand side `[n]`."""
    rng = np.random.default_rng([size, 1])
    jacobian = rng.normal(size=(size // 2, size)).astype("float32").astype("float64")
    matrix = jacobian.T @ jacobian / size
    # The largest eigenvalue by Marchenko and Pastur; half of the others are zero.
    damping = (1 + np.sqrt(0.5)) ** 2 / CONDITION_NUMBERS[dtype]
    matrix = (matrix + damping * np.eye(size)).astype(dtype)
    return matrix, rng.normal(size=size).astype(dtype)


def peaks(dtype, repeats):
    """GF/s of one matrix product, by library."""
    a = np.random.default_rng(0).normal(size=(PEAK_SIZE, PEAK_SIZE)).astype(dtype)
    tensor = tf.constant(a)
    runs = {"tf.matmul": lambda: tf.matmul(tensor, tensor).numpy(), "numpy": lambda: a @ a}
    return {
        name: 2 * PEAK_SIZE**3 / common.median_seconds(run, repeats) / 1e9
        for name, run in runs.items()
    }


def scheduler(dtype):
    """Chooses among `ROUTES` by times calibrated in `dtype`."""
    costs = {name: SolverTime(name, dtype=dtype) for name in ROUTES}
    return Scheduler(classical=ROUTES, quantum=None, classical_cost=costs)


def traced(solver, matrix, rhs, times):
    """A function that solves `times` times in one graph, and waits."""
    matrix, rhs, times = tf.constant(matrix), tf.constant(rhs), tf.constant(times)
    solves = tf.function(
        lambda: calibration.repeated(solver.solve, matrix, rhs, times), autograph=False
    )
    return lambda: solves().numpy()


def answer(solver, matrix, rhs):
    """Solution and residual of one traced solve."""

    @tf.function(autograph=False)
    def solve(matrix, rhs):
        solution = solver.solve(matrix, rhs)
        return solution.x, solution.residual

    x, residual = solve(tf.constant(matrix), tf.constant(rhs))
    return x.numpy(), float(residual)


def lapack_solves(matrix, rhs, times):
    """SciPy as fast as it goes: no checks, and its copy of the matrix overwritten."""

    def cholesky():
        for _ in range(times):
            factor = scipy.linalg.cho_factor(matrix.copy(), overwrite_a=True, check_finite=False)
            x = scipy.linalg.cho_solve(factor, rhs, check_finite=False)
        return x

    def lu():
        for _ in range(times):
            factor = scipy.linalg.lu_factor(matrix.copy(), overwrite_a=True, check_finite=False)
            x = scipy.linalg.lu_solve(factor, rhs, check_finite=False)
        return x

    return cholesky, lu


def tensorflow_factors(matrix, times):
    """`tf.linalg.cholesky` and `tf.linalg.lu`, the factorisation alone."""
    tensor, count = tf.constant(matrix), tf.constant(times)

    def factors(factorise):
        def again(k, _):
            return k + 1, factorise(tf.identity(tensor))

        run = tf.function(
            lambda: tf.while_loop(
                lambda k, _: k < count, again, (0, tensor[-1]), parallel_iterations=1
            )[1],
            autograph=False,
        )
        return lambda: run().numpy()

    return factors(lambda a: tf.linalg.cholesky(a)[-1]), factors(lambda a: tf.linalg.lu(a)[0][-1])


def refined_reference(matrix, rhs):
    """LAPACK's solution in float64, refined twice: else its own error would read 0."""
    factor = scipy.linalg.cho_factor(matrix.astype("float64"))
    x = np.zeros(len(rhs), np.longdouble)
    extended = matrix.astype(np.longdouble)
    for _ in range(3):
        gap = rhs - extended @ x
        x += scipy.linalg.cho_solve(factor, gap.astype("float64"))
    return x.astype("float64")


def error_of(x, reference):
    return float(np.linalg.norm(x.astype("float64") - reference) / np.linalg.norm(reference))


def one_size(size, dtype, peak, repeats, chooser):
    matrix, rhs = system(size, dtype)
    reference = refined_reference(matrix, rhs)
    times = max(1, (IN_A_ROW // size) ** 3)
    solvers = (Cholesky(), Lapack(), LU())
    ours = {s.name: traced(s, matrix, rhs, times) for s in solvers}
    cholesky, lu = lapack_solves(matrix, rhs, times)
    tf_cholesky, tf_lu = tensorflow_factors(matrix, times)
    result = common.compare(
        f"{dtype}, n = {size:,}, solved {times} times in a row: ours is Cholesky",
        ours["cholesky"],
        {
            "ours: Lapack": ours["lapack"],
            "scipy cho_factor + cho_solve": cholesky,
            "tf.linalg.cholesky, factor only": tf_cholesky,
            "ours: LU": ours["lu"],
            "scipy lu_factor + lu_solve": lu,
            "tf.linalg.lu, factor only": tf_lu,
        },
        repeats,
    )
    seconds = {name: peer["seconds"] / times for name, peer in result["peers"].items()}
    routes = {
        "cholesky": result["ours_seconds"] / times,
        "lapack": seconds["ours: Lapack"],
        "lu": seconds["ours: LU"],
    }
    decision = chooser.choose(size, CONDITION_NUMBERS[dtype], size, definite=True)
    chosen = decision.route
    best = min(routes, key=routes.__getitem__)
    scipys = seconds["scipy cho_factor + cho_solve"]
    speed = {
        "chosen of ours": size**3 / 3 / routes[chosen] / 1e9,
        "scipy cho": size**3 / 3 / scipys / 1e9,
        "scipy lu": 2 * size**3 / 3 / seconds["scipy lu_factor + lu_solve"] / 1e9,
    }
    answers = {s.name: answer(s, matrix, rhs) for s in solvers}
    errors = {name: error_of(x, reference) for name, (x, _) in answers.items()}
    errors["scipy cho"], errors["scipy lu"] = (error_of(f(), reference) for f in (cholesky, lu))
    residuals = {name: residual for name, (_, residual) in answers.items()}
    ratios = {name: seconds / scipys for name, seconds in routes.items()}
    verdict = "within" if ratios[chosen] <= BAR else "SLOWER than"
    print(f"  the scheduler takes {chosen}: {ratios[chosen]:.2f} of scipy cho, {verdict} {BAR}")
    print("  ours / scipy cho: " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()))
    print(
        "  predicted: "
        + ", ".join(
            f"{name} {1e3 * decision.predicted[name]:.3g} ms (measured {1e3 * routes[name]:.3g})"
            for name in ROUTES
        )
    )
    print("  GF/s: " + ", ".join(f"{k} {v:.0f} ({v / peak:.0%})" for k, v in speed.items()))
    print("  errors: " + ", ".join(f"{k} {v:.1e}" for k, v in errors.items()))
    print("  residuals: " + ", ".join(f"{k} {v:.1e}" for k, v in residuals.items()))
    return {
        **result,
        "dtype": dtype,
        "size": size,
        "solves_in_a_row": times,
        "chosen": chosen,
        "best": best,
        "ours_over_scipy": ratios,
        "chosen_over_scipy": ratios[chosen],
        "predicted_seconds": dict(decision.predicted),
        "gigaflops": speed,
        "errors": errors,
        "residuals": residuals,
    }


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    common.add_output_options(parser, "solve")
    options = parser.parse_args()
    common.limit_threads()
    results = []
    for dtype in CONDITION_NUMBERS:
        products = peaks(dtype, options.repeats)
        print(f"\n{dtype}: " + ", ".join(f"{k} {v:.0f} GF/s" for k, v in products.items()))
        results.append({"dtype": dtype, "peak_gigaflops": products})
        chooser, peak = scheduler(dtype), max(products.values())
        for size in SIZES:
            results.append(one_size(size, dtype, peak, options.repeats, chooser))
    slow = [r for r in results if r.get("chosen_over_scipy", 0.0) > BAR]
    names = ", ".join(f"{r['dtype']} n = {r['size']:,}" for r in slow)
    print(f"\nchosen routes slower than {BAR} times scipy cho: {names or 'none'}")
    common.save("solve", results, options.json)


if __name__ == "__main__":
    main()
