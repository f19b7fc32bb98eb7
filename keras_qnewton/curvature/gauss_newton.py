"""The generalised Gauss-Newton matrix as a curvature policy: positive semidefinite.

    L   = Σ_i φ_i(z_i) + R      φ_i convex in an output z_i of the network, of any shape
    J_i = dz_i/dw,  C_i = φ_i'' C_i is block diagonal over examples, and psd
    G   = Σ_i J_iᵀ C_i J_i + R'' R: what depends on w beside all z (penalties, a rest), exactly

`outputs` cuts the loss into these and has C, `linearized_gauss_newton` the products of G with
vectors, and `structured_gauss_newton` its blocks. G is positive semidefinite if R holds no more
than penalties on the weights.

References:
    Schraudolph 2002, Neural Computation 14(7), section 3 (the matrix and its products).
    Martens 2020, arXiv:1412.1193, section 8 (G equals the Fisher matrix for these losses).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized, Point
from keras_qnewton.curvature.outputs import ConvexLoss, convex_loss
from keras_qnewton.curvature.policy import Curvature
from keras_qnewton.curvature.structured_gauss_newton import StructuredGaussNewton
from keras_qnewton.curvature.structured_hessian import StructuredHessian
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.cut import ends_of_rules
from keras_qnewton.loss.structure import dense_layers
from keras_qnewton.registry import register


@register("curvature", "gauss_newton")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class GaussNewton(Curvature):
    """Gauss-Newton curvature, of any sum of terms that are convex in tensors of the network.

    The terms are found in the recorded operations, by the rules of disciplined convex programming
    and the registered loss rules (`outputs`). What is left of the loss enters with its exact
    Hessian. See `Curvature` for the argument.
    """

    def at(
        self, loss: RecordedLoss, weights: Sequence[tf.Tensor], parts: Sequence[Part]
    ) -> Linearized:
        """Differentiates `loss` at `weights`; see `Curvature.at`.

        Raises:
            ValueError: If no term of the loss is recognisably convex in any tensor.
        """
        convex = required_outputs(loss, "gauss_newton")
        point = Point(loss, weights, parts, self.memory)
        return StructuredGaussNewton.at(point, convex)


@register("curvature", "auto")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class AutoCurvature(Curvature):
    """Gauss-Newton where terms of the loss are recognisably convex, else the exact Hessian.

    Terms that are piecewise linear in a tensor, as absolute errors and hinges are, have no
    curvature of their own, and get that of parabolas above them (`outputs.kinks`). Exact, too,
    where outputs are coupled (`ConvexLoss.coupled`, as in a variational autoencoder) in a network
    of dense layers, whose exact blocks are cheap. See `Curvature` for the argument.
    """

    def at(
        self, loss: RecordedLoss, weights: Sequence[tf.Tensor], parts: Sequence[Part]
    ) -> Linearized:
        """Differentiates `loss` at `weights`; see `Curvature.at`."""
        convex = convex_loss(loss, kinks=True)
        if not convex.outputs or prefers_exact(loss, convex):
            return StructuredHessian(loss, weights, parts, self.memory)
        point = Point(loss, weights, parts, self.memory)
        return StructuredGaussNewton.at(point, convex)


def prefers_exact(loss: RecordedLoss, convex: ConvexLoss) -> bool:
    """Whether outputs are coupled, and all layers dense, so that exact blocks are cheap."""
    covered = sum(len(layer.variables) for layer in dense_layers(loss))
    return convex.coupled and covered == len(loss.variables)


def required_outputs(loss: RecordedLoss, curvature: str) -> ConvexLoss:
    """The cut of `loss`; a ValueError about `curvature` if nothing in it is known to be convex."""
    convex = convex_loss(loss)
    if not convex.recognised:
        raise ValueError(
            f"Argument `curvature` can be {curvature!r} only for a loss with terms that are convex "
            "in a tensor of the network, such as a cross-entropy or a squared error. Use 'auto' or "
            f"'hessian'. Received: curvature={curvature!r} and another loss: the rules "
            f"ended at {ends_of_rules(convex.rest)}"
        )
    return convex
