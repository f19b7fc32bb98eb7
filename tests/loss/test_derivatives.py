"""The table of operations against TensorFlow's own registry of gradients."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from keras_qnewton import QNewton, _tf_private
from keras_qnewton.curvature import hessian, hvp
from keras_qnewton.loss import LossNotReplayableError, control_flow, derivatives
from keras_qnewton.loss.differentiable import TWICE_DIFFERENTIABLE
from keras_qnewton.loss.forms import FORMS
from keras_qnewton.loss.replayable import IDENTITIES
from keras_qnewton.loss.stretches import Stretch
from tests.derivatives import differences, flat_gradient, relative_error

KNOWN = TWICE_DIFFERENTIABLE | set(FORMS) | IDENTITIES | set(control_flow.TYPES)
# Gradients of TensorFlow for what a loss's path does not have: TensorFlow 1's loops and arrays,
# collective and device operations, what has a state, and matrices in a format of their own.
ELSEWHERE = (
    "AllToAll", "BatchNormWithGlobal", "CSRSparse", "Collective", "CompositeTensor", "CrossReplica",
    "CudnnRNN", "DebugGradient", "DenseToCSR", "EagerPyFunc", "Enter", "Exit", "Merge", "Nccl",
    "NextIteration", "Optional", "PreventGradient", "QuantizeAndDequantize", "RandomGamma", "Ref",
    "SparseMatrix", "SparseSparse", "SparseTensorToCSR", "Switch", "TPU", "TensorArray", "TopK",
)  # fmt: skip
FLOATS = (tf.float32, tf.complex64, tf.float64)


def has_gradient(name):
    try:
        return _tf_private.registered_gradient(name) is not None
    except LookupError:
        return False


def carries(definition, arguments):
    """Whether some of an operation's arguments may have a derivative."""
    for argument in arguments:
        kinds = [argument.type]
        of_attribute = argument.type_attr or argument.type_list_attr
        if of_attribute:
            (found,) = [a for a in definition.attr if a.name == of_attribute]
            kinds = list(found.allowed_values.list.type) or [tf.float32]
        if any(derivatives.has_derivative(tf.as_dtype(kind)) for kind in kinds if kind):
            return True
    return False


def registered():
    """Types of operations with a gradient, from and to what may have a derivative."""
    for name in dir(tf.raw_ops):
        definition = op_def_registry.get(name)
        if definition is not None and has_gradient(name):
            ends = (definition.input_arg, definition.output_arg)
            if all(carries(definition, arguments) for arguments in ends):
                yield name


def placeholders(definition, attributes, shape):
    found = []
    for argument in definition.input_arg:
        if argument.type_list_attr:
            kinds = attributes[argument.type_list_attr]
            found.append([tf.compat.v1.placeholder(t, shape) for t in kinds])
            continue
        kind = attributes[argument.type_attr] if argument.type_attr else argument.type
        kind = tf.as_dtype(kind)
        of_floats = shape if kind.is_floating or kind.is_complex else None
        count = attributes[argument.number_attr] if argument.number_attr else 1
        tensors = [tf.compat.v1.placeholder(kind, of_floats) for _ in range(count)]
        found.append(tensors if argument.number_attr else tensors[0])
    return found


def attribute(definition):
    """A value that most operations take."""
    if definition.type == "type":
        allowed = [tf.as_dtype(t) for t in definition.allowed_values.list.type]
        return next((t for t in FLOATS if not allowed or t in allowed), (allowed or FLOATS)[0])
    values = {
        "int": 2,
        "float": 0.5,
        "bool": False,
        "shape": tf.TensorShape(None),
        "list(type)": [tf.float32, tf.float32],
        "list(int)": [1, 1, 1, 1],
    }
    allowed = definition.allowed_values.list.s
    return values.get(definition.type, allowed[0].decode() if allowed else "VALID")


