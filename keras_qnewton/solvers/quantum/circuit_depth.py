"""The depth of QSVT's circuits as a formula: the count of `resources`, without the circuit.

With n = ⌈log₂ N⌉ system qubits, N' = 2^n, and layers as `resources.depth` counts them:

    depth       D · Q + (D + 1) · P + 2            D the degree, 2 the signal's Hadamard gates
    P           3 with one ancilla; else 7 + 22 ⌈log₂ a⌉, a the ancillas

    encoding    Q, layers of one call of it                                    basis
    dilation    N' (N' - 1) (6 + 22 ⌈log₂(n - 1)⌉) + 2N' - 1 - 4 (2k + 1),     exact
                k = ⌊2N'/3⌋; 6 for n = 1
    frobenius   2 N'² - 2 (n - 1)                                              exact
    sparse      M d (4 + 2.95 l + 0.11 l²), M = √(N N'), l = log₂(M/d),        fitted
                at most 4 N'² - 4 N' - 2n + 3                                  exact for d = N'
                and, where N < N', 1.1 N² (4 + 1.475 log₂(N'/N))               fitted

The exact ones follow from how the circuits are built and hold for any n (dilation: each of the
rotations waits for the one before, and k is the place of 1…1 in the Gray code, next to which a
rotation has no control on 0). That of "sparse" is fitted to random patterns of N = 16 to 128 rows,
d = 1 to N', within 10 %; for larger N'/d it is extrapolated. Patterns that are not random can
have fewer layers. An ancilla more, which "sparse" has where the non-zeros' graph falls apart,
is supposed for d ≤ 2 < N'. Tests count the circuits' gates and compare.

Degrees are those of ακ, α in units of ‖H‖₂. Where α is not given, it is the largest that ‖H‖₂
allows: dilation α = ‖H‖₂, frobenius α = ‖H‖_F ≤ √N' ‖H‖₂, sparse α = ‖|H|‖₂ ≤ √d ‖H‖₂ (a row's sum
is at most √d times its norm). Those are 2 to 9 times the α of matrices from training: `measured`
finds it, and "sparse" layers of the pattern itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.solvers.arrays import Scalar
from keras_qnewton.solvers.quantum.kernel_polynomial import LARGEST_GAP

# Steps of κ an octave: the very grid that transforms are computed on.
from keras_qnewton.solvers.quantum.transforms import STEPS_PER_OCTAVE

KNOWN = ("dilation", "frobenius", "sparse")


def circuit_depth(
    encoding: str,
    size: Scalar,
    condition_number: Scalar,
    sparsity: Scalar,
    epsilon: float,
    alpha: Scalar | None = None,
    layers: Scalar | None = None,
    residual: Scalar | None = None,
) -> tf.Tensor:
    """Layers of one run without the preparation of its right-hand side, scalar float64.

    Args:
        encoding: One of `KNOWN`.
        size: N, an int or a scalar tensor.
        condition_number: κ₂ ≥ 1, a number or a scalar tensor.
        sparsity: d, largest number of non-zeros in a row; "sparse" alone depends on it.
        epsilon: Of the polynomial, see `QSVT`.
        alpha: α/‖H‖₂, at least 1; None for the largest possible.
        layers: Of one call of the encoding, where they were counted; None for the formula.
        residual: For the polynomial with the smallest residual: its largest |1 - x p(x)|. None for
            the one closest to 1/x.

    Raises:
        ValueError: For another encoding.
    """
    _check_known(encoding)
    call = _call(encoding, size, sparsity, layers)
    resolved = _resolved(condition_number, alpha, call)
    if residual is None:
        degree = inverse_degree(resolved, epsilon)
    else:
        degree = kernel_degree(bucket(resolved), residual) - 1
    return degree * call.layers + (degree + 1) * projector_layers(call.ancillas) + 2


def shortcut_depth(
    encoding: str,
    size: Scalar,
    condition_number: Scalar,
    sparsity: Scalar,
    epsilon: Scalar,
    alpha: Scalar | None = None,
    layers: Scalar | None = None,
) -> tf.Tensor:
    """Layers of one kernel reflection, scalar float64; arguments are `circuit_depth`'s.

    The encoding is of N + 1 rows, to which `layers` belong. A call of it comes with two
    preparations of b', a Z that the system controls, and an ancilla more. The start, a basis
    vector, is not counted.
    """
    _check_known(encoding)
    larger = float64(size) + 1
    call = _call(encoding, larger, sparsity, layers)
    n = qubits(larger)
    preparations = 2 * (2 * _power_of_two(n) - n - 2)
    # Controls beyond two are put into work qubits.
    levels = tf.math.ceil(_log2(tf.maximum(n - 1, 1.0)) - 1e-9)
    turn = 2 + tf.where(n < 2, tf.constant(1.0, tf.float64), 11 + 22 * levels)
    resolved = _resolved(condition_number, alpha, call)
    degree = kernel_degree(resolved, float64(epsilon) / math.sqrt(2))
    query = call.layers + preparations + turn
    return degree * query + (degree + 1) * projector_layers(call.ancillas + 1) + 2


class _Call(NamedTuple):
    """One call of an encoding; float64 scalars.

    Attributes:
        layers: Of gates.
        ancillas: Qubits beside the system's.
        largest: The largest α/‖H‖₂.
    """

    layers: tf.Tensor
    ancillas: tf.Tensor
    largest: tf.Tensor


def _check_known(encoding: str) -> None:
    if encoding not in KNOWN:
        raise ValueError(
            f"Argument `encoding` must be one of {KNOWN}: no other's depth is known without "
            f"its circuit. Received: encoding={encoding!r}"
        )


def _call(encoding: str, size: Scalar, sparsity: Scalar, layers: Scalar | None) -> _Call:
    n = qubits(size)
    rows = _power_of_two(n)
    d = tf.clip_by_value(float64(sparsity), 1.0, rows)
    if encoding == "dilation":
        ones = tf.ones_like(rows)
        query, ancillas, largest = _dilation(n, rows), ones, ones
    elif encoding == "frobenius":
        query, ancillas, largest = 2 * rows**2 - 2 * (n - 1), n, tf.sqrt(rows)
    else:
        # Padding is a part of the graph of non-zeros that nothing connects to the rest.
        flagged = (float64(size) < rows) | ((d <= 2) & (rows > 2))
        ancillas = tf.where(flagged, n + 1, n)
        query, largest = _sparse(float64(size), n, rows, d), tf.sqrt(d)
    return _Call(query if layers is None else float64(layers), ancillas, largest)


def _resolved(condition_number: Scalar, alpha: Scalar | None, call: _Call) -> tf.Tensor:
    """α/σ_min."""
    # A measured α may round to just below 1.
    factor = call.largest if alpha is None else tf.maximum(float64(alpha), 1.0)
    return float64(condition_number) * factor


def qubits(size: Scalar) -> tf.Tensor:
    """⌈log₂ size⌉, at least 1, scalar float64."""
    return tf.maximum(tf.math.ceil(_log2(float64(size)) - 1e-9), 1.0)


def inverse_degree(condition_number: Scalar, epsilon: float) -> tf.Tensor:
    """`QSVT`'s degree, at the bucket of α/σ_min: `inverse_polynomial.inverse_degree`."""
    kappa = bucket(condition_number)
    needed = tf.math.log((kappa - 1) / epsilon) / (2 * tf.math.atanh(1 / kappa))
    return 2 * tf.maximum(1 + tf.math.ceil(needed), 1.0) - 1


