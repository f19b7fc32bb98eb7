"""The quadratic model of the loss along a step that would be taken.

    d       the step, learning rate and clipping included     one `[N_k]` a block
    q(d)    g.d + d.H d / 2, with the whole Hessian           scalar
    t       where q(d) + λ d.d / 2 is lowest along d, ≤ 1     scalar

Blocks know nothing of one another, so what they take together would go too far where they agree:
t cuts it back, by the Hessian between the blocks that no block has.

References:
    Martens & Grosse 2015, arXiv:1503.05671, section 6.4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.step.batch import Batch


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
        curvature: H at the weights.
        product: From v, one `[N_k]` a block, to H v.
        gradient: g, one `[N_k]` a block.
        value_error: About how far rounding moves the loss, float64 scalar.
    """

    batch: Batch
    curvature: Linearized
    product: Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor]]
    gradient: Sequence[tf.Tensor]
    value_error: tf.Tensor

    def plan(self, directions: Sequence[tf.Tensor], length: tf.Tensor | float = 1.0) -> Plan:
        """The step of `length` times the directions x, one `[N_k]` a block."""
        length = tf.convert_to_tensor(length, tf.float64)
        step = self.batch.update(self.curvature.unflatten(scaled(directions, length)))
        flat = self.curvature.flatten(step)
        slope, bend = dot(self.gradient, flat), dot(flat, self.product(flat))
        return Plan(step, flat, slope, bend, slope + bend / 2, length)

    def cut_back(self, plan: Plan, directions: Sequence[tf.Tensor], damping: tf.Tensor) -> Plan:
        """`plan` up to the damped model's minimum along it.

        With one block t is 1: (H + λI) x = g. With K semidefinite ones it is 1/K at least, which
        is where all agree: H is at most K times its diagonal blocks.
        """
        minimum = -plan.slope / (plan.bend + damping * dot(plan.flat, plan.flat))
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
    return [tf.cast(factor, t.dtype) * t for t in tensors]


def dot(a: Sequence[tf.Tensor], b: Sequence[tf.Tensor]) -> tf.Tensor:
    """Σ a.b over all blocks, in float64."""
    return tf.add_n(
        [
            tf.tensordot(tf.cast(u, tf.float64), tf.cast(v, tf.float64), 1)
            for u, v in zip(a, b, strict=True)
        ]
    )
