"""Special functions whose derivatives TensorFlow writes as quotients of the argument.

    I₁' = I₀ - I₁/x, J₁' = J₀ - J₁/x, Li' = log(x)/(1 - x)

At the point where both are zero it has another number in the quotient's place, whose derivative is
none; that of I₁ is the wrong one. Here a quotient is a power series near its zero.

References:
    Abramowitz & Stegun 1964, 9.1.10, 9.1.27, 9.6.10, 9.6.26, 27.7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.forms.table import Form, form

_Function = Callable[[tf.Tensor], tf.Tensor]
_special = tf.math.special
# Up to here a quotient is its power series, whose terms suffice in double precision.
_NEAR = 1e-2
# Of I₁(x)/x and J₁(x)/x in x², of log(1 + t)/t in t.
_OF_I1 = (1 / 2, 1 / 16, 1 / 384, 1 / 18432)
_OF_J1 = (1 / 2, -1 / 16, 1 / 384, -1 / 18432)
_OF_LOG = tuple((-1) ** k / (k + 1) for k in range(9))


def _with_slope(function: _Function, slope: _Function) -> _Function:
    """The function, which has that derivative."""

    @_tf_private.custom_gradient
    def again(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        return function(x), lambda u: u * slope(x)

    return again


def _quotient(
    function: _Function, series: tuple[float, ...], power: int = 1, zero: float = 0.0
) -> _Function:
    """function(x)/t, t = x - `zero`, by the series in t^power where t is small."""

    def divided(x: tf.Tensor) -> tf.Tensor:
        t = x - zero
        near = tf.abs(t) < _NEAR
        small = tf.where(near, t, tf.zeros_like(t)) ** power
        far = tf.where(near, tf.fill(tf.shape(x), tf.cast(zero + 1, x.dtype)), x)
        of_series = tf.math.polyval([tf.constant(c, x.dtype) for c in series[::-1]], small)
        return tf.where(near, of_series, function(far) / (far - zero))

    return divided


def _i1e_by_x(x: tf.Tensor) -> tf.Tensor:
    near = tf.abs(x) < _NEAR
    small, far = tf.where(near, x, tf.zeros_like(x)), tf.where(near, tf.ones_like(x), x)
    return tf.where(near, tf.exp(-tf.abs(small)) * _i1_by_x(small), _i1e(far) / far)


_i0: _Function = _with_slope(tf.math.bessel_i0, lambda x: _i1(x))
_i1: _Function = _with_slope(tf.math.bessel_i1, lambda x: _i0(x) - _i1_by_x(x))
_i0e: _Function = _with_slope(tf.math.bessel_i0e, lambda x: _i1e(x) - tf.sign(x) * _i0e(x))
_i1e: _Function = _with_slope(
    tf.math.bessel_i1e,
    lambda x: _i0e(x) - tf.sign(x) * _i1e(x) - _i1e_by_x(x),
)
_j0: _Function = _with_slope(_special.bessel_j0, lambda x: -_j1(x))
_j1: _Function = _with_slope(_special.bessel_j1, lambda x: _j0(x) - _j1_by_x(x))
_i1_by_x: _Function = _quotient(_i1, _OF_I1, power=2)
_j1_by_x: _Function = _quotient(_j1, _OF_J1, power=2)
_log_by_t: _Function = _quotient(tf.math.log, _OF_LOG, zero=1.0)
_spence: _Function = _with_slope(_special.spence, lambda x: -_log_by_t(x))


def _of_one_argument(function: _Function) -> Form:
    return lambda op, inputs: [function(*inputs)]


for _type, _function in {
    "BesselI0": _i0,
    "BesselI1": _i1,
    "BesselI0e": _i0e,
    "BesselI1e": _i1e,
    "BesselJ0": _j0,
    "BesselJ1": _j1,
    "Spence": _spence,
}.items():
    form(_type)(_of_one_argument(_function))
