"""Equal forms: TensorFlow's value and gradient, and the second derivative that it lacks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature import hessian, hvp
from keras_qnewton.loss import LossNotReplayableError
from keras_qnewton.loss.forms import FORMS
from tests.derivatives import differences, fd_hessian, flat_gradient, relative_error
from tests.loss.many_functions import START, D, ManyFunctions

RNG = np.random.default_rng(1)
FILTERS = RNG.normal(size=(2, 2, 1))
IMAGE = RNG.normal(size=(2, 5, 5, 3)).astype("float32")
BOXES = np.array([[0.1, 0.15, 0.83, 0.92], [0.3, -0.2, 0.6, 1.2], [0.9, 0.8, 0.2, 0.1]])
IDS = tf.sparse.from_dense(tf.constant([[1, 3, 3], [2, 1, 1]], tf.int64))
AMOUNTS = tf.sparse.from_dense(tf.constant([[0.5, 3, 3], [2, 1, 1.0]], D))
CELLS = tf.constant([[0, 1], [0, 2], [2, 0]], tf.int64)


def image(w):
    return tf.reshape(tf.tanh(w), [1, 4, 4, 1])


def images(w):
    """Two of three rows, six columns and two channels, whose entries differ."""
    there = tf.tile(tf.reshape(tf.sin(w), [-1]), [5])[:72]
    return tf.reshape(there * np.linspace(0.5, 1.5, 72), [2, 3, 6, 2])


def single(w):
    return tf.cast(image(w), tf.float32)


def resized(method, size, **options):
    return lambda w: tf.image.resize(single(w), size, method, **options)


def at_old_corners(name):
    return lambda w: getattr(tf.raw_ops, name)(images=image(w), size=(6, 7), align_corners=True)


def crops(method, size=(3, 4)):
    owners = [0, 0, 0]
    return lambda w: tf.image.crop_and_resize(single(w), BOXES, owners, size, method)


def crops_at(size):
    def at(w):
        boxes = tf.cast(BOXES + 0.02 * tf.reshape(w, [-1])[:4], tf.float32)
        return tf.image.crop_and_resize(IMAGE, boxes, [0, 1, 1], size, extrapolation_value=0.4)

    return at


def pooled(x_of=image, ksize=2, strides=1, padding="SAME", **options):
    return lambda w: tf.nn.max_pool_with_argmax(x_of(w), ksize, strides, padding, **options)[0]


def pooled_by_tensors(w):
    window = {"ksize": [1, 3, 3, 1], "strides": [1, 1, 1, 1]}
    return tf.raw_ops.MaxPoolV2(input=image(w), padding="SAME", **window)


def by_fractions(kind, overlapping):
    pool = getattr(tf.nn, f"fractional_{kind}_pool")
    ratios = [1.0, 1.5, 1.2, 1.0]
    return lambda w: pool(images(w), ratios, overlapping=overlapping, seed=3)[0]


def looked_up(combiner, weights=None):
    return lambda w: tf.nn.embedding_lookup_sparse(w, IDS, weights, combiner=combiner)


def filled(w):
    return tf.raw_ops.SparseFillEmptyRows(
        indices=CELLS, values=w[0, :3], dense_shape=[4, 3], default_value=w[1, 1]
    ).output_values


def filled_ragged(w):
    return tf.raw_ops.RaggedFillEmptyRows(
        value_rowids=CELLS[:, 0], values=w[0, :3], nrows=4, default_value=w[1, 1]
    ).output_values


DOUBLE = {
    "softsign": tf.math.softsign,
    "nearest": lambda w: tf.image.resize(image(w), (7, 6), "nearest"),
    "nearest, smaller": lambda w: tf.image.resize(image(w), (3, 2), "nearest"),
    "nearest, corners": at_old_corners("ResizeNearestNeighbor"),
    "places of maxima": pooled(),
    "places of maxima, strides": pooled(strides=2, padding="VALID"),
    "places of maxima in a batch": pooled(
        lambda w: tf.reshape(tf.sin(w), [2, 2, 4, 1]), include_batch_in_index=True
    ),
    "max pool": lambda w: tf.nn.max_pool2d(image(w), 2, 2, "VALID"),
    "max pool of one": lambda w: tf.nn.max_pool2d(image(w), 1, 1, "SAME"),
    "max pool, same shape": lambda w: tf.nn.max_pool2d(image(w), 3, 1, "SAME"),
    "max pool by tensors": pooled_by_tensors,
    "max pool, explicit padding": lambda w: tf.nn.max_pool2d(
        image(w), 3, 1, [[0, 0], [1, 1], [1, 0], [0, 0]]
    ),
    "dilation": lambda w: tf.nn.dilation2d(
        image(w), FILTERS, [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1]
    ),
    "dilation, strides and rates": lambda w: tf.nn.dilation2d(
        image(w), FILTERS, [1, 2, 1, 1], "SAME", "NHWC", [1, 2, 1, 1]
    ),
    "filters of a dilation": lambda w: tf.nn.dilation2d(
        tf.cast(IMAGE[..., :1], D), w[:2, :2, None], [1, 2, 1, 1], "SAME", "NHWC", [1, 1, 1, 1]
    ),
    "erosion": lambda w: tf.nn.erosion2d(
        image(w), FILTERS, [1, 1, 1, 1], "VALID", "NHWC", [1, 1, 1, 1]
    ),
    **{
        f"{kind} of fractions{', overlapping' if overlapping else ''}": by_fractions(
            kind, overlapping
        )
        for kind in ("max", "avg")
        for overlapping in (False, True)
    },
    **{f"lookup, {c}": looked_up(c) for c in ("sum", "mean", "sqrtn")},
    **{f"weighted lookup, {c}": looked_up(c, AMOUNTS) for c in ("sum", "mean", "sqrtn")},
    "safe lookup": lambda w: tf.nn.safe_embedding_lookup_sparse(w, IDS, None, combiner="mean"),
    "segments": lambda w: tf.sparse.segment_sum(w, [0, 1, 3], [0, 0, 1]),
    "segments, some empty": lambda w: tf.sparse.segment_sqrt_n(
        w, [0, 1, 3, 3], [0, 0, 1, 3], num_segments=5
    ),
    "segments of slices": lambda w: tf.sparse.segment_mean(
        tf.reshape(w, [4, 2, 2]), [0, 1, 3], [0, 0, 1], num_segments=3
    ),
    "cumulative log-sum-exp": lambda w: tf.math.cumulative_logsumexp(3 * w, 0),
    "cumulative log-sum-exp, backwards": lambda w: tf.math.cumulative_logsumexp(
        tf.reshape(20 * w, [2, 4, 2]), 1, reverse=True
    ),
    "cumulative log-sum-exp of earlier ones": lambda w: tf.math.cumulative_logsumexp(
        w, -1, exclusive=True
    )[:, 1:],
    "filled rows": filled,
    "filled ragged rows": filled_ragged,
}
# These compute in single precision alone.
SINGLE = {
    **{m: resized(m, (7, 6)) for m in ("bilinear", "bicubic")},
    **{m: resized(m, (7, 6)) for m in ("lanczos3", "lanczos5", "gaussian", "mitchellcubic")},
    "bilinear, smaller": resized("bilinear", (3, 2)),
    "antialiased": resized("bilinear", (3, 2), antialias=True),
    "bilinear, corners": at_old_corners("ResizeBilinear"),
    "bicubic, corners": at_old_corners("ResizeBicubic"),
    "crops": crops("bilinear"),
    "crops of one row": crops("bilinear", (1, 3)),
    "nearest crops": crops("nearest"),
    "boxes": crops_at((3, 4)),
    "boxes of one row": crops_at((1, 4)),
    "local response": lambda w: tf.nn.local_response_normalization(
        tf.reshape(tf.cast(w, tf.float32), [1, 2, 2, 4]), 1, 1.2, 0.5, 0.7
    ),
    "local response, all channels": lambda w: tf.nn.local_response_normalization(
        tf.reshape(tf.cast(w, tf.float32), [1, 2, 4, 2])
    ),
}
CASES = {**DOUBLE, **SINGLE}
TOLERANCE = {D: 1e-10, tf.float32: 1e-3}


@pytest.fixture(scope="module")
def found():
    return {D: ManyFunctions(DOUBLE), tf.float32: ManyFunctions(SINGLE, step=3e-2)}


def dtype_of(name):
    return D if name in DOUBLE else tf.float32


@pytest.mark.parametrize("dtype", [D, tf.float32], ids=["double", "single"])
def test_values_are_tensorflows(found, dtype):
    value, again = found[dtype].values
    np.testing.assert_allclose(again, value, rtol=1e-14 if dtype == D else 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_first_derivatives_are_tensorflows(found, name):
    dtype = dtype_of(name)
    derivatives = found[dtype].of[name]
    error = relative_error(derivatives.gradient, derivatives.of_tensorflow)
    assert error < (1e-14 if dtype == D else 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_are_differences_of_gradients(found, name):
    dtype = dtype_of(name)
    derivatives = found[dtype].of[name]
    assert relative_error(derivatives.along, derivatives.measured) < TOLERANCE[dtype]


def test_rows_of_resized_images_are_vectorised():
    """One block is as its columns, which come one by one."""
    w = tf.Variable(START)

    def loss_fn():
        return tf.reduce_sum(tf.exp(tf.cast(resized("bilinear", (7, 6))(tf.identity(w)), D)))

    (block,) = hessian(loss_fn, [w])
    for unit, row in list(zip(np.eye(START.size), block.matrix, strict=True))[:3]:
        (column,) = hvp(loss_fn, [w], [unit.reshape(4, 4)])
        np.testing.assert_allclose(np.ravel(column), row, rtol=1e-5, atol=1e-7)


def test_cumulative_log_sum_exp_keeps_its_digits_in_single_precision():
    """As in Cox's partial likelihood, whose second derivatives are products of probabilities."""
    x = np.linspace(-2, 2, 6)
    w = tf.Variable(x, dtype=tf.float32)
    (block,) = hessian(lambda: tf.reduce_sum(tf.math.cumulative_logsumexp(w * 1.0)), [w])
    expected = np.zeros((6, 6))
    for k in range(6):
        p = np.zeros(6)
        p[: k + 1] = np.exp(x[: k + 1]) / np.exp(x[: k + 1]).sum()
        expected += np.diag(p) - np.outer(p, p)
    np.testing.assert_allclose(block.matrix, expected, atol=1e-6)


