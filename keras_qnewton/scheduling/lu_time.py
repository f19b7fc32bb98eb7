"""The cost model of the LU route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_qnewton.registry import register
from keras_qnewton.scheduling.solver_time import SolverTime


@register("cost", "lu_time")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class LUTime(SolverTime):
    """`SolverTime` of "lu": `tf.linalg.lu`, `tf.linalg.lu_solve` and the residual.

    Args:
        coefficients: As for `SolverTime`.
        table: As for `SolverTime`.
        dtype: As for `SolverTime`.
    """

    def __init__(
        self,
        coefficients: Sequence[float] | None = None,
        table: Mapping[int | str, float] | None = None,
        dtype: str = "float64",
    ) -> None:
        super().__init__("lu", coefficients, table, dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["solver"]
        return config
