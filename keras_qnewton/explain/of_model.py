"""`explain`: what the optimizer would see of a model's loss, found by tracing it once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.arguments import refused
from keras_qnewton.curvature import AutoCurvature, Curvature, EmpiricalFisher, Linearized
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.formation import explain as sentence
from keras_qnewton.curvature.gauss_newton import prefers_exact
from keras_qnewton.curvature.linearized_gauss_newton import GaussNewtonLinearized
from keras_qnewton.curvature.linearized_hessian import LinearizedHessian
from keras_qnewton.curvature.outputs import ConvexLoss, convex_loss
from keras_qnewton.explain.explanation import BlockExplanation, Explanation, OutputExplanation
from keras_qnewton.loss import RecordedLoss, as_tensors, record
from keras_qnewton.optimizer import QNewton, qnewton_in
from keras_qnewton.quasi_newton import QuasiNewton
from keras_qnewton.step import learned_policy


def explain(
    model: keras.Model | Callable[[], tf.Tensor],
    x: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    variables: Sequence[Any] | None = None,
    optimizer: QNewton | None = None,
) -> Explanation:
    """How the loss of a model would be differentiated, and each block formed and solved.

    No weight changes and no step is taken; the curvature is evaluated once.

    Args:
        model: A compiled Keras model; or, as for `QNewton.minimize`, a function that takes no
            argument and returns the loss.
        x: A batch of the model's inputs.
        y: Its targets.
        sample_weight: Its sample weights.
        variables: The weights that a function's loss depends on; a model's own otherwise.
        optimizer: Whose settings are taken; the model's own if that is a `QNewton`, else the
            defaults.

    Returns:
        An `Explanation`: `print` it, or read its fields.

    Raises:
        ValueError: If an argument is not of these kinds, or the loss cannot be recorded.
    """
    if optimizer is not None and not isinstance(optimizer, QNewton):
        raise refused("optimizer", optimizer, "a `QNewton` object or None")
    loss_fn, weights = _loss_and_weights(model, x, y, sample_weight, variables)
    settings = optimizer or qnewton_in(getattr(model, "optimizer", None)) or QNewton()
    tensors, parts = as_tensors(weights), settings.blocks.split(weights)
    if isinstance(settings.curvature, QuasiNewton):
        return _of_learned(settings.curvature, parts[0])
    found: dict[str, Any] = {}

    @tf.function(autograph=False)
    def trace() -> list[tf.Tensor]:
        loss = record(loss_fn, tensors)
        at = settings.curvature.at(loss, loss.at_variables(), parts)
        convex = convex_loss(loss)
        found.update(
            semidefinite=at.positive_semidefinite,
            name=_name(settings.curvature, at),
            reason=_reason(settings, at, convex, loss),
            outputs=_outputs(at),
            rest=tuple(f"{t.op.type} ({t.op.name})" for t in convex.rest),
            bytes=at.dtype.size,
        )
        return [at.formed(k).how for k, part in enumerate(parts) if part.dense]

    formed = iter([int(how) for how in trace()])
    return Explanation(
        curvature=found["name"],
        reason=found["reason"],
        semidefinite=found["semidefinite"],
        outputs=found["outputs"],
        rest=found["rest"],
        blocks=tuple(
            _block(part, next(formed) if part.dense else None, settings, found) for part in parts
        ),
    )


def _of_learned(policy: QuasiNewton, part: Part) -> Explanation:
    """Of an inverse Hessian that is learned: nothing is differentiated twice."""
    rule, size = policy.rule(part.size), int(policy.bytes(part.size))
    solved = f"no linear system: {rule}'s inverse Hessian times the gradient"
    return Explanation(
        curvature=f"learned inverse Hessian ({rule})",
        reason="It was asked for.",
        semidefinite=True,
        outputs=(),
        rest=(),
        blocks=(BlockExplanation(part.name, part.size, "learned from gradients", solved, size),),
    )


def _loss_and_weights(
    model: Any, x: Any, y: Any, sample_weight: Any, variables: Sequence[Any] | None
) -> tuple[Callable[[], tf.Tensor], list[Any]]:
    if isinstance(model, keras.Model):
        if not model.compiled or x is None:
            raise ValueError(
                "Argument `model` must be compiled with a loss, and `x` be a batch of its inputs. "
                f"Received: model={model.name!r}, compiled={model.compiled}, x={x!r}"
            )

        def loss_fn() -> tf.Tensor:
            predictions = model(x, training=True)
            return model.compute_loss(
                x=x, y=y, y_pred=predictions, sample_weight=sample_weight, training=True
            )

        return loss_fn, _listed(model.trainable_variables if variables is None else variables)
    if not callable(model) or variables is None:
        raise ValueError(
            "Argument `model` must be a Keras model, or a function that returns the loss, with "
            f"`variables`. Received: model={model!r}, variables={variables!r}"
        )
    return model, _listed(variables)


def _listed(variables: Any) -> list[Any]:
    return list(variables) if isinstance(variables, Sequence) else [variables]


def _name(curvature: Curvature, at: Linearized) -> str:
    if isinstance(at, GaussNewtonLinearized):
        return "empirical Fisher" if isinstance(curvature, EmpiricalFisher) else "Gauss-Newton"
    return "exact Hessian" if isinstance(at, LinearizedHessian) else type(at).__name__


def _reason(settings: QNewton, at: Linearized, convex: ConvexLoss, loss: RecordedLoss) -> str:
    if not isinstance(settings.curvature, AutoCurvature):
        return "It was asked for."
    if isinstance(at, GaussNewtonLinearized):
        if convex.outputs:
            return "The loss has terms that are convex and curved."
        return (
            "All that is convex in the loss is piecewise linear, and has the curvature of "
            "parabolas that touch it from above."
        )
    if not convex.recognised:
        return "No term of the loss is known to be convex."
    if prefers_exact(loss, convex):
        return (
            "One output is made of another, and the terms are not squares: the curvature between "
            "the two counts."
        )
    return "All that is convex in the loss is a maximum over elements, and has no curvature."


def _outputs(at: Linearized) -> tuple[OutputExplanation, ...]:
    if not isinstance(at, GaussNewtonLinearized):
        return ()
    return tuple(
        OutputExplanation(
            name=output.name.split(":")[0],
            shape=tuple(curvature.z.shape),
            terms=tuple(name.split(":")[0] for name in output.terms),
            rule=type(output.rule).__name__,
            roots=_count(curvature.roots()),
        )
        for output, curvature in at.outputs
    )


def _count(roots: tf.Tensor | None) -> int | None:
    return None if roots is None else int(roots.shape[0])


def _block(
    part: Part, how: int | None, settings: QNewton, found: dict[str, Any]
) -> BlockExplanation:
    if how is None:
        limit = getattr(settings.blocks, "max_size", None)
        why = "too large" if limit is None else f"over {limit:,} weights"
        formed, size = f"not formed: {why}", 0
        solved = "in as many dimensions as its rank on a batch if that is low, else by products"
        if learned_policy(settings, data_stay=True) is not None:
            solved += "; learned from gradients in place of those, where the data stay"
    else:
        formed, size = sentence(how), found["bytes"] * part.size**2
        linear = found["semidefinite"] or settings.scheduler.quantum is not None
        if settings.damping.saddle_free(linear=linear):
            solved = "saddle-free, by an eigendecomposition"
        else:
            solved = "one of: " + ", ".join(settings.scheduler.possible(part.size))
    return BlockExplanation(part.name, part.size, formed, solved, size)
