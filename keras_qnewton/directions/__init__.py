"""The direction x_k of one Hessian block, in the five ways there are.

    SaddleFree   (H² + λ²I)^(-1/2) g   dense, by eigendecomposition; one for all λ
    Absolute     (H² + λ²I)^(-1/2) g   dense, by a circuit or by eigendecomposition, as the
                                       scheduler chooses
    Scheduled    (H + s(λ) I)^(-1) g   dense, by whichever solver the scheduler chooses: for
                                       positive semidefinite curvature, and for circuits
    MatrixFree   (H + s(λ) I)^(-1) g   too large to be formed: conjugate gradients on H v
    Woodbury     (UᵀU + s(λ)I)^(-1) g  not formed: positive semidefinite, of low rank on this batch

`Rescaled` is one of the first three in weights rescaled by the block's diagonal.

Each prepares a block once a step (`init`), and then solves for as many λ as the step tries
(`solve`); `direction` chooses among them. A circuit's solution that fails its residual check is
solved again classically.
"""

from keras_qnewton.directions.block_step import (
    FIXED_ROUTES,
    RULE_ABSOLUTE,
    UNSCHEDULED,
    BlockStep,
    explain,
    is_learned,
    learned,
    unknown,
)
from keras_qnewton.directions.choice import direction
from keras_qnewton.directions.direction import Direction, DirectionState
from keras_qnewton.directions.jacobian import max_rows
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.directions.scheduled import Scheduled
from keras_qnewton.directions.woodbury import max_rank

__all__ = [
    "FIXED_ROUTES",
    "RULE_ABSOLUTE",
    "UNSCHEDULED",
    "BlockProblem",
    "BlockStep",
    "Direction",
    "DirectionState",
    "Scheduled",
    "direction",
    "explain",
    "is_learned",
    "learned",
    "max_rank",
    "max_rows",
    "unknown",
]
