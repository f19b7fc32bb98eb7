"""The generalised Gauss-Newton matrix: positive semidefinite curvature.

    z   = network(w)            the output in which the loss is convex       any shape
    J   = dz/dw,  C = d²L/dz²   C is block diagonal over examples, and psd
    G   = Jᵀ C J + R            R: what depends on w beside z (a weight regulariser), exactly

G v takes three passes: J v (forward mode, as two reverse ones), C (J v), and Jᵀ of that.

References:
    Schraudolph 2002, Neural Computation 14(7), section 3 (the matrix and its products).
    Martens 2020, arXiv:1412.1193, section 8 (G equals the Fisher matrix for these losses).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.hessian import ExactHessian
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.low_rank import MAX_RANK, FormedRows, LowRank, OuterRows, formed_rows
from keras_qnewton.curvature.structured import Structured
from keras_qnewton.loss.structure import (
    ConvexOutput,
    DenseLayer,
    Tap,
    convex_output,
    dense_layers,
    taps,
)
from keras_qnewton.registry import Policy, register

# Outputs of an example up to which its C is held.
MAX_OUTPUTS = 256


@register("curvature", "gauss_newton")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class GaussNewton(Policy):
    """Gauss-Newton curvature, for softmax or sigmoid cross-entropy and squared error.

    The loss and the network's output are found in the recorded operations.

    Args:
        memory: Bytes that the vectorised rows of one chunk may take, approximately.
    """

    def __init__(self, memory: float = 512e6):
        self._memory = ExactHessian(memory).memory

    def at(self, loss: Any, weights: Sequence[tf.Tensor], parts: Sequence[Part]) -> Linearized:
        """Differentiates `loss` at `weights`; see `ExactHessian.at`.

        Raises:
            ValueError: If the loss is not recognisably convex in an output.
        """
        output = required_output(loss, "gauss_newton")
        return StructuredGaussNewton(loss, weights, parts, self._memory, output=output)

    def get_config(self) -> dict[str, Any]:
        return {"memory": self._memory}


@register("curvature", "auto")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class AutoCurvature(Policy):
    """Gauss-Newton where the loss is recognisably convex in the output, else the exact Hessian.

    Args:
        memory: Bytes that the vectorised rows of one chunk may take, approximately.
    """

    def __init__(self, memory: float = 512e6):
        self._exact = ExactHessian(memory)

    def at(self, loss: Any, weights: Sequence[tf.Tensor], parts: Sequence[Part]) -> Linearized:
        """Differentiates `loss` at `weights`; see `ExactHessian.at`."""
        output = convex_output(loss)
        if output is None:
            return self._exact.at(loss, weights, parts)
        return StructuredGaussNewton(loss, weights, parts, self._exact.memory, output=output)

    def get_config(self) -> dict[str, Any]:
        return {"memory": self._exact.memory}


def required_output(loss: Any, curvature: str) -> ConvexOutput:
    """The output z in which `loss` is convex; a ValueError about `curvature` if there is none."""
    output = convex_output(loss)
    if output is None:
        raise ValueError(
            f"Argument `curvature` can be {curvature!r} only for a loss that is a softmax or "
            "sigmoid cross-entropy or a squared error of one output. Use 'auto' or 'hessian'. "
            f"Received: curvature={curvature!r} and another loss"
        )
    return output


class GaussNewtonLinearized(Linearized):
    """A loss differentiated once through the network and twice through its convex part.

    Args:
        *args: Of `Linearized`.
        output: z.
        fetch: Names of other tensors of which the value is wanted.
        **kwargs: Of `Linearized`.
    """

    positive_semidefinite = True

    def __init__(self, *args: Any, output: ConvexOutput, fetch: Sequence[str] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._output = output
        loss, points = self._loss, self.points
        self._probe = tf.zeros_like(loss.tensor(output.name))
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._forward:
            self._forward.watch(self._probe)
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._network:
                self._network.watch(points)
                _, (self._z, *fetched) = loss.evaluate(
                    self.unflatten(points), fetch=[output.name, *fetch]
                )
            # Jᵀu: linear in u, so that its derivative in u along v is J v.
            self._pulled = self._network.gradient(
                self._z, points, self._probe, unconnected_gradients="zero"
            )
        # Static shapes get lost where operations are run again.
        recorded, *others = (
            tf.ensure_shape(tf.stop_gradient(t), loss.tensor(name).shape)
            for t, name in zip([self._z, *fetched], [output.name, *fetch], strict=True)
        )
        self._values = dict(zip(fetch, others, strict=True))
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._convex:
            self._convex.watch(recorded)
            with tf.GradientTape(watch_accessed_variables=False) as first:
                first.watch(recorded)
                value, _ = loss.evaluate(self.unflatten(points), overrides={output.name: recorded})
            self._output_gradient = first.gradient(value, recorded)
        self._recorded = recorded
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._rest:
            self._rest.watch(points)
            with tf.GradientTape(watch_accessed_variables=False) as first:
                first.watch(points)
                value, _ = loss.evaluate(
                    self.unflatten(points), overrides={output.name: tf.stop_gradient(recorded)}
                )
            self._rest_gradients = first.gradient(value, points)
        self._roots = self._output_roots() if self._has_few_outputs() else None

    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """G v with the whole matrix: one `[N_k]` a block in, one out."""
        curved = self._output_product(self._jacobian_product(self._pulled, list(vectors)))
        out = self._network.gradient(self._z, self.points, curved, unconnected_gradients="zero")
        for gradient, vector in zip(self._rest_gradients, vectors, strict=True):
            if gradient is not None:
                rest = self._rest.gradient(
                    gradient, self.points, vector, unconnected_gradients="zero"
                )
                out = [a + b for a, b in zip(out, rest, strict=True)]
        return out

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """G_k v with the k-th diagonal block, `[N_k]`."""
        curved = self._output_product(self._jacobian_product(self._pulled[k], vector))
        out = self._network.gradient(self._z, self.points[k], curved, unconnected_gradients="zero")
        if self._rest_gradients[k] is not None:
            out += self._rest.gradient(
                self._rest_gradients[k], self.points[k], vector, unconnected_gradients="zero"
            )
        return out

    def _jacobian_product(self, pulled: Any, vector: Any) -> tf.Tensor:
        return self._forward.gradient(pulled, self._probe, vector, unconnected_gradients="zero")

    def _output_product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v for each example, of the shape of z."""
        if self._output.kind == "softmax cross-entropy" and self._roots is not None:
            # Where the model is certain, C is a difference of nearly equal numbers: its second
            # derivative by tapes has lost most digits there, its roots have not.
            return tf.einsum("cbk,bk,cbl->bl", self._roots, vector, self._roots)
        return self._convex.gradient(
            self._output_gradient, self._recorded, vector, unconnected_gradients="zero"
        )

    def _has_few_outputs(self) -> bool:
        """Whether C `[C, C]` may be held for each example: not for a large vocabulary."""
        z = self._recorded.shape
        return z.rank == 2 and z[1] is not None and int(z[1]) <= MAX_OUTPUTS

    def _output_roots(self) -> tf.Tensor:
        """S with C = Σ_c s_c s_cᵀ for each example: `[C, B, C]`; z must be `[B, C]`.

        Softmax of a row with weight ω: C = ω (diag p - p pᵀ), s_c = √(ω p_c) (e_c - p). In the
        other losses C is diagonal.
        """
        count = int(self._recorded.shape[1])
        identity = tf.eye(count, dtype=self._recorded.dtype)
        if self._output.kind != "softmax cross-entropy":
            diagonal = self._convex.gradient(
                self._output_gradient, self._recorded, unconnected_gradients="zero"
            )
            return identity[:, None, :] * tf.sqrt(tf.nn.relu(diagonal))[None]
        terms = self._loss.tensor(self._output.terms)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(terms)
            value, _ = self._loss.evaluate(
                self.unflatten(self.points), overrides={self._output.terms: terms}
            )
        weights = tf.nn.relu(tape.gradient(value, terms))
        p = tf.nn.softmax(self._recorded)
        # 1 - p_c as the sum of the others, which cancels nothing.
        rest = tf.matmul(p, 1 - identity)
        scale = tf.transpose(tf.sqrt(weights[:, None] * p))[:, :, None]
        return scale * (identity[:, None, :] * rest[None] - (1 - identity)[:, None, :] * p[None])


