"""Lanczos: the two ends of a symmetric spectrum from a few products H v.

With V = [v_1 ... v_m] orthonormal and H V = V T + β_m v_{m+1} e_mᵀ, T tridiagonal, each
eigenpair (θ, s) of T gives a Ritz value θ whose residual is exactly

    ‖H V s - θ V s‖ = β_m |s_m|,

so that *some* eigenvalue of H lies within β_m |s_m| of θ (Parlett, "The Symmetric
Eigenvalue Problem", sections 4.5 and 13.2). Every new vector is orthogonalised against all
earlier ones twice, which keeps V orthonormal to rounding and ghosts out of T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.norms import norm, plain_norm, unit
from keras_qnewton.traced_once import traced_once
from keras_qnewton.types import Array

EPSILON = {tf.float32: 2.0**-23, tf.float64: 2.0**-52}


class Spectrum(NamedTuple):
    """The ends of a spectrum, each with the error it is known to; scalars, float64.

    Attributes:
        lambda_min: Smallest Ritz value, never below the smallest eigenvalue.
        lambda_max: Largest Ritz value, never above the largest eigenvalue.
        residual_min: An eigenvalue lies within this of `lambda_min`. Once the process has
            found the lower end (it does so first), ``lambda_min - residual_min`` is below
            every eigenvalue: the number to shift by.
        residual_max: The same for `lambda_max`.
        products: How many products with H it took.
    """

    lambda_min: tf.Tensor
    lambda_max: tf.Tensor
    residual_min: tf.Tensor
    residual_max: tf.Tensor
    products: tf.Tensor


def extremal_eigenvalues(
    matvec_or_matrix: Callable[[tf.Tensor], tf.Tensor] | Array,
    size: int | tf.Tensor | None = None,
    iterations: int = 30,
    dtype: tf.DType | str | None = None,
    seed: int = 0,
    agreed: Callable[..., Sequence[tf.Tensor]] = lambda *tensors: tensors,
) -> Spectrum:
    """Estimates the smallest and the largest eigenvalue of a symmetric matrix.

    Plain TensorFlow code without Python state: runs eagerly, inside a `tf.function`, and
    under XLA as far as the product does. The start vector is a fixed pseudo-random one, so
    that the same matrix always gives the same answer. Stops early on an invariant subspace
    (a zero or a diagonal-times-identity matrix, N = 1).

    Args:
        matvec_or_matrix: A symmetric matrix `[N, N]`, or a callable that takes a vector
            `[N]` and returns H v `[N]`. The callable is traced in a loop body: a
            Hessian-vector product there has to record its own tapes.
        size: N; an int or a scalar int tensor. Not needed for a matrix.
        iterations: Largest number of products (never more than N are made).
        dtype: Of the vectors; default the matrix's dtype, or float32 for a callable.
        seed: Of the start vector.
        agreed: Makes tensors those that all have who run this together, where a product is a sum
            over several machines: they have to stop at the same one.

    Returns:
        A `Spectrum`. NaN throughout when a product has NaN or Inf.

    Raises:
        ValueError: If `iterations` is not positive, or `size` is missing.
    """
    if iterations < 1:
        raise ValueError(
            f"Argument `iterations` must be a positive integer. Received: iterations={iterations}"
        )
    if callable(matvec_or_matrix):
        if size is None:
            raise ValueError("Argument `size` must be given with a callable. Received: size=None")
        matvec, dtype = matvec_or_matrix, tf.as_dtype(dtype or tf.float32)
    else:
        matrix = tf.convert_to_tensor(matvec_or_matrix)
        dtype = tf.as_dtype(dtype or matrix.dtype)
        matrix = tf.cast(matrix, dtype)
        size = tf.shape(matrix)[0] if matrix.shape[0] is None else matrix.shape[0]

        def matvec(vector: tf.Tensor) -> tf.Tensor:
            return tf.linalg.matvec(matrix, vector)

    steps = min(iterations, size) if isinstance(size, int) else tf.minimum(iterations, size)
    start = start_vector(size, dtype, seed)
    done, alphas, betas = tridiagonalise(matvec, start, steps, agreed)
    return _ritz_ends(tf.cast(alphas, tf.float64), tf.cast(betas, tf.float64), done, dtype)


def largest_eigenvalue(matrix: tf.Tensor, iterations: int = 10, seed: int = 0) -> Spectrum:
    """The upper end of a semidefinite spectrum, by a third of `extremal_eigenvalues`'s operations.

    No vector is orthogonalised against those before the last two. What that loses it loses in
    directions already found, and Ritz values stay within the spectrum, to rounding (Paige 1980,
    Linear Algebra and its Applications 34, 235-258).

    Args:
        matrix: `[N, N]`, a floating tensor, positive semidefinite.
        iterations: Number of products; at most N, where that is known in advance.
        seed: Of the start vector.

    Returns:
        A `Spectrum`, of whose lower end nothing is known. NaN throughout if `matrix` has one.
    """
    known = matrix.shape[0]
    return _upper_end(matrix, iterations if known is None else min(iterations, known), seed)


@traced_once
def _upper_end(matrix: tf.Tensor, iterations: int, seed: int) -> Spectrum:
    start = start_vector(tf.shape(matrix)[0], matrix.dtype, seed)
    # A column, and sums of products: with vectors there would be three times as many operations.
    vector = start[:, None]
    # No entry of a semidefinite matrix is larger than those on its diagonal.
    u = unit(tf.linalg.diag_part(matrix))
    previous, beta = tf.zeros_like(vector), tf.zeros([], matrix.dtype)
    alphas, betas = [], []
    for _ in range(iterations):
        image = tf.matmul(matrix, vector) / u - beta * previous
        alphas.append(tf.reduce_sum(vector * image))
        image -= alphas[-1] * vector
        beta = tf.sqrt(tf.reduce_sum(image * image))
        betas.append(beta)
        # On an invariant subspace β is zero, and everything after it; or a remainder of rounding,
        # from which another recurrence begins.
        previous, vector = vector, tf.math.divide_no_nan(image, beta)
    diagonal, coupling = (tf.cast(u * tf.stack(found), tf.float64) for found in (alphas, betas))
    return _ritz_ends(diagonal, coupling, tf.size(diagonal), matrix.dtype)


def start_vector(size: int | tf.Tensor, dtype: tf.DType, seed: int) -> tf.Tensor:
    """A unit vector `[size]`."""
    # The algorithm is named, because the automatic choice gives other numbers under XLA.
    start = tf.random.stateless_normal([size], [seed, 1], dtype=dtype, alg="philox")
    return start / plain_norm(start)


def negligible(dtype: tf.DType) -> float:
    """β relative to the largest of α and β so far, below which the subspace is invariant."""
    return 10 * EPSILON[dtype]


def rounding(dtype: tf.DType) -> float:
    """Rounding error of a product, relative to the largest |eigenvalue|."""
    return 4 * EPSILON[dtype]


def tridiagonalise(
    matvec: Callable[[tf.Tensor], tf.Tensor],
    start: tf.Tensor,
    steps: int | tf.Tensor,
    agreed: Callable[..., Sequence[tf.Tensor]] = lambda *tensors: tensors,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """T of the process that begins with `start` `[N]`, a unit vector.

    Args:
        matvec: From v `[N]` to H v `[N]`.
        start: v_1.
        steps: m, at most N.
        agreed: See `extremal_eigenvalues`.

    Returns:
        The number of steps taken, T's diagonal `[m]` and what each step left, `[m]`: the
        subdiagonal and β_m.
    """
    dtype, size = start.dtype, tf.shape(start)[0] if start.shape[0] is None else start.shape[0]

    def proceed(
        k: tf.Tensor,
        _basis: tf.Tensor,
        _vector: tf.Tensor,
        _alphas: tf.Tensor,
        betas: tf.Tensor,
        scale: tf.Tensor,
    ) -> tf.Tensor:
        previous = betas[tf.maximum(k - 1, 0)]
        return (k < steps) & ((k == 0) | (previous > negligible(dtype) * scale))

    def body(
        k: tf.Tensor,
        basis: tf.Tensor,
        vector: tf.Tensor,
        alphas: tf.Tensor,
        betas: tf.Tensor,
        scale: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        at = tf.reshape(k, [1, 1])
        basis = tf.tensor_scatter_nd_update(basis, at, vector[None])
        image = tf.reshape(tf.cast(matvec(vector), dtype), tf.shape(vector))
        alpha = tf.tensordot(vector, image, 1)
        for _ in range(2):  # "twice is enough" (Parlett, section 6.9, after Kahan)
            image -= tf.linalg.matvec(basis, tf.linalg.matvec(basis, image), transpose_a=True)
        image, alpha, beta = agreed(image, alpha, norm(image))
        scale = tf.maximum(scale, tf.maximum(tf.abs(alpha), beta))
        following = tf.math.divide_no_nan(image, beta)
        following.set_shape(vector.shape)
        return (
            k + 1,
            basis,
            following,
            tf.tensor_scatter_nd_update(alphas, at, alpha[None]),
            tf.tensor_scatter_nd_update(betas, at, beta[None]),
            scale,
        )

    zeros = tf.zeros([steps], dtype)
    done, _, _, alphas, betas, _ = tf.while_loop(
        proceed,
        body,
        (0, tf.zeros([steps, size], dtype), start, zeros, zeros, tf.zeros([], dtype)),
        parallel_iterations=1,
    )
    return done, alphas, betas


def _ritz_ends(alphas: tf.Tensor, betas: tf.Tensor, done: tf.Tensor, dtype: tf.DType) -> Spectrum:
    """The ends of T's spectrum, whose products were made in `dtype`.

    Args:
        alphas: T's diagonal, float64 `[m]`.
        betas: Norms that each step left, float64 `[m]`: T's subdiagonal and β_m.
        done: Steps that were taken, int32 scalar; what is beyond them is not looked at.
        dtype: Float32 or float64.
    """
    return Spectrum(*_ends(alphas, betas, done, tf.constant(rounding(dtype), tf.float64)))


@traced_once
def _ends(
    alphas: tf.Tensor, betas: tf.Tensor, done: tf.Tensor, relative: tf.Tensor
) -> list[tf.Tensor]:
    """A `Spectrum`'s fields; `relative` is the rounding error of a product, float64 scalar."""
    steps = tf.size(alphas)
    number = tf.range(steps)
    # α_1 = v_1ᵀ H v_1 lies between the extreme Ritz values: as padding it moves neither.
    diagonal = tf.where(number < done, alphas, tf.gather(alphas, 0))
    coupling = tf.where(number + 1 < done, betas, tf.zeros_like(betas))
    last = done - 1
    left = tf.gather(betas, last)
    values, vectors, finite = eigen_of_tridiagonal(diagonal, coupling)
    finite &= tf.math.is_finite(left)
    # The recurrence's own residual of a converged Ritz value goes to zero; rounding stays.
    residuals = tf.abs(left * tf.gather(vectors, last)) + relative * tf.reduce_max(tf.abs(values))
    both = tf.gather(tf.stack([values, residuals]), tf.stack([0, steps - 1]), axis=1)
    found = tf.concat([tf.reshape(both, [4]), tf.cast(done, tf.float64)[None]], 0)
    return tf.unstack(tf.where(finite, found, tf.constant(float("nan"), tf.float64)), num=5)


def eigen_of_tridiagonal(
    diagonal: tf.Tensor, coupling: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Eigenvalues `[m]`, ascending, and eigenvectors `[m, m]`, in columns; and whether T is finite.

    Of one that is not they are those of zeros, because TensorFlow's eigh raises on NaN.

    Args:
        diagonal: T's, float64 `[m]`.
        coupling: Its subdiagonal, and a number that is not looked at, float64 `[m]`.
    """
    bands = tf.stack([coupling, diagonal, coupling])
    tridiagonal = tf.linalg.diag(bands, k=(-1, 1), align="LEFT_LEFT")
    finite = tf.reduce_all(tf.math.is_finite(bands))
    values, vectors = tf.linalg.eigh(tf.where(finite, tridiagonal, tf.zeros_like(tridiagonal)))
    return values, vectors, finite
