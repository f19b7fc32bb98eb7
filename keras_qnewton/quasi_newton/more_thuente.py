"""The interval of Moré & Thuente's line search, and the trial that it suggests.

Along a ray w + αd, ψ(α) = L(w + αd) - L(w). The interval has two ends: x, the trial of least ψ, and
y, on the other side of a minimiser once one is bracketed. A trial p replaces one of them, and the
next is the minimiser of a cubic or a parabola through x and p:

    1  ψ(p) > ψ(x)                   bracketed; the cubic's minimiser, or halfway to the parabola's
    2  ψ'(p) ψ'(x) < 0               bracketed; the cubic's or the secant's, the farther from p
    3  |ψ'(p)| < |ψ'(x)|             the cubic's or the secant's: the nearer if bracketed
    4  else                          the cubic's through p and y; unbracketed, as far as allowed

References:
    Moré & Thuente 1994, Line search algorithms with guaranteed sufficient decrease, ACM TOMS 20,
    286-307: sections 3 (the modified function) and 4 (the trial). The arithmetic is that of dcsrch
    and dcstep in MINPACK-2, without branches: a graph selects scalars sooner than it branches.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# MINPACK-2's: how far beyond a trial the next may be while nothing is bracketed, as multiples of
# its distance from x; how far towards y where the slope falls; how fast the interval has to shrink.
_NEAREST, FARTHEST = 1.1, 4.0
_TOWARDS = 0.66
_SHRINKS = 0.66


class Knot(NamedTuple):
    """ψ at one step.

    Attributes:
        step: α, float64 scalar.
        change: ψ(α), float64 scalar.
        slope: ψ'(α), float64 scalar.
    """

    step: tf.Tensor
    change: tf.Tensor
    slope: tf.Tensor


class Interval(NamedTuple):
    """Where a minimiser is looked for.

    Attributes:
        x: The end of least ψ.
        y: The other end; equal to x before anything is known.
        bracketed: Boolean scalar: there is a minimiser between x and y.
        modified: Boolean scalar: no trial has had sufficient decrease and a slope above zero yet,
            so that one without sufficient decrease is taken for one of ψ(α) - c₁ α ψ'(0).
        width: |y - x|, float64 scalar.
        last_width: `width` a trial ago.
        lowest: The next trial's bounds, float64 scalars.
        highest: See `lowest`.
    """

    x: Knot
    y: Knot
    bracketed: tf.Tensor
    modified: tf.Tensor
    width: tf.Tensor
    last_width: tf.Tensor
    lowest: tf.Tensor
    highest: tf.Tensor

    @classmethod
    def begin(cls, slope: tf.Tensor, first: tf.Tensor, longest: tf.Tensor) -> Interval:
        """The interval before the first trial.

        Args:
            slope: ψ'(0), float64 scalar, negative.
            first: The first trial, float64 scalar.
            longest: No trial is longer, float64 scalar.
        """
        zero = tf.zeros_like(slope)
        origin = Knot(zero, zero, slope)
        return cls(
            x=origin,
            y=origin,
            bracketed=tf.constant(False),
            modified=tf.constant(True),
            width=longest,
            last_width=2 * longest,
            lowest=zero,
            highest=(1 + FARTHEST) * first,
        )

    def exhausted(self, trial: tf.Tensor, tolerance: float) -> tf.Tensor:
        """True if rounding leaves no trial between the ends, boolean scalar."""
        outside = (trial <= self.lowest) | (trial >= self.highest)
        narrow = self.highest - self.lowest <= tolerance * self.highest
        return self.bracketed & (outside | narrow)

    def advanced(
        self, trial: Knot, decrease: tf.Tensor, longest: tf.Tensor
    ) -> tuple[Interval, tf.Tensor]:
        """The interval with `trial` as one of its ends, and the next trial's step.

        Args:
            trial: p, finite.
            decrease: c₁ ψ'(0), float64 scalar: the slope of the line of sufficient decrease.
            longest: No trial is longer, float64 scalar.
        """
        sufficient = trial.change <= trial.step * decrease
        modified = self.modified & ~(sufficient & (trial.slope >= 0))
        below = modified & (trial.change <= self.x.change) & ~sufficient
        tilt = tf.where(below, decrease, tf.zeros_like(decrease))
        tilted = [_tilted(knot, tilt) for knot in (self.x, self.y, trial)]
        step, higher, opposed = self._next(*tilted)
        x = _chosen(higher, self.x, trial)
        y = _chosen(higher, trial, _chosen(opposed, self.x, self.y))
        bracketed = self.bracketed | higher | opposed

        width = tf.abs(y.step - x.step)
        slow = bracketed & (width >= _SHRINKS * self.last_width)
        step = tf.where(slow, x.step + 0.5 * (y.step - x.step), step)
        beyond = step - x.step
        lowest = tf.where(bracketed, tf.minimum(x.step, y.step), step + _NEAREST * beyond)
        highest = tf.where(bracketed, tf.maximum(x.step, y.step), step + FARTHEST * beyond)
        interval = Interval(
            x=x,
            y=y,
            bracketed=bracketed,
            modified=modified,
            width=tf.where(bracketed, width, self.width),
            last_width=tf.where(bracketed, self.width, self.last_width),
            lowest=lowest,
            highest=highest,
        )
        return interval, tf.minimum(step, longest)

    def _next(self, x: Knot, y: Knot, p: Knot) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The next trial's step; whether p is above x; whether their slopes have opposite signs."""
        higher = p.change > x.change
        opposed = ~higher & (tf.sign(p.slope) * tf.sign(x.slope) < 0)
        flatter = ~higher & ~opposed & (tf.abs(p.slope) < tf.abs(x.slope))
        forward = p.step > x.step
        bound = tf.where(forward, self.highest, self.lowest)

        origin = _chosen(higher, x, p)
        other = _chosen(higher, p, _chosen(opposed | flatter, x, y))
        cubic, descends = _cubic_minimiser(origin, other)
        chord = (x.change - p.change) / (p.step - x.step)
        parabola = x.step + x.slope / (chord + x.slope) / 2 * (p.step - x.step)
        secant = p.step + p.slope / (p.slope - x.slope) * (x.step - p.step)

        first = tf.where(
            tf.abs(cubic - x.step) <= tf.abs(parabola - x.step), cubic, (cubic + parabola) / 2
        )
        farther = _farther(p.step, cubic, secant)
        third = self._beyond_or_inside(p, forward, tf.where(descends, cubic, bound), secant)
        fourth = tf.where(self.bracketed, cubic, bound)
        step = tf.where(flatter, third, fourth)
        step = tf.where(opposed, farther, step)
        return tf.where(higher, first, step), higher, opposed

    def _beyond_or_inside(
        self, p: Knot, forward: tf.Tensor, cubic: tf.Tensor, secant: tf.Tensor
    ) -> tf.Tensor:
        """Case 3's step: the nearer of two, not too near y; unbracketed, the farther of them."""
        nearer = tf.where(tf.abs(cubic - p.step) < tf.abs(secant - p.step), cubic, secant)
        limit = p.step + _TOWARDS * (self.y.step - p.step)
        inside = tf.where(forward, tf.minimum(limit, nearer), tf.maximum(limit, nearer))
        beyond = tf.clip_by_value(_farther(p.step, cubic, secant), self.lowest, self.highest)
        return tf.where(self.bracketed, inside, beyond)


