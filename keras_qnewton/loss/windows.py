"""What a convolution sees at each of its positions."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.known_values import known_value

_TRANSPOSED = {"Conv2DBackpropInput", "Conv3DBackpropInputV2"}
_LAYOUTS = (b"NHWC", b"NDHWC")


class Window(NamedTuple):
    """How a convolution's input is cut into patches; one number an axis of space.

    Attributes:
        sizes: Of the window.
        strides: Likewise.
        rates: Likewise.
        padding: "SAME" or "VALID".
        channels: If they are to have axes of their own, their lengths; else None.
        dealt: Over how many rows each example is dealt out; see `Use`.
    """

    sizes: list[int]
    strides: list[int]
    rates: list[int]
    padding: str
    channels: tuple[int, ...] | None = None
    dealt: int = 1


def window(op: tf.Operation) -> Window | None:
    """The window of a convolution, or None where it cannot be cut like that."""
    transposed = op.type in _TRANSPOSED
    images = op.outputs[0] if transposed else op.inputs[0]
    filters, channels = op.inputs[1].shape, images.shape[-1]
    padding = op.get_attr("padding").decode()
    dealt = _dealt_out(op.inputs[2 if transposed else 0])
    space = filters.rank - 2
    known = op.get_attr("data_format") in _LAYOUTS and padding in ("SAME", "VALID")
    if not known or dealt is None or channels is None:
        return None
    if (transposed and channels != filters[-2]) or (space == 3 and None in images.shape[1:-1]):
        return None
    strides, rates = (list(op.get_attr(name))[1:-1] for name in ("strides", "dilations"))
    sizes = [int(n) for n in filters[:space]]
    return Window(sizes, strides, rates, padding, dealt=dealt)


def _dealt_out(images: tf.Tensor) -> int | None:
    """Over how many rows each example of a dilated convolution is dealt; None if not known."""
    source = images.op
    if source.type == "ExpandDims":
        source = source.inputs[0].op
    if source.type != "SpaceToBatchND":
        return 1
    block = known_value(source.inputs[1])
    return None if block is None else int(np.prod(block))


def patches(images: tf.Tensor, cut: Window) -> tf.Tensor:
    """`[B, *space, c]` -> `[B, *positions, size·c]`, or `[..., size, *channels]`."""
    if len(cut.sizes) == 2:
        sizes, strides, rates = ([1, *n, 1] for n in (cut.sizes, cut.strides, cut.rates))
        found = tf.image.extract_patches(images, sizes, strides, rates, cut.padding)
    else:
        found = _patches_by_slices(images, cut)
    if cut.channels is None:
        return found
    shape = tf.shape(found)[: len(cut.sizes) + 1]
    return tf.reshape(found, tf.concat([shape, [int(np.prod(cut.sizes)), *cut.channels]], 0))


def is_grouped(op: tf.Operation) -> bool:
    """Whether this is a convolution of groups of channels, which has no derivatives on CPUs."""
    if op.type != "Conv2D" or op.inputs[0].shape[-1] in (None, op.inputs[1].shape[2]):
        return False
    return window(op) is not None


def grouped_convolution(op: tf.Operation, images: tf.Tensor, filters: tf.Tensor) -> tf.Tensor:
    """The same as `op`, by patches and a sum of products."""
    cut = window(op)
    if cut is None:
        raise ValueError(f"This convolution has no window. Received: op={op.name!r}")
    channels, outputs = (int(n) for n in op.inputs[1].shape[2:])
    groups = int(op.inputs[0].shape[-1]) // channels
    a = patches(images, cut._replace(channels=(groups, channels)))
    w = tf.reshape(filters, [-1, channels, groups, outputs // groups])
    z = tf.einsum("bhwsgi,sigo->bhwgo", a, w)
    return tf.reshape(z, tf.concat([tf.shape(z)[:3], [outputs]], 0))


def _patches_by_slices(images: tf.Tensor, cut: Window) -> tf.Tensor:
    """The same in any number of dimensions, of known lengths."""
    reach = [(k - 1) * r + 1 for k, r in zip(cut.sizes, cut.rates, strict=True)]
    lengths = [int(n) for n in images.shape[1:-1]]
    if cut.padding == "SAME":
        total = [
            max((-(-n // s) - 1) * s + w - n, 0)
            for n, s, w in zip(lengths, cut.strides, reach, strict=True)
        ]
        images = tf.pad(images, [[0, 0], *([t // 2, t - t // 2] for t in total), [0, 0]])
        lengths = [n + t for n, t in zip(lengths, total, strict=True)]
    found = []
    for offsets in itertools.product(*(range(k) for k in cut.sizes)):
        places = [
            slice(o * r, o * r + n - w + 1, s)
            for o, r, n, w, s in zip(offsets, cut.rates, lengths, reach, cut.strides, strict=True)
        ]
        found.append(images[(slice(None), *places)])
    return tf.concat(found, -1)
