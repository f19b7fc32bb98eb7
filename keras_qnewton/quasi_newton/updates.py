"""Updates of an inverse Hessian from one pair of differences, as numbers of a rank-two formula.

    s       step of the weights, w' - w                              [N]
    y       change of the gradient, g' - g                           [N]
    u       H y                                                      [N]
    H'      = H/τ + a s sᵀ + b (s uᵀ + u sᵀ) + c u uᵀ                [N, N]

All of Broyden's family are of this form, self-scaled or not. With v = s/(yᵀs) - u/(yᵀu),

    H'      = (H - u uᵀ/(yᵀu) + φ (yᵀu) v vᵀ) / τ + s sᵀ/(yᵀs)

so that a = (1 + φ (yᵀu)/(τ yᵀs)) / yᵀs, b = -φ/(τ yᵀs), c = (φ - 1)/(τ yᵀu). φ = 1 is BFGS. A
factor τ below 1 makes H larger before it learns the pair: curvature that was seen in other
directions was too high. Each rule is the two numbers τ and φ, of three numbers of the pair.

References:
    Nocedal & Wright 2006, section 6.1 (BFGS) and 6.3 (Broyden's family).
    Oren & Luenberger 1974, Management Science 20(5) (self-scaling).
    Al-Baali 1998, Comput. Optim. Appl. 9, 191-203 (τ at most 1; the choice of φ).
    Urbán, Stefanou & Pons 2025, arXiv:2405.04230, equations 12 to 17 (both for networks that solve
    differential equations).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Pair(NamedTuple):
    """The numbers of a pair that rules take, scalars of H's dtype.

    Attributes:
        ys: yᵀs, positive.
        sbs: sᵀBs, B the inverse of H; -α gᵀs for a step s = -α H g.
        yhy: yᵀHy, positive.
        size: N.
    """

    ys: tf.Tensor
    sbs: tf.Tensor
    yhy: tf.Tensor
    size: int


class Update(NamedTuple):
    """H' = H/τ + a s sᵀ + b (s uᵀ + u sᵀ) + c u uᵀ, scalars."""

    tau: tf.Tensor
    a: tf.Tensor
    b: tf.Tensor
    c: tf.Tensor


Rule = Callable[[Pair], tuple[tf.Tensor, tf.Tensor]]


def bfgs(pair: Pair) -> tuple[tf.Tensor, tf.Tensor]:
    """τ = φ = 1."""
    one = tf.ones_like(pair.ys)
    return one, one


def ssbfgs(pair: Pair) -> tuple[tf.Tensor, tf.Tensor]:
    """τ = min(1, yᵀs/sᵀBs), φ = 1."""
    return tf.minimum(pair.ys / pair.sbs, 1), tf.ones_like(pair.ys)


def ssbroyden(pair: Pair) -> tuple[tf.Tensor, tf.Tensor]:
    """τ and φ by Al-Baali's bounds, which keep H' positive definite and its determinant in hand.

    With b = sᵀBs/yᵀs, h = yᵀHy/yᵀs and a = b h - 1, which is not negative (Cauchy & Schwarz).
    """
    one = tf.ones_like(pair.ys)
    b, h = pair.sbs / pair.ys, pair.yhy / pair.ys
    a = tf.maximum(b * h - 1, _SMALLEST[pair.ys.dtype])
    root = tf.sqrt(a / (1 + a))
    lower = tf.minimum(one, h * (1 - root))
    theta = tf.clip_by_value((1 - b) / b, (lower - 1) / a, 1 / lower)
    sigma = 1 + theta * a
    # σ^(-1/(N - 1)) keeps the determinant; of one weight H' is s/y whatever τ is.
    spread = tf.pow(sigma, -1.0 / max(pair.size - 1, 1))
    largest = tf.minimum(one, 1 / b)
    positive = largest * tf.minimum(spread, 1 / tf.maximum(theta, _SMALLEST[pair.ys.dtype]))
    tau = tf.where(theta > 0, positive, tf.minimum(largest * spread, sigma))
    return tau, (1 - theta) / sigma


# Where two numbers that differ by rounding alone are divided by their difference.
_SMALLEST = {tf.float32: 1e-6, tf.float64: 1e-14}

RULES: dict[str, Rule] = {"bfgs": bfgs, "ssbfgs": ssbfgs, "ssbroyden": ssbroyden}


def update_of(rule: Rule, pair: Pair) -> Update:
    """The numbers of H' for a pair."""
    tau, phi = rule(pair)
    return Update(
        tau=tau,
        a=(1 + phi * pair.yhy / (tau * pair.ys)) / pair.ys,
        b=-phi / (tau * pair.ys),
        c=(phi - 1) / (tau * pair.yhy),
    )
