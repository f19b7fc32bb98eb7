"""Which operations have the derivatives that a curvature needs; the others are refused by name.

    a path          operations between a weight and the loss, through tensors that have a derivative
    first order     each of them has one, or the gradient is not the loss's
    second order    so have the operations that its gradient is made of, or H v and J v are wrong

TensorFlow raises an error of its own where an operation has no gradient, and counts silently as
zero what is marked as not differentiable. Each type of operation on a path is one of these:

    TWICE_DIFFERENTIABLE   TensorFlow's own derivatives will do
    FORMS                  run again as something equal whose derivatives will do (`forms`)
    IDENTITIES             run again as nothing at all
    CONSTANT               its derivative is truly zero, or meant to be: the path ends
    WITHOUT_SECOND, WITHOUT_FIRST            refused, with what to use instead
    any other              refused: nobody has looked at it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss import control_flow, ctc, custom_gradients
from keras_qnewton.loss.differentiable import TWICE_DIFFERENTIABLE
from keras_qnewton.loss.forms import FORMS
from keras_qnewton.loss.raw import LossNotReplayableError
from keras_qnewton.loss.replayable import IDENTITIES, VALUE_INDEPENDENT
from keras_qnewton.loss.stretches import Stretch

# Integers of another precision, positions and shapes; a comparison's result is no float anyway.
CONSTANT = VALUE_INDEPENDENT | {
    "BroadcastGradientArgs",
    "Ceil",
    "EditDistance",
    "Floor",
    "FloorDiv",
    "Rint",
    "Round",
    "Sign",
    "StatelessRandomBinomial",
    "StatelessRandomPoisson",
    "StopGradient",
    "TruncateDiv",
}


class _Refused(NamedTuple):
    """Why an operation is refused.

    Attributes:
        instead: What to use, a sentence.
        inputs: Positions of the inputs in which there is no derivative; empty for all.
    """

    instead: str
    inputs: tuple[int, ...] = ()


_BY_OTHERS = "Write it as TensorFlow operations that have a derivative."
_HOLD = "Hold that argument constant, with `tf.stop_gradient`."

# Without a first derivative in TensorFlow.
WITHOUT_FIRST = {
    "AdjustContrastv2": _Refused("Write it as (x - mean) * factor + mean."),
    "Betainc": _Refused(_HOLD, (0, 1)),
    "ExtractGlimpse": _Refused("Use `tf.image.crop_and_resize`."),
    "ExtractGlimpseV2": _Refused("Use `tf.image.crop_and_resize`."),
    **{
        f"FusedBatchNorm{version}": _Refused("Use `tf.nn.batch_normalization`.", (3, 4))
        for version in ("", "V2", "V3")
    },
    "FFTND": _Refused("Use `tf.signal.fft`, `fft2d` or `fft3d`."),
    "IFFTND": _Refused("Use `tf.signal.ifft`, `ifft2d` or `ifft3d`."),
    "IRFFT3D": _Refused("Use `tf.signal.ifft3d`."),
    "IRFFTND": _Refused("Use `tf.signal.irfft` or `irfft2d`."),
    "MatrixDiagPartV2": _Refused(_HOLD, (2,)),
    "MatrixDiagPartV3": _Refused(_HOLD, (2,)),
    "MatrixDiagV2": _Refused(_HOLD, (4,)),
    "MatrixDiagV3": _Refused(_HOLD, (4,)),
    "MatrixSolveLs": _Refused(_HOLD, (2,)),
    "OneHot": _Refused("Multiply `tf.one_hot(indices, depth)` by the values."),
    "PadV2": _Refused("Concatenate the value instead of padding with it.", (2,)),
    "Polygamma": _Refused(_HOLD, (0,)),
    "RFFT3D": _Refused("Use `tf.signal.fft3d`."),
    "RFFTND": _Refused("Use `tf.signal.rfft` or `rfft2d`."),
    "ResizeArea": _Refused("Use `tf.nn.avg_pool2d`, or a bilinear interpolation."),
    "SparseConcat": _Refused("Join the dense tensors, `tf.sparse.to_dense`."),
    "SparseDenseCwiseAdd": _Refused("Add the dense tensors, `tf.sparse.to_dense`."),
    "ScaleAndTranslate": _Refused(_HOLD, (2, 3)),
    "Zeta": _Refused(_HOLD, (0,)),
}

# Whose gradient cannot be differentiated.
WITHOUT_SECOND = {
    "BlockLSTM": _Refused("Use `keras.layers.LSTM`."),
    "BlockLSTMV2": _Refused("Use `keras.layers.LSTM`."),
    "CTCLoss": _Refused(ctc.INSTEAD),
    "CTCLossV2": _Refused(ctc.INSTEAD),
    "CropAndResize": _Refused("Use method='bilinear', or hold the boxes constant.", (1,)),
    "Igamma": _Refused(_HOLD, (0,)),
    "Igammac": _Refused(_HOLD, (0,)),
    "MaxPoolGradV2": _Refused("Pass the window of a max-pooling as Python integers."),
    "QuantizeAndDequantizeV4": _Refused("Use `tf.quantization.fake_quant_with_min_max_vars`."),
    "RaggedTensorToVariant": _Refused("Use `to_tensor()` of the ragged tensor."),
    "SparseAdd": _Refused("Add the dense tensors, `tf.sparse.to_dense`."),
    "SparseSlice": _Refused("Slice the dense tensor, `tf.sparse.to_dense`."),
    "SparseSoftmax": _Refused("Mask the dense tensor, and use `tf.nn.softmax`."),
    "StatelessParameterizedTruncatedNormal": _Refused(
        "Move and scale a truncated normal sample of fixed parameters."
    ),
    "StatelessRandomGammaV2": _Refused(_HOLD),
    "StatelessRandomGammaV3": _Refused(_HOLD),
}


def check_first(part: Stretch) -> None:
    """Refuses operations on a path that TensorFlow has no derivative of.

    Raises:
        LossNotReplayableError: If there is one; it names the operation and its layer.
    """
    for op, inputs in on_paths(part):
        _check(op, inputs, WITHOUT_FIRST, _without(op))
        if not _is_known(op):
            raise _error(op, _without(op), _BY_OTHERS)


def check_second(part: Stretch) -> None:
    """Refuses operations on a path whose gradient TensorFlow cannot differentiate.

    See `check_first`, which has to come before.
    """
    for op, inputs in on_paths(part):
        if ctc.is_dense_loss(op):
            raise _error(op, "has no second derivative in TensorFlow", ctc.INSTEAD)
        if op.type == "CropAndResize" and op.get_attr("method") != b"nearest":
            continue
        _check(op, inputs, WITHOUT_SECOND, "has no second derivative in TensorFlow")


def on_paths(part: Stretch) -> list[tuple[tf.Operation, list[int]]]:
    """The operations on paths of differentiable tensors, and their inputs on these; last first."""
    reached, forward = set(part.start), []
    for op in part.operations:
        inputs = [
            i for i, t in enumerate(op.inputs) if t.name in reached and has_derivative(t.dtype)
        ]
        if inputs and op.type not in CONSTANT:
            forward.append((op, inputs))
            reached.update(t.name for t in op.outputs if has_derivative(t.dtype))
    wanted, found = {t.name for t in part.outputs}, []
    for op, inputs in reversed(forward):
        if any(t.name in wanted for t in op.outputs):
            inside = _differentiated(op, inputs)
            wanted.update(op.inputs[i].name for i in inside)
            if inside:
                found.append((op, inside))
    return found


def has_derivative(dtype: tf.DType) -> bool:
    """Whether tensors of this kind may have a derivative, or hold what has one."""
    return dtype.is_floating or dtype.is_complex or dtype in (tf.variant, tf.resource)


def _differentiated(op: tf.Operation, inputs: Sequence[int]) -> list[int]:
    """Which of these inputs the gradient of an operation goes on to."""
    if op.type in IDENTITIES:
        return [i for i in inputs if i == 0]
    given = custom_gradients.differentiated_inputs(op)
    return [i for i in inputs if given is None or i in given]


def _is_known(op: tf.Operation) -> bool:
    tables = (TWICE_DIFFERENTIABLE, FORMS, IDENTITIES, WITHOUT_SECOND, control_flow.TYPES)
    return any(op.type in table for table in tables) or custom_gradients.is_given(op)


def _check(op: tf.Operation, inputs: Sequence[int], table: dict[str, _Refused], what: str) -> None:
    row = table.get(op.type)
    if row is None or custom_gradients.is_given(op):
        return
    if not row.inputs:
        raise _error(op, what, row.instead)
    at = [i for i in inputs if i in row.inputs]
    if at:
        names = ", ".join(repr(op.op_def.input_arg[i].name) for i in at)
        raise _error(op, f"{what}, in its argument {names}", row.instead)


def _without(op: tf.Operation) -> str:
    """What is missing of an operation's derivative, in a relative clause."""
    try:
        gradient = _tf_private.registered_gradient(op.type)
    except LookupError:
        return "has no derivative in TensorFlow"
    if op.type in WITHOUT_FIRST or gradient is None:
        return "has a derivative that TensorFlow counts as zero"
    return "has a derivative that is not known to have a derivative in its turn"


def _error(op: tf.Operation, what: str, instead: str) -> LossNotReplayableError:
    layer = op.name.rpartition("/")[0]
    where = f", in layer or scope {layer!r}" if layer else ""
    return LossNotReplayableError(
        f"The loss depends on the weights through {op.type!r} ({op.name!r}{where}), which {what}. "
        f"{instead}"
    )
