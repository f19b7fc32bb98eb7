"""The rules of disciplined convex programming, for TensorFlow's operations.

linear      f(t) = Σ c t                    `linear_inputs`: its inputs and the signs of c
atom        f(t) convex or concave in t     `atom`: by the operation (`_ATOMS`), or a composition of
                                            several that is convex where each alone is not

`loss.cut` applies them. A new function is a row of `_ATOMS`, or one in `_COMPOSITIONS`.

References:
    Grant, Boyd & Ye 2006, Disciplined Convex Programming.
    Boyd & Vandenberghe 2004, Convex Optimization, section 3.1.5 (log-sum-exp, norms).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.magnitudes import behind_magnitude
from keras_qnewton.loss.recorded import RecordedLoss

# Largest constant that is added to a probability or a rate before its logarithm is taken.
_SMALL = 1e-3


class Coupling(enum.Enum):
    """Which elements of z meet in a term, beside which its second derivative is zero."""

    NONE = "each element is on its own"
    ROWS = "those along the last axis"
    ALL = "all of them"


class Atom(NamedTuple):
    """A function that is convex (sign 1) or concave (-1) in its arguments.

    Attributes:
        sign: 1 or -1, or 0 where it is nearly linear.
        curved: False if it is piecewise linear.
        coupling: Which elements of the argument meet.
    """

    sign: int
    curved: bool = True
    coupling: Coupling = Coupling.NONE


def moving_tensors(loss: RecordedLoss) -> set[str]:
    """Names of the tensors that have a derivative in the weights.

    Not those behind a `stop_gradient`, nor comparisons and other results that are no floats.
    """
    handles = loss.handles  # which functions and loops take, too, to read a weight in their bodies
    moving: set[str] = set()
    for op in loss.operations:
        reads = any(t.name in moving or t.name in handles for t in op.inputs)
        if not reads or op.type in _WITHOUT_DERIVATIVE:
            continue
        moving.update(t.name for t in op.outputs if t.dtype.is_floating or t.dtype == tf.variant)
    return moving


_WITHOUT_DERIVATIVE = {"StopGradient", "Sign", "Floor", "Ceil", "Round", "Rint", "OneHot"}

# Linear in all inputs that move, with coefficients that are not negative.
_POSITIVE = {
    "Identity", "Snapshot", "EnsureShape", "CheckNumerics", "PreventGradient", "Cast",
    "Reshape", "Squeeze", "ExpandDims", "Transpose", "ReverseV2", "Roll",
    "Slice", "StridedSlice", "Split", "SplitV", "Unpack", "Pack", "ConcatV2", "Concat",
    "Gather", "GatherV2", "GatherNd", "BroadcastTo", "Tile", "Pad", "PadV2",
    "AddV2", "Add", "AddN", "BiasAdd", "Sum", "Mean", "Cumsum", "SegmentSum", "SegmentMean",
    "UnsortedSegmentSum", "MatrixDiagPart", "MatrixDiagPartV3", "Select", "SelectV2",
}  # fmt: skip
# Linear in each input while the others do not move, with coefficients of their signs.
_BILINEAR = {"MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Conv3D", "TensorDot"}
SQUARES = {"Square", "SquaredDifference", "L2Loss"}
_QUOTIENTS = {"RealDiv", "Div", "DivNoNan"}
_RESHAPES = {"Identity", "Reshape", "Squeeze", "ExpandDims"}


_ATOMS = {
    "Square": Atom(1),
    "SquaredDifference": Atom(1),
    "L2Loss": Atom(1),
    "Exp": Atom(1),
    "Expm1": Atom(1),
    "Cosh": Atom(1),
    "Softplus": Atom(1),
    "Elu": Atom(1),
    "Rsqrt": Atom(1),
    "Log": Atom(-1),
    "Log1p": Atom(-1),
    "Sqrt": Atom(-1),
    "Xlogy": Atom(-1),
    "LogSoftmax": Atom(-1, coupling=Coupling.ROWS),
    "Abs": Atom(1, curved=False),
    "Relu": Atom(1, curved=False),
    "LeakyRelu": Atom(1, curved=False),
    "Maximum": Atom(1, curved=False),
    "CumulativeLogsumexp": Atom(1, coupling=Coupling.ALL),
    "Max": Atom(1, curved=False, coupling=Coupling.ALL),
    "Minimum": Atom(-1, curved=False),
    "Min": Atom(-1, curved=False, coupling=Coupling.ALL),
}


def atom(op: tf.Operation, moving: Collection[str]) -> tuple[Atom, list[tf.Tensor]] | None:
    """What kind of function an operation is, and of which tensors; None if no rule knows it."""
    inputs = _moving_inputs(op, moving)
    if not inputs:
        return None
    if op.type in ("Maximum", "Minimum"):
        return _ATOMS[op.type], inputs
    if _is_square(op):
        behind = _behind_norm(inputs[0], moving)
        return _ATOMS["Square"], [behind_magnitude(inputs[0], moving) if behind is None else behind]
    by_itself = _times_itself(op)
    if by_itself is not None:
        return _ATOMS["Square"], [behind_magnitude(by_itself, moving)]
    if len(inputs) > 1:
        return None
    if op.type in _COMPOSITIONS:
        composed = _COMPOSITIONS[op.type](inputs[0], moving)
        if composed is not None:
            return composed[0], [composed[1]]
    if op.type == "Pow":
        exponent = tf.get_static_value(op.inputs[1])
        even = exponent is not None and np.all(exponent >= 2) and np.all(exponent % 2 == 0)
        return (_ATOMS["Square"], [behind_magnitude(inputs[0], moving)]) if even else None
    if op.type == "Xlogy" and inputs[0] is not op.inputs[1]:
        return None
    if op.type == "LeakyRelu" and not 0 <= op.get_attr("alpha") <= 1:
        return None
    return (_ATOMS[op.type], inputs) if op.type in _ATOMS else None


def linear_inputs(tensor: tf.Tensor, moving: Collection[str]) -> list[tuple[tf.Tensor, int]] | None:
    """The inputs in which `tensor` is linear, with the signs of their factors; None if not.

    A sign of 0 stands for factors of both signs.
    """
    op = tensor.op
    inputs = _moving_inputs(op, moving)
    if not inputs:
        return None
    if op.type in _POSITIVE:
        return [(t, 1) for t in inputs]
    if op.type == "IdentityN" and "_gradient_op_type" not in op.node_def.attr:
        return [(op.inputs[tensor.value_index], 1)]
    if op.type == "Neg":
        return [(inputs[0], -1)]
    if op.type == "Sub":
        first, second = op.inputs
        return [(t, s) for t, s in ((first, 1), (second, -1)) if t.name in moving]
    if len(inputs) > 1:
        return None
    if op.type == "Mul" or (op.type in _QUOTIENTS and inputs[0] is op.inputs[0]):
        (other,) = [t for t in op.inputs if t is not inputs[0]]
        return [(inputs[0], _sign(other))]
    if op.type in _BILINEAR:
        values = [tf.get_static_value(t) for t in op.inputs if t is not inputs[0]]
        positive = all(value is not None and np.all(value >= 0) for value in values)
        return [(inputs[0], 1 if positive else 0)]
    return None


# --- compositions ---------------------------------------------------------------------------


def _log(argument: tf.Tensor, moving: Collection[str]) -> tuple[Atom, tf.Tensor] | None:
    """log Σ exp(t) and log(1 + exp(t)), convex; log exp(t); log p of a probability p, concave.

    p is σ(t), 1 - σ(t) or softmax(t). And log(c / p), as a Kullback-Leibler divergence has it,
    which is -log p and a constant.
    """
    inside = argument.op
    exponent = _in_one_plus_exp(argument, moving)
    if exponent is not None:
        return Atom(1), exponent
    logit = _logit(argument, moving)
    if logit is not None:
        return Atom(-1), logit
    if inside.type in _QUOTIENTS and [t.name for t in _moving_inputs(inside, moving)] == [
        inside.inputs[1].name
    ]:
        of_divisor, inner = _log(inside.inputs[1], moving) or (_ATOMS["Log"], inside.inputs[1])
        return of_divisor._replace(sign=-of_divisor.sign), inner
    if inside.type == "Sum" and inside.inputs[0].op.type == "Exp":
        return Atom(1, coupling=_reduced(inside)), inside.inputs[0].op.inputs[0]
    probability = _behind_clips(argument, moving)
    if probability.op.type == "Exp":  # but for the constant that is added
        return Atom(0), probability.op.inputs[0]
    if probability.op.type == "Sub" and tf.get_static_value(probability.op.inputs[0]) == 1:
        probability = _behind_clips(probability.op.inputs[1], moving)
        logit = _logit(probability, moving, taken_from_one=True)
    else:
        logit = _logit(probability, moving)
    if logit is not None:
        return Atom(-1), logit
    if probability is not argument and _is_over_its_sum(probability.op):
        probability = _behind_clips(probability.op.inputs[0], moving)
    if probability.op.type == "Softmax":
        return Atom(-1, coupling=Coupling.ROWS), probability.op.inputs[0]
    return None


def _is_over_its_sum(op: tf.Operation) -> bool:
    """Whether this is p / Σ p, over the last axis, which Keras makes of probabilities."""
    if op.type != "RealDiv":
        return False
    above, below = op.inputs
    if below.op.type != "Sum" or below.op.inputs[0].name != above.name or above.shape.rank is None:
        return False
    axis = tf.get_static_value(below.op.inputs[1])
    if axis is None or not below.op.get_attr("keep_dims"):
        return False
    return bool(np.all(axis % above.shape.rank == above.shape.rank - 1))


def _in_one_plus_exp(tensor: tf.Tensor, moving: Collection[str]) -> tf.Tensor | None:
    """t of 1 + exp(t), or of another number in the place of 1 that is not small."""
    op, inputs = tensor.op, _moving_inputs(tensor.op, moving)
    if op.type not in ("AddV2", "Add") or len(inputs) != 1 or inputs[0].op.type != "Exp":
        return None
    (other,) = [tf.get_static_value(t) for t in op.inputs if t is not inputs[0]]
    return inputs[0].op.inputs[0] if other is not None and np.all(other > _SMALL) else None


def _logit(
    tensor: tf.Tensor, moving: Collection[str], taken_from_one: bool = False
) -> tf.Tensor | None:
    """t or -t of σ(t), written as it is, or as 1 / (1 + exp(-t)) or exp(t) / (1 + exp(t)).

    Args:
        tensor: σ(t).
        moving: See `moving_tensors`.
        taken_from_one: Whether 1 - σ(t) is what is to be log-concave: 1 - c / (a + exp(t)) is so
            for no c below a.
    """
    op = tensor.op
    if op.type == "Sigmoid":
        return op.inputs[0]
    if op.type not in _QUOTIENTS:
        return None
    above, exponent = op.inputs[0], _in_one_plus_exp(op.inputs[1], moving)
    number = above.name not in moving and tf.get_static_value(above) is not None
    if number and taken_from_one and exponent is not None:
        added = [tf.get_static_value(t) for t in op.inputs[1].op.inputs if t.name not in moving]
        number = bool(np.all(tf.get_static_value(above) >= added[0]))
    same = exponent is not None and above.op.type == "Exp" and above.op.inputs[0] is exponent
    return exponent if number or same else None


def _sqrt(argument: tf.Tensor, moving: Collection[str]) -> tuple[Atom, tf.Tensor] | None:
    """√(Σ t² + c), a norm."""
    op = argument.op
    if op.type in ("AddV2", "Add", "Maximum"):
        inputs = _moving_inputs(op, moving)
        if len(inputs) == 1 and all(_sign(t) > 0 for t in op.inputs if t is not inputs[0]):
            op = inputs[0].op
    if _is_square(op):
        return Atom(1), op.inputs[0]
    if op.type in ("Sum", "Mean") and _is_square(op.inputs[0].op):
        squared = behind_magnitude(op.inputs[0].op.inputs[0], moving)
        return Atom(1, coupling=_reduced(op)), squared
    return None


def _log1p(argument: tf.Tensor, moving: Collection[str]) -> tuple[Atom, tf.Tensor] | None:
    """log(1 + exp(t)), convex."""
    del moving
    return (Atom(1), argument.op.inputs[0]) if argument.op.type == "Exp" else None


_COMPOSITIONS: dict[str, Callable[..., tuple[Atom, tf.Tensor] | None]] = {
    "Log": _log,
    "Log1p": _log1p,
    "Sqrt": _sqrt,
}


def _is_square(op: tf.Operation) -> bool:
    """True if this is t², written as a square, as t t or as a power."""
    is_product = op.type == "Mul" and op.inputs[0].name == op.inputs[1].name
    return op.type == "Square" or is_product or _has_exponent_two(op)


def _has_exponent_two(op: tf.Operation) -> bool:
    exponent = tf.get_static_value(op.inputs[1]) if op.type == "Pow" else None
    return exponent is not None and bool(np.all(exponent == 2))


def _times_itself(op: tf.Operation) -> tf.Tensor | None:
    """t of Σ t², written as the product rᵀ r of a column r, or as an Einstein sum."""
    if len(op.inputs) != 2:
        return None
    if op.type == "Einsum":
        terms, arrow, _ = op.get_attr("equation").decode().replace(" ", "").partition("->")
        first, _, second = terms.partition(",")
        each_once = len(set(first)) == len(first) and "." not in first
        same = op.inputs[0].name == op.inputs[1].name
        return op.inputs[0] if arrow and first == second and each_once and same else None
    # Of more axes, those of a batch may be broadcast: products of each with each.
    if op.type != "MatMul" or op.outputs[0].shape.as_list() != [1, 1]:
        return None
    left, right = map(_behind_reshapes, op.inputs)
    return left if left.name == right.name else None


def _behind_reshapes(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in _RESHAPES:
        tensor = tensor.op.inputs[0]
    return tensor


def _behind_norm(tensor: tf.Tensor, moving: Collection[str]) -> tf.Tensor | None:
    """t of √(Σ t² + c), of which the square is as convex in each t as their squares are."""
    root = _behind_reshapes(tensor).op
    norm = _sqrt(root.inputs[0], moving) if root.type == "Sqrt" else None
    return None if norm is None else norm[1]


def _behind_clips(tensor: tf.Tensor, moving: Collection[str]) -> tf.Tensor:
    """`tensor` before it was kept away from zero: by limits, or a small constant added to it."""
    while True:
        op = tensor.op
        inputs = _moving_inputs(op, moving)
        if len(inputs) != 1:
            return tensor
        others = [tf.get_static_value(t) for t in op.inputs if t is not inputs[0]]
        limits = op.type in ("Maximum", "Minimum", "ClipByValue")
        small = op.type in ("AddV2", "Add") and all(
            c is not None and np.all((c >= 0) & (c <= _SMALL)) for c in others
        )
        if not (limits or small or op.type in ("Identity", "Cast")):
            return tensor
        tensor = inputs[0]


def _reduced(op: tf.Operation) -> Coupling:
    """Which elements of its input a reduction brings together."""
    axes, rank = tf.get_static_value(op.inputs[1]), op.inputs[0].shape.rank
    if axes is None or rank is None or rank < 2:
        return Coupling.ALL
    return Coupling.ROWS if {int(n) % rank for n in np.ravel(axes)} == {rank - 1} else Coupling.ALL


# --- signs --------------------------------------------------------------------------------------


def _moving_inputs(op: tf.Operation, moving: Collection[str]) -> list[tf.Tensor]:
    return [t for t in op.inputs if t.name in moving]


def _sign(factor: tf.Tensor) -> int:
    """The sign of what does not move: 0 if mixed. Data count as positive.

    Labels, sample weights and counts are so where a loss is convex at all. Where they are not, the
    curvature of the term is cut off at zero when the step runs.
    """
    value = tf.get_static_value(factor)
    if value is not None:
        return 1 if np.all(value >= 0) else -1 if np.all(value <= 0) else 0
    op = factor.op
    if op.type == "Neg":
        return -_sign(op.inputs[0])
    if op.type in ("Mul", *_QUOTIENTS):
        return _sign(op.inputs[0]) * _sign(op.inputs[1])
    if op.type in ("Cast", "Identity", "Reshape", "ExpandDims", "Squeeze", "BroadcastTo"):
        return _sign(op.inputs[0])
    return 1
