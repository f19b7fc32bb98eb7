"""The policy behind `QNewton(curvature=...)`: which matrix stands for a loss's curvature."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from keras_qnewton.arguments import check_number
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.registry import Policy
from keras_qnewton.replicas import Replicas


class Curvature(Policy, abc.ABC):
    """A kind of curvature, registered by `@register("curvature", name)`.

    A kind defines `at`. To be loaded with a saved model, it is registered with Keras besides
    (`keras.saving.register_keras_serializable`).

    Args:
        memory: Bytes that the vectorised rows of one chunk may take, approximately. Rows that are
            kept while a block is solved may take a fourth of the memory that is free, if that is
            more.

    Attributes:
        of_examples: Whether it depends on what an example of the loss is, as sums of squared
            gradients do, and not on the loss as a function of the weights alone.

    Raises:
        ValueError: If `memory` is not positive.
    """

    of_examples: ClassVar[bool] = False

    def __init__(self, memory: float = 512e6):
        self.memory = check_number("memory", memory, "a positive number of bytes", most=math.inf)

    @abc.abstractmethod
    def at(
        self, loss: RecordedLoss, weights: Sequence[tf.Tensor], parts: Sequence[Part]
    ) -> Linearized:
        """Differentiates `loss` at `weights`, ready to give blocks and products.

        Args:
            loss: The recorded loss.
            weights: One tensor a variable.
            parts: The blocks, whose `indices` refer to `weights`.
        """

    def of_replicas(self, replicas: Replicas, losses: Sequence[RecordedLoss]) -> Curvature:
        """The kind for the loss of each of several replicas, of which the step's is the sum.

        What depends on examples (`of_examples`) counts those of all replicas, and overrides this;
        it is refused with several replicas if it does not.

        Args:
            replicas: Add up.
            losses: One a replica of this process.
        """
        del replicas, losses
        return self

    def get_config(self) -> dict[str, float]:
        return {"memory": self.memory}
