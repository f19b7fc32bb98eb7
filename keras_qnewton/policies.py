"""An optimizer's policies, made of what it was given for them."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_qnewton.conditioning import Damping, Pruning, pruning_policy
from keras_qnewton.curvature import Blocks
from keras_qnewton.curvature.blocks import blocks_of
from keras_qnewton.quasi_newton import QuasiNewton
from keras_qnewton.registry import resolve
from keras_qnewton.scheduling import Scheduler


class Policies(NamedTuple):
    """See the arguments of `QNewton`.

    Attributes:
        curvature: A `Curvature` of that name, or as given; or a `QuasiNewton`.
        blocks: Likewise.
        damping: Likewise.
        sparsity: As a config has it.
        pruning: That, as a policy; None keeps all.
        scheduler: As given, or one that solves classically.
    """

    curvature: Any
    blocks: Blocks
    damping: Damping
    sparsity: int | float | Pruning | None
    pruning: Pruning | None
    scheduler: Scheduler

    @classmethod
    def of(
        cls, curvature: Any, blocks: Any, damping: Any, sparsity: Any, scheduler: Any
    ) -> Policies:
        """Those that are meant.

        Raises:
            ValueError: If one is no policy, and no name of one.
        """
        if scheduler is not None and not isinstance(scheduler, Scheduler):
            raise ValueError(
                "Argument `scheduler` must be a `Scheduler` object or None. "
                f"Received: scheduler={scheduler!r}"
            )
        needs = () if isinstance(curvature, QuasiNewton) else ("at",)
        return cls(
            resolve("curvature", curvature, "curvature", needs=needs),
            blocks_of(blocks),
            resolve("damping", damping, "damping", needs=("shift", "update")),
            *pruning_policy(sparsity),
            Scheduler(classical="cholesky", quantum=None) if scheduler is None else scheduler,
        )
