"""The policy behind `QNewton(curvature="quasi_newton")`."""

from __future__ import annotations

from typing import Any

import keras

from keras_qnewton.arguments import check_choice, check_count
from keras_qnewton.quasi_newton.dense import DenseInverse
from keras_qnewton.quasi_newton.inverse import AddVariable, InverseHessian
from keras_qnewton.quasi_newton.limited_memory import LimitedMemoryInverse
from keras_qnewton.quasi_newton.line_search import StrongWolfe
from keras_qnewton.quasi_newton.updates import RULES
from keras_qnewton.registry import Policy, register

UPDATES = ("auto", *RULES, "lbfgs")


@register("curvature", "quasi_newton")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class QuasiNewton(Policy):
    """Curvature that is learned from differences of gradients, one loss and gradient a step.

    The direction is the product of an inverse Hessian with the gradient, so that no linear system
    is solved and none is scheduled. Its length satisfies the strong Wolfe conditions; they take the
    place of λ. A pair of differences is of one batch: both gradients are those of the batch that
    the step was made on. On the same data from step to step, as in full batches, the gradient after
    a step is the next step's.

    Args:
        update: "ssbfgs" (self-scaled BFGS), "ssbroyden" (self-scaled Broyden), "bfgs": the inverse
            Hessian is a dense matrix of N² numbers in double precision, 8 N² bytes, and a step
            reads it once. "lbfgs": the last `history` pairs. "auto": "ssbroyden" up to
            `max_size` weights, "lbfgs" above.
        history: Number of pairs of limited memory, a positive integer: 2 N numbers each.
        max_size: Largest N of "auto"'s dense matrix.
        line_search: A `StrongWolfe`; None is one with its defaults.

    Raises:
        ValueError: If an argument is not one of these.

    References:
        Urbán, Stefanou & Pons 2025, arXiv:2405.04230; Kiyani et al. 2025, arXiv:2501.16371
        (self-scaled updates for networks that solve differential equations).
        Liu & Nocedal 1989, Math. Program. 45, 503-528 (limited memory).
    """

    def __init__(
        self,
        update: str = "auto",
        history: int = 50,
        max_size: int = 10_000,
        line_search: StrongWolfe | None = None,
    ):
        self.update = check_choice("update", update, UPDATES)
        self.history = check_count("history", history)
        self.max_size = check_count("max_size", max_size)
        if line_search is not None and not isinstance(line_search, StrongWolfe):
            raise ValueError(
                "Argument `line_search` must be a `StrongWolfe` object or None. "
                f"Received: line_search={line_search!r}"
            )
        self.line_search = line_search

    def rule(self, size: int) -> str:
        """The update that N = `size` weights take: a name of `UPDATES` but "auto"."""
        if self.update != "auto":
            return self.update
        return "ssbroyden" if size <= self.max_size else "lbfgs"

    def inverse(self, size: int, add_variable: AddVariable) -> InverseHessian:
        """The inverse Hessian of N = `size` weights, its variables made by `add_variable`."""
        rule = self.rule(size)
        if rule == "lbfgs":
            return LimitedMemoryInverse(self.history, size, add_variable)
        return DenseInverse(rule, size, add_variable)

    def bytes(self, size: int) -> float:
        """What the inverse Hessian of N = `size` weights takes."""
        if self.rule(size) == "lbfgs":
            return 16.0 * self.history * size
        return DenseInverse.BYTES_PER_ENTRY * size**2

    def get_config(self) -> dict[str, Any]:
        search = self.line_search
        return {
            "update": self.update,
            "history": self.history,
            "max_size": self.max_size,
            "line_search": None if search is None else keras.saving.serialize_keras_object(search),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuasiNewton:
        config = dict(config)
        if isinstance(config.get("line_search"), dict):
            config["line_search"] = keras.saving.deserialize_keras_object(config["line_search"])
        return cls(**config)
