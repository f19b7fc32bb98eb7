"""Which layers' derivatives can be trusted: `audit` compares them with finite differences.

Two comparisons for each layer, along vectors v that are non-zero in its weights only:

    gradient    g.v    with differences of the loss        (does the tape differentiate the loss?)
    Hessian     H v    with differences of the gradient    (does the package differentiate it?)

Both are needed. What a `stop_gradient` hides from the tape, it hides from H as well, and the two
can agree with each other while the loss does otherwise; nor is a symmetric H a proof. The
reference values are the model's own operations, run at other weights with the same states: the
same dropout masks, the same moving averages.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.curvature import Blocks, ExactHessian
from keras_qnewton.loss import LossNotReplayableError, as_tensors, record
from keras_qnewton.loss.recorded import CudnnError

# Central differences of order 8: weights of f(x + k h) - f(x - k h), k = 1..4.
_STENCIL = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
# Steps h relative to the norm of a layer's weights, tried until one agrees: long ones for
# functions that are smooth, short ones for kinks (ReLU), which a long step jumps over.
_STEPS = {"float64": (3e-3, 3e-4, 3e-5, 3e-6), "float32": (3e-2, 1e-2, 3e-3, 1e-3, 3e-4)}
_TOLERANCE = {"float64": 1e-5, "float32": 2e-2}
# A layer whose derivatives are smaller than this fraction of the model's is judged by the
# model's scale.
_SMALL = 1e-3

OK = "ok"
WRONG_GRADIENT = "gradient is not the loss's derivative"
WRONG_HESSIAN = "H v is not the gradient's derivative"
FLAT = "not measurable: derivatives are below rounding"
UNSURE = "not measurable: differences do not converge"
REFUSED = "no second derivatives"
NOT_CHECKED = "not checked"


@dataclasses.dataclass(frozen=True)
class AuditRow:
    """What was found about one layer.

    Attributes:
        layer: The layer's path, or "(whole model)": v in all weights at once.
        type: Name of its class.
        weights: How many trainable numbers it has.
        gradient_error: Relative error of g.v; None if it was not compared.
        hessian_error: Relative error of H v; None if it was not compared.
        verdict: "ok", or what is wrong, in words.
    """

    layer: str
    type: str
    weights: int
    gradient_error: float | None
    hessian_error: float | None
    verdict: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """The result of `audit`; prints as a table.

    Attributes:
        rows: One `AuditRow` for each layer with weights, in the model's order, and one for
            the whole model.
        tolerance: Largest relative error that counts as agreement.
        notes: What the table cannot say, each a sentence.
    """

    rows: tuple[AuditRow, ...]
    tolerance: float
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every derivative agrees, or is too small to be measured."""
        return all(row.verdict in (OK, FLAT) for row in self.rows)

    def __getitem__(self, layer: str) -> AuditRow:
        """The row of a layer, by its path or by the last component of its path."""
        for row in self.rows:
            if layer in (row.layer, row.layer.rpartition("/")[2]):
                return row
        raise KeyError(layer)

    def __str__(self) -> str:
        head = ("layer", "type", "weights", "gradient", "H v", "verdict")
        table = [head]
        for row in self.rows:
            errors = (_number(row.gradient_error), _number(row.hessian_error))
            table.append((row.layer, row.type, f"{row.weights:,}", *errors, row.verdict))
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        right = (False, False, True, True, True, False)
        lines = [
            "  ".join(
                cell.rjust(n) if r else cell.ljust(n)
                for cell, n, r in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in table
        ]
        lines.insert(1, "  ".join("-" * n for n in widths))
        lines.append(f"Relative errors; up to {self.tolerance:.0e} is agreement.")
        return "\n".join([*lines, *self.notes])


def _number(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"


def audit(
    model: Any,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    loss: Any = None,
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
        ValueError: If the model has no loss, no trainable weights or another precision, or if
            the loss differs between two evaluations at the same weights and states.

    References:
        Central differences of order 8: Fornberg 1988, Mathematics of Computation 51, table 1.
    """
    x, y, sample_weight = tf.nest.map_structure(_tensor, (x, y, sample_weight))
    if not model.built:
        model(x)
    dtype = _check(model, loss, tolerance)
    tolerance = _TOLERANCE[dtype] if tolerance is None else float(tolerance)
    layers = _layers(model)
    variables = as_tensors(model.trainable_variables)
    states = {id(v): v for v in as_tensors([*model.variables, *model.metrics_variables])}
    start = {key: v.numpy() for key, v in states.items()}

    def restore() -> None:
        for key, v in states.items():
            v.assign(start[key])

    loss_fn = _loss_fn(model, x, y, sample_weight, loss, training)
    try:
        try:
            product = _traced_product(loss_fn, variables)
        except LossNotReplayableError as e:
            return _refused(layers, variables, tolerance, e)
        values = _traced_values(loss_fn, variables)
        for traced in (product, values):
            for v in traced.variables:  # a layer's variables that Keras does not know of
                start.setdefault(id(v), v.numpy())
                states.setdefault(id(v), v)
        point = _Point(variables, values, product, restore, dtype, tolerance)
        rng = np.random.default_rng(seed)
        everything = list(range(len(variables)))
        whole = point.compare(everything, rng)
        rows = [_row(point, *layer, point.compare(layer[0], rng, whole)) for layer in layers]
        rows.append(_row(point, everything, "(whole model)", type(model).__name__, whole))
    finally:
        restore()
    return Audit(tuple(rows), tolerance, (*_notes(rows), *_cudnn_notes(model)))


def _tensor(value: Any) -> Any:
    return None if value is None else tf.convert_to_tensor(value)


def _check(model: Any, loss: Any, tolerance: Any) -> str:
    if not model.trainable_variables:
        raise ValueError(f"The model has no trainable weights. Received: model={model!r}")
    if loss is None and not getattr(model, "compiled", False):
        raise ValueError(
            "The model must be compiled with a loss, or argument `loss` be given. "
            f"Received: loss=None and a model that is not compiled, {model!r}"
        )
    if tolerance is not None and not tolerance > 0:
        raise ValueError(
            f"Argument `tolerance` must be a positive number. Received: tolerance={tolerance!r}"
        )
    kinds = {keras.backend.standardize_dtype(v.dtype) for v in model.trainable_variables}
    kinds |= {layer.compute_dtype for layer in (model, *model.layers) if layer.weights}
    if not kinds <= set(_TOLERANCE):
        raise ValueError(
            "Finite differences need float32 or float64. Audit a copy of the model with such a "
            f"dtype policy. Received: a model that computes in {sorted(kinds)}"
        )
    return "float32" if "float32" in kinds else "float64"


def _layers(model: Any) -> list[tuple[list[int], str, str]]:
    """(positions of its trainable variables, path, type) of each layer, nested models opened."""
    position = {id(v): i for i, v in enumerate(model.trainable_variables)}
    seen: set[int] = set()
    out: list[tuple[list[int], str, str]] = []

    def visit(layer: Any) -> None:
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


def _loss_fn(
    model: Any, x: Any, y: Any, sample_weight: Any, loss: Any, training: bool
) -> Callable[[], tf.Tensor]:
    takes_training = "training" in inspect.signature(model.call).parameters
    options = {"training": training} if takes_training else {}
    function = keras.losses.get(loss) if isinstance(loss, str) else loss

    def loss_fn() -> tf.Tensor:
        predictions = model(x, **options)
        if function is None:
            return model.compute_loss(
                x=x, y=y, y_pred=predictions, sample_weight=sample_weight, training=training
            )
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        value = tf.reduce_mean(function(y, predictions, **weights))
        return value + sum(tf.cast(v, value.dtype) for v in model.losses)

    return loss_fn


def _traced_values(loss_fn: Callable[[], tf.Tensor], variables: Sequence[tf.Variable]) -> Any:
    """A function without arguments: the loss and its gradient, by the model's own operations."""

    @tf.function(autograph=False)
    def values() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss = loss_fn()
        return loss, tape.gradient(loss, variables, unconnected_gradients="zero")

    return values.get_concrete_function()


def _traced_product(loss_fn: Callable[[], tf.Tensor], variables: Sequence[tf.Variable]) -> Any:
    """H v as the package computes it."""

    @tf.function(autograph=False)
    def product(*vectors: tf.Tensor) -> list[tf.Tensor]:
        loss = record(loss_fn, variables)
        at = ExactHessian().at(loss, loss.at_variables(), Blocks("full").split(variables))
        return at.unflatten(at.product(at.flatten(vectors)))

    return product.get_concrete_function(*[tf.TensorSpec(v.shape, v.dtype) for v in variables])


class _Measure:
    """A claimed derivative, and how near to it the differences came.

    Attributes:
        error: Smallest relative error of all steps so far.
        size: The norm of the derivative, claimed or measured, whichever is larger.
        measurable: Whether that is above what rounding does to the differences.
        converged: Whether the differences of two steps agree with each other, ten times
            better than with the claim: only then is the claim wrong, and not the differences.
    """

    def __init__(self, claimed: Any, rounding: float, least: float):
        self._claimed, self._rounding, self._least = claimed, rounding, least
        self.error, self.size, self.measurable, self.converged = np.inf, 0.0, False, False
        self._last: Any = None

    def update(self, measured: Any) -> None:
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


class _Found(NamedTuple):
    """Of g.v and of H v."""

    gradient: _Measure
    hessian: _Measure


class _Point:
    """The loss around the model's present weights."""

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        values: Any,
        product: Any,
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

    def at(self, direction: Any, step: float) -> tuple[float, list[np.ndarray]]:
        """Loss and gradient at the start plus `step` times `direction`, in float64."""
        self._restore()
        if direction is not None:
            for v, w, u in zip(self.variables, self._start, direction, strict=True):
                v.assign((w + step * u).astype(v.dtype.as_numpy_dtype))
        loss, gradient = self._values()
        return float(loss), [g.numpy().astype(np.float64) for g in gradient]

    def compare(
        self, indices: Sequence[int], rng: np.random.Generator, whole: _Found | None = None
    ) -> _Found:
        """The larger errors of those along a random vector and along one that is steep."""
        random = self._unit({i: rng.normal(size=self._start[i].shape) for i in indices})
        slope = self._unit({i: self._gradient[i] for i in indices})
        # Random, too: a gradient that is wrongly zero would otherwise go unnoticed.
        steep = self._unit({i: random[i] + slope[i] for i in indices})
        a, b = (self._along(v, indices, whole) for v in (random, steep))
        return _Found(
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

    def _along(self, v: list[np.ndarray], indices: Sequence[int], whole: _Found | None) -> _Found:
        self._restore()
        vectors = [tf.constant(u, w.dtype) for u, w in zip(v, self.variables, strict=True)]
        product = self._product(*vectors)
        # The layer's own components: those of others would show the others' faults.
        product = np.concatenate([product[i].numpy().ravel() for i in indices])
        slope = sum(np.sum(g * u) for g, u in zip(self._gradient, v, strict=True))
        length = max(0.1, np.sqrt(sum(np.sum(self._start[i] ** 2) for i in indices)))
        size = np.sqrt(sum(np.sum(self._gradient[i] ** 2) for i in indices))
        # What rounding does to a difference, several times over.
        rounding = 16 * self._epsilon / (self._steps[0] * length) / self.tolerance
        least = (0.0, 0.0) if whole is None else (whole.gradient.size, whole.hessian.size)
        found = _Found(
            _Measure(slope, rounding * abs(self._loss), _SMALL * least[0]),
            _Measure(product, rounding * (size + abs(self._loss)), _SMALL * least[1]),
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
    ) -> tuple[float, np.ndarray]:
        slope, product = 0.0, np.zeros(sum(self._start[i].size for i in indices))
        for k, weight in enumerate(_STENCIL, start=1):
            for sign in (1, -1):
                loss, gradient = self.at(v, sign * k * h)
                slope += sign * weight / h * loss
                flat = np.concatenate([gradient[i].ravel() for i in indices])
                product += sign * weight / h * flat
        return slope, product


def _row(point: _Point, indices: list[int], path: str, kind: str, found: _Found) -> AuditRow:
    # Written so that NaN counts as an error.
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


def _cudnn_notes(model: Any) -> tuple[str, ...]:
    """A warning of recurrent layers that pass here, but are run by cuDNN on a GPU."""
    if tf.config.list_logical_devices("GPU"):
        return ()  # then they were
    found: list[str] = []

    def visit(layer: Any) -> None:
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
