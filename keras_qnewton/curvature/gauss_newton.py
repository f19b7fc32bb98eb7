"""The generalised Gauss-Newton matrix as a curvature policy: positive semidefinite.

    z   = network(w)            the output in which the loss is convex       any shape
    J   = dz/dw,  C = d²L/dz²   C is block diagonal over examples, and psd
    G   = Jᵀ C J + R            R: what depends on w beside z (a weight regulariser), exactly

`outputs` finds z and has C, `linearized_gauss_newton` the products of G with vectors, and
`structured_gauss_newton` its blocks.

References:
    Schraudolph 2002, Neural Computation 14(7), section 3 (the matrix and its products).
    Martens 2020, arXiv:1412.1193, section 8 (G equals the Fisher matrix for these losses).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.outputs import ConvexOutput, convex_output
from keras_qnewton.curvature.policy import Curvature
from keras_qnewton.curvature.structured_gauss_newton import StructuredGaussNewton
from keras_qnewton.curvature.structured_hessian import StructuredHessian
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.registry import register


@register("curvature", "gauss_newton")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class GaussNewton(Curvature):
    """Gauss-Newton curvature, for softmax or sigmoid cross-entropy and squared error.

    The loss and the network's output are found in the recorded operations, by the registered
    loss rules (`outputs`). See `Curvature` for the argument.
    """

    def at(
        self, loss: RecordedLoss, weights: Sequence[tf.Tensor], parts: Sequence[Part]
    ) -> Linearized:
        """Differentiates `loss` at `weights`; see `Curvature.at`.

        Raises:
            ValueError: If the loss is not recognisably convex in an output.
        """
        output = required_output(loss, "gauss_newton")
        return StructuredGaussNewton(loss, weights, parts, self.memory, output)


@register("curvature", "auto")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class AutoCurvature(Curvature):
    """Gauss-Newton where the loss is recognisably convex in the output, else the exact Hessian.

    See `Curvature` for the argument.
    """

    def at(
        self, loss: RecordedLoss, weights: Sequence[tf.Tensor], parts: Sequence[Part]
    ) -> Linearized:
        """Differentiates `loss` at `weights`; see `Curvature.at`."""
        output = convex_output(loss)
        if output is None:
            return StructuredHessian(loss, weights, parts, self.memory)
        return StructuredGaussNewton(loss, weights, parts, self.memory, output)


def required_output(loss: RecordedLoss, curvature: str) -> ConvexOutput:
    """The output z in which `loss` is convex; a ValueError about `curvature` if there is none."""
    output = convex_output(loss)
    if output is None:
        raise ValueError(
            f"Argument `curvature` can be {curvature!r} only for a loss that is a softmax or "
            "sigmoid cross-entropy or a squared error of one output. Use 'auto' or 'hessian'. "
            f"Received: curvature={curvature!r} and another loss"
        )
    return output
