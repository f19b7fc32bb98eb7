"""The quadratic model of the loss along a step that would be taken.

    d       the step, learning rate and clipping included     one `[N_k]` a block
    q(d)    g.d + d.H d / 2, with the whole Hessian           scalar
    D       λD² is what H is damped by                        [N_k]
    t       where q(d) + λ Dd.Dd / 2 is lowest along d, ≤ 1   scalar

Blocks know nothing of one another, so what they take together would go too far where they agree:
t cuts it back, by the Hessian between the blocks that no block has.

References:
    Martens & Grosse 2015, arXiv:1503.05671, section 6.4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.step.batch import Batch
from keras_qnewton.step.system import System


class Plan(NamedTuple):
    """A step that would be taken, and what the model says of it.

    Attributes:
        step: d, one tensor a weight.
        flat: d, one `[N_k]` a block.
        slope: g.d, float64 scalar.
        bend: d.H d, float64 scalar.
        change: q(d), float64 scalar.
        length: t, float64 scalar.
    """

    step: list[tf.Tensor]
    flat: list[tf.Tensor]
    slope: tf.Tensor
    bend: tf.Tensor
    change: tf.Tensor
    length: tf.Tensor


@dataclasses.dataclass(frozen=True)
class QuadraticModel:
    """The loss's second-order expansion at the present weights.

    Attributes:
        batch: Its loss and update.
        system: H, g and D.
        value_error: About how far rounding moves the loss, float64 scalar.
    """

    batch: Batch
    system: System
    value_error: tf.Tensor

    def plan(self, directions: Sequence[tf.Tensor], length: tf.Tensor | float = 1.0) -> Plan:
        """The step of `length` times the directions x, one `[N_k]` a block."""
        length = tf.convert_to_tensor(length, tf.float64)
        step = self.batch.update(self.system.curvature.unflatten(scaled(directions, length)))
        flat = self.system.curvature.flatten(step)
        slope, bend = self.batch.agreed(
            dot(self.system.gradient, flat), dot(flat, self.system.product(flat))
        )
        return Plan(step, flat, slope, bend, slope + bend / 2, length)

    def cut_back(self, plan: Plan, directions: Sequence[tf.Tensor], damping: tf.Tensor) -> Plan:
        """`plan` up to the damped model's minimum along it.

        With one block t is 1: (H + λD²) x = g. With K semidefinite ones it is 1/K at least, which
        is where all agree: H is at most K times its diagonal blocks.
        """
        damped = self.system.damped(plan.flat)
        (added,) = self.batch.agreed(dot(damped, damped))
        minimum = -plan.slope / (plan.bend + damping * added)
        # 1 also where the model has no minimum, and for NaN.
        inside = (minimum > 0) & (minimum < 1)
        t = tf.where(inside, minimum, tf.ones_like(minimum))
        if not self.batch.update.proportional:
            return self.plan(directions, t)
        slope, bend = t * plan.slope, t**2 * plan.bend
        step, flat = scaled(plan.step, t), scaled(plan.flat, t)
        return Plan(step, flat, slope, bend, slope + bend / 2, t)


def scaled(tensors: Sequence[tf.Tensor], factor: tf.Tensor) -> list[tf.Tensor]:
    """`factor` times each tensor, in the tensor's dtype."""
    factors = {dtype: tf.cast(factor, dtype) for dtype in dict.fromkeys(t.dtype for t in tensors)}
    return [factors[t.dtype] * t for t in tensors]


def dot(a: Sequence[tf.Tensor], b: Sequence[tf.Tensor]) -> tf.Tensor:
    """Σ a.b over all blocks, in float64."""
    return tf.add_n(
        [
            tf.tensordot(tf.cast(u, tf.float64), tf.cast(v, tf.float64), 1)
            for u, v in zip(a, b, strict=True)
        ]
    )
