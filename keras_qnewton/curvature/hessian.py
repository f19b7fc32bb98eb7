"""The exact Hessian as a curvature policy, computed by `structured_hessian`."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.policy import Curvature
from keras_qnewton.curvature.structured_hessian import StructuredHessian
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.registry import register


@register("curvature", "hessian")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class ExactHessian(Curvature):
    """The exact Hessian of the loss; may be indefinite. See `Curvature` for the argument."""

    def at(
        self, loss: RecordedLoss, weights: Sequence[tf.Tensor], parts: Sequence[Part]
    ) -> Linearized:
        """Differentiates `loss` at `weights`; see `Curvature.at`."""
        return StructuredHessian(loss, weights, parts, self.memory)
