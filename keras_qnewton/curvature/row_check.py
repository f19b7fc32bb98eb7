"""Whether rows of U are the loss's: Uᵀε of a random ε, against one backward pass.

Uᵀε = Σ_i J_iᵀ (Σ_r ε_r s_r)    over outputs, ε_r of each example     [N]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from keras_qnewton.curvature.example_rows import ExampleRows
from keras_qnewton.curvature.structured import ROUNDING


class RowCheck:
    """What a backward pass is seeded with, and rows are multiplied by.

    Args:
        rows: Of all outputs.
        dtype: Precision of the weights.
    """

    def __init__(self, rows: Sequence[ExampleRows], dtype: tf.DType):
        self._rows, self._dtype = list(rows), dtype

    def noise(self, i: int) -> tf.Tensor:
        """ε of an output, `[B, R]`, random."""
        of_output = self._rows[i]
        shape = [of_output.examples, of_output.count]
        return tf.random.stateless_normal(shape, [17, i], dtype=self._dtype)

    def seeds(self) -> list[tf.Tensor]:
        """Σ_r ε_r s_r of each output, of the shape of its z."""
        return [of_output.roots.combined(self.noise(i)) for i, of_output in enumerate(self._rows)]


def rounding(dtypes: Iterable[tf.DType]) -> float:
    """Relative difference that rounding explains of what comes back from the outputs.

    Args:
        dtypes: Of the weights, and of all that a loss, or a use, is rounded to on the way.
    """
    return max(ROUNDING.get(dtype, 1e-2) for dtype in dtypes)
