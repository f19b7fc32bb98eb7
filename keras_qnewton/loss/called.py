"""Functions of tensors that a graph's branches call, each traced once.

A branch or a loop of a step that evaluates the loss would have its operations anew. It calls a
function in their place, which belongs to the graph in which the loss was recorded, and so may take
that graph's tensors wherever it is called from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import tensorflow as tf


class Called:
    """Functions that are traced in one graph, and called in graphs inside of it.

    Args:
        graph: The graph that is being built, around all calls.
    """

    def __init__(self, graph: tf.Graph):
        self._graph = graph
        self._traced: dict[Hashable, Callable[..., Any]] = {}

    def __call__(
        self, key: Hashable, function: Callable[..., Any], tensors: Sequence[tf.Tensor]
    ) -> Any:
        """What `function` returns of `tensors`.

        Args:
            key: Of the function, among all that are called here with tensors of these kinds.
            function: Takes one tensor for each of `tensors`, and returns tensors.
            tensors: Their shapes and dtypes are the same at each call of a key.
        """
        if key not in self._traced:
            specs = [tf.TensorSpec(t.shape, t.dtype) for t in tensors]
            with self._graph.as_default():
                traced = tf.function(function, autograph=False)
                self._traced[key] = traced.get_concrete_function(*specs)
        return self._traced[key](*tensors)
