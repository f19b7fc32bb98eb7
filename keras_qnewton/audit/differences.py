"""Claimed derivatives against finite differences, along vectors in some weights only.

    g.v    against    Σ_k c_k (L(w + k h v) - L(w - k h v)) / h        a number
    H v    against    Σ_k c_k (g(w + k h v) - g(w - k h v)) / h        one number a weight

References:
    Central differences of order 8: Fornberg 1988, Mathematics of Computation 51, table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# Central differences of order 8: weights of f(x + k h) - f(x - k h), k = 1..4.
_STENCIL = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
# Steps h relative to the norm of a layer's weights, tried until one agrees: long ones for
# functions that are smooth, short ones for kinks (ReLU), which a long step jumps over.
_STEPS = {"float64": (3e-3, 3e-4, 3e-5, 3e-6), "float32": (3e-2, 1e-2, 3e-3, 1e-3, 3e-4)}
TOLERANCE = {"float64": 1e-5, "float32": 2e-2}
# A layer whose derivatives are smaller than this fraction of the model's is judged by the
# model's scale.
_SMALL = 1e-3


# From nothing to the loss and its gradient, and from one tensor a variable to H v.
Values = Callable[[], tuple[tf.Tensor, list[tf.Tensor]]]
Product = Callable[..., list[tf.Tensor]]


class Measure:
    """A claimed derivative, and how near to it the differences came.

    Attributes:
        error: Smallest relative error of all steps so far.
        size: The norm of the derivative, claimed or measured, whichever is larger.
        measurable: Whether that is above what rounding does to the differences.
        converged: Whether the differences of two steps agree with each other, ten times
            better than with the claim: only then is the claim wrong, and not the differences.
    """

    def __init__(self, claimed: float | np.ndarray, rounding: float, least: float):
        self._claimed, self._rounding, self._least = claimed, rounding, least
        self.error, self.size, self.measurable, self.converged = np.inf, 0.0, False, False
        self._last: float | np.ndarray | None = None

    def update(self, measured: float | np.ndarray) -> None:
        size = max(float(np.linalg.norm(self._claimed)), float(np.linalg.norm(measured)))
        if np.isinf(self.error):  # the longest step, whose rounding is the smallest
            self.size, self.measurable = size, size > self._rounding
        error = float(np.linalg.norm(self._claimed - measured))
        self.error = min(self.error, error / max(size, self._rounding, self._least, 1e-300))
        if self._last is not None:
            change = float(np.linalg.norm(measured - self._last))
            own = max(float(np.linalg.norm(measured)) / 10, self._rounding)
            self.converged |= change <= min(error / 10, own)
        self._last = measured


class Found(NamedTuple):
    """The measures of g.v and of H v."""

    gradient: Measure
    hessian: Measure


class Point:
    """The loss around the model's present weights."""

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        values: Values,
        product: Product,
        restore: Callable[[], None],
        dtype: str,
        tolerance: float,
    ):
        self.variables = variables
        self._values, self._product, self._restore = values, product, restore
        self.tolerance, self._steps = tolerance, _STEPS[dtype]
        self._epsilon = float(np.finfo(dtype).eps)
        self._start = [v.numpy().astype(np.float64) for v in variables]
        self._loss, self._gradient = self.at(None, 0.0)
        again, gradient = self.at(None, 0.0)
        change = sum(np.linalg.norm(a - b) for a, b in zip(gradient, self._gradient, strict=True))
        size = sum(np.linalg.norm(g) for g in gradient)
        if not np.isfinite(again) or not np.isfinite(size):
            raise ValueError(
                "The loss and its gradient must be finite at the present weights. "
                f"Received: a loss of {again} and a gradient of norm {size}"
            )
        if change > 1e-3 * size or abs(again - self._loss) > 1e-3 * abs(again):
            raise ValueError(
                "The loss must be the same in two evaluations at the same weights and states. "
                "Draw random numbers with `keras.random` and a `keras.random.SeedGenerator`, "
                f"or pass `training=False`. Received: {self._loss} and then {again}"
            )

    def at(
        self, direction: Sequence[np.ndarray] | None, step: float
    ) -> tuple[float, list[np.ndarray]]:
        """Loss and gradient at the start plus `step` times `direction`, in float64."""
        self._restore()
        if direction is not None:
            for v, w, u in zip(self.variables, self._start, direction, strict=True):
                v.assign((w + step * u).astype(v.dtype.as_numpy_dtype))
        loss, gradient = self._values()
        return float(loss), [g.numpy().astype(np.float64) for g in gradient]

    def compare(
        self, indices: Sequence[int], rng: np.random.Generator, whole: Found | None = None
    ) -> Found:
        """The larger errors of those along a random vector and along one that is steep."""
        random = self._unit({i: rng.normal(size=self._start[i].shape) for i in indices})
        slope = self._unit({i: self._gradient[i] for i in indices})
        # Random, too: a gradient that is wrongly zero would otherwise go unnoticed.
        steep = self._unit({i: random[i] + slope[i] for i in indices})
        a, b = (self._along(v, indices, whole) for v in (random, steep))
        return Found(
            *(
                max(pair, key=lambda m: (m.converged and m.error > self.tolerance, m.error))
                for pair in zip(a, b, strict=True)
            )
        )

    def _unit(self, parts: dict[int, np.ndarray]) -> list[np.ndarray]:
        norm = np.sqrt(sum(np.sum(p**2) for p in parts.values())) or 1.0
        return [
            parts[i] / norm if i in parts else np.zeros_like(w) for i, w in enumerate(self._start)
        ]

    def _along(self, v: list[np.ndarray], indices: Sequence[int], whole: Found | None) -> Found:
        self._restore()
        vectors = [tf.constant(u, w.dtype) for u, w in zip(v, self.variables, strict=True)]
        product = self._product(*vectors)
        # The layer's own components: those of others would show the others' faults.
        product = np.concatenate([product[i].numpy().ravel() for i in indices])
        slope = sum(np.sum(g * u) for g, u in zip(self._gradient, v, strict=True))
        length = max(0.1, np.sqrt(sum(np.sum(self._start[i] ** 2) for i in indices)))
        size = np.sqrt(sum(np.sum(self._gradient[i] ** 2) for i in indices))
        # Rounding error of a difference, several times over.
        rounding = 16 * self._epsilon / (self._steps[0] * length) / self.tolerance
        least = (0.0, 0.0) if whole is None else (whole.gradient.size, whole.hessian.size)
        found = Found(
            Measure(slope, rounding * abs(self._loss), _SMALL * least[0]),
            Measure(product, rounding * (size + abs(self._loss)), _SMALL * least[1]),
        )
        for step in self._steps:
            for measure, measured in zip(
                found, self._differences(v, indices, step * length), strict=True
            ):
                measure.update(measured)
            if max(measure.error for measure in found) <= self.tolerance:
                break
        return found

    def _differences(
        self, v: list[np.ndarray], indices: Sequence[int], h: float
    ) -> tuple[float | np.ndarray, ...]:
        slope, product = 0.0, np.zeros(sum(self._start[i].size for i in indices))
        for k, weight in enumerate(_STENCIL, start=1):
            for sign in (1, -1):
                loss, gradient = self.at(v, sign * k * h)
                slope += sign * weight / h * loss
                flat = np.concatenate([gradient[i].ravel() for i in indices])
                product += sign * weight / h * flat
        return slope, product
