"""The policies of each stage of the Newton step, as one object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from keras_qnewton.conditioning.damping import Damping
from keras_qnewton.conditioning.pruning import Pruned
from keras_qnewton.curvature.policy import Curvature
from keras_qnewton.quasi_newton import QuasiNewton
from keras_qnewton.scheduling import Scheduler


@dataclasses.dataclass(frozen=True)
class Settings:
    """The policies of a Newton step.

    Attributes:
        curvature: Differentiates the loss, and gives blocks of its curvature.
        damping: Adapts λ, and judges steps.
        scheduler: Chooses among linear solvers.
        pruning: From a matrix `[N, N]` to a `Pruned`; None keeps all entries.
        update_every: Steps between two evaluations of the blocks.
        seed: Seed of the Lanczos start vectors.
        learned: The policy of quasi-Newton steps; None where all steps are Newton's.
    """

    curvature: Curvature
    damping: Damping
    scheduler: Scheduler
    pruning: Callable[[tf.Tensor], Pruned] | None = None
    update_every: int = 1
    seed: int = 0
    learned: QuasiNewton | None = None

    @property
    def averages(self) -> bool:
        """Whether blocks and steps are averaged where the data change."""
        return self.damping.adaptive and self.damping.memory > 1

    @property
    def keeps_blocks(self) -> bool:
        """Whether a block's matrix is kept from step to step."""
        return self.averages or self.keeps_factors

    @property
    def rescales(self) -> bool:
        """Whether weights may be rescaled; kept factors are of the weights as they are."""
        return self.damping.scaling != "none" and not self.keeps_factors

    @property
    def keeps_factors(self) -> bool:
        """Whether a block's spectrum and factorisation are kept, too."""
        return self.update_every > 1
