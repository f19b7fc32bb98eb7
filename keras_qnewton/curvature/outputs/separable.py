"""Terms of the table in which no two elements of z meet: squares, exponentials, logarithms, ..."""

from __future__ import annotations

from keras_qnewton.curvature.outputs.base import RuleOfTable


class Separable(RuleOfTable):
    """C is diagonal, by tapes."""
