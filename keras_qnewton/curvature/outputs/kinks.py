"""Terms that are piecewise linear: the curvature of a parabola that touches them from above.

    |t| ≤ t²/(2s) + s/2         for any s > 0, equal where |t| = s              elementwise
    φ(z) = κ |t| + linear       κ = 1 of an absolute value, 1/2 of a maximum    t affine in z
    C = Σ ω κ/s (dt/dz)²        s = |t| at this z                               diagonal

The second derivative of φ is zero on both sides of its kink, and says nothing of it. A step to the
lowest point of the parabolas lowers the loss of a linear model, and repeated it is iteratively
reweighted least squares.

An s of zero would pin an example to where it is. So s is at least a small share of its mean.

References:
    Holland & Welsch 1977, Communications in Statistics A6(9), 813-827 (reweighted least squares).
    Hunter & Lange 2000, J. Computational and Graphical Statistics 9(1), 60-77 (quantiles).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.outputs.base import (
    ConvexPart,
    CurvatureByTapes,
    OutputCurvature,
    RuleOfTable,
)

# Share of the mean |t| below which |t| counts as that. With a hundred times as much, small batches
# train somewhat faster, but 9 of 125 fits of absolute values end above BFGS's, none with this.
_NEAREST = 1e-4

# By operation, from its inputs to t and κ of the module's formulas.
_KINKS: dict[str, Callable[..., tuple[tf.Tensor, float]]] = {
    "Abs": lambda op, t: (t, 1.0),
    "Relu": lambda op, t: (t, 0.5),
    "LeakyRelu": lambda op, t: (t, (1.0 - op.get_attr("alpha")) / 2),
    "Maximum": lambda op, a, b: (a - b, 0.5),
    "Minimum": lambda op, a, b: (a - b, -0.5),
}


class Kinks(RuleOfTable):
    """C is that of parabolas above, diagonal."""

    def curvature(self, part: ConvexPart) -> OutputCurvature:
        """C of the parabolas."""
        return CurvatureByTapes(part, functools.partial(_slope, part))


def _slope(part: ConvexPart, z: tf.Tensor) -> tf.Tensor:
    """∂/∂z of the parabolas less what is linear, at `z`."""
    operations = [part.loss.tensor(name).op for name in part.output.terms]
    names = [t.name for op in operations for t in op.inputs]
    with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(z)
        given = {**part.outputs, part.output.name: z}
        inputs = iter(part.loss.fetch(names, part.weights, overrides=given))
        gaps, slopes = [], []
        for op, weight in zip(operations, part.signed_weights, strict=True):
            t, kappa = _KINKS[op.type](op, *(next(inputs) for _ in op.inputs))
            gaps.append(t)
            slope = weight * kappa
            slopes.append(slope * t / _size(t, slope))
    return tape.gradient(gaps, z, slopes)


def has_parabola(term: tf.Tensor) -> bool:
    """Whether a parabola is known that touches this piecewise linear term."""
    return term.op.type in _KINKS


def _size(t: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """s, a constant to tapes; 1 where all t are zero. Large enough for `slope` / s to be finite."""
    size = tf.stop_gradient(tf.abs(t))
    nearest = _NEAREST * tf.reduce_mean(size)
    size = tf.maximum(size, tf.where(nearest > 0, nearest, tf.ones_like(nearest)))
    # Curvatures are summed over examples, times squares of derivatives.
    room = 2.0**16 if t.dtype.max > 2.0**64 else 2.0**4
    return tf.maximum(size, tf.stop_gradient(tf.abs(slope)) / (t.dtype.max / room))
