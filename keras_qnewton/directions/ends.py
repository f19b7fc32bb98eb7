"""The search, before a formed block is solved, for its spectrum's ends and its sparsity d."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.conditioning import Spectrum, extremal_eigenvalues
from keras_qnewton.conditioning.host_lanczos import extremal_eigenvalues_on_host
from keras_qnewton.conditioning.lanczos import EPSILON, largest_eigenvalue
from keras_qnewton.curvature.formation import Formed
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.directions.spectrum import (
    LANCZOS_STEPS,
    LARGE_END_STEPS,
    full_products,
    row_nonzeros,
    semidefinite_spectrum,
)
from keras_qnewton.directions.traits import is_bounded, is_large, is_semidefinite
from keras_qnewton.norms import plain_norm, unit
from keras_qnewton.settings import Settings

# Lanczos steps where nothing but λ_min's error bound is between a fixed shift and a needlessly
# short step: on a pruned block of 1,040 weights the bound is 4e-3 after 20 steps, 6e-7 after 60
# (λ_min -1e-2).
_DEFINITE_STEPS = 60
# Between these, squares of entries are summed without overflow, or loss of any that count.
_SQUARES = {tf.float32: (2.0**-40, 2.0**40), tf.float64: (2.0**-400, 2.0**400)}


class Ends(NamedTuple):
    """A block's norm, spectrum and sparsity.

    Attributes:
        norm: Frobenius's of a semidefinite one, float64 scalar; else 0.
        spectrum: The ends of its spectrum.
        sparsity: d, float64 scalar.
        products: Products with it that were made, float64; NaN where κ may take a factorisation.
    """

    norm: tf.Tensor
    spectrum: Spectrum
    sparsity: tf.Tensor
    products: tf.Tensor


def ends_of(formed: Formed, problem: BlockProblem, settings: Settings) -> Ends:
    """The ends of the formed block."""
    find = _large_end if is_semidefinite(problem, settings) else _both_ends
    ends = find(formed, problem, settings)
    if settings.scheduler.estimator is None:
        return ends
    return ends._replace(products=tf.constant(math.nan, tf.float64))


def _large_end(formed: Formed, problem: BlockProblem, settings: Settings) -> Ends:
    """Only the large end is searched: the other is zero, but for rounding."""
    matrix = formed.matrix
    norm = tf.cast(_frobenius(matrix), tf.float64)
    # Rounding each entry moves no eigenvalue by more than that much of Frobenius's norm.
    rounding = -EPSILON[matrix.dtype] * norm
    operand = tf.cast(matrix, problem.gradient.dtype)
    # A factorisation waits for the norm alone, and what is for the log is not to be before it.
    with tf.control_dependencies([rounding]):
        sparsity = row_nonzeros(matrix, shifted=True)
        spectrum = problem.kept.spectrum(
            formed.unchanged, lambda: largest_eigenvalue(operand, LARGE_END_STEPS, settings.seed)
        )
    spectrum = semidefinite_spectrum(spectrum, rounding)
    return Ends(norm, spectrum, sparsity, full_products(spectrum, operand))


def _frobenius(matrix: tf.Tensor) -> tf.Tensor:
    """Frobenius's norm of a semidefinite matrix."""

    # No entry is larger than those on the diagonal. A large matrix is divided where it has to be.
    u = unit(tf.linalg.diag_part(matrix))
    low, high = _SQUARES[matrix.dtype]
    return tf.cond(
        (u >= low) & (u <= high), lambda: plain_norm(matrix), lambda: u * plain_norm(matrix / u)
    )


def _both_ends(formed: Formed, problem: BlockProblem, settings: Settings) -> Ends:
    matrix, bounded = formed.matrix, is_bounded(problem, settings)
    precise, seed = settings.damping.definite, settings.seed
    # A product with a large matrix takes as long as reading it.
    short = is_large(problem) and not precise
    operand = matrix if short else tf.cast(matrix, tf.float64)
    if short and settings.scheduler.leaves_graph(problem.size, bounded):
        spectrum = problem.kept.spectrum(
            formed.unchanged, lambda: extremal_eigenvalues_on_host(operand, seed=seed)
        )
        products = full_products(spectrum, operand, part=0.5)
    else:
        same_time = LANCZOS_STEPS * tf.float64.size // operand.dtype.size
        steps = _DEFINITE_STEPS if precise else same_time
        spectrum = problem.kept.spectrum(
            formed.unchanged, lambda: extremal_eigenvalues(operand, iterations=steps, seed=seed)
        )
        products = full_products(spectrum, operand)
    products = products if bounded else tf.constant(math.nan, tf.float64)
    return Ends(
        tf.constant(0.0, tf.float64), spectrum, row_nonzeros(matrix, shifted=True), products
    )
