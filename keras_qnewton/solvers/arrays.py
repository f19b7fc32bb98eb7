"""Types of the values that solvers take: tensors, NumPy arrays, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

# A matrix or a vector, inside a graph or outside.
TensorLike: TypeAlias = "tf.Tensor | np.ndarray | Sequence[float]"
# A number, inside a graph or outside.
Scalar: TypeAlias = "float | tf.Tensor"
