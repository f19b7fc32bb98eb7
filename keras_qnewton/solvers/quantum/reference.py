"""The reference algorithms' base: the check of a matrix, and runs for unit vectors."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from keras_qnewton.solvers.quantum.encodings import padded_qubits
from keras_qnewton.solvers.quantum.inexact import InexactSolver, unit

Data = TypeVar("Data")


@dataclasses.dataclass(frozen=True)
class Prepared(Generic[Data]):
    """A matrix in an algorithm's form.

    Attributes:
        data: For `ReferenceSolver._apply`.
        details: `Solution.details`, as far as they are known before a run.
    """

    data: Data
    details: dict[str, Any]


class ReferenceSolver(InexactSolver[Prepared[Data]]):
    """An `InexactSolver` of which a subclass writes `_encode` and `_apply` alone."""

    @abc.abstractmethod
    def _encode(self, matrix: np.ndarray) -> Prepared[Data]:
        """A `[N, N]`, finite and not singular, in the form that `_apply` needs; and details."""

    @abc.abstractmethod
    def _apply(self, data: Data, state: np.ndarray) -> tuple[np.ndarray, float, int]:
        """For b = `state`, a unit vector `[2^n]`: x `[2^n]`, success probability, queries."""

    @property
    @abc.abstractmethod
    def max_condition_number(self) -> float:
        """Largest κ; a matrix beyond it is refused."""

    def _prepare(self, matrix: np.ndarray) -> Prepared[Data]:
        magnitudes = np.abs(np.linalg.eigvalsh(matrix))
        if not magnitudes.max() > 0:
            raise ValueError("Argument `matrix` must not be zero. Received: a matrix of zeros")
        with np.errstate(divide="ignore"):
            kappa = float(magnitudes.max() / magnitudes.min())
        if math.isinf(kappa):
            raise ValueError("Argument `matrix` must not be singular. Received: a singular matrix")
        if kappa > self.max_condition_number:
            raise ValueError(
                f"Argument `matrix` must have a condition number of at most "
                f"{self.max_condition_number:.3g}, the limit of {self!r}. "
                f"Received: condition number {kappa:.3g}. Damp the matrix"
            )
        return self._encode(matrix)

    def _details(self, prepared: Prepared[Data]) -> dict[str, Any]:
        return {"success_probability": None, "queries": 0, "refinements": 0, **prepared.details}

    def _runner(
        self, prepared: Prepared[Data], details: dict[str, Any]
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        def run(rhs: np.ndarray, number: int) -> np.ndarray:
            state, norm = unit(rhs, padded_qubits(len(rhs)))
            x, probability, queries = self._apply(prepared.data, state)
            details["queries"] += queries
            if number == 0:
                details["success_probability"] = probability
            return x[: len(rhs)] * norm

        return run
