"""What layers and losses are made of has H v as by differences, or is refused by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import hessian
from keras_qnewton.loss import LossNotReplayableError
from tests.derivatives import relative_error
from tests.loss.many_functions import START, D, ManyFunctions


def words(text):
    return text.split()


SEGMENTS = [0, 0, 1, 2]
PLACES = [[0, 1], [0, 2], [2, 2], [3, 3]]
ACTIVATIONS = words(
    "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu "
    "log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus "
    "softsign sparse_plus sparse_sigmoid sparsemax squareplus tanh tanh_shrink"
)
OF_NUMBERS = words("erf erfc expm1 sin cos tan sinh asin acos atan asinh atanh erfinv")
OF_POSITIVE_NUMBERS = words(
    "lgamma digamma log log1p sqrt rsqrt reciprocal bessel_i0e bessel_i1e special.dawsn "
    "special.expint special.fresnel_cos special.spence special.bessel_j0 special.bessel_k1e "
    "special.bessel_y1"
)


def named(path):
    found = tf.math
    for name in path.split("."):
        found = getattr(found, name)
    return found


def definite(w):
    return tf.matmul(w, w, transpose_b=True) / 4 + 3 * tf.eye(4, dtype=D)


def image(w):
    return tf.reshape(w, [1, 4, 4, 1])


def sparse(w):
    return tf.SparseTensor(PLACES, w[0], [4, 4])


def constant(number):
    return tf.constant(number, D)


def complex_of(w):
    return tf.complex(w, tf.sin(w))


FUNCTIONS = {
    **{name: keras.activations.get(name) for name in ACTIVATIONS},
    **{name: lambda w, name=name: named(name)(0.3 * w) for name in OF_NUMBERS},
    **{name: lambda w, name=name: named(name)(tf.exp(0.3 * w)) for name in OF_POSITIVE_NUMBERS},
    "igamma": lambda w: tf.math.igamma(constant(2.5), tf.exp(w)),
    "igammac": lambda w: tf.math.igammac(constant(2.5), tf.exp(w)),
    "betainc": lambda w: tf.math.betainc(constant(2.5), constant(1.5), tf.sigmoid(w)),
    "polygamma": lambda w: tf.math.polygamma(constant(2.0), tf.exp(0.3 * w)),
    "zeta": lambda w: tf.math.zeta(constant(2.5), tf.exp(0.3 * w)),
    "pow": lambda w: tf.pow(tf.exp(w), w / 3),
    "inverse": lambda w: tf.linalg.inv(definite(w)),
    "log of a determinant": lambda w: tf.linalg.logdet(definite(w)),
    "cholesky": lambda w: tf.linalg.cholesky(definite(w)),
    "solve": lambda w: tf.linalg.solve(definite(w), w),
    "triangular solve": lambda w: tf.linalg.triangular_solve(definite(w), w),
    "eigenvalues": lambda w: tf.linalg.eigvalsh(definite(w)),
    "singular values": lambda w: tf.linalg.svd(w, compute_uv=False),
    "qr": lambda w: tf.linalg.qr(definite(w))[1],
    "matrix exponential": lambda w: tf.linalg.expm(w / 9),
    "square root of a matrix": lambda w: tf.linalg.sqrtm(definite(w)),
    "banded": lambda w: tf.linalg.banded_triangular_solve(w[:2] + 5, w[:, :2]),
    "diagonal": lambda w: tf.linalg.set_diag(w, w[0] ** 2),
    "sort": lambda w: tf.sort(w, 1),
    "largest": lambda w: tf.math.top_k(w, 2)[0],
    "n-th": lambda w: tf.raw_ops.NthElement(input=w, n=1),
    "quantile": lambda w: keras.ops.quantile(w, 0.3),
    "product": lambda w: tf.reduce_prod(w, 1),
    "deviation": lambda w: tf.math.reduce_std(w, 1),
    "moments": lambda w: tf.concat(tf.nn.moments(w, 0), 0),
    "cumulated sum": lambda w: tf.cumsum(w, 1, exclusive=True, reverse=True),
    "cumulated product": lambda w: tf.math.cumprod(w, 1),
    "cumulated log-sum-exp": lambda w: tf.math.cumulative_logsumexp(w, 1),
    **{
        f"segments, {name}": lambda w, name=name: named(f"segment_{name}")(w, SEGMENTS)
        for name in ("sum", "mean", "max", "min", "prod")
    },
    **{
        f"unsorted segments, {name}": lambda w, name=name: named(f"unsorted_segment_{name}")(
            w, SEGMENTS, 4
        )
        for name in ("sum", "mean", "prod", "sqrt_n")
    },
    "scattered": lambda w: tf.scatter_nd([[0], [2], [0], [1]], w, [3, 4]),
    "partitioned": lambda w: tf.dynamic_partition(w, [0, 1, 0, 1], 2)[0],
    "ragged": lambda w: tf.RaggedTensor.from_row_lengths(
        tf.reshape(w, [-1]), [3, 0, 7, 6]
    ).to_tensor(),
    "sparse to dense": lambda w: tf.sparse.to_dense(sparse(w)),
    "sparse product": lambda w: tf.sparse.sparse_dense_matmul(sparse(w), w),
    "average pool": lambda w: tf.nn.avg_pool2d(image(w), 2, 1, "SAME"),
    "patches": lambda w: tf.image.extract_patches(image(w), [1, 2, 2, 1], [1] * 4, [1] * 4, "SAME"),
    "hue": lambda w: tf.image.rgb_to_hsv(tf.sigmoid(w[:, :3])),
    "depth to space": lambda w: tf.nn.depth_to_space(tf.reshape(w, [1, 2, 2, 4]), 2),
    "l2 norm": tf.nn.l2_normalize,
    "coordinates": lambda w: keras.ops.image.map_coordinates(START, w[:2] * 0.1 + 1.3, 1),
    "repeated pixels": lambda w: keras.layers.UpSampling2D(2, dtype="float64")(image(w)),
    "magnitude": lambda w: tf.abs(complex_of(w)),
    "angle": lambda w: tf.math.angle(complex_of(w + 9)),
    "spectrum": lambda w: tf.abs(tf.signal.fft(complex_of(w))),
    "spectrum of images": lambda w: tf.abs(tf.signal.fft2d(complex_of(w))),
    "spectrum of reals": lambda w: tf.math.log1p(tf.abs(tf.signal.rfft(w)) ** 2),
    "from a spectrum": lambda w: tf.signal.irfft(complex_of(w)),
    "complex product": lambda w: tf.math.real(tf.matmul(complex_of(w), complex_of(w))) / 9,
    "times of rounding": lambda w: w * tf.round(w),
}


@pytest.fixture(scope="module")
def found():
    return ManyFunctions(FUNCTIONS)


def test_the_loss_is_the_same_when_run_again(found):
    value, again = found.values
    np.testing.assert_allclose(again, value, rtol=1e-14)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_are_differences_of_tensorflows_gradients(found, name):
    derivatives = found.of[name]
    assert relative_error(derivatives.along, derivatives.measured) < 1e-8


def a_scope(function):
    def inside(w):
        with tf.name_scope("outer/a_layer"):
            return function(w)

    return inside


REFUSED = {
    "HSVToRGB": lambda w: tf.image.hsv_to_rgb(tf.sigmoid(w[:, :3])),
    "AdjustContrastv2": lambda w: tf.image.adjust_contrast(tf.cast(image(w), tf.float32), 1.3),
    "AdjustHue": lambda w: tf.image.adjust_hue(tf.cast(w[None, :, :3], tf.float32), 0.1),
    "ResizeArea": lambda w: tf.image.resize(image(w), (2, 3), "area"),
    "ExtractGlimpseV2": lambda w: tf.image.extract_glimpse(
        tf.cast(image(w), tf.float32), [2, 2], [[0.0, 0.0]]
    ),
    "DrawBoundingBoxesV2": lambda w: tf.image.draw_bounding_boxes(
        tf.cast(image(w), tf.float32), [[[0.1, 0.1, 0.5, 0.5]]], [[1.0]]
    ),
    "Lu": lambda w: tf.linalg.lu(definite(w))[0],
    "MatrixLogarithm": lambda w: tf.linalg.logm(complex_of(w)),
    "Igamma": lambda w: tf.math.igamma(tf.exp(w), constant(2.0)),
    "Betainc": lambda w: tf.math.betainc(tf.exp(w), constant(1.5), constant(0.5)),
    "Polygamma": lambda w: tf.math.polygamma(w, constant(1.5)),
    "PadV2": lambda w: tf.pad(w, [[1, 1], [0, 0]], constant_values=w[0, 0]),
    "OneHot": lambda w: tf.one_hot([1, 2], 3, on_value=w[0, 0], off_value=w[1, 1]),
    "Range": lambda w: tf.range(w[0, 0], w[0, 0] + 3),
    "SparseAdd": lambda w: tf.sparse.add(sparse(w), sparse(w * w)).values,
    "SparseConcat": lambda w: tf.sparse.concat(0, [sparse(w)] * 2).values,
    "SparseSlice": lambda w: tf.sparse.slice(sparse(w), [0, 0], [2, 3]).values,
    "SparseSoftmax": lambda w: tf.sparse.softmax(sparse(w)).values,
    "SparseReduceMax": lambda w: tf.sparse.reduce_max(sparse(w), 1),
    "SparseSparseMaximum": lambda w: tf.sparse.maximum(sparse(w), sparse(w * w)).values,
    "QuantizeAndDequantizeV4": lambda w: tf.quantization.quantize_and_dequantize_v2(w, -1.0, 1.0),
    "StatelessRandomGammaV3": lambda w: tf.random.stateless_gamma([4], [1, 2], tf.exp(w[0]), 1, D),
    "FFTND": lambda w: tf.signal.fftnd(tf.cast(w, tf.complex64)),
    "CropAndResize": lambda w: tf.image.crop_and_resize(
        tf.ones([1, 5, 5, 1]), tf.cast(w, tf.float32), [0] * 4, [2, 2], method="nearest"
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_derivatives_is_refused_by_its_name_and_its_layers(kind):
    w = tf.Variable(START)
    value = a_scope(REFUSED[kind])
    with pytest.raises(LossNotReplayableError, match=f"{kind!r}.*outer/a_layer.*derivative"):
        hessian(lambda: tf.reduce_sum(tf.abs(value(w)) ** 2), [w])


def test_what_has_no_derivative_may_be_off_the_path():
    w = tf.Variable(START)

    def loss_fn():
        colours = tf.image.hsv_to_rgb(tf.sigmoid(w[:, :3]))
        return tf.reduce_sum(w[:, :3] ** 2 * tf.stop_gradient(colours)) + tf.cast(
            tf.argmax(tf.reshape(colours, [-1])), D
        )

    (block,) = hessian(loss_fn, [w])
    factor = tf.image.hsv_to_rgb(tf.sigmoid(w[:, :3])).numpy()
    expected = np.concatenate([2 * factor, np.zeros([4, 1])], 1)
    np.testing.assert_allclose(np.diag(block.matrix), expected.ravel(), rtol=1e-12)


def test_what_has_no_derivative_may_have_been_given_one():
    w = tf.Variable(START)

    @tf.custom_gradient
    def colours(x):
        return tf.image.hsv_to_rgb(x), lambda u: u * 2.0

    (block,) = hessian(lambda: tf.reduce_sum(colours(w[:, :3])), [w])
    np.testing.assert_allclose(np.reshape(block.gradient, [4, 4])[:, :3], 2.0)


def test_what_has_no_second_derivative_trains_without_one():
    w = tf.Variable(np.full([3], 1.5))
    optimizer = QNewton(curvature="quasi_newton")

    def loss_fn():
        return tf.reduce_sum((tf.math.igamma(tf.exp(w), constant(2.0)) - 0.4) ** 2)

    before = float(loss_fn())
    step = tf.function(lambda: optimizer.minimize(loss_fn, [w]), autograph=False)
    for _ in range(5):
        step()
    assert float(loss_fn()) < before / 10
