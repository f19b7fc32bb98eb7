"""Conjugate gradients, with a matrix or with nothing but its products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_count, check_number
from keras_qnewton.registry import register
from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.checks import check_matrix, check_rhs, relative_norm, relative_residual
from keras_qnewton.solvers.linear_solver import LinearSolver
from keras_qnewton.solvers.scaling import unit_of
from keras_qnewton.types import Solution


class _Iterate(NamedTuple):
    """The state of the iteration; vectors `[N]`, in units of max|b|.

    Attributes:
        k: Products with A so far, int32.
        x: The iterate.
        r: Its residual, by the recurrence.
        p: The next direction.
        rr: ``||r||²``.
        stop: Whether the iteration ends here.
        negative: Whether it met a direction of non-positive curvature.
        boundary: Whether x is on the boundary of the trust region.
    """

    k: tf.Tensor
    x: tf.Tensor
    r: tf.Tensor
    p: tf.Tensor
    rr: tf.Tensor
    stop: tf.Tensor
    negative: tf.Tensor
    boundary: tf.Tensor


@register("solver", "cg")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class ConjugateGradient(LinearSolver[tf.Tensor]):
    """``A x = b`` by conjugate gradients, for a positive definite A.

    Stops at ``||b - A x|| <= tolerance · ||b||`` (by the recurrence's residual; the one that
    is reported is evaluated afresh), after `max_iterations`, or at a direction p of
    non-positive curvature, ``p^T A p <= 0``: it then returns the iterate so far, or b itself
    if that happens at once, both descent directions for b a gradient (Steihaug 1983, SIAM J.
    Numer. Anal. 20(3), section 2, without the trust region). On an indefinite matrix the
    residual is therefore large, and says so.

    With a radius Δ it is Steihaug's method in full (ibid.; Nocedal and Wright 2006, Numerical
    Optimization, algorithm 7.2): it stops on the boundary ``||x|| = Δ`` where an iterate would
    leave the region, and at non-positive curvature it follows p to the boundary, to whichever
    end the quadratic ``x^T A x / 2 - b^T x`` is lower at. That is then at most what it is at
    the Cauchy point. (The system there is A p = -g: with b = g, the step is -x.) On the boundary
    the residual is large by intent.

    Pure TensorFlow ops: works in a `tf.function`, exports, compiles with XLA. `details` holds
    "iterations", "negative_curvature" and, with a radius, "hit_boundary", as tensors inside a
    graph.

    Args:
        tolerance: Relative residual at which to stop. Below about 1e-6 float32 seldom gets.
        max_iterations: Largest number of products with A; None for 2N.

    Raises:
        ValueError: If `tolerance` is not positive or `max_iterations` is below 1.
    """

    name = "cg"
    definite = True

    def __init__(self, tolerance: float = 1e-6, max_iterations: int | None = None):
        self.tolerance = check_number("tolerance", tolerance, "a positive number")
        self.max_iterations = (
            None if max_iterations is None else check_count("max_iterations", max_iterations)
        )

    def init(self, matrix: TensorLike) -> tf.Tensor:
        """The matrix `[N, N]` itself, as a tensor: there is nothing to prepare."""
        return check_matrix(matrix)

    def solve(self, matrix: TensorLike, rhs: TensorLike, radius: Scalar | None = None) -> Solution:
        """`compute` for a fresh `matrix`; see `LinearSolver.solve`."""
        return self.compute(self.init(matrix), rhs, radius)

    def compute(self, state: tf.Tensor, rhs: TensorLike, radius: Scalar | None = None) -> Solution:
        """Solves for `rhs` `[N]`; the residual is evaluated in float64.

        Args:
            state: From `init`.
            rhs: Tensor or array `[N]`, the matrix's dtype.
            radius: As for `solve_operator`.
        """
        rhs = check_rhs(rhs, state.shape[0], state.dtype)
        unit = unit_of(state)
        # Or else the small terms of a product of small entries are subnormal: zero.
        scaled = state / unit
        x, size, details = self._iterate(
            lambda v: tf.linalg.matvec(scaled, v),
            rhs,
            None if radius is None else _check_radius(radius) * tf.cast(unit, tf.float64),
        )
        x *= size / unit
        return Solution(x, relative_residual(state, x, rhs), self.name, details)

    def solve_operator(
        self,
        matvec: Callable[[tf.Tensor], tf.Tensor],
        rhs: TensorLike,
        radius: Scalar | None = None,
        agreed: Callable[..., Sequence[tf.Tensor]] = lambda *tensors: tensors,
    ) -> Solution:
        """Solves with products only: `matvec` may be a Hessian-vector product.

        Args:
            matvec: From a tensor `[N]` to ``A`` times it, same shape and dtype. It is called
                in the body of a `tf.while_loop`: gradients of a persistent tape recorded
                outside may be taken there.
            rhs: Tensor or array `[N]`, float32 or float64.
            radius: Δ, the largest ``||x||`` (number or scalar tensor, in the units of x), or
                None for no limit.
            agreed: Makes scalars those that all have who run this together, where a product is a
                sum over several machines: they have to stop at the same iteration.

        Returns:
            `Solution`; the residual takes one more product, in `rhs`'s dtype, its norms in
            float64.

        Raises:
            ValueError: If `radius` is not a positive finite scalar (its value, eagerly).
        """
        rhs = check_rhs(rhs)
        x, size, details = self._iterate(matvec, rhs, radius, agreed)
        x *= size
        unit = unit_of(rhs)
        gap = rhs / unit - matvec(x / unit)
        return Solution(x, relative_norm(gap, rhs / unit), self.name, details)

    def _iterate(
        self,
        matvec: Callable[[tf.Tensor], tf.Tensor],
        rhs: tf.Tensor,
        radius: Scalar | None,
        agreed: Callable[..., Sequence[tf.Tensor]] = lambda *tensors: tensors,
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """x in units of max|b|, that unit, and `Solution.details`."""
        # In units of max|b|, so that the squares of a small float32 gradient do not underflow.
        largest = tf.reduce_max(tf.abs(rhs))
        unit = tf.where(largest > 0, largest, tf.ones_like(largest))
        b = rhs / unit
        limit = 2 * tf.size(b) if self.max_iterations is None else self.max_iterations
        (start,) = agreed(_dot(b, b))
        target = start * self.tolerance**2
        bound = None
        if radius is not None:
            bound = tf.cast(_check_radius(radius) / tf.cast(unit, tf.float64), b.dtype)

        def unfinished(state: _Iterate) -> tf.Tensor:
            return (state.rr > target) & ~state.stop & (state.k < limit)

        def step(state: _Iterate) -> tuple[_Iterate]:
            k, x, r, p, rr, _, _, boundary = state
            # p gets shorter and shorter: in powers of two, p^T A p does not vanish.
            scale = unit_of(p)
            product = tf.ensure_shape(matvec(p / scale), b.shape)
            size = unit_of(product)
            product /= size
            (curvature,) = agreed(_dot(p / scale, product))
            # A NaN is neither.
            convex = curvature > 0
            negative = curvature <= 0
            length = rr / scale / scale / tf.where(convex, curvature, tf.ones_like(curvature))
            inside = x + length / size * p
            if bound is None:
                stuck = tf.where(negative & (k == 0), b, x)
            else:
                # An infinite length is one across the boundary, too.
                (far,) = agreed(~(tf.norm(inside) < bound))
                boundary = negative | (convex & far)
                bend = curvature * size * scale * scale
                stuck = tf.where(boundary, _to_boundary(x, p, bound, rr, bend), x)
            on = convex & ~boundary
            x = tf.where(on, inside, stuck)
            r = tf.where(on, r - length * scale * product, r)
            (new_rr,) = agreed(_dot(r, r))
            p = r + (new_rr / rr) * p
            return (_Iterate(k + 1, x, r, p, new_rr, ~on, negative, boundary),)

        first = (0, tf.zeros_like(b), b, b, start, False, False, False)
        (last,) = tf.while_loop(
            unfinished, step, (_Iterate(*(tf.convert_to_tensor(value) for value in first)),)
        )
        k, x, negative, boundary = last.k, last.x, last.negative, last.boundary
        if tf.executing_eagerly():
            k, negative, boundary = int(k), bool(negative), bool(boundary)
        details = {"iterations": k, "negative_curvature": negative}
        if radius is not None:
            details["hit_boundary"] = boundary
        return x, unit, details

    def get_config(self) -> dict[str, Any]:
        return {"tolerance": self.tolerance, "max_iterations": self.max_iterations}


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b)


def _to_boundary(
    x: tf.Tensor, p: tf.Tensor, radius: tf.Tensor, slope: tf.Tensor, curvature: tf.Tensor
) -> tf.Tensor:
    """``x + τ p`` of length `radius`, for an x that is not longer than that.

    τ is the positive root of a quadratic equation, or at non-positive `curvature` ``p^T A p``
    the negative one if the model, ``τ² curvature / 2 - τ slope``, is lower there. In units of
    the radius for x and of p's length for p, squares of a large radius do not overflow.
    """
    u, length = x / radius, tf.norm(p)
    direction = p / length
    along, room = _dot(u, direction), tf.maximum(1 - _dot(u, u), 0)
    root = tf.sqrt(along**2 + room)
    # Without cancellation; along p the iterates only lengthen, but for rounding.
    forward = tf.where(along > 0, room / (root + along), root - along)
    backward = -root - along

    def model(tau: tf.Tensor) -> tf.Tensor:
        return tau * radius / length * (tau * radius / length * curvature / 2 - slope)

    tau = tf.where((curvature <= 0) & (model(backward) < model(forward)), backward, forward)
    return radius * (u + tau * direction)


def _check_radius(radius: Scalar) -> tf.Tensor:
    # `tf.cast` alone would take a Python number through float32.
    radius = tf.cast(tf.convert_to_tensor(radius, dtype_hint=tf.float64), tf.float64)
    if not radius.shape.is_compatible_with([]):
        raise ValueError(
            f"Argument `radius` must be None or a scalar. Received: radius of shape {radius.shape}"
        )
    if tf.executing_eagerly() and not 0 < float(radius) < float("inf"):
        raise ValueError(
            "Argument `radius` must be None or a positive, finite number. "
            f"Received: radius={float(radius)}"
        )
    return radius
