"""Images: resizing, which is linear, crops at boxes, and normalisation over channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.forms.table import adjoint_pair, form

_INTERPOLATIONS = ("ResizeBilinear", "ResizeBicubic", "ResizeNearestNeighbor")

# Of J v and Jᵀ u for many v and u at once: images of all of them are one batch.
for _type in (*_INTERPOLATIONS, "ScaleAndTranslate", "ResizeNearestNeighborGrad"):
    _tf_private.vectorize_over_batches(_type, [0])
for _type in ("ResizeBilinearGrad", "ResizeBicubicGrad", "ScaleAndTranslateGrad"):
    _tf_private.vectorize_over_batches(_type, [0, 1])


def _interpolation(
    op: tf.Operation, size: tf.Tensor
) -> tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor]]:
    """An interpolation of images, and its transpose of `(u, images)`."""
    kind = op.type.removesuffix("Grad")
    options = {name: op.get_attr(name) for name in ("align_corners", "half_pixel_centers")}
    resize, back = getattr(tf.raw_ops, kind), getattr(tf.raw_ops, f"{kind}Grad")

    def forward(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return resize(images=images, size=size, **options)

    def adjoint(u: tf.Tensor, images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        del size
        if kind == "ResizeNearestNeighbor":
            return back(grads=u, size=tf.shape(images)[1:3], **options)
        return back(grads=u, original_image=images, **options)

    return adjoint_pair(forward, adjoint, [size])


@form(*_INTERPOLATIONS)
def resized(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """Images of another size."""
    images, size = inputs
    apply, _ = _interpolation(op, size)
    return [apply(images)]


@form("ResizeBilinearGrad", "ResizeBicubicGrad")
def resized_back(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """The transpose of that, of `(u, images)`."""
    u, images = inputs
    _, transposed = _interpolation(op, tf.shape(u)[1:3])
    return [transposed(u, images)]


@form("ScaleAndTranslate")
def scaled_and_translated(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """Images of another size by a wider kernel (Lanczos, Gauss, Mitchell, antialiasing)."""
    options = {name: op.get_attr(name) for name in ("kernel_type", "antialias")}

    def forward(images: tf.Tensor, size: tf.Tensor, *places: tf.Tensor) -> tf.Tensor:
        scale, translation = places
        return tf.raw_ops.ScaleAndTranslate(
            images=images, size=size, scale=scale, translation=translation, **options
        )

    def adjoint(u: tf.Tensor, images: tf.Tensor, size: tf.Tensor, *places: tf.Tensor) -> tf.Tensor:
        del size
        scale, translation = places
        return tf.raw_ops.ScaleAndTranslateGrad(
            grads=u, original_image=images, scale=scale, translation=translation, **options
        )

    images, *constants = inputs
    apply, _ = adjoint_pair(forward, adjoint, constants)
    return [apply(images)]


@form("CropAndResize")
def cropped_and_resized(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """Parts of images in boxes, sampled between pixels.

    Of the nearest pixels the derivative in the boxes is zero here; `derivatives` refuses it.
    """
    image, boxes, box_indices, crop_size = inputs
    image = tf.cast(image, tf.float32)
    lengths = tf.shape(image)
    y, y_inside = _places(boxes[:, 0], boxes[:, 2], lengths[1], crop_size[0])
    x, x_inside = _places(boxes[:, 1], boxes[:, 3], lengths[2], crop_size[1])

    flat = tf.reshape(image, [-1, lengths[3]])

    def pixels(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        """Those at `[boxes, h]` rows and `[boxes, w]` columns."""
        first = (box_indices[:, None] * lengths[1] + rows) * lengths[2]
        return tf.gather(flat, first[:, :, None] + columns[:, None])

    if op.get_attr("method") == b"nearest":
        crops = pixels(*(tf.cast(_rounded(t), tf.int32) for t in (y, x)))
    else:
        (top, bottom), (left, right) = (_neighbours(t) for t in (y, x))
        down, across = (y - tf.floor(y))[:, :, None, None], (x - tf.floor(x))[:, None, :, None]

        def between(row: tf.Tensor) -> tf.Tensor:
            first, last = pixels(row, left), pixels(row, right)
            return first + (last - first) * across

        upper, lower = between(top), between(bottom)
        crops = upper + (lower - upper) * down
    inside = (y_inside[:, :, None] & x_inside[:, None])[..., None]
    return [tf.where(inside, crops, op.get_attr("extrapolation_value"))]


def _places(
    first: tf.Tensor, last: tf.Tensor, length: tf.Tensor, count: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where samples of a box are along one axis, `[boxes, count]`, and which are in the image."""
    end = tf.cast(length - 1, tf.float32)
    steps = tf.cast(tf.maximum(count - 1, 1), tf.float32)
    start = tf.where(count > 1, first * end, 0.5 * (first + last) * end)
    found = (
        start[:, None]
        + tf.range(tf.cast(count, tf.float32)) * (((last - first) * end / steps)[:, None])
    )
    inside = (found >= 0) & (found <= end)
    return tf.where(inside, found, tf.zeros_like(found)), inside


def _neighbours(places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(tf.floor(places), tf.int32), tf.cast(tf.math.ceil(places), tf.int32)


def _rounded(places: tf.Tensor) -> tf.Tensor:
    """As C's `roundf`, away from zero at a half."""
    return tf.floor(places + 0.5)


@form("LRN")
def normalised_over_channels(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """x / (bias + α Σ x²)^β, the sum over channels at most `depth_radius` away."""
    (x,) = inputs
    radius, bias, alpha, beta = (
        op.get_attr(name) for name in ("depth_radius", "bias", "alpha", "beta")
    )
    channels = tf.shape(x)[-1]
    # `band_part` refuses a band that is wider than the matrix.
    near = tf.abs(tf.range(channels)[:, None] - tf.range(channels)) <= radius
    near = tf.cast(near, x.dtype)
    squares = tf.tensordot(tf.square(x), near, 1)
    return [x * tf.pow(bias + alpha * tf.ensure_shape(squares, x.shape), -beta)]
