"""Exact blocks of dense layers from per-example curvature in their pre-activations.

For layers z_l = a_l W_l + b_l whose examples do not interact, with A_l = [a_l, 1] `[B, i]`,
δ_l = ∂L/∂z_l `[B, o]`, and per example H_ml = ∂²L/∂z_m ∂z_l and D_ml = ∂a_m/∂z_l,

    block(m, l)[(i,o), (k,p)] = Σ_b (A_m[b,i] H_ml[b,o,p] + δ_m[b,o] D_ml[b,i,p]) A_l[b,k]

The sum over examples is a matrix product, and H_ml and D_ml take one backward pass for each
*output* of layer l, with all examples at once: for 64-16-16-10, 74 passes in place of 1,482.
For Gauss-Newton curvature, H_ml = J_mᵀ (∂²L/∂z²) J_l with J_l = ∂z/∂z_l, and D = 0.

A dependence on the weights beside the one through z_l (a weight regulariser) is added as the
diagonal that an L2 penalty has. That examples do not interact, and that the rest is diagonal,
is not proved but verified: at every evaluation the block's product with a random vector is
compared with the generic one, and where they differ the generic block is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.memory import memory_of_a_batch
from keras_qnewton.loss.structure import DenseLayer, dense_layers

# Relative difference of two products in the given precision that rounding explains. Up to 7e-6 were
# seen in single precision, but for exact curvature of a cross-entropy of less than 1e-6, of which
# neither product has digits.
_ROUNDING = {tf.float32: 1e-5, tf.float64: 1e-12}
# Numbers in the largest intermediate of an assembly, about 128 MB in float32.
_MAX_ELEMENTS = 32_000_000
# Inputs from which on it pays to leave out zeros.
MANY_INPUTS = 256
# In how many pieces a large block is written.
_PIECES = 32
_ASSUMED_BATCH = 4096
# Copies of H_ml that an assembly holds, with what they are differentiated from: 6 were measured of
# exact blocks, 2 of Gauss-Newton ones.
_COPIES = 6
# Layers of which so many examples fit are not asked about when the step runs.
_ANY_BATCH = 2**16


class Assembly(NamedTuple):
    """How a block is assembled.

    Attributes:
        possible: Whether it can be: True or False, or a scalar bool tensor at run time.
        make: Makes the matrix `[N, N]`, for use where that is so.
        dtype: What the matrix is kept in.
        how: What it is then, a `Formation`, or an int32 scalar.
        otherwise: What it is where it is not possible.
    """

    possible: tf.Tensor | bool
    make: Callable[[], tf.Tensor]
    dtype: tf.DType
    how: Formation | tf.Tensor
    otherwise: Formation | tf.Tensor = Formation.OUTPUT


class Structured(Linearized):
    """A `Linearized` whose blocks of dense layers are assembled; see the module.

    A subclass says what the curvature in the pre-activations is.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._layers = [
            layer
            for layer in dense_layers(self._loss)
            if all(self._dtypes[k] == self.dtype for k in layer.variables)
        ]
        # Of blocks that are verified at two places of a graph.
        self._checks: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}

    def block(self, k: int) -> tf.Tensor:
        """H_k `[N_k, N_k]`, symmetric to the bit; structured where that holds."""
        return self.formed(k).matrix

    def formed(self, k: int) -> Formed:
        """H_k, structured where that holds, and which it was."""
        generic = super().block
        assembly = self._structured(k)
        if isinstance(assembly, Formation):
            return Formed(generic(k), tf.constant(assembly))
        possible, make, dtype, how, otherwise = assembly
        if possible is False:
            return Formed(generic(k), tf.convert_to_tensor(otherwise))
        size = self._parts[k].size

        def verified() -> tuple[tf.Tensor, tf.Tensor]:
            matrix = tf.cast(make(), dtype)

            def product(vector: tf.Tensor) -> tf.Tensor:
                return tf.cast(tf.linalg.matvec(matrix, tf.cast(vector, dtype)), vector.dtype)

            return matrix, self._verified(k, product)

        def nothing() -> tuple[tf.Tensor, tf.Tensor]:
            return tf.zeros([size, size], dtype), tf.constant(False)

        matrix, holds = verified() if possible is True else tf.cond(possible, verified, nothing)
        why_not = tf.where(possible, Formation.REFUTED, otherwise)
        return Formed(
            *tf.cond(
                holds,
                lambda: (matrix, tf.convert_to_tensor(how)),
                lambda: (tf.cast(generic(k), dtype), why_not),
            )
        )

    def _verified(self, k: int, product: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Whether `product` multiplies by H_k, on a random vector; a scalar bool."""
        probe, expected = self._checks[k] if k in self._checks else self._check(k)
        # Written so that NaN counts as a difference.
        return tf.norm(product(probe) - expected) <= _ROUNDING[self.dtype] * tf.norm(expected)

    def _check(self, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        """A random vector and H_k times it."""
        size = self._parts[k].size
        vector = tf.random.stateless_normal([size], [17, size], dtype=self.dtype)
        return vector, self.block_product(k, vector)

    def _structured(self, k: int) -> Assembly | Formation:
        """How the k-th block is assembled, or why its structure is not known."""
        layers = self._covering(k)
        if layers is None:
            return self._unless_loop(Formation.NOT_LINEAR)
        return Assembly(
            self._affordable(layers),
            lambda: self._assemble(k, layers),
            self.dtype,
            Formation.LAYERS,
            otherwise=Formation.MEMORY,
        )

    def _affordable(self, layers: list[DenseLayer]) -> tf.Tensor | bool:
        """Whether H_ml `[B, o, p]` of all layers fit into memory; True, or a scalar bool.

        Of a layer of 1,000 outputs they take 4 MB an example.
        """
        widths = [layer.outputs for layer in layers]
        numbers = sum(o * p for j, o in enumerate(widths) for p in widths[j:])
        most = memory_of_a_batch(self._memory) / (_COPIES * self.dtype.size * numbers)
        if most >= _ANY_BATCH:
            return True
        examples = tf.shape(self._loss.tensor(layers[0].preactivations))[0]
        return tf.cast(examples, tf.float64) <= tf.constant(most, tf.float64)

    def _unless_loop(self, reason: Formation) -> Formation:
        """Why a block is not assembled: the loss's loop where it has one, which rules out all."""
        return reason if self._loss.vectorizable else Formation.LOOP

    def _covering(self, k: int) -> list[DenseLayer] | None:
        """The layers that have a variable in the block, if they have all of its variables."""
        if not self._loss.vectorizable:
            return None
        indices = set(self._parts[k].indices)
        layers = [layer for layer in self._layers if indices & set(layer.variables)]
        covered = {i for layer in layers for i in layer.variables}
        return layers if layers and indices <= covered else None

    # --- assembly -----------------------------------------------------------------------

    def _assemble(self, k: int, layers: list[DenseLayer]) -> tf.Tensor:
        indices = self._parts[k].indices
        activations, curvature = self._preactivation_curvature(layers)
        extended = []
        for layer, a in zip(layers, activations, strict=True):
            a = tf.ensure_shape(a, [None, layer.inputs])  # lost where ops are run again
            columns = []
            if layer.kernel in indices:
                columns.append(a)
            if layer.bias is not None and layer.bias in indices:
                columns.append(tf.ones_like(a[:, :1]))
            extended.append(tf.concat(columns, 1))
        rows: list[list[Any]] = [[None] * len(layers) for _ in layers]
        for j in range(len(layers)):
            for m in range(j, len(layers)):
                hessian, delta, jacobian = curvature(m, j)
                hessian = tf.ensure_shape(hessian, [None, layers[m].outputs, layers[j].outputs])
                if m == j:
                    rows[m][m] = _diagonal_block(extended[m], hessian)
                    continue
                if jacobian is not None:
                    jacobian = _select_columns(jacobian, layers[m], indices)
                rows[m][j] = _cross_block(extended[m], hessian, delta, jacobian, extended[j])
                rows[j][m] = tf.transpose(rows[m][j])
        matrix = tf.concat([tf.concat(row, 1) for row in rows], 0)
        order = _order([v for layer in layers for v in layer.variables if v in indices], indices)
        matrix = self._permuted(matrix, order, indices)
        size = self._parts[k].size
        return self._with_direct_diagonal(k, tf.ensure_shape(matrix, [size, size]))

    def _with_direct_diagonal(self, k: int, matrix: tf.Tensor) -> tf.Tensor:
        """`matrix` and what depends on the block's weights beside its layers."""
        direct = self._direct_diagonal(k)
        if direct is None:
            return matrix
        direct = tf.cast(direct, matrix.dtype)
        return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + direct)

    def _permuted(
        self, matrix: tf.Tensor, order: Sequence[int] | None, indices: Sequence[int]
    ) -> tf.Tensor:
        """Rows and columns brought from the layers' order of variables to the block's."""
        if order is None:
            return matrix
        starts, at = {}, 0
        for i in order:
            starts[i] = at
            at += self._shapes[i].num_elements()
        where = tf.concat(
            [starts[i] + tf.range(self._shapes[i].num_elements()) for i in indices], 0
        )
        return tf.gather(tf.gather(matrix, where, axis=0), where, axis=1)

    def _direct_diagonal(self, k: int) -> tf.Tensor | None:
        """The diagonal `[N]` from what depends on the weights beside their layers, or None."""
        fixed = {name: self._loss.tensor(name) for name in self._linear_outputs()}
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(self.points[k])
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(self.points[k])
                value, _ = self._loss.evaluate(self.unflatten(self.points), overrides=fixed)
            gradient = inner.gradient(value, self.points[k])
        if gradient is None:
            return None
        return outer.gradient(
            gradient, self.points[k], output_gradients=tf.ones_like(self.points[k])
        )

    def _linear_outputs(self) -> list[str]:
        """Names of the tensors through which weights enter linearly."""
        return [layer.preactivations for layer in self._layers]

    def _preactivation_curvature(
        self, layers: list[DenseLayer]
    ) -> tuple[list[tf.Tensor], Callable[[int, int], tuple[Any, Any, Any]]]:
        """a_l of each layer, and (m, l) -> H_ml `[B, o, p]`, δ_m `[B, o]`, D_ml `[B, i, p]`."""
        raise NotImplementedError

    def _per_output(self, along: Callable[[tf.Tensor], Any], count: int) -> Any:
        """`along` for each unit vector of length `count`, stacked along a new first axis."""
        return tf.vectorized_map(along, tf.eye(count, dtype=self.dtype))


