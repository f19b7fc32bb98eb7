"""Functions of tensors alone that graphs call, in place of having their operations anew.

A step's graph has some of them many times, and each model's graph has all of them. What is traced
once is called from then on, by every graph of the process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

_Result = TypeVar("_Result")


def traced_once(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """`function` as a `tf.function` inside of graphs; eagerly, as it is.

    It is traced for tensors of each dtype and rank, whatever their lengths are.

    Args:
        function: Of tensors and of hashable Python values, by position; returns tensors. It
            closes over none. What it does must not depend on whether a length is known.
    """
    traces: dict[tuple[Hashable, ...], Callable[..., _Result]] = {}

    @functools.wraps(function)
    def call(*args: Any) -> _Result:
        if not tf.inside_function():
            return function(*args)
        args = tuple(tf.convert_to_tensor(a) if _is_array(a) else a for a in args)
        kinds = tuple(_kind(a) if tf.is_tensor(a) else a for a in args)
        if kinds not in traces:
            traces[kinds] = _traced(function, kinds)
        return traces[kinds](*filter(tf.is_tensor, args))

    return call


def _is_array(value: Any) -> bool:
    return tf.is_tensor(value) or isinstance(value, np.ndarray)


def _kind(tensor: tf.Tensor) -> tf.TensorSpec:
    """Tensors of its dtype and rank."""
    rank = tensor.shape.rank
    return tf.TensorSpec(None if rank is None else [None] * rank, tensor.dtype)


def _traced(function: Callable[..., _Result], kinds: tuple[Any, ...]) -> Callable[..., _Result]:
    """The function of tensors where `kinds` has their kind, beside the values that it has."""

    def of_tensors(*tensors: tf.Tensor) -> _Result:
        given = iter(tensors)
        return function(*(next(given) if isinstance(k, tf.TensorSpec) else k for k in kinds))

    # The graph that calls is not what the function is traced in.
    with tf.init_scope():
        traced = tf.function(of_tensors, autograph=False).get_concrete_function(
            *(kind for kind in kinds if isinstance(kind, tf.TensorSpec))
        )
    return traced
