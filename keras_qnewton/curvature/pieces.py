"""The columns of U in G = UᵀU: a piece is those of a weight, or of a product and its bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.loss.uses import Equation, Use, Uses


class Piece(NamedTuple):
    """Columns of U: those of one weight, or of a product's weight and the bias added to it.

    Attributes:
        uses: Of the weight.
        size: N, of the weight alone.
        bias: Use of a bias that comes with it; then the weight's use is a matrix product, and the
            bias's columns come after its own.
    """

    uses: tuple[Use, ...]
    size: int
    bias: Use | None = None

    @property
    def columns(self) -> int:
        """Number of columns of U."""
        return self.size + (0 if self.bias is None else int(self.bias.outputs.shape[-1]))

    @property
    def tensors(self) -> list[tf.Tensor]:
        """Tensors in which derivatives are wanted."""
        return [use.outputs for use in self.uses] if self.bias is None else [self.bias.outputs]

    @property
    def is_outer(self) -> bool:
        """True if a row is a single outer product of an input and a derivative."""
        if not self.uses:
            return False
        (use, *more) = self.uses
        whole = use.elements is None and use.window is use.inner is use.rows is None
        simple = use.equation in (Equation("ay", "yz", "az"), Equation("", "b", "ab"))
        return not more and whole and simple and use.factor == 1 and not use.positions


def pieces(
    indices: Sequence[int], uses: Uses, sizes: Sequence[int], may_have_none: bool = False
) -> list[Piece] | None:
    """The pieces of a block of variables, in their order; None if one has uses of other kinds.

    Args:
        indices: Positions of the variables.
        uses: Of all variables.
        sizes: How many numbers each variable has.
        may_have_none: Whether a variable without uses is a piece, of zeros.
    """
    found: list[Piece] = []
    for i in indices:
        used = uses.of(i)
        if used is None and may_have_none and i not in uses.others:
            found.append(Piece((), sizes[i]))
            continue
        if used is None:
            return None
        before = found[-1] if found else None
        if before is not None and _comes_with(used, before, uses):
            found[-1] = before._replace(bias=used[0])
        else:
            found.append(Piece(tuple(used), sizes[i]))
    return found


def _comes_with(used: list[Use], before: Piece, uses: Uses) -> bool:
    """True if a bias is only ever added to the product of the piece before it."""
    if not before.is_outer:
        return False
    product = before.uses[0]
    return (
        len(used) == 1
        and before.bias is None
        and product.inputs is not None
        and used[0].added_to is product.outputs
        and used[0].elements is None
        and used[0].equation == Equation("", "b", "ab")
        and used[0].positions == product.positions
        and uses.is_sole(product.outputs)
    )
