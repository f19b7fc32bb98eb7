"""Dense self-scaled BFGS in NumPy, SciPy and BLAS: what our steps are to be measured against.

After Urbán, Stefanou & Pons 2024 (arXiv 2405.04230), who scale the inverse before each of BFGS's
updates where that shrinks the Hessian's model (Oren & Luenberger 1974; Al-Baali 1998).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import blas
from scipy.optimize import line_search

Evaluate = Callable[[np.ndarray], tuple[float, np.ndarray]]
# Armijo's and the curvature condition's constants, and how often the search may look.
SUFFICIENT, CURVATURE, SEARCHES = 1e-4, 0.9, 25


def updated(inverse: np.ndarray, s: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """BFGS's update of H/τ by a step s and the gradient's change y; the upper triangle, in place.

    Args:
        inverse: H, `[n, n]` in Fortran's order.
        s: `[n]`.
        y: `[n]`.
        scale: τ.
    """
    if scale != 1:
        inverse /= scale
    product = blas.dsymv(1.0, inverse, y)
    curvature = float(s @ y)
    inverse = blas.dsyr2(-1 / curvature, s, product, a=inverse, overwrite_a=1)
    both = (1 + float(y @ product) / curvature) / curvature
    return blas.dsyr(both, s, a=inverse, overwrite_a=1)


def scaling(s: np.ndarray, y: np.ndarray, gradient: np.ndarray, length: float) -> float:
    """τ = min(1, yᵀs / sᵀBs): sᵀBs is -α gᵀs, since Bs = -α g of a step s = -α Hg."""
    model = -length * float(gradient @ s)
    return min(1.0, float(y @ s) / model) if model > 0 else 1.0


class _Remembered:
    """SciPy's line search asks for the loss and the gradient of a point one after the other."""

    def __init__(self, evaluate: Evaluate):
        self._evaluate, self._at, self._seen = evaluate, None, None

    def both(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        if self._at is None or not np.array_equal(x, self._at):
            self._at, self._seen = x.copy(), self._evaluate(x)
        return self._seen

    def loss(self, x: np.ndarray) -> float:
        return self.both(x)[0]

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return self.both(x)[1]


def self_scaled_bfgs(evaluate: Evaluate, x: np.ndarray) -> str:
    """Minimises until `evaluate` raises, or two line searches in a row fail from the gradient.

    Args:
        evaluate: From weights `[n]` in float64 to the loss and its gradient `[n]`.
        x: The start.

    Returns:
        Why it ended.
    """
    function = _Remembered(evaluate)
    inverse, fresh = np.eye(len(x), order="F"), True
    loss, gradient = function.both(x)
    before = loss + np.linalg.norm(gradient) / 2
    while True:
        direction = -blas.dsymv(1.0, inverse, gradient)
        if direction @ gradient >= 0:
            inverse, direction, fresh = np.eye(len(x), order="F"), -gradient, True
        length, _, _, reached, _, _ = line_search(
            function.loss,
            function.gradient,
            x,
            direction,
            gradient,
            loss,
            before,
            c1=SUFFICIENT,
            c2=CURVATURE,
            maxiter=SEARCHES,
        )
        if length is None:
            if fresh:
                return "no step along the gradient"
            inverse, fresh = np.eye(len(x), order="F"), True
            before = loss + np.linalg.norm(gradient) / 2
            continue
        step = length * direction
        change = function.gradient(x + step) - gradient
        if step @ change > 1e-12 * np.linalg.norm(step) * np.linalg.norm(change):
            scale = scaling(step, change, gradient, length)
            inverse = updated(inverse, step, change, scale)
        x, gradient, fresh = x + step, gradient + change, False
        before, loss = loss, reached
