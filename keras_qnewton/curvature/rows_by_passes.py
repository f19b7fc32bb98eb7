"""A Gauss-Newton block by single passes through the network, where its rows are not known by uses.

    rows       u = J_iᵀ s, s a root of C of one example    a backward pass each     G = Σ u uᵀ
    columns    J e_n and C J e_n, e_n a unit vector        a forward pass each      G = Jᵀ (C J)
    products   Jᵀ C J e_n                                  one of either each       G

J is that of all examples together: nothing is supposed of the network. Examples may interact (batch
normalisation in training, contrastive losses), and weights may enter in any way. There are R rows,
examples times roots over all outputs, and N columns. All three are exact if roots are what they
say: S Sᵀ ε of a random ε is compared with C ε, for which no pass is needed.

Rows are taken where R is at most N. A backward pass less for each weight is a gain where it takes
longer than a row of Jᵀ (C J), which are N Z multiplications, Z being the number of elements of all
outputs: in small networks of many outputs it does not. Both are measured by the shapes alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.example_rows import ExampleRows
from keras_qnewton.curvature.example_sums import gram, symmetric_product
from keras_qnewton.curvature.formation import Way
from keras_qnewton.curvature.outputs import OutputCurvature
from keras_qnewton.norms import norm

# Bytes for each element of J: J and C J, as they are stacked, and in double precision.
_BYTES = 32.0
# Multiplications of a matrix product in single precision that take as long as a backward pass does
# for each byte of an evaluation's intermediate results. From 15 to 40 were measured, and stacking
# columns takes time, too.
_PER_BYTE = 12.0

_Tensors = list[tf.Tensor]


class Passes(NamedTuple):
    """What a block `[N, N]` is made of.

    Attributes:
        size: N.
        outputs: The rows of each output: its roots, and how many.
        curvatures: C of each output.
        forward: From v `[N]` to J v and C J v, one tensor a tensor z.
        backward: From u, one tensor a tensor z, to Jᵀ u `[N]`.
        backward_of: From an output's number and u to J_iᵀ u `[N]`.
        each: Applies a function to each row of tensors, vectorised if that is possible; what it
            returns is of the precision given.
    """

    size: int
    outputs: Sequence[ExampleRows]
    curvatures: Sequence[OutputCurvature]
    forward: Callable[[tf.Tensor], tuple[_Tensors, _Tensors]]
    backward: Callable[[_Tensors], tf.Tensor]
    backward_of: Callable[[int, tf.Tensor], tf.Tensor]
    each: Callable[[Callable[[Any], Any], Any, Any], Any]


class Limits(NamedTuple):
    """What passes cost.

    Attributes:
        chunk: How many to vectorise at once, int32 scalar.
        memory: Bytes that J may take.
        bytes_per_evaluation: Of the network's intermediate results, float64 scalar.
        rounding: Relative difference of S Sᵀ ε and C ε that rounding explains.
    """

    chunk: tf.Tensor
    memory: float
    bytes_per_evaluation: tf.Tensor
    rounding: float


class BlockByPasses:
    """G = Σ_i J_iᵀ C_i J_i `[N, N]` in the way that takes the least time.

    Args:
        passes: What it is made of.
        limits: What that costs.
        weights_dtype: Precision of J.
        dtype: Precision of G, and of the sums that it is.
    """

    def __init__(self, passes: Passes, limits: Limits, weights_dtype: tf.DType, dtype: tf.DType):
        self._passes, self._limits = passes, limits
        self._weights_dtype, self._dtype = weights_dtype, dtype

    def matrix(self) -> tuple[tf.Tensor, tf.Tensor]:
        """G, symmetric to the bit, and which `Way` it was, int32 scalar."""
        size = self._passes.size
        if not self._passes.outputs:  # what there is has no curvature
            return tf.zeros([size, size], self._dtype), tf.constant(Way.PRODUCTS)
        least = self._least_rows()
        if least is None or least > size:
            return self._by_vectors()
        return _tf_private.cond(
            (self._rows() <= size) & self._roots_hold(),
            lambda: (self._by_rows(), tf.constant(Way.ROWS)),
            self._by_vectors,
        )

    # --- rows -----------------------------------------------------------------------------

    def _least_rows(self) -> int | None:
        """R as far as it is known while tracing; None if an output has no roots."""
        outputs = self._passes.outputs
        if not all(output.count for output in outputs):
            return None
        return sum(output.count * (output.known_examples or 0) for output in outputs)

    def _rows(self) -> tf.Tensor:
        return tf.add_n([output.examples * output.count for output in self._passes.outputs])

    def _roots_hold(self) -> tf.Tensor:
        """True if S Sᵀ ε = C ε for a random ε; a scalar bool, False of NaN."""
        holds = []
        for i, (output, curvature) in enumerate(self._outputs()):
            z, roots = curvature.z, output.roots.tensor()
            noise = tf.random.stateless_normal(tf.shape(z), [19, i], dtype=z.dtype)
            axes = list(range(1 if curvature.one_example else 2, roots.shape.rank))
            along = tf.reduce_sum(roots * noise, axes, keepdims=True) if axes else roots * noise
            expected = curvature.product(noise)
            error = norm(tf.reduce_sum(roots * along, 0) - expected)
            holds.append(error <= self._limits.rounding * norm(expected))
        return tf.reduce_all(holds)

    def _by_rows(self) -> tf.Tensor:
        size, found = self._passes.size, []
        for i, (output, curvature) in enumerate(self._outputs()):
            backward = functools.partial(self._passes.backward_of, i)
            seeds = functools.partial(_seeds, output, curvature.one_example)

            def some(
                numbers: tf.Tensor,
                backward: Callable[[tf.Tensor], tf.Tensor] = backward,
                seeds: Callable[[tf.Tensor], tf.Tensor] = seeds,
            ) -> tf.Tensor:
                return self._passes.each(backward, seeds(numbers), self._weights_dtype)

            found.append(self._stacked(some, output.examples * output.count, [size])[0])
        rows = tf.ensure_shape(tf.cast(tf.concat(found, 0), self._dtype), [None, size])
        return gram([rows])

    # --- columns, and products ------------------------------------------------------------

    def _are_columns_best(self, elements: tf.Tensor) -> tf.Tensor:
        """Whether J fits, and its product takes less time than backward passes; scalar bool."""
        numbers = self._passes.size * tf.cast(elements, tf.float64)
        fits = _BYTES * numbers <= self._limits.memory
        relative = self._dtype.size / tf.float32.size
        worth_it = relative * numbers <= _PER_BYTE * self._limits.bytes_per_evaluation
        return fits & worth_it

    def _by_vectors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """By forward passes, and by backward passes if there is no room for their results.

        Both share the forward ones, which are long to trace. What is not wanted has no columns.
        """
        size, dtype = self._passes.size, self._weights_dtype
        zs = {curvature.z.ref(): curvature.z for curvature in self._passes.curvatures}
        elements = tf.add_n([tf.size(z) for z in zs.values()])
        columns = self._are_columns_best(elements)
        width, other = tf.where(columns, elements, 0), tf.where(columns, 0, size)
        dtypes = [z.dtype for z in zs.values()]

        def some(numbers: tf.Tensor) -> tuple[tf.Tensor, ...]:
            count = tf.size(numbers)
            units = tf.one_hot(numbers, size, dtype=dtype)
            along, curved = self._passes.each(self._passes.forward, units, (dtypes, dtypes))

            def kept() -> tuple[tf.Tensor, ...]:
                both = (_joined(tensors, dtype)[:, :width] for tensors in (along, curved))
                return (*both, tf.zeros([count, other], dtype))

            def pulled() -> tuple[tf.Tensor, ...]:
                found = self._passes.each(self._passes.backward, curved, dtype)
                nothing = tf.zeros([count, width], dtype)
                return nothing, nothing, found[:, :other]

            return _tf_private.cond(columns, kept, pulled)

        found = self._stacked(some, tf.constant(size), [None], [None], [None])
        along, curved, products = (tf.cast(t, self._dtype) for t in found)
        products = tf.pad(products, [[0, 0], [0, size - other]])
        held = [tf.ensure_shape(t, [size, None]) for t in (along, curved)]
        matrix = _tf_private.cond(
            columns,
            lambda: symmetric_product(*held),
            lambda: (products + tf.transpose(products)) / 2,
        )
        way = tf.where(columns, Way.COLUMNS, Way.PRODUCTS)
        return tf.ensure_shape(matrix, [size, size]), way

    def _stacked(
        self,
        some: Callable[[tf.Tensor], Any],
        count: tf.Tensor,
        *shapes: list[int | None],
    ) -> list[tf.Tensor]:
        """What `some` returns for numbers from 0 to `count`, a chunk at a time: `[count, *shape]`.

        Beyond the last number it is of no account.
        """
        chunk = tf.minimum(self._limits.chunk, tf.maximum(count, 1))
        specs = [tf.TensorSpec([None, *shape], self._weights_dtype) for shape in shapes]
        found = tf.map_fn(
            lambda start: tuple(tf.nest.flatten(some(start + tf.range(chunk)))),
            tf.range(0, tf.maximum(count, 1), chunk),
            fn_output_signature=tuple(specs),
            parallel_iterations=1,
        )
        return [tf.reshape(t, [-1, tf.shape(t)[2]])[:count] for t in found]

    def _outputs(self) -> list[tuple[ExampleRows, OutputCurvature]]:
        return list(zip(self._passes.outputs, self._passes.curvatures, strict=True))


def _seeds(output: ExampleRows, one_example: bool, numbers: tf.Tensor) -> tf.Tensor:
    """Roots of one example each, zero on all others: `[numbers, *z.shape]`.

    Zeros of numbers beyond the last.
    """
    roots = output.roots.tensor()
    some = tf.gather(roots, numbers % output.count)
    if one_example:
        mask = tf.cast(numbers < output.count, roots.dtype)
        return some * tf.reshape(mask, [-1, *[1] * (roots.shape.rank - 1)])
    mask = tf.one_hot(numbers // output.count, output.examples, dtype=roots.dtype)
    shape = tf.concat([tf.shape(mask), [1] * (roots.shape.rank - 2)], 0)
    return some * tf.reshape(mask, shape)


def _joined(tensors: Sequence[tf.Tensor], dtype: tf.DType) -> tf.Tensor:
    """`[count, *z.shape]` of each z -> `[count, Z]`."""
    count = tf.shape(tensors[0])[0]
    flat = [
        tf.reshape(tf.cast(t, dtype), [count, tf.reduce_prod(tf.shape(t)[1:])]) for t in tensors
    ]
    return tf.concat(flat, 1)