def product_by_hand(x):
    return [x[0] * x[1] * x[2] * x[3] * x[4]]


def running_products_by_hand(x, exclusive, reverse):
    x = tf.unstack(x)[:: -1 if reverse else 1]
    found, so_far = [], 1
    for one in x:
        found.append(so_far if exclusive else so_far * one)
        so_far = so_far * one
    return [tf.cast(t, x[0].dtype) for t in found[:: -1 if reverse else 1]]


def of_unknown_length(x):
    return tf.boolean_mask(x, tf.random.stateless_uniform([5], [1, 2]) < 2)


PRODUCTS = {
    "unknown length": (lambda x: [tf.reduce_prod(of_unknown_length(x))], product_by_hand),
    "product": (lambda x: [tf.reduce_prod(x)], product_by_hand),
    "kept axes": (
        lambda x: [tf.reduce_prod(tf.tile(x[:, None, None], [1, 1, 3]), [0, 1], keepdims=True)],
        lambda x: product_by_hand(x) * 3,
    ),
    "no axes": (lambda x: [tf.reduce_prod(x[None], [])], lambda x: [x]),
}
PRODUCTS |= {
    f"running {exclusive} {reverse}": (
        lambda x, e=exclusive, r=reverse: [tf.math.cumprod(x, -1, e, r)],
        lambda x, e=exclusive, r=reverse: running_products_by_hand(x, e, r),
    )
    for exclusive in (False, True)
    for reverse in (False, True)
}
PRODUCTS |= {
    f"unknown length, {name}": (
        lambda x, of=of: [tf.ensure_shape(t, [5]) for t in of(of_unknown_length(x))],
        by_hand,
    )
    for name, (of, by_hand) in PRODUCTS.items()
    if name.startswith("running")
}


