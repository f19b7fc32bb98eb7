"""What a block encoding of a matrix at hand costs, found in a graph: nothing is encoded.

    encoding     α / ‖A‖₂                       layers of a call
    dilation     1                              by N alone
    frobenius    ‖A‖_F / ‖A‖₂                   by N alone
    sparse       ‖|A|‖₂ / ‖A‖₂                  of its pattern, see `pattern_depth`
    fable        N' max|a| / ‖A‖₂               not known

N' = 2^n, the rows after padding by the smallest |eigenvalue|. ‖|A|‖₂ is found by products with |A|,
which has a positive dominant vector.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.solvers.quantum.encodings.base import padded_qubits
from keras_qnewton.solvers.quantum.pattern_depth import sparse_layers

# The quotient's error falls with the square of the vector's: 1 % takes few products.
_PRODUCTS = 20


class Measured(NamedTuple):
    """Of one matrix; float64 scalars.

    Attributes:
        alpha: α/‖A‖₂; None where it is not known without encoding the matrix.
        layers: Of gates, of one call; None where they do not depend on more than N.
    """

    alpha: tf.Tensor | None
    layers: tf.Tensor | None


def measured(
    encoding: str, matrix: tf.Tensor, norm: tf.Tensor, condition_number: tf.Tensor
) -> Measured:
    """α and layers of an encoding of `matrix`.

    Args:
        encoding: Its name.
        matrix: A `[N, N]`, symmetric, N static.
        norm: ‖A‖₂, scalar float64: the very one that κ was made of, if that was a bound, so that
            ακ is α/σ_min.
        condition_number: κ, scalar float64.
    """
    matrix = tf.cast(matrix, tf.float64)
    size = int(matrix.shape[0])
    rows = 1 << padded_qubits(size)
    # Scaled, as squares over- and underflow.
    scaled = tf.math.divide_no_nan(matrix, norm)
    if encoding == "dilation":
        return Measured(tf.ones([], tf.float64), None)
    if encoding == "frobenius":
        padding = (rows - size) / tf.square(condition_number)
        return Measured(tf.sqrt(tf.reduce_sum(tf.square(scaled)) + padding), None)
    if encoding == "sparse":
        return Measured(_norm_of_magnitudes(tf.abs(scaled)), sparse_layers(matrix))
    if encoding == "fable":
        return Measured(rows * tf.reduce_max(tf.abs(scaled)), None)
    return Measured(None, None)


def _norm_of_magnitudes(matrix: tf.Tensor) -> tf.Tensor:
    """The largest eigenvalue of a non-negative symmetric `matrix` `[N, N]`, scalar float64."""
    # Sums of rows are larger where the dominant vector is.
    start = tf.reduce_sum(matrix, axis=1)

    def product(k: tf.Tensor, vector: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        vector = vector / tf.norm(vector)
        image = tf.linalg.matvec(matrix, vector)
        found = tf.tensordot(vector, image, 1)
        # The vector itself, too: an eigenvalue -ρ would make the products alternate.
        return k + 1, image + 0.1 * found * vector, found

    first = (tf.constant(0), start, tf.zeros([], tf.float64))
    _, _, found = tf.while_loop(lambda k, *_: k < _PRODUCTS, product, first, parallel_iterations=1)
    return found
