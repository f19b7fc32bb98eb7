"""Lanczos on the host: products that read half of the matrix, as many as κ needs.

What a product with a formed matrix costs is the reading of it. BLAS's `symv` (Dongarra et al.
1988, ACM Transactions on Mathematical Software 14, 1-17) reads a triangle; TensorFlow has
products with the whole alone. The recurrence is that of `lanczos`.

When to stop. With θ the smallest Ritz value, r its residual and γ the gap to the next, a shift
s = λ + r - θ makes H + s I positive definite, its smallest eigenvalue being at least λ, and

    κ = (λ_max + s) / (λ + r - (θ - λ_min)),        0 ≤ θ - λ_min ≤ r²/γ

(Parlett, "The Symmetric Eigenvalue Problem", section 11.7): the estimate with θ for λ_min is off
by less than r/γ of itself, whatever λ. Where eigenvalues are so dense that γ says nothing, what
θ has fallen by over the last products says how far it will.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_qnewton.conditioning.lanczos import Spectrum, negligible, rounding, start_vector

# Products between two looks at the Ritz values.
_PERIOD = 10
# r/γ, and θ's fall over one period in units of r. Either has to be small at two looks in a row:
# of 12 Hessians (digits, 985 to 4,060 weights), from 4 start vectors each, θ - λ_min is then at
# most 0.03 r, after 57 products in the mean; at one look, up to 0.3 r.
_GAP, _FALL = 0.05, 0.1


def extremal_eigenvalues_on_host(
    matrix: tf.Tensor, iterations: int = 100, seed: int = 0
) -> Spectrum:
    """`lanczos.extremal_eigenvalues` by a host call: no export, no XLA.

    Args:
        matrix: `[N, N]`, symmetric, float32 or float64; N is known. Products are made in its
            precision.
        iterations: Largest number of products (never more than N are made).
        seed: Of the start vector.

    Returns:
        A `Spectrum`. NaN throughout when the matrix has NaN or Inf.
    """
    size = int(matrix.shape[0])
    ends = tf.numpy_function(
        lambda matrix, start: _ends(matrix, start, min(iterations, size)),
        [matrix, start_vector(size, matrix.dtype, seed)],
        tf.float64,
        stateful=False,
    )
    return Spectrum(*tf.unstack(ends, len(Spectrum._fields)))


def _ends(matrix: np.ndarray, vector: np.ndarray, steps: int) -> np.ndarray:
    """The numbers of a `Spectrum`."""
    # SciPy's BLAS, as in `solvers.lapack`: NumPy brings another, whose idle threads get in its way.
    symv, gemv, dot, nrm2 = scipy.linalg.get_blas_funcs(
        ("symv", "gemv", "dot", "nrm2"), (matrix, vector)
    )
    columns = matrix.T  # the same numbers, in BLAS's order
    basis = np.empty((len(vector), steps), vector.dtype, order="F")
    alphas, betas = np.zeros(steps), np.zeros(steps)
    least = negligible(tf.as_dtype(vector.dtype))
    lowest, scale, settled = np.inf, 0.0, 0
    # NaN and overflow are told by the answer, not by warnings.
    with np.errstate(all="ignore"):
        for k in range(steps):
            basis[:, k] = vector
            image = symv(1.0, columns, vector)
            alphas[k] = dot(vector, image)
            for _ in range(2):  # as there: once is not, where H has almost a null space
                overlap = gemv(1.0, basis[:, : k + 1], image, trans=1)
                image = gemv(-1.0, basis[:, : k + 1], overlap, beta=1.0, y=image, overwrite_y=True)
            betas[k] = beta = nrm2(image)
            scale = max(scale, abs(alphas[k]), beta)
            if not np.isfinite(scale + beta):
                return np.full(len(Spectrum._fields), np.nan)
            last = k + 1 == steps or beta <= least * scale
            if last or (k + 1) % _PERIOD == 0:
                ends, gap = _ritz_ends(alphas[: k + 1], betas[: k + 1], matrix.dtype)
                fall, lowest = lowest - ends.lambda_min, ends.lambda_min
                r = ends.residual_min
                settled = settled + 1 if r <= _GAP * gap or fall <= _FALL * r else 0
                if last or settled == 2:
                    return np.array(ends)
            vector = image / vector.dtype.type(beta)
    raise AssertionError("the last step returns")


def _ritz_ends(alphas: np.ndarray, betas: np.ndarray, dtype: np.dtype) -> tuple[Spectrum, float]:
    """The ends of T's spectrum, and γ (zero for a single Ritz value)."""
    products = len(alphas)
    values, vectors = scipy.linalg.eigh_tridiagonal(alphas, betas[:-1])
    residuals = betas[-1] * np.abs(vectors[-1])
    floor = rounding(tf.as_dtype(dtype)) * np.abs(values).max()
    ends = (values[0], values[-1], residuals[0] + floor, residuals[-1] + floor)
    return Spectrum(*ends, float(products)), values[min(1, products - 1)] - values[0]
