"""A loss differentiated at one point: what a kind of curvature gives to the Newton step.

    L(w)            the loss                               scalar
    g   = dL/dw     one gradient tape                      [N]
    H v             by the kind: `product`                 [N]
    H   = rows H e_i, C of them vectorised at a time       [N, N], symmetric

Vectorising C rows multiplies the memory of the backward pass's intermediate results by C.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.curvature.low_rank import RowFactors
from keras_qnewton.loss import RecordedLoss

# A backward pass of a backward pass keeps about this many times the bytes of one forward
# evaluation for each vectorised row (measured on dense and convolutional models).
_BACKWARD_FACTOR = 4.0


class Point(NamedTuple):
    """What is differentiated, and where: the arguments of a `Linearized`.

    Attributes:
        loss: The recorded loss.
        weights: One tensor a variable.
        parts: The blocks, whose `indices` refer to `weights`.
        memory: Bytes that the vectorised rows of one chunk may take, approximately.
    """

    loss: RecordedLoss
    weights: Sequence[tf.Tensor]
    parts: Sequence[Part]
    memory: float


class Linearized(abc.ABC):
    """A loss differentiated at one point: gradient, H v, and blocks of H on demand.

    H is whatever symmetric matrix a subclass multiplies by. A subclass defines `product` and
    `block_product`, and may set `positive_semidefinite` in its constructor. Where it knows a
    faster way than a product a row, it overrides `formed`. If H has few rows on a small batch, it
    overrides `low_rank`. If the gradient's or the loss's rounding is known, it overrides
    `sharpened` and `gradients_after`, or `value_error`.

    Args:
        loss: The recorded loss.
        weights: One tensor a variable.
        parts: The blocks, whose `indices` refer to `weights`.
        memory: Bytes that the vectorised rows of one chunk may take, approximately.

    Attributes:
        dtype: float32 or float64: the precision of vectors and, at least, of blocks.
        points: The weights, one `[N_k]` a block.
        positive_semidefinite: True if H is so by construction, which saves the search for its
            smallest eigenvalue, and the shift by it. False unless a subclass says otherwise.
    """

    positive_semidefinite: bool = False

    def __init__(
        self,
        loss: RecordedLoss,
        weights: Sequence[tf.Tensor],
        parts: Sequence[Part],
        memory: float,
    ):
        self._loss, self._parts, self._memory = loss, list(parts), memory
        self._shapes = [w.shape for w in weights]
        self._dtypes = [w.dtype for w in weights]
        self.dtype = tf.float64 if tf.float64 in self._dtypes else tf.float32
        self.points = self.flatten(weights)

    @property
    def value(self) -> tf.Tensor:
        """The loss, scalar; of the recorded loss, run again."""
        return self._value_and_gradients[0]

    @property
    def gradients_of_weights(self) -> list[tf.Tensor | None]:
        """The loss's gradient, one tensor a weight.

        None where no recorded operation leads from the weight to the loss: its gradient is zero by
        construction, not for want of a derivative.
        """
        return self._value_and_gradients[1]

    @functools.cached_property
    def gradients(self) -> list[tf.Tensor]:
        """The loss's gradient, one `[N_k]` a block."""
        return self._flat_gradients(self.gradients_of_weights)

    def _flat_gradients(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor]:
        shapes = zip(self._shapes, self._dtypes, strict=True)
        pairs = zip(gradients, shapes, strict=True)
        return self.flatten([tf.zeros(*like) if g is None else g for g, like in pairs])

    @functools.cached_property
    def _value_and_gradients(self) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        """First asked for outside of branches and loops of the graph."""
        weights = self.unflatten(self.points)
        with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            value = self._loss(weights)
        gradients = tape.gradient(value, weights)
        return value, [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    @abc.abstractmethod
    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """H v with the whole matrix: one `[N_k]` a block in, one out."""

    @abc.abstractmethod
    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """H_k v with the k-th diagonal block, `[N_k]`."""

    def flatten(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One tensor a variable -> one `[N_k]` vector a block."""
        return [
            self.flatten_block(k, [tensors[i] for i in part.indices])
            for k, part in enumerate(self._parts)
        ]

    def unflatten(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One `[N_k]` vector a block -> one tensor a variable."""
        out: list[tf.Tensor] = [None] * len(self._shapes)
        for k, (part, vector) in enumerate(zip(self._parts, vectors, strict=True)):
            for i, tensor in zip(part.indices, self.unflatten_block(k, vector), strict=True):
                out[i] = tensor
        return out

    def flatten_block(self, k: int, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """One tensor for each variable of the k-th block -> `[N_k]`."""
        sizes = [self._shapes[i].num_elements() for i in self._parts[k].indices]
        flat = [
            # To a known length: a gradient's shape may have got lost.
            _shaped(tf.cast(tf.convert_to_tensor(t), self.dtype), [size])
            for t, size in zip(tensors, sizes, strict=True)
        ]
        return tf.concat(flat, 0)

    def unflatten_block(self, k: int, vector: tf.Tensor) -> list[tf.Tensor]:
        """`[N_k]` -> one tensor for each variable of the k-th block."""
        indices = self._parts[k].indices
        sizes = [self._shapes[i].num_elements() for i in indices]
        return [
            tf.cast(_shaped(piece, self._shapes[i]), self._dtypes[i])
            for i, piece in zip(indices, tf.split(vector, sizes), strict=True)
        ]

    def sharpened(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """`gradients`, one `[N_k]` a block, with digits that rounding took from them."""
        return list(gradients)

    def value_error(self) -> tf.Tensor:
        """About how far rounding has moved the loss, float64 scalar; Inf where not known."""
        return tf.constant(float("inf"), tf.float64)

    def gradients_after(self, step: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradient at the weights plus `step`: one `[N_k]` a block in, one out."""
        points = [x + d for x, d in zip(self.points, step, strict=True)]
        _, gradients = self._loss.value_and_gradients(self.unflatten(points))
        return self._flat_gradients(gradients)

    def block(self, k: int) -> tf.Tensor:
        """H_k `[N_k, N_k]`, symmetric to the bit."""
        return self.formed(k).matrix

    def formed(self, k: int) -> Formed:
        """H_k, in `dtype` or double precision, and how it came about."""
        return Formed(self.block_by_products(k), tf.constant(Formation.PRODUCTS))

    def block_by_products(self, k: int) -> tf.Tensor:
        """H_k `[N_k, N_k]`, symmetric to the bit: a `block_product` with each unit vector."""
        return self.matrix_of_products(self._parts[k].size, lambda v: self.block_product(k, v))

    def matrix_of_products(self, size: int, product: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """The symmetric matrix `[N, N]` that `product` multiplies vectors `[N]` by."""
        matrix = self.of_unit_vectors(product, size, size)
        return (matrix + tf.transpose(matrix)) / 2

    def of_unit_vectors(
        self, function: Callable[[tf.Tensor], tf.Tensor], count: int, size: int
    ) -> tf.Tensor:
        """What a function makes of unit vectors `[count]`, `[size]` each: `[count, size]`."""
        chunk = self._chunk(count)

        def rows(c: tf.Tensor) -> tf.Tensor:
            # Rows beyond the last are zero vectors, cut off below.
            basis = tf.one_hot(c * chunk + tf.range(chunk), count, dtype=self.dtype)
            return self.of_each(function, basis, self.dtype)

        stacked = tf.map_fn(
            rows,
            tf.range(-(-count // chunk)),
            fn_output_signature=tf.TensorSpec([None, size], self.dtype),
            parallel_iterations=1,
        )
        return tf.ensure_shape(tf.reshape(stacked, [-1, size])[:count], [count, size])

    def of_each(self, function: Callable[[Any], Any], batch: Any, dtypes: Any) -> Any:
        """`function` of each row of a tensor or of several, vectorised if the loss can be.

        Args:
            function: Of tensors without their first axis.
            batch: Tensors with it.
            dtypes: Precision of each tensor that the function returns, or its `tf.TensorSpec`, in
                the same nest.
        """
        if self._loss.vectorizable:
            return _tf_private.vectorized_map(function, batch)
        return tf.map_fn(function, batch, fn_output_signature=dtypes, parallel_iterations=1)

    def low_rank(
        self, max_ranks: Sequence[int], used: Sequence[tf.Tensor | bool]
    ) -> list[RowFactors | None]:
        """Each block's factors of low rank, or None if it has none.

        Args:
            max_ranks: Largest row count accepted per block; 0 requests no factors.
            used: One scalar bool a block: False where its factors will not be used at run time.
        """
        del used
        return [None] * len(max_ranks)

    def _chunk(self, size: int) -> tf.Tensor:
        """Rows to vectorise at once: as many as `memory` holds, in 8 .. 256.

        More than 256 rows measured slower, whatever the memory: the intermediate results no
        longer stay in the processor's caches.
        """
        per_row = _BACKWARD_FACTOR * self._loss.bytes_per_evaluation()
        rows = tf.cast(self._memory / tf.maximum(per_row, 1.0), tf.int32)
        return tf.clip_by_value(rows, min(8, size), min(256, size))


def _shaped(tensor: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """`tensor` in that shape; without an operation where it has it, as a bias does."""
    return tensor if tensor.shape == shape else tf.reshape(tensor, shape)