def bucket(condition_number: Scalar) -> tf.Tensor:
    """`transforms.bucket`, scalar float64."""
    steps = tf.math.ceil(_log2(float64(condition_number)) * STEPS_PER_OCTAVE - 1e-9)
    return _power_of_two(tf.maximum(steps, 1.0) / STEPS_PER_OCTAVE)


def coarsened(tolerance: Scalar, least: float, most: float) -> tf.Tensor:
    """`transforms.coarsened`, at most `most` and at least `least`, scalar float64."""
    power = tf.math.floor(_log2(tf.maximum(float64(tolerance), 1e-16)) + 1e-12)
    return tf.maximum(tf.minimum(_power_of_two(power), most), least)


def kernel_degree(condition_number: Scalar, ripple: Scalar) -> tf.Tensor:
    """`kernel_polynomial.kernel_degree`, scalar float64."""
    gap = tf.minimum(1 / float64(condition_number), LARGEST_GAP)
    needed = tf.math.acosh(1 / float64(ripple)) / (2 * tf.math.atanh(gap))
    return 2 * tf.maximum(tf.math.ceil(needed * (1 - 1e-12)), 1.0)


def _dilation(n: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    levels = tf.math.ceil(_log2(tf.maximum(n - 1, 1.0)) - 1e-9)
    without_zeros = 2 * tf.math.floor(2 * rows / 3) + 1
    many = rows * (rows - 1) * (6 + 22 * levels) + 2 * rows - 1 - 4 * without_zeros
    return tf.where(n < 2, tf.constant(6.0, tf.float64), many)


def _sparse(size: tf.Tensor, n: tf.Tensor, rows: tf.Tensor, d: tf.Tensor) -> tf.Tensor:
    # Rows of padding have one entry each.
    between = tf.sqrt(size * rows)
    doublings = _log2(tf.maximum(between / d, 1.0))
    fitted = between * d * (4 + 2.95 * doublings + 0.11 * doublings**2)
    full = 1.1 * size**2 * (4 + 1.475 * _log2(rows / size))
    whole = 4 * rows**2 - 4 * rows - 2 * n + 3
    return tf.minimum(fitted, tf.where(size < rows, tf.minimum(full, whole), whole))


def projector_layers(ancillas: tf.Tensor) -> tf.Tensor:
    """Of one projector phase, scalar float64."""
    levels = tf.math.ceil(_log2(ancillas) - 1e-9)
    return tf.where(ancillas < 2, tf.constant(3.0, tf.float64), 7 + 22 * levels)


def float64(value: Scalar) -> tf.Tensor:
    return tf.cast(value, tf.float64) if tf.is_tensor(value) else tf.constant(value, tf.float64)


def _log2(value: tf.Tensor) -> tf.Tensor:
    return tf.math.log(value) / math.log(2.0)


def _power_of_two(exponent: tf.Tensor) -> tf.Tensor:
    return tf.pow(tf.constant(2.0, tf.float64), exponent)
