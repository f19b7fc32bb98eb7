"""Functions of tensors alone that graphs call, in place of having their operations anew.

A step's graph has some of them many times, and each model's graph has all of them. What is traced
once is called from then on, by every graph of the process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import tensorflow as tf

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def traced_once(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """`function` as a `tf.function` inside of graphs; eagerly, as it is.

    Args:
        function: Of tensors and of hashable Python values; returns tensors. It closes over none.
            What it does must not depend on whether a length is known: of a second shape it is
            traced for all, so that models of many sizes leave no trace each.
    """
    traced = tf.function(function, autograph=False, reduce_retracing=True)

    @functools.wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        run: Callable[..., _Result] = traced if tf.inside_function() else function
        return run(*args, **kwargs)

    return call
