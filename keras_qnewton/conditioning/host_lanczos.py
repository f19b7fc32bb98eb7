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

import math

import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_qnewton.conditioning.lanczos import Spectrum, negligible, rounding, start_vector

# Smallest and largest number of products; between them one for each so many unknowns.
_FEWEST, _LARGEST, _UNKNOWNS = 40, 100, 25
# Products between two looks at the Ritz values.
_PERIOD = 10
# Limits of r/γ, and of θ's fall over one period in units of r. Either has to be met at two looks
# in a row: for 12 Hessians (digits, 985 to 4,060 weights), from 4 start vectors each, θ - λ_min is
# then at most 0.03 r, after 57 products in the mean; at one look, up to 0.3 r.
_GAP, _FALL = 0.05, 0.1
# Share of a vector's norm: where less is left after it was orthogonalised, rounding may be the
# larger part of that (Daniel, Gragg, Kaufman & Stewart 1976, Mathematics of Computation 30,
# 772-795).
_CANCELLED = 0.7


def extremal_eigenvalues_on_host(
    matrix: tf.Tensor, iterations: int | None = None, seed: int = 0
) -> Spectrum:
    """`lanczos.extremal_eigenvalues` by a host call: no export, no XLA.

    Args:
        matrix: `[N, N]`, symmetric, float32 or float64; N is known. Products are made in its
            precision.
        iterations: Largest number of products (never more than N are made). Default: N/25, at
            least 40 and at most 100, so that they take at most a tenth of an LU factorisation.
        seed: Of the start vector.

    Returns:
        A `Spectrum`. NaN throughout when the matrix has NaN or Inf.
    """
    size = int(matrix.shape[0])
    by_size = min(max(_FEWEST, size // _UNKNOWNS), _LARGEST)
    steps = min(by_size if iterations is None else iterations, size)
    ends = tf.numpy_function(
        lambda matrix, start: _ends(matrix, start, steps),
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
    number, precision = vector.dtype.type, tf.as_dtype(vector.dtype)
    basis = np.empty((len(vector), steps), vector.dtype, order="F")
    alphas, betas = np.zeros(steps), np.zeros(steps)
    lowest, scale, beta, settled = math.inf, 0.0, 0.0, 0
    # The answer tells of NaN and overflow; warnings need not.
    with np.errstate(all="ignore"):
        for k in range(steps):
            basis[:, k] = vector
            known = basis[:, : k + 1]
            image = symv(1.0, columns, vector)
            alphas[k] = alpha = dot(vector, image)
            image -= number(alpha) * vector
            if k > 0:
                image -= number(beta) * basis[:, k - 1]
            for _ in range(2):  # takes out the remains of all vectors before; twice, as there
                left = nrm2(image)
                overlap = gemv(1.0, known, image, trans=1)
                image = gemv(-1.0, known, overlap, beta=1.0, y=image, overwrite_y=True)
                beta = nrm2(image)
                if beta > _CANCELLED * left:
                    break
            betas[k] = beta
            scale = max(scale, abs(alpha), beta)
            if not math.isfinite(alpha + beta):
                return np.full(len(Spectrum._fields), math.nan)
            last = k + 1 == steps or beta <= negligible(precision) * scale
            if last or (k + 1) % _PERIOD == 0:
                (theta, following), r = _ritz(alphas[: k + 1], betas[: k + 1], 0, 1)
                r += rounding(precision) * scale
                fall, lowest = lowest - theta, theta
                settled = settled + 1 if r <= _GAP * (following - theta) or fall <= _FALL * r else 0
                if last or settled == 2:
                    (largest, _), r_max = _ritz(alphas[: k + 1], betas[: k + 1], k, k)
                    r_max += rounding(precision) * scale
                    return np.array(Spectrum(theta, largest, r, r_max, k + 1.0))
            vector = image / number(beta)
    raise AssertionError("the last step returns")


def _ritz(
    alphas: np.ndarray, betas: np.ndarray, first: int, last: int
) -> tuple[tuple[float, float], float]:
    """Two Ritz values by their numbers from below, and the first one's residual."""
    last = min(last, len(alphas) - 1)
    values, vectors = scipy.linalg.eigh_tridiagonal(
        alphas, betas[:-1], select="i", select_range=(first, last), check_finite=False
    )
    return (values[0], values[-1]), betas[-1] * abs(vectors[-1, 0])