class StructuredHessian(Structured):
    """Blocks of the exact Hessian."""

    def _preactivation_curvature(
        self, layers: list[DenseLayer]
    ) -> tuple[list[tf.Tensor], Callable[[int, int], tuple[Any, Any, Any]]]:
        """a_l of each layer, and (m, l) -> H_ml `[B, o, p]`, δ_m `[B, o]`, D_ml `[B, i, p]`."""
        weights = self.unflatten(self.points)
        shifts = [tf.zeros_like(self._loss.tensor(layer.preactivations)) for layer in layers]
        names = [layer.preactivations for layer in layers]
        inputs = [layer.activations for layer in layers]
        probes = [tf.zeros_like(self._loss.tensor(name)) for name in inputs]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
            outer.watch([shifts, probes])
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as inner:
                inner.watch(shifts)
                value, activations = self._loss.evaluate(
                    weights, shifts=dict(zip(names, shifts, strict=True)), fetch=inputs
                )
            deltas = inner.gradient(value, shifts, unconnected_gradients="zero")
            # Linear in the probes: its derivative along v is the derivative of the
            # activations along v (forward mode as two reverse ones).
            pulled = [
                inner.gradient(
                    activations[j + 1 :], shifts[j], probes[j + 1 :], unconnected_gradients="zero"
                )
                if j + 1 < len(layers)
                else None
                for j in range(len(layers))
            ]
        memo: dict[int, tuple[list[tf.Tensor], list[tf.Tensor]]] = {}

        def columns(j: int) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
            def along(v: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
                direction = tf.broadcast_to(v, tf.shape(shifts[j]))
                second = outer.gradient(
                    deltas[j], shifts[j:], direction, unconnected_gradients="zero"
                )
                first = (
                    outer.gradient(
                        pulled[j], probes[j + 1 :], direction, unconnected_gradients="zero"
                    )
                    if pulled[j] is not None
                    else []
                )
                return second, first

            return self._per_output(along, layers[j].outputs)

        def pair(m: int, j: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
            if j not in memo:
                memo[j] = columns(j)
            second, first = memo[j]
            hessian = tf.transpose(second[m - j], [1, 2, 0])
            jacobian = None if m == j else tf.transpose(first[m - j - 1], [1, 2, 0])
            return hessian, deltas[m], jacobian

        return activations, pair


def _order(found: list[int], wanted: Sequence[int]) -> list[int] | None:
    return None if found == list(wanted) else found


def _select_columns(jacobian: tf.Tensor, layer: DenseLayer, indices: Sequence[int]) -> tf.Tensor:
    """D for the columns of A = [a, 1] that are in the block: the 1 does not move."""
    columns = []
    if layer.kernel in indices:
        columns.append(jacobian)
    if layer.bias is not None and layer.bias in indices:
        columns.append(tf.zeros_like(jacobian[:, :1]))
    return tf.concat(columns, 1)


def _diagonal_block(a: tf.Tensor, hessian: tf.Tensor) -> tf.Tensor:
    """Σ_b (a aᵀ) ⊗ H: `[B, i]`, `[B, o, o]` -> `[i·o, i·o]`; half the work, by symmetry."""
    inputs, outputs = int(a.shape[1]), int(hessian.shape[1])
    upper = [(o, p) for o in range(outputs) for p in range(o, outputs)]
    # Symmetric to the bit, and so is what is put together of them.
    weights = tf.gather(
        tf.reshape(hessian, [-1, outputs * outputs]), [o * outputs + p for o, p in upper], axis=1
    )
    position = {pair: q for q, pair in enumerate(upper)}
    table = [position[min(o, p), max(o, p)] for o in range(outputs) for p in range(outputs)]
    if inputs >= MANY_INPUTS:
        return _large_block(a, weights, table)
    grams = tf.reshape(
        tf.gather(_weighted_grams(a, weights), table, axis=1), [inputs, outputs, outputs, inputs]
    )
    return tf.reshape(tf.transpose(grams, [0, 1, 3, 2]), [inputs * outputs, inputs * outputs])


def _weighted_grams(a: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """aᵀ diag(w_q) a for each column of w: `[B, i]`, `[B, Q]` -> `[i, Q, i]`, symmetric in i."""
    inputs, count = int(a.shape[1]), int(weights.shape[1])
    column = inputs * (a.shape[0] or _ASSUMED_BATCH)
    if inputs <= count and inputs * column <= _MAX_ELEMENTS:
        # An example has fewer products of two inputs than of an input and a weight. Rows are
        # gathered, not columns, which would be a number at a time.
        first, second = np.triu_indices(inputs)
        rows = tf.transpose(a)
        pairs = tf.matmul(tf.gather(rows, first) * tf.gather(rows, second), weights)
        number = np.zeros((inputs, inputs), np.int32)
        number[first, second] = number[second, first] = np.arange(len(first))
        return tf.transpose(tf.gather(pairs, number), [0, 2, 1])
    chunk = max(1, min(count, _MAX_ELEMENTS // column))
    pieces = -(-count // chunk)
    half = -(-inputs // 2)
    upper, lower = a[:, :half], a[:, half:]

    def weighted(left: tf.Tensor, w: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        """leftᵀ diag(w_q) right: with all q in its columns, the product is a wide one."""
        columns = tf.reshape(w[:, :, None] * right[:, None, :], [-1, chunk * int(right.shape[1])])
        product = tf.matmul(left, columns, transpose_a=True)
        return tf.reshape(product, [-1, chunk, int(right.shape[1])])

    def some(w: tf.Tensor) -> tf.Tensor:
        # Three of the four quarters are computed, the fourth is one of them transposed.
        first = _symmetric(weighted(upper, w, upper))
        if inputs == 1:
            return first
        second = weighted(a, w, lower)
        across, last = second[:half], _symmetric(second[half:])
        return tf.concat(
            [
                tf.concat([first, across], 2),
                tf.concat([tf.transpose(across, [2, 1, 0]), last], 2),
            ],
            0,
        )

    if pieces == 1:
        return some(weights)
    padded = tf.pad(weights, [[0, 0], [0, pieces * chunk - count]])
    grams = tf.map_fn(
        some,
        tf.transpose(tf.reshape(padded, [-1, pieces, chunk]), [1, 0, 2]),
        fn_output_signature=tf.TensorSpec([inputs, chunk, inputs], a.dtype),
        parallel_iterations=1,
    )
    return tf.reshape(tf.transpose(grams, [1, 0, 2, 3]), [inputs, -1, inputs])[:, :count]


def _symmetric(grams: tf.Tensor) -> tf.Tensor:
    """`[i, Q, i]`, symmetric but for rounding, made so to the bit."""
    return (grams + tf.transpose(grams, [2, 1, 0])) / 2


def _large_block(a: tf.Tensor, weights: tf.Tensor, table: Sequence[int]) -> tf.Tensor:
    """`_diagonal_block` without the inputs that are always zero and examples of weight zero.

    Pixels at an image's edge are the one, inactive ReLU units the other; to look for them costs
    little beside a matrix product this large. The result is written some rows at a time, in its
    final order, and is the one array of N² numbers: a transpose of the whole would be another.

    Args:
        a: `[B, i]`.
        weights: `[B, Q]`, one column for each pair of outputs that differs from the others.
        table: The column of each pair (o, p), row by row; o² numbers.
    """
    inputs, outputs = int(a.shape[1]), math.isqrt(len(table))
    live = tf.where(tf.reduce_any(tf.not_equal(a, 0), axis=0))[:, 0]
    kept = tf.gather(a, live, axis=1)
    # Where each input is among those that are kept; the others are a row of zeros at the end.
    count = tf.size(live)
    where = tf.tensor_scatter_nd_update(tf.fill([inputs], count), live[:, None], tf.range(count))

    def gram(w: tf.Tensor) -> tf.Tensor:
        active = tf.where(tf.not_equal(w, 0))[:, 0]
        rows = tf.gather(kept, active)
        product = tf.matmul(rows * tf.gather(w, active)[:, None], rows, transpose_a=True)
        return tf.pad((product + tf.transpose(product)) / 2, [[0, 1], [0, 1]])

    grams = tf.map_fn(
        gram,
        tf.transpose(weights),
        fn_output_signature=tf.TensorSpec([None, None], a.dtype),
        parallel_iterations=1,
    )
    # All of it is written over. Of a constant, graph optimisation would make a second array.
    row = outputs * inputs * outputs
    block = tf.fill([inputs * row], grams[0, 0, 0])
    step = -(-inputs // _PIECES)
    for start in range(0, inputs, step):
        stop = min(start + step, inputs)
        # One after another: all pieces at once would be as large as the result.
        with tf.control_dependencies([block]):
            rows = tf.gather(grams, where[start:stop], axis=1)
        rows = tf.reshape(tf.gather(rows, table), [outputs, outputs, stop - start, -1])
        rows = tf.gather(tf.transpose(rows, [2, 0, 3, 1]), where, axis=2)
        # This op writes in place, as `tf.tensor_scatter_nd_update` does not (TensorFlow 2.18), and
        # fastest in one dimension; XLA takes no bounds that a loop would count.
        block = tf.raw_ops.TensorStridedSliceUpdate(
            input=block,
            begin=tf.constant([start * row], tf.int64),
            end=tf.constant([stop * row], tf.int64),
            strides=tf.constant([1], tf.int64),
            value=tf.reshape(rows, [-1]),
        )
    return tf.reshape(block, [inputs * outputs, inputs * outputs])


def _cross_block(
    left: tf.Tensor,
    hessian: tf.Tensor,
    delta: tf.Tensor | None,
    jacobian: tf.Tensor | None,
    right: tf.Tensor,
) -> tf.Tensor:
    """Σ_b (left ⊗ H + δ ⊗ D) ⊗ right -> `[i·o, k·p]`, one output o at a time."""
    i, o = int(left.shape[1]), int(hessian.shape[1])
    k, p = int(right.shape[1]), int(hessian.shape[2])
    transposed = tf.transpose(left)
    moved = None if jacobian is None else tf.transpose(jacobian, [2, 1, 0])

    def one(item: Any) -> tf.Tensor:
        h, d = item
        factor = transposed[None] * tf.transpose(h)[:, None, :]
        if moved is not None:
            factor += d[None, None, :] * moved
        return tf.reshape(tf.matmul(tf.reshape(factor, [p * i, -1]), right), [p, i, k])

    deltas = tf.zeros_like(hessian[:, :, 0]) if delta is None else delta
    stacked = tf.map_fn(
        one,
        (tf.transpose(hessian, [1, 0, 2]), tf.transpose(deltas)),
        fn_output_signature=tf.TensorSpec([p, i, k], left.dtype),
        parallel_iterations=1,
    )
    return tf.reshape(tf.transpose(stacked, [2, 0, 3, 1]), [i * o, k * p])
