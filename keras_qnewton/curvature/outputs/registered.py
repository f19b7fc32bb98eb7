"""The output in which a loss is convex, by all loss rules that are registered."""

from __future__ import annotations

from keras_qnewton.curvature.outputs.base import ConvexOutput, LossRule
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.convexity import stays_convex
from keras_qnewton.registry import names, resolve


def convex_output(loss: RecordedLoss) -> ConvexOutput | None:
    """The tensor in which the loss is recognisably convex, or None.

    One output only: a model with several losses has none.
    """
    found: dict[tuple[str, str, str], LossRule] = {}
    for name in names("loss_rule"):
        rule = resolve("loss_rule", name, "loss_rule")
        for z, terms, within in rule.candidates(loss):
            if stays_convex(loss, z, terms, within):
                found[name, z.name, terms.name] = rule
    if len(found) != 1:
        return None
    (((_, z_name, terms_name), rule),) = found.items()
    return ConvexOutput(z_name, terms_name, rule)