@pytest.mark.parametrize("kind", ["zeros", "complex"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_have_second_derivatives_at_zero_and_of_complex_numbers(name, kind):
    """TensorFlow's divide by the elements, and are not conjugated."""
    start = {"zeros": [0.7, 0.0, -1.3, 0.0, 0.4], "complex": [0.7, -0.2, -1.3, 0.6, 0.4]}[kind]
    w = tf.Variable(np.array(start))

    def loss_of(function):
        def loss_fn():
            x = tf.identity(w) if kind == "zeros" else tf.complex(w, tf.sin(2 * w))
            found = tf.reshape(tf.stack([tf.reshape(t, [-1]) for t in function(x)]), [-1])
            amounts = tf.cast(np.linspace(0.5, 2, found.shape[0]), D)
            return tf.reduce_sum(amounts * tf.math.real(found + found**2))

        return loss_fn

    ours, by_hand = PRODUCTS[name]
    (block,) = hessian(loss_of(ours), [w])
    np.testing.assert_allclose(block.matrix, fd_hessian(loss_of(by_hand), [w]), atol=1e-9)


def test_a_product_of_no_elements_is_one():
    w = tf.Variable([2.0, 3.0], dtype=D)

    def loss_fn():
        return w[0] ** 2 * tf.reduce_prod(tf.boolean_mask(w, w > 5.0))

    (block,) = hessian(loss_fn, [w])
    np.testing.assert_array_equal(block.matrix, [[2.0, 0.0], [0.0, 0.0]])


def test_neighbours_are_multiplied_first():
    """Where the first two of four would overflow with the last two."""
    w = tf.Variable([1e20, 1e-20, 1e20, 1e-20], dtype=tf.float32)
    (block,) = hessian(lambda: tf.reduce_prod(w), [w])
    np.testing.assert_allclose(block.matrix[0], [0.0, 1.0, 1e-40, 1.0], atol=1e-30)


def in_a_condition(function):
    return lambda w: tf.cond(tf.reduce_sum(w) < 1e9, lambda: function(w * 1.0), lambda: function(w))


def in_a_function(function):
    return tf.function(function, autograph=False)


def in_a_loop(function):
    def run(w):
        turns = tf.cast(tf.reduce_sum(w) < 1e9, tf.int32) + 1
        first = (0, tf.zeros_like(function(w)))
        return tf.while_loop(lambda i, _: i < turns, lambda i, _: (i + 1, function(w)), first)[1]

    return run


PLACES = [in_a_condition, in_a_function, in_a_loop]


@pytest.mark.parametrize("place", PLACES, ids=[place.__name__ for place in PLACES])
@pytest.mark.parametrize("name", ["nearest", "softsign", "places of maxima", "lookup, mean"])
def test_forms_are_run_in_bodies_too(name, place):
    derivatives = ManyFunctions({name: place(DOUBLE[name])}).of[name]
    assert relative_error(derivatives.along, derivatives.measured) < TOLERANCE[D]


QUANTISED = {
    "known range": (
        lambda x, low, high: tf.quantization.fake_quant_with_min_max_args(x, -1.0, 1.0),
        (),
    ),
    "range": (tf.quantization.fake_quant_with_min_max_vars, ()),
    "range a channel": (tf.quantization.fake_quant_with_min_max_vars_per_channel, (4,)),
}


@pytest.mark.parametrize("function, shape", QUANTISED.values(), ids=QUANTISED)
def test_quantisation_is_differentiated_as_the_clip_that_its_gradient_is_of(function, shape):
    """Its derivative is zero in truth; what is given for it is that of a clip."""
    x = tf.Variable(START.astype("float32"))
    low, high = (tf.Variable(np.full(shape, n, "float32")) for n in (-1.0, 1.0))
    used = [x] if function is QUANTISED["known range"][0] else [x, low, high]

    def loss_of(quantise):
        return lambda: tf.reduce_sum(quantise(x, low, high) * tf.exp(x) * 0.1)

    def clipped(x, low, high):
        rounded = function(x, low, high)
        clip = tf.minimum(tf.maximum(x, low), high)
        return clip + tf.stop_gradient(rounded - clip)

    (ours,), (theirs,) = (hessian(loss_of(f), used) for f in (function, clipped))
    np.testing.assert_allclose(ours.gradient, theirs.gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.matrix, theirs.matrix, rtol=1e-5, atol=1e-6)


def test_pooling_by_a_window_that_is_not_known_is_refused():
    w, k = tf.Variable(START), tf.Variable([1, 3, 3, 1], trainable=False)

    def loss_fn():
        window = {"ksize": k, "strides": [1, 1, 1, 1]}
        pooled = tf.raw_ops.MaxPoolV2(input=image(w), padding="SAME", **window)
        return tf.reduce_sum(pooled**2)

    with pytest.raises(LossNotReplayableError, match="must be known while tracing"):
        hessian(loss_fn, [w])


@pytest.mark.parametrize("name", sorted(FORMS))
def test_forms_are_of_operations_that_tensorflow_has(name):
    assert hasattr(tf.raw_ops, name)
    assert name.endswith("Grad") or _tf_private.registered_gradient(name) is not None


def test_keras_models_with_softsign_have_their_hessian():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, "softsign", dtype="float64") for _ in range(2)]
    model = keras.Sequential([keras.layers.Input((4,), dtype="float64"), *layers])
    x = tf.constant(START)

    def loss_fn():
        return tf.reduce_sum(model(x) ** 3)

    (block,) = hessian(loss_fn, model.trainable_variables)
    direction = RNG.normal(size=int(block.matrix.shape[0]))
    gradient = flat_gradient(loss_fn, model.trainable_variables)
    measured = differences(gradient, model.trainable_variables, direction)
    assert relative_error(block.matrix.numpy() @ direction, measured) < 1e-9
