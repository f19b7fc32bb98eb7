"""What a convolution sees at each of its positions."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Window(NamedTuple):
    """How `tf.image.extract_patches` cuts a convolution's input.

    Attributes:
        sizes: Of the window, `[1, h, w, 1]`.
        strides: Likewise.
        rates: Likewise.
        padding: "SAME" or "VALID".
        channels: If they are to have an axis of their own, how many; else None.
    """

    sizes: list[int]
    strides: list[int]
    rates: list[int]
    padding: str
    channels: int | None = None


def window(op: tf.Operation) -> Window | None:
    """The window of a convolution, or None where it cannot be cut like that."""
    images = op.outputs[0] if op.type == "Conv2DBackpropInput" else op.inputs[0]
    filters, channels = op.inputs[1].shape, images.shape[-1]
    padding = op.get_attr("padding").decode()
    grouped = channels != filters[2]
    # A dilated convolution whose examples have been dealt out over more rows.
    source = op.inputs[0].op
    if source.type == "ExpandDims":
        source = source.inputs[0].op
    dealt = source.type == "SpaceToBatchND"
    known = op.get_attr("data_format") == b"NHWC" and padding in ("SAME", "VALID")
    if grouped or dealt or not known:
        return None
    return Window(
        [1, int(filters[0]), int(filters[1]), 1],
        list(op.get_attr("strides")),
        list(op.get_attr("dilations")),
        padding,
    )


def patches(images: tf.Tensor, cut: Window) -> tf.Tensor:
    """`[B, h, w, c]` -> `[B, h', w', size·c]`, or `[B, h', w', size, c]` with `channels`."""
    found = tf.image.extract_patches(images, cut.sizes, cut.strides, cut.rates, cut.padding)
    if cut.channels is None:
        return found
    size = cut.sizes[1] * cut.sizes[2]
    return tf.reshape(found, tf.concat([tf.shape(found)[:3], [size, cut.channels]], 0))
