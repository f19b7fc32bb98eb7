"""One block's Newton system, as a direction is given it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.curvature.low_rank import RowFactors
from keras_qnewton.state import KeptBlock


@dataclasses.dataclass(frozen=True)
class BlockProblem:
    """The block H_k of the curvature and g_k of the gradient, before any damping.

    Attributes:
        part: The block's `Part`.
        gradient: g_k `[N]`.
        product: From v `[N]` to H_k v; never pruned or averaged.
        form: Forms H_k `[N, N]`, in the gradient's precision or double: averages it, assigns what
            is kept of it, checks and prunes it. To be called once a step.
        low_rank: The rows U of H_k = UᵀU, where they may be few enough to solve by them.
        jacobian: The rows U of H_k = UᵀU, or of a part of it, for a circuit that encodes them; the
            block is formed for its other solvers, too.
        rescaled: Whether weights are rescaled by the block's diagonal, scalar bool; False if they
            never are.
        semidefinite: Whether H_k is positive semidefinite by construction, before it is pruned.
        kept: The block's values that last from step to step.
        tolerance: Largest relative residual of a circuit's solution, float64 scalar; None for
            the scheduler's.
        lengths: `BlockStep.lengths` of the last attempt, or step, float64 `[3]`; None where no
            solver is told.
        value_error: About how far rounding moves the loss, float64 scalar; None if it is not known.
        weights: w_k `[N]`, as the gradient's; given where `value_error` is.
        agreed: Makes tensors those that all workers have, which solve the block together; see
            `Replicas.agreed`.
    """

    part: Part
    gradient: tf.Tensor
    product: Callable[[tf.Tensor], tf.Tensor]
    form: Callable[[], Formed]
    low_rank: RowFactors | None = None
    jacobian: RowFactors | None = None
    rescaled: tf.Tensor | bool = False
    semidefinite: bool = False
    kept: KeptBlock = dataclasses.field(default_factory=KeptBlock)
    tolerance: tf.Tensor | None = None
    lengths: tf.Tensor | None = None
    value_error: tf.Tensor | None = None
    weights: tf.Tensor | None = None
    agreed: Callable[..., Sequence[tf.Tensor]] = lambda *tensors: tensors

    @classmethod
    def of_matrix(
        cls, matrix: tf.Tensor, gradient: tf.Tensor, semidefinite: bool = False
    ) -> BlockProblem:
        """The problem of a symmetric `matrix` `[N, N]` that is there, and a `gradient` `[N]`."""
        part = Part("full", (0,), int(gradient.shape[0]), dense=True)
        return cls(
            part=part,
            gradient=gradient,
            product=lambda vector: tf.linalg.matvec(matrix, vector),
            form=lambda: Formed(matrix, tf.constant(Formation.PRODUCTS)),
            semidefinite=semidefinite,
        )

    @property
    def size(self) -> int:
        """N."""
        return self.part.size
