"""The empirical Fisher's damped system in two ways, one process: in the space of the weights
(primal: F formed, Cholesky) and in that of the examples (dual: U Uᵀ, Woodbury).

One dense layer of 32 x 32 = 1,024 weights, 512 examples, λ = 1e-3 of the largest eigenvalue.
Both in float64, as the package solves; and the primal in float32, which is faster and loses
digits. Errors are relative to SciPy in float64.

    python benchmarks/fisher.py [--repeats 5]
"""

from __future__ import annotations

import common
import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_qnewton.curvature.low_rank import LowRank, OuterRows
from keras_qnewton.solvers import Cholesky

INPUTS, OUTPUTS, EXAMPLES = 32, 32, 512


def dual(a, d, g, shift):
    """(F + λI)⁻¹ g with nothing of the size of the weights squared."""
    factors = LowRank([[OuterRows(a, d)]], [INPUTS * OUTPUTS])
    gram = factors.gram()
    system = gram + shift * tf.eye(EXAMPLES, dtype=tf.float64)
    y = Cholesky().solve(system, factors.project(g)).x
    return (g - factors.lift(y)) / shift


def primal(a, d, g, shift):
    """The same with F `[N, N]` formed."""
    rows = tf.reshape(tf.einsum("bi,bo->bio", a, d[:, 0]), [EXAMPLES, INPUTS * OUTPUTS])
    matrix = tf.matmul(rows, rows, transpose_a=True)
    shift = tf.cast(shift, matrix.dtype)
    return Cholesky().solve(matrix + shift * tf.eye(INPUTS * OUTPUTS, dtype=matrix.dtype), g).x


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    common.add_output_options(parser, "fisher")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    a = np.tanh(rng.normal(size=(EXAMPLES, INPUTS)))
    d = rng.normal(size=(EXAMPLES, 1, OUTPUTS)) / np.sqrt(EXAMPLES)
    rows = np.einsum("bi,bo->bio", a, d[:, 0]).reshape(EXAMPLES, -1)
    matrix, g = rows.T @ rows, rows.mean(0) * np.sqrt(EXAMPLES)
    shift = 1e-3 * np.linalg.eigvalsh(matrix)[-1]
    exact = scipy.linalg.solve(matrix + shift * np.eye(len(g)), g, assume_a="pos")

    def run(method, dtype):
        arguments = [tf.constant(v, dtype) for v in (a, d, g)]
        traced = tf.function(method)
        return lambda: traced(*arguments, tf.constant(shift, tf.float64)).numpy()

    ways = {
        "dual, float64": run(dual, tf.float64),
        "primal Cholesky, float64": run(primal, tf.float64),
        "primal Cholesky, float32": run(primal, tf.float32),
    }
    errors = {}
    for name, solve in ways.items():
        errors[name] = float(np.linalg.norm(solve() - exact) / np.linalg.norm(exact))
        print(f"{name}: relative error {errors[name]:.1e}")

    def scipy_primal():
        rows = np.einsum("bi,bo->bio", a, d[:, 0]).reshape(EXAMPLES, -1)
        system = rows.T @ rows
        system[np.diag_indices(len(g))] += shift
        factor = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
        return scipy.linalg.cho_solve(factor, g, check_finite=False)

    ours = ways.pop("dual, float64")
    results = common.compare(
        f"empirical Fisher, N = {INPUTS * OUTPUTS}, B = {EXAMPLES}: dual",
        ours,
        {**ways, "primal Cholesky, SciPy float64": scipy_primal},
        options.repeats,
    )
    common.save("fisher", [{"errors": errors}, results], options.json)


if __name__ == "__main__":
    main()