def made(name, definition, shape):
    """An operation of this type on placeholders."""
    attributes = {
        a.name: attribute(a)
        for a in definition.attr
        if a.type == "type" or not a.HasField("default_value")
    }
    function = getattr(tf.raw_ops, name)
    names = [a.name for a in definition.input_arg]
    arguments = dict(zip(names, placeholders(definition, attributes, shape), strict=True))
    inferred = {
        kind
        for a in definition.input_arg
        for kind in (a.number_attr, a.type_attr, a.type_list_attr)
        if kind
    }
    arguments |= {k: v for k, v in attributes.items() if k not in inferred}
    accepted = [p for p in inspect.signature(function.__wrapped__).parameters if p != "name"]
    renamed = [k for k in arguments if k not in accepted]
    free = [k for k in accepted if k not in arguments]
    for old, new in zip(renamed, free, strict=False):
        arguments[new] = arguments.pop(old)
    return tf.nest.flatten(function(**arguments))[0].op


def gradient_of(name):
    """The operations of a gradient, from u and the operation's tensors to v; None if not made.

    But for those of arguments in which there is none that can be used.
    """
    definition, gradient = op_def_registry.get(name), _tf_private.registered_gradient(name)
    for shape in (None, [None, None], [2, 3, 3, 2], [None], []):
        with tf.Graph().as_default() as graph:
            try:
                op = made(name, definition, shape)
                upstream = [tf.compat.v1.placeholder(t.dtype, t.shape) for t in op.outputs]
                before = len(graph.get_operations())
                found = gradient(op, *upstream)
            except (TypeError, ValueError, AttributeError, NotImplementedError):
                continue
        found = found if isinstance(found, (list, tuple)) else [found]
        rows = [
            table[name]
            for table in (derivatives.WITHOUT_FIRST, derivatives.WITHOUT_SECOND)
            if name in table
        ]
        held = {i for row in rows for i in row.inputs}
        start = [t.name for i, t in enumerate(op.inputs) if i not in held]
        start += [t.name for t in (*op.outputs, *upstream)]
        outputs = [
            v.values if isinstance(v, tf.IndexedSlices) else v
            for i, v in enumerate(found)
            if i not in held and v is not None
        ]
        return Stretch(graph.get_operations()[before:], start, outputs, False)
    return None


@pytest.mark.parametrize("name", sorted(TWICE_DIFFERENTIABLE))
def test_gradients_are_of_operations_that_have_gradients(name):
    assert has_gradient(name)
    stretch = gradient_of(name)
    if stretch is not None:
        derivatives.check_first(stretch)


def test_most_gradients_could_be_made():
    made = [name for name in TWICE_DIFFERENTIABLE if gradient_of(name) is not None]
    assert len(made) > 0.85 * len(TWICE_DIFFERENTIABLE)


def test_every_operation_with_a_gradient_has_been_looked_at():
    refused = {*derivatives.WITHOUT_SECOND, *derivatives.WITHOUT_FIRST, *derivatives.CONSTANT}
    unknown = {name for name in registered() if name not in KNOWN | refused}
    assert [name for name in sorted(unknown) if not name.startswith(ELSEWHERE)] == []


def test_an_operation_is_in_one_table():
    tables = (TWICE_DIFFERENTIABLE, FORMS, IDENTITIES, derivatives.CONSTANT)
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))


def test_an_operation_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(derivatives, "TWICE_DIFFERENTIABLE", TWICE_DIFFERENTIABLE - {"Erf"})
    w = tf.Variable([0.3])
    with pytest.raises(LossNotReplayableError, match=r"'Erf'.*not known to have a derivative"):
        hessian(lambda: tf.reduce_sum(tf.math.erf(w)), [w])


# --- what looks at a tensor and passes it on --------------------------------------------------


def looked_at(look):
    w = tf.Variable([0.3, -1.2, 0.8], dtype=tf.float64)
    return w, lambda: tf.reduce_sum(look(tf.exp(w)) * tf.sin(w))


