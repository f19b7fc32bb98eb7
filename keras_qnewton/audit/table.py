"""The result of `audit`: a row for each layer, a verdict in words, a table to print."""

from __future__ import annotations

import dataclasses

OK = "ok"
WRONG_GRADIENT = "gradient is not the loss's derivative"
WRONG_HESSIAN = "H v is not the gradient's derivative"
FLAT = "not measurable: derivatives are below rounding"
UNSURE = "not measurable: differences do not converge"
REFUSED = "no second derivatives"
NOT_CHECKED = "not checked"


@dataclasses.dataclass(frozen=True)
class AuditRow:
    """The findings about one layer.

    Attributes:
        layer: The layer's path, or "(whole model)": v in all weights at once.
        type: Name of its class.
        weights: How many trainable numbers it has.
        gradient_error: Relative error of g.v; None if it was not compared.
        hessian_error: Relative error of H v; None if it was not compared.
        verdict: "ok", or what is wrong, in words.
    """

    layer: str
    type: str
    weights: int
    gradient_error: float | None
    hessian_error: float | None
    verdict: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """The result of `audit`; prints as a table.

    Attributes:
        rows: One `AuditRow` for each layer with weights, in the model's order, and one for
            the whole model.
        tolerance: Largest relative error that counts as agreement.
        notes: What the table cannot say, each a sentence.
    """

    rows: tuple[AuditRow, ...]
    tolerance: float
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if every derivative agrees, or is too small to be measured."""
        return all(row.verdict in (OK, FLAT) for row in self.rows)

    def __getitem__(self, layer: str) -> AuditRow:
        """The row of a layer, by its path or by the last component of its path."""
        for row in self.rows:
            if layer in (row.layer, row.layer.rpartition("/")[2]):
                return row
        raise KeyError(layer)

    def __str__(self) -> str:
        head = ("layer", "type", "weights", "gradient", "H v", "verdict")
        table = [head]
        for row in self.rows:
            errors = (_number(row.gradient_error), _number(row.hessian_error))
            table.append((row.layer, row.type, f"{row.weights:,}", *errors, row.verdict))
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        right = (False, False, True, True, True, False)
        lines = [
            "  ".join(
                cell.rjust(n) if r else cell.ljust(n)
                for cell, n, r in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in table
        ]
        lines.insert(1, "  ".join("-" * n for n in widths))
        lines.append(f"Relative errors; up to {self.tolerance:.0e} is agreement.")
        return "\n".join([*lines, *self.notes])


def _number(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"
