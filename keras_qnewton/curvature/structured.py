"""Blocks of dense layers from per-example curvature in their pre-activations.

For layers z_l = a_l W_l + b_l whose examples do not interact, with A_l = [a_l, 1] `[B, i]`,
δ_l = ∂L/∂z_l `[B, o]`, and per example H_ml = ∂²L/∂z_m ∂z_l and D_ml = ∂a_m/∂z_l,

    block(m, l)[(i,o), (k,p)] = Σ_b (A_m[b,i] H_ml[b,o,p] + δ_m[b,o] D_ml[b,i,p]) A_l[b,k]

The sum over examples is a matrix product (`example_sums`). `structured_hessian` has H_ml and D_ml
of the exact Hessian; `structured_gauss_newton` has H_ml = J_mᵀ C J_l with J_l = ∂z/∂z_l, and D = 0.

A dependence on the weights beside the one through z_l (a weight regulariser) is added as the
diagonal that an L2 penalty has. That examples do not interact, and that the rest is diagonal,
is not proved but verified: at every evaluation the block's product with a random vector is
compared with the generic one, and where they differ the generic block is used.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.example_sums import cross_block, diagonal_block
from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.memory import memory_of_a_batch
from keras_qnewton.loss.structure import DenseLayer, dense_layers
from keras_qnewton.norms import norm

# Relative difference of two products in the given precision that rounding explains. Up to 7e-6 were
# seen in single precision, but for exact curvature of a cross-entropy of less than 1e-6: there
# neither product has digits.
ROUNDING = {tf.float32: 1e-5, tf.float64: 1e-12}
# Copies of H_ml that an assembly holds, with what they are differentiated from: 6 were measured of
# exact blocks, 2 of Gauss-Newton ones.
_COPIES = 6
# Examples from which on their number is not looked at when the step runs: so many always fit.
_ANY_BATCH = 2**16


class Assembly(NamedTuple):
    """How a block is assembled.

    Attributes:
        possible: True if it can be, or False, or a scalar bool tensor at run time.
        make: Makes the matrix `[N, N]`, for use where that is so, and a scalar bool: whether it has
            passed its check.
        dtype: Precision in which the matrix is kept.
        how: The matrix's `Formation` then; one of them, or an int32 scalar.
        otherwise: The reason where it is not possible, likewise.
    """

    possible: tf.Tensor | bool
    make: Callable[[], tuple[tf.Tensor, tf.Tensor]]
    dtype: tf.DType
    how: Formation | tf.Tensor
    otherwise: Formation | tf.Tensor = Formation.OUTPUT


class LayerPair(NamedTuple):
    """Curvature of each example in the pre-activations of two layers, m at or after l.

    Attributes:
        hessian: H_ml `[B, o, p]`.
        delta: δ_m `[B, o]`; None where D is.
        jacobian: D_ml `[B, i, p]`; None where it is zero, as for m = l.
    """

    hessian: tf.Tensor
    delta: tf.Tensor | None
    jacobian: tf.Tensor | None


class Structured(Linearized):
    """A `Linearized` whose blocks of dense layers are assembled; see the module.

    To be mixed in before the class that has the products. A subclass says what the curvature in
    the pre-activations is (`_preactivation_curvature`).
    """

    @functools.cached_property
    def _layers(self) -> list[DenseLayer]:
        """The dense layers whose weights have the precision of the curvature."""
        return [
            layer
            for layer in dense_layers(self._loss)
            if all(self._dtypes[k] == self.dtype for k in layer.variables)
        ]

    def formed(self, k: int) -> Formed:
        """H_k, structured where that holds, and which it was."""
        assembly = self._assembly(k)
        if isinstance(assembly, Formation):
            return self._formed_generically(k, tf.constant(assembly), self.dtype)
        possible, make, dtype, how, otherwise = assembly
        if possible is False:
            return self._formed_generically(k, tf.convert_to_tensor(otherwise), dtype)
        size = self._parts[k].size

        def nothing() -> tuple[tf.Tensor, tf.Tensor]:
            return tf.zeros([size, size], dtype), tf.constant(False)

        matrix, holds = make() if possible is True else _tf_private.cond(possible, make, nothing)
        if holds is True:  # proved while tracing
            return Formed(matrix, tf.convert_to_tensor(how))
        why_not = tf.where(possible, Formation.REFUTED, otherwise)
        form_anew = self._formed_slowly if self._seldom_fails else self._formed_generically
        return Formed(
            *_tf_private.cond(
                holds,
                lambda: (matrix, tf.convert_to_tensor(how)),
                lambda: form_anew(k, why_not, dtype)[:2],
            )
        )

    @property
    def _is_proved(self) -> bool:
        """Whether what is assembled needs no check but of shapes."""
        return False

    @property
    def _seldom_fails(self) -> bool:
        """Whether what is assembled is hardly ever replaced by what is formed generically."""
        return self._is_proved

    def _formed_slowly(self, k: int, reason: tf.Tensor, dtype: tf.DType) -> Formed:
        """H_k by one product after another, which is quick to trace: it is hardly ever wanted."""
        size = self._parts[k].size

        def product(vector: tf.Tensor) -> tf.Tensor:
            alone = len(self._parts) == 1
            return self.product([vector])[0] if alone else self.block_product(k, vector)

        rows = tf.map_fn(
            lambda i: product(tf.one_hot(i, size, dtype=self.dtype)),
            tf.range(size),
            fn_output_signature=tf.TensorSpec([size], self.dtype),
            parallel_iterations=1,
        )
        return Formed(tf.cast((rows + tf.transpose(rows)) / 2, dtype), reason)

    def _formed_generically(self, k: int, reason: tf.Tensor, dtype: tf.DType) -> Formed:
        """H_k in this precision, by passes that suppose nothing of the network."""
        return Formed(tf.cast(self.block_by_products(k), dtype), reason)

    def _verified(self, k: int, matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | bool]:
        """`matrix`, and whether it multiplies a random vector as H_k does; False of NaN."""
        probe, expected = self._check(k)
        found = tf.linalg.matvec(matrix, tf.cast(probe, matrix.dtype))
        error = norm(tf.cast(found, self.dtype) - expected)
        return matrix, error <= ROUNDING[self.dtype] * norm(expected)

    def _check(self, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        """A random vector and H_k times it."""
        size = self._parts[k].size
        vector = tf.random.stateless_normal([size], [17, size], dtype=self.dtype)
        return vector, self.block_product(k, vector)

    def _assembly(self, k: int) -> Assembly | Formation:
        """How the k-th block is assembled, or why its structure is not known."""
        layers = self._covering(k)
        if layers is None:
            return self._unless_loop(Formation.NOT_LINEAR)
        return Assembly(
            self._affordable(layers),
            lambda: self._verified(k, self._assemble(k, layers)),
            self.dtype,
            Formation.LAYERS,
            otherwise=Formation.MEMORY,
        )

    def _affordable(self, layers: list[DenseLayer]) -> tf.Tensor | bool:
        """True if H_ml `[B, o, p]` of all layers fit into memory, or a scalar bool.

        A layer of 1,000 outputs takes 4 MB an example.
        """
        widths = [layer.outputs for layer in layers]
        numbers = sum(o * p for j, o in enumerate(widths) for p in widths[j:])
        examples_that_fit = memory_of_a_batch(self._memory) / (_COPIES * self.dtype.size * numbers)
        if examples_that_fit >= _ANY_BATCH:
            return True
        examples = tf.shape(self._loss.tensor(layers[0].preactivations))[0]
        return tf.cast(examples, tf.float64) <= tf.constant(examples_that_fit, tf.float64)

    def _unless_loop(self, reason: Formation) -> Formation:
        """Why a block is not assembled: the loss's loop where it has one, which rules out all."""
        return reason if self._loss.vectorizable else Formation.LOOP

    @property
    def _can_assemble(self) -> bool:
        """Whether derivatives of each example can be had; here, by `tf.vectorized_map`."""
        return self._loss.vectorizable

    def _covering(self, k: int) -> list[DenseLayer] | None:
        """The layers that have a variable in the block, if they have all of its variables."""
        if not self._can_assemble:
            return None
        indices = set(self._parts[k].indices)
        layers = [layer for layer in self._layers if indices & set(layer.variables)]
        covered = {i for layer in layers for i in layer.variables}
        return layers if layers and indices <= covered else None

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
        rows: list[list[tf.Tensor]] = [[None] * len(layers) for _ in layers]
        for j in range(len(layers)):
            for m in range(j, len(layers)):
                hessian, delta, jacobian = curvature(m, j)
                hessian = tf.ensure_shape(hessian, [None, layers[m].outputs, layers[j].outputs])
                if m == j:
                    rows[m][m] = diagonal_block(extended[m], hessian)
                    continue
                if jacobian is not None:
                    jacobian = _select_columns(jacobian, layers[m], indices)
                rows[m][j] = cross_block(extended[m], hessian, delta, jacobian, extended[j])
                rows[j][m] = tf.transpose(rows[m][j])
        matrix = tf.concat([tf.concat(row, 1) for row in rows], 0)
        order = [v for layer in layers for v in layer.variables if v in indices]
        matrix = self._permuted(matrix, order, indices)
        size = self._parts[k].size
        return self._with_direct(k, tf.ensure_shape(matrix, [size, size]))

    def _with_direct(self, k: int, matrix: tf.Tensor) -> tf.Tensor:
        """`matrix` and what depends on the block's weights beside its layers."""
        direct = self._direct_diagonal(k)
        if direct is None:
            return matrix
        direct = tf.cast(direct, matrix.dtype)
        return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + direct)

    def _permuted(
        self, matrix: tf.Tensor, order: Sequence[int], indices: Sequence[int]
    ) -> tf.Tensor:
        """Rows and columns brought from the layers' order of variables to the block's."""
        if list(order) == list(indices):
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
        with _tf_private.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(self.points[k])
            with _tf_private.GradientTape(watch_accessed_variables=False) as inner:
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

    @abc.abstractmethod
    def _preactivation_curvature(
        self, layers: list[DenseLayer]
    ) -> tuple[list[tf.Tensor], Callable[[int, int], LayerPair]]:
        """a_l of each layer, and (m, l) -> the curvature in the two layers' pre-activations."""


def _select_columns(jacobian: tf.Tensor, layer: DenseLayer, indices: Sequence[int]) -> tf.Tensor:
    """D for the columns of A = [a, 1] that are in the block: the 1 does not move."""
    columns = []
    if layer.kernel in indices:
        columns.append(jacobian)
    if layer.bias is not None and layer.bias in indices:
        columns.append(tf.zeros_like(jacobian[:, :1]))
    return tf.concat(columns, 1)
