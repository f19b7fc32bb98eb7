"""Which layers' derivatives can be trusted: `audit` compares them with finite differences.

Two comparisons for each layer, along vectors v that are non-zero in its weights only:

    gradient    g.v    with differences of the loss        (does the tape differentiate the loss?)
    Hessian     H v    with differences of the gradient    (does the package differentiate it?)

Both are needed. What a `stop_gradient` hides from the tape, it hides from H as well, and the two
can agree with each other while the loss does otherwise; nor is a symmetric H a proof. A gradient
that was given by `tf.custom_gradient` is taken as given: the first comparison shows whether it is
the function's derivative, as a straight-through estimator's is not. The reference values are the
model's own operations, run at other weights with the same states: the same dropout masks, the same
moving averages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.arguments import check_count, check_number, refused
from keras_qnewton.audit.differences import TOLERANCE, Found, Point
from keras_qnewton.audit.table import (
    FLAT,
    NOT_CHECKED,
    OK,
    REFUSED,
    UNSURE,
    WRONG_GRADIENT,
    WRONG_HESSIAN,
    Audit,
    AuditRow,
)
from keras_qnewton.audit.traced import Data, Loss, loss_of, traced_product, traced_values
from keras_qnewton.loss import LossNotReplayableError, as_tensors
from keras_qnewton.loss.recorded import CudnnError


def audit(
    model: keras.Model,
    x: Data,
    y: Data,
    sample_weight: Data | None = None,
    *,
    loss: Loss | None = None,
    training: bool = True,
    tolerance: float | None = None,
    seed: int = 0,
) -> Audit:
    """Compares a model's first and second derivatives with finite differences, by layer.

    Weights and states (dropout's seed generators, moving averages, metrics) are as before
    when it returns or raises. All of `x` is one batch; some ten examples suffice, and each
    layer costs up to about 70 evaluations of loss and gradient.

    A wrong derivative shows in the layer's own row if it concerns its weights; if it concerns
    its input, in the rows of the layers before it, too.

    Args:
        model: A Keras model of any kind, compiled unless `loss` is given, with float32 or
            float64 variables and computations. In float64 the comparison is far sharper.
        x: One batch of inputs: an array or tensor, or a structure of them.
        y: Its targets, likewise.
        sample_weight: Its weights, or None.
        loss: A Keras loss, its name, or a function of `(y, y_pred)`; None is the compiled
            loss. The model's `losses` (regularisers) are added.
        training: Passed to the model: whether dropout and batch statistics are active.
        tolerance: Largest relative error that counts as agreement; None is 1e-5 for float64
            and 2e-2 for float32.
        seed: Of the random vectors, an int.

    Returns:
        An `Audit`: `print` it, or read `ok` and `rows`. If the loss cannot be recorded (for
        instance a cuDNN recurrent layer), every row says so and `notes` has the reason.

    Raises:
        ValueError: If an argument is of another kind, if the model has no loss, no trainable
            weights or another precision, or if the loss differs between two evaluations at the
            same weights and states.

    References:
        Central differences of order 8: Fornberg 1988, Mathematics of Computation 51, table 1.
    """
    if not isinstance(model, keras.Model):
        raise refused("model", model, "a Keras model")
    if tolerance is not None:
        tolerance = check_number("tolerance", tolerance, "a positive number, or None")
    seed = check_count("seed", seed, least=0)
    if loss is not None and not isinstance(loss, str) and not callable(loss):
        raise refused("loss", loss, "a Keras loss, its name, or a function of `(y, y_pred)`")
    if x is None:
        raise refused("x", x, "a batch of the model's inputs")
    x, y, sample_weight = tf.nest.map_structure(_tensor, (x, y, sample_weight))
    if not model.built:
        model(x)
    dtype = _check(model, loss)
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    layers = _layers(model)
    variables = as_tensors(model.trainable_variables)
    states = {id(v): v for v in as_tensors([*model.variables, *model.metrics_variables])}
    start = {key: v.numpy() for key, v in states.items()}

    def restore() -> None:
        for key, v in states.items():
            v.assign(start[key])

    loss_fn = loss_of(model, x, y, sample_weight, loss, training)
    try:
        try:
            product = traced_product(loss_fn, variables)
        except LossNotReplayableError as e:
            return _refused(layers, variables, tolerance, e)
        values = traced_values(loss_fn, variables)
        for traced in (product, values):
            for v in traced.variables:  # a layer's variables that Keras does not know of
                start.setdefault(id(v), v.numpy())
                states.setdefault(id(v), v)
        point = Point(variables, values, product, restore, dtype, tolerance)
        rng = np.random.default_rng(seed)
        everything = list(range(len(variables)))
        whole = point.compare(everything, rng)
        rows = [_row(point, *layer, point.compare(layer[0], rng, whole)) for layer in layers]
        rows.append(_row(point, everything, "(whole model)", type(model).__name__, whole))
    finally:
        restore()
    return Audit(tuple(rows), tolerance, (*_notes(rows), *_cudnn_notes(model)))


def _tensor(value: Any) -> tf.Tensor | None:
    return None if value is None else tf.convert_to_tensor(value)


def _check(model: keras.Model, loss: Loss | None) -> str:
    if not model.trainable_variables:
        raise ValueError(f"The model has no trainable weights. Received: model={model!r}")
    if loss is None and not getattr(model, "compiled", False):
        raise ValueError(
            "The model must be compiled with a loss, or argument `loss` be given. "
            f"Received: loss=None and a model that is not compiled, {model!r}"
        )
    kinds = {keras.backend.standardize_dtype(v.dtype) for v in model.trainable_variables}
    kinds |= {layer.compute_dtype for layer in (model, *model.layers) if layer.weights}
    if not kinds <= set(TOLERANCE):
        raise ValueError(
            "Finite differences need float32 or float64. Audit a copy of the model with such a "
            f"dtype policy. Received: a model that computes in {sorted(kinds)}"
        )
    return "float32" if "float32" in kinds else "float64"


def _layers(model: keras.Model) -> list[tuple[list[int], str, str]]:
    """(positions of its trainable variables, path, type) of each layer, nested models opened."""
    position = {id(v): i for i, v in enumerate(model.trainable_variables)}
    seen: set[int] = set()
    out: list[tuple[list[int], str, str]] = []

    def visit(layer: keras.layers.Layer) -> None:
        if isinstance(layer, keras.Model):
            for inner in layer.layers:
                visit(inner)
        own = [position[id(v)] for v in layer.trainable_variables if id(v) in position]
        own = [i for i in own if i not in seen]
        seen.update(own)
        if own:
            out.append((own, layer.path, type(layer).__name__))

    visit(model)
    return out


def _row(point: Point, indices: list[int], path: str, kind: str, found: Found) -> AuditRow:
    # NaN counts as an error: it fails every comparison.
    far = [not measure.error <= point.tolerance for measure in found]
    faults = [
        fault
        for fault, measure, is_far in zip((WRONG_GRADIENT, WRONG_HESSIAN), found, far, strict=True)
        if is_far and measure.converged
    ]
    if faults:
        verdict = "; ".join(faults)
    elif any(far):
        verdict = UNSURE
    else:
        verdict = OK if any(measure.measurable for measure in found) else FLAT
    count = sum(math.prod(point.variables[i].shape) for i in indices)
    gradient, hessian = float(found.gradient.error), float(found.hessian.error)
    return AuditRow(path, kind, count, gradient, hessian, verdict)


def _refused(
    layers: Sequence[tuple[list[int], str, str]],
    variables: Sequence[tf.Variable],
    tolerance: float,
    error: LossNotReplayableError,
) -> Audit:
    """The loss cannot be recorded; which layer does the operation belong to?"""
    weights = error.weights if isinstance(error, CudnnError) else set()
    rows = []
    for indices, path, kind in layers:
        count = sum(math.prod(variables[i].shape) for i in indices)
        # Keras names operations after the layer's path, with a number for each further trace.
        named = f"/{path.rpartition('/')[2]}" in str(error)
        at_fault = bool(weights.intersection(indices)) if weights else named
        rows.append(AuditRow(path, kind, count, None, None, REFUSED if at_fault else NOT_CHECKED))
    return Audit(tuple(rows), tolerance, (str(error),))


def _cudnn_notes(model: keras.Model) -> tuple[str, ...]:
    """A warning of recurrent layers that pass here, but are run by cuDNN on a GPU."""
    if tf.config.list_logical_devices("GPU"):
        return ()  # then they were
    found: list[str] = []

    def visit(layer: keras.layers.Layer) -> None:
        inner = [getattr(layer, name, None) for name in ("forward_layer", "backward_layer")]
        for part in (*getattr(layer, "layers", ()), *filter(None, inner)):
            visit(part)
        if getattr(layer, "use_cudnn", False) in (True, "auto"):
            found.append(f"{layer.name!r} ({type(layer).__name__})")

    visit(model)
    if not found:
        return ()
    return (
        f"Where a GPU is visible, Keras may have cuDNN run {', '.join(dict.fromkeys(found))}; "
        "cuDNN's recurrent layers have no second derivatives. Pass `use_cudnn=False` to the "
        "layer before training there.",
    )


def _notes(rows: Sequence[AuditRow]) -> tuple[str, ...]:
    wrong = [row for row in rows[:-1] if row.verdict not in (OK, FLAT, UNSURE)]
    if not wrong and any(row.verdict == UNSURE for row in rows):
        return (
            "Where differences do not converge (kinks such as ReLU's, or strong curvature, in "
            "float32), nothing is proved: audit a float64 copy of the model.",
        )
    if not wrong:
        if rows[-1].verdict in (OK, FLAT):
            return ()
        return (
            "Each layer agrees by itself, the whole model does not: a derivative across two "
            "layers is wrong.",
        )
    return (
        f"Last wrong layer: {wrong[-1].layer!r} ({wrong[-1].type}). Look there first, then at "
        "layers without weights that come after it: a wrong derivative in an input also spoils "
        "the layers before.",
    )
