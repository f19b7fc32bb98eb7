"""A process whose processor rounds sums, products and factorisations otherwise than others do."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# What is summed in another order elsewhere, or by other instructions.
_OF_TENSORFLOW = ("reduce_sum", "reduce_mean", "tensordot", "matmul", "norm", "einsum", "exp")
_OF_LINALG = ("matvec", "matmul", "cholesky", "triangular_solve", "eigh", "norm", "solve")
_ROUNDING = 2.0**-51


def round_otherwise() -> None:
    """Has what the package computes in double precision differ in the last bits from now on.

    Not what the model does, whose operations have to be the same on all workers.
    """
    calls = itertools.count()
    for module, names in ((tf, _OF_TENSORFLOW), (tf.linalg, _OF_LINALG)):
        for name in names:
            setattr(module, name, _rounded(getattr(module, name), calls))


def _rounded(function: Callable[..., Any], calls: itertools.count[int]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        if not caller.startswith("keras_qnewton"):
            return function(*args, **kwargs)
        factor = 1.0 + _ROUNDING * (1 - 2 * (next(calls) % 3 % 2))
        found = function(*args, **kwargs)
        return tf.nest.map_structure(lambda t: t * factor if t.dtype == tf.float64 else t, found)

    return call