def asserted(x):
    with tf.control_dependencies([tf.debugging.assert_greater(x, tf.zeros_like(x))]):
        return tf.identity(x)


def printed(x):
    tf.print(tf.shape(x), output_stream="file:///dev/null")
    return x


def summarised(x):
    with tf.summary.create_noop_writer().as_default():
        tf.summary.scalar("mean", tf.reduce_mean(x), step=0)
    return x


LOOKS = {
    "check_numerics": lambda x: tf.debugging.check_numerics(x, "x"),
    "check_numerics, signs": lambda x: tf.raw_ops.CheckNumericsV2(tensor=x, message="x"),
    "Print": lambda x: tf.raw_ops.Print(input=x, data=[x], message="", first_n=0),
    "assert": asserted,
    "print": printed,
    "summary": summarised,
    "identities": lambda x: tf.identity_n([x, x * 2.0])[0],
    "shape": lambda x: tf.ensure_shape(x, [3]),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_looks_at_a_tensor_changes_no_derivative(look):
    w, loss_fn = looked_at(look)
    (block,) = hessian(loss_fn, [w])
    value = w.numpy()
    expected = 2 * np.exp(value) * np.cos(value)  # of exp(w) sin(w)
    np.testing.assert_allclose(block.matrix, np.diag(expected), rtol=1e-12)


def test_a_step_to_numbers_that_are_not_finite_is_refused_and_not_an_error():
    """A check of the prediction: the trial step, which overflows, must not end training."""
    w = tf.Variable(-4.0)

    def loss_fn():
        prediction = tf.debugging.check_numerics(tf.exp(3 * w), "prediction")
        return (tf.math.log1p(prediction) - 2.0) ** 2

    optimizer = QNewton()
    step = tf.function(lambda: optimizer.minimize(loss_fn, [w]), autograph=False)
    for _ in range(40):
        step()
    assert float(loss_fn()) < 1e-8


# --- variables ----------------------------------------------------------------------------------

NOT_REAL = {
    "complex64": tf.complex(3.0, 2.0),
    "complex128": tf.constant(1j, tf.complex128),
    "int32": tf.constant(3),
    "bool": tf.constant(True),
}


@pytest.mark.parametrize("dtype", NOT_REAL)
def test_variables_that_are_not_real_are_refused_by_name_before_the_loss_is_called(dtype):
    real, other = tf.Variable(1.0, name="real"), tf.Variable(NOT_REAL[dtype], name="other")
    called = []
    for use in (
        lambda f: QNewton().minimize(f, [real, other]),
        lambda f: QNewton().build([real, other]),
        lambda f: hessian(f, [real, other]),
    ):
        with pytest.raises(ValueError, match=f"real variables.*Received: 'other:0' of {dtype}"):
            use(lambda: called.append(real))
    assert called == []


def test_keras_models_with_trainable_integers_are_refused():
    class Counting(keras.layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.count = self.add_weight(name="count", shape=(), dtype="int32", trainable=True)

    model = keras.Sequential([keras.layers.Input((2,)), Counting(1)])
    model.compile(optimizer=QNewton(), loss="mse")
    with pytest.raises(ValueError, match="'count' of int32"):
        model.fit(np.ones((3, 2)), np.ones((3, 1)), verbose=0)


# --- moments of a variable --------------------------------------------------------------------


def test_standardised_weights_have_their_hessian():
    """`tf.nn.moments` of a variable reads it twice."""
    w = tf.Variable(np.random.default_rng(0).normal(size=(3, 4)))

    def loss_fn():
        mean, variance = tf.nn.moments(w, 0)
        return tf.reduce_sum(tf.exp((w - mean) * tf.math.rsqrt(variance + 1e-3)))

    direction = np.random.default_rng(1).normal(size=(3, 4))
    (along,) = hvp(loss_fn, [w], [direction])
    measured = differences(flat_gradient(loss_fn, [w]), [w], direction.ravel())
    assert relative_error(np.ravel(along), measured) < 1e-9