def _tilted(knot: Knot, tilt: tf.Tensor) -> Knot:
    """`knot` of ψ(α) - tilt·α."""
    return Knot(knot.step, knot.change - tilt * knot.step, knot.slope - tilt)


def _chosen(condition: tf.Tensor, one: Knot, other: Knot) -> Knot:
    return Knot(*(tf.where(condition, a, b) for a, b in zip(one, other, strict=True)))


def _farther(origin: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.abs(one - origin) > tf.abs(other - origin), one, other)


def _cubic_minimiser(a: Knot, b: Knot) -> tuple[tf.Tensor, tf.Tensor]:
    """The minimiser of the cubic with both knots' values and slopes.

    Returns:
        Its step, float64 scalar, and whether it lies on the side of `a` that is away from `b`.
    """
    theta = 3 * (a.change - b.change) / (b.step - a.step) + a.slope + b.slope
    scale = tf.maximum(tf.abs(theta), tf.maximum(tf.abs(a.slope), tf.abs(b.slope)))
    # Negative in case 3 alone, where the cubic has no minimiser, and by rounding.
    radicand = tf.maximum((theta / scale) ** 2 - a.slope / scale * (b.slope / scale), 0.0)
    gamma = tf.sign(b.step - a.step) * scale * tf.sqrt(radicand)
    ratio = (gamma - a.slope + theta) / (gamma - a.slope + gamma + b.slope)
    return a.step + ratio * (b.step - a.step), (ratio < 0) & (gamma != 0)
