"""The exact Hessian as a curvature policy; `linearized` and `structured` compute it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.structured import StructuredHessian
from keras_qnewton.registry import Policy, register


class Curvature(Policy):
    """What all curvature policies share.

    Args:
        memory: Bytes that the vectorised rows of one chunk may take, approximately.

    Raises:
        ValueError: If `memory` is not positive.
    """

    def __init__(self, memory: float = 512e6):
        if not memory > 0:
            raise ValueError(
                f"Argument `memory` must be a positive number of bytes. Received: memory={memory!r}"
            )
        self.memory = float(memory)

    def get_config(self) -> dict[str, Any]:
        return {"memory": self.memory}


@register("curvature", "hessian")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class ExactHessian(Curvature):
    """The exact Hessian of the loss; may be indefinite. See `Curvature` for the argument."""

    def at(self, loss: Any, weights: Sequence[tf.Tensor], parts: Sequence[Part]) -> Linearized:
        """Differentiates `loss` at `weights`, ready to give blocks and products.

        Args:
            loss: Function of a list of tensors, with `bytes_per_evaluation()` and
                `vectorizable` (`keras_qnewton.loss.RecordedLoss`).
            weights: One tensor a variable.
            parts: The blocks, whose `indices` refer to `weights`.
        """
        return StructuredHessian(loss, weights, parts, self.memory)
