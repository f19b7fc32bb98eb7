"""What `explain` found, as data and as a page of text."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class OutputExplanation:
    """A tensor of the network in which terms of the loss are convex.

    Attributes:
        name: Of the tensor z, in TensorFlow's graph.
        shape: Of z; None for a length that varies.
        terms: Operations whose results are convex functions of z.
        rule: What knows their curvature C: a loss rule, or the kind of the table's function.
        roots: How many backward passes an evaluation of C takes: the R of C = Σ_r s_r s_rᵀ for an
            example; None where they would be too many, and C is only multiplied by.
    """

    name: str
    shape: tuple[int | None, ...]
    terms: tuple[str, ...]
    rule: str
    roots: int | None


@dataclasses.dataclass(frozen=True)
class BlockExplanation:
    """A block of the curvature matrix.

    Attributes:
        name: As in `Decision.block`.
        size: N, the number of weights.
        formed_by: How its matrix comes about on this batch, or that it is not formed.
        solved_by: Which direction it takes.
        matrix_bytes: Of the matrix, in the precision of the weights; 0 if it is not formed.
    """

    name: str
    size: int
    formed_by: str
    solved_by: str
    matrix_bytes: int


@dataclasses.dataclass(frozen=True)
class Explanation:
    """How a model's loss is differentiated twice; `print` shows it as a page.

    Attributes:
        curvature: The matrix that stands for the curvature: "Gauss-Newton", "exact Hessian", ...
        reason: Why this one, a sentence.
        semidefinite: Whether it is known to have no negative eigenvalue.
        outputs: The tensors in which the loss is convex.
        rest: Operations beside which nothing is known to be convex; empty if all of it is.
        blocks: One a block.
    """

    curvature: str
    reason: str
    semidefinite: bool
    outputs: tuple[OutputExplanation, ...]
    rest: tuple[str, ...]
    blocks: tuple[BlockExplanation, ...]

    def __str__(self) -> str:
        sign = "no negative eigenvalue" if self.semidefinite else "eigenvalues of either sign"
        lines = [f"Curvature: {self.curvature}, {sign}.", f"  {self.reason}"]
        if self.outputs:
            lines.append("The loss is convex in:")
        for output in self.outputs:
            shape = ", ".join("?" if n is None else str(n) for n in output.shape)
            roots = "too many outputs an example" if output.roots is None else f"{output.roots}"
            lines.append(
                f"  {output.name} [{shape}]: {', '.join(output.terms)} ({output.rule}); "
                f"backward passes: {roots}"
            )
        if self.rest:
            lines.append("Nothing is known to be convex beside:")
            lines += [f"  {operation}" for operation in self.rest]
        lines.append("Blocks:")
        for block in self.blocks:
            memory = f", {block.matrix_bytes / 1e6:,.1f} MB" if block.matrix_bytes else ""
            lines.append(f"  {block.name}, {block.size:,} weights{memory}")
            lines.append(f"    formed: {block.formed_by}")
            lines.append(f"    solved: {block.solved_by}")
        return "\n".join(lines)