class StructuredGaussNewton(Structured, GaussNewtonLinearized):
    """Gauss-Newton blocks of linear layers from per-example derivatives of the output.

    With C = Σ_c s_c s_cᵀ and d_lc = J_lᵀ s_c, J_l the output's derivative in layer l's z: C
    backward passes give all d, of which blocks and low-rank factors are made.
    """

    def __init__(self, loss: Any, *args: Any, **kwargs: Any):
        self._taps = taps(loss)
        layers = {layer.activations for layer in dense_layers(loss)}
        inputs = sorted(layers | {tap.inputs for tap in self._taps.values()})
        super().__init__(loss, *args, fetch=inputs, **kwargs)
        self._large_derivatives: dict[str, tf.Tensor] | None = None

    # --- formed blocks ------------------------------------------------------------------

    def _structured(self, k: int) -> tuple[tf.Tensor | None, Callable[[], tf.Tensor]] | None:
        if not self._has_rows():
            return None
        layers = self._covering(k)
        if layers is not None:
            names = [layer.preactivations for layer in layers]
            return self._one_row_each(names), lambda: self._assemble(k, layers)
        found = self._tapped(k)
        if found is None:
            return None
        alone = [tap.outputs for tap in found if not tap.positions]
        return self._one_row_each(alone), lambda: self._from_rows(k, found)

    def _linear_outputs(self) -> list[str]:
        return [*super()._linear_outputs(), *(tap.outputs for tap in self._taps.values())]

    def _preactivation_curvature(
        self, layers: list[DenseLayer]
    ) -> tuple[list[tf.Tensor], Callable[[int, int], tuple[Any, Any, Any]]]:
        """a_l of each layer, and (m, l) -> Σ_c d_mc d_lcᵀ `[B, o, p]` with no second part."""
        found = self._derivatives([layer.preactivations for layer in layers])
        # [C, B, o] -> [B, C, o].
        d = [tf.transpose(found[layer.preactivations], [1, 0, 2]) for layer in layers]

        def pair(m: int, j: int) -> tuple[tf.Tensor, None, None]:
            return tf.matmul(d[m], d[j], transpose_a=True), None, None

        return [self._values[layer.activations] for layer in layers], pair

    def _from_rows(self, k: int, found: list[Tap]) -> tf.Tensor:
        """Σ_b U_bᵀ U_b, some examples at a time, plus the direct dependence on the weights."""
        size = self._parts[k].size
        derivatives = self._derivatives([tap.outputs for tap in found])
        inputs = {tap.outputs: self._inputs(tap) for tap in found}
        moved = {tap.outputs: self._by_position(derivatives[tap.outputs], tap) for tap in found}
        examples = tf.shape(self._recorded)[0]
        per_example = next(iter(derivatives.values())).shape[0] * size * self.dtype.size
        chunk = tf.maximum(1, tf.minimum(examples, int(self._memory / per_example)))

        def add(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            stop = tf.minimum(start + chunk, examples)
            rows = [
                formed_rows(inputs[tap.outputs][start:stop], moved[tap.outputs][:, start:stop])
                for tap in found
            ]
            flat = tf.reshape(tf.concat(rows, 2), [-1, size])
            return stop, total + tf.matmul(flat, flat, transpose_a=True)

        _, matrix = tf.while_loop(
            lambda start, _: start < examples,
            add,
            (tf.constant(0), tf.zeros([size, size], self.dtype)),
            parallel_iterations=1,
        )
        direct = self._direct_diagonal(k)
        if direct is not None:
            matrix += tf.linalg.diag(direct)
        return (matrix + tf.transpose(matrix)) / 2

    # --- low rank -----------------------------------------------------------------------

    def low_rank(self, k: int) -> tuple[tf.Tensor, Callable[[], LowRank]] | None:
        """Factors of a block that is too large to be formed, or None if they are not known.

        Returns:
            Whether the block has them, a scalar bool (at run time: a batch's size is not known
            before), and a function that makes them, for use under that condition.
        """
        found = self._tapped(k)
        if found is None or not self._has_rows() or self._rest_gradients[k] is not None:
            return None
        if self._large_derivatives is None:
            self._large_derivatives = self._derivatives_if_few()
        few = self._large_derivatives

        def make() -> LowRank:
            return LowRank([self._piece(tap, few[tap.outputs]) for tap in found])

        alone = self._one_row_each([tap.outputs for tap in found if not tap.positions])
        possible = self._is_low_rank() if alone is None else self._is_low_rank() & alone

        def holds() -> tf.Tensor:
            factors = make()
            return self._verified(
                k, lambda v: tf.cast(factors.product(tf.cast(v, tf.float64)), self.dtype)
            )

        return tf.cond(possible, holds, lambda: tf.constant(False)), make

    def _is_low_rank(self) -> tf.Tensor:
        return self._row_count() <= MAX_RANK

    def _row_count(self) -> tf.Tensor:
        return tf.shape(self._recorded)[0] * self._roots_per_example()

    def _derivatives_if_few(self) -> dict[str, tf.Tensor]:
        """d at every tap of a large block; zeros where there would be too many rows."""
        large = [k for k, part in enumerate(self._parts) if not part.dense]
        found = [self._tapped(k) for k in large if self._rest_gradients[k] is None]
        names = sorted({tap.outputs for some in found if some is not None for tap in some})
        tensors = [self._loss.tensor(name) for name in names]
        count = self._roots_per_example()

        # Of one shape in both branches, which XLA insists on.
        def none() -> list[tf.Tensor]:
            return [tf.zeros(tf.concat([[count], tf.shape(t)], 0), self.dtype) for t in tensors]

        def all_of_them() -> list[tf.Tensor]:
            computed = self._derivatives(names)
            return [computed[name] for name in names]

        values = tf.cond(self._is_low_rank(), all_of_them, none)
        return {
            t.name: tf.ensure_shape(value, [count, *t.shape])
            for t, value in zip(tensors, values, strict=True)
        }

    def _piece(self, tap: Tap, derivatives: tf.Tensor) -> OuterRows | FormedRows:
        if tap.positions or tap.kind == "convolution":
            moved = self._by_position(derivatives, tap)
            return FormedRows(formed_rows(self._inputs(tap), moved))
        d = tf.transpose(derivatives, [1, 0, 2])
        return OuterRows(None if tap.kind == "bias" else self._values[tap.inputs], d)

    # --- what both are made of ----------------------------------------------------------

    def _has_rows(self) -> bool:
        """Per-example derivatives need one row of outputs an example, and pfor."""
        return self._roots is not None and self._loss.vectorizable

    def _tapped(self, k: int) -> list[Tap] | None:
        """Where each of the block's weights enters, or None if one is not known to."""
        indices = self._parts[k].indices
        same = all(self._dtypes[i] == self.dtype for i in indices)
        known = all(i in self._taps for i in indices)
        return [self._taps[i] for i in indices] if known and same else None

    def _one_row_each(self, names: Sequence[str]) -> tf.Tensor | None:
        """Whether these tensors have a row an example; None if that is known to be so."""
        examples = self._recorded.shape[0]
        tensors = [self._loss.tensor(name) for name in names]
        if examples is not None and all(t.shape[0] == examples for t in tensors):
            return None
        if not tensors:
            return None
        rows = tf.shape(self._recorded)[0]
        return tf.reduce_all([tf.equal(tf.shape(t)[0], rows) for t in tensors])

    def _derivatives(self, names: Sequence[str]) -> dict[str, tf.Tensor]:
        """d `[C, *z.shape]` at each of the named tensors z."""
        shifts = {name: tf.zeros_like(self._loss.tensor(name)) for name in names}
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(list(shifts.values()))
            _, (z,) = self._loss.evaluate(
                self.unflatten(self.points), shifts=shifts, fetch=[self._output.name]
            )
        values = tf.vectorized_map(
            lambda root: tape.gradient(
                z, list(shifts.values()), root, unconnected_gradients="zero"
            ),
            self._roots,
        )
        return dict(zip(names, values, strict=True))

    def _roots_per_example(self) -> int:
        """C: how many s there are."""
        return int(self._recorded.shape[1])

    def _inputs(self, tap: Tap) -> tf.Tensor:
        """a `[B, P, i]`: what the weight is multiplied by at each position."""
        a = self._values[tap.inputs]
        examples = tf.shape(self._recorded)[0]
        if tap.kind == "bias":
            positions = tf.size(a) // (examples * a.shape[-1])
            return tf.ones([examples, positions, 1], self.dtype)
        if tap.window is not None:
            a = tf.image.extract_patches(a, **tap.window)
        return tf.reshape(a, [examples, -1, self._shapes[tap.variable][:-1].num_elements()])

    def _by_position(self, derivatives: tf.Tensor, tap: Tap) -> tf.Tensor:
        """d `[C, B, P, o]` of what came as `[C, *z.shape]`."""
        examples = tf.shape(self._recorded)[0]
        outputs = self._shapes[tap.variable][-1]
        return tf.reshape(derivatives, [tf.shape(derivatives)[0], examples, -1, outputs])
