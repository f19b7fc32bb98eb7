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
from keras_qnewton.curvature.hessian import Curvature
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.low_rank import MAX_RANK, FormedRows, LowRank, OuterRows, formed_rows
from keras_qnewton.curvature.structured import MANY_INPUTS, Structured, StructuredHessian
from keras_qnewton.loss.structure import (
    ConvexOutput,
    DenseLayer,
    Tap,
    convex_output,
    dense_layers,
    taps,
)
from keras_qnewton.registry import register

# Outputs of an example up to which its C is held.
MAX_OUTPUTS = 256
# Of a gradient, relative to it: far below what one batch tells of it.
_NEGLIGIBLE = 2.0**-12
_ROUNDING = {tf.float32: 2.0**-24, tf.float64: 2.0**-53}
# N up to which a block may be in double precision: the solver of such a one holds it so anyway.
_LARGEST_DOUBLE = 2048
# Bytes in a row of U from which on UᵀU is made of slices, of which symmetry spares nearly half.
_SLICED, _SLICES = 4096, 4


@register("curvature", "gauss_newton")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class GaussNewton(Curvature):
    """Gauss-Newton curvature, for softmax or sigmoid cross-entropy and squared error.

    The loss and the network's output are found in the recorded operations. See `Curvature` for
    the argument.
    """

    def at(self, loss: Any, weights: Sequence[tf.Tensor], parts: Sequence[Part]) -> Linearized:
        """Differentiates `loss` at `weights`; see `ExactHessian.at`.

        Raises:
            ValueError: If the loss is not recognisably convex in an output.
        """
        output = required_output(loss, "gauss_newton")
        return StructuredGaussNewton(loss, weights, parts, self.memory, output=output)


@register("curvature", "auto")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class AutoCurvature(Curvature):
    """Gauss-Newton where the loss is recognisably convex in the output, else the exact Hessian.

    See `Curvature` for the argument.
    """

    def at(self, loss: Any, weights: Sequence[tf.Tensor], parts: Sequence[Part]) -> Linearized:
        """Differentiates `loss` at `weights`; see `ExactHessian.at`."""
        output = convex_output(loss)
        if output is None:
            return StructuredHessian(loss, weights, parts, self.memory)
        return StructuredGaussNewton(loss, weights, parts, self.memory, output=output)


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
        if output.kind == "softmax cross-entropy":
            self._probabilities = tf.nn.softmax(recorded)
            self._likeliest = tf.argmax(self._probabilities, axis=1)[:, None]
            self._term_weights = self._weights_of_terms()
        self._roots: Any = self._output_roots() if self._has_few_outputs() else None

    def sharpened(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """`gradients` with the digits that softmax cross-entropy's derivative loses."""
        if self._output.kind != "softmax cross-entropy":
            return list(gradients)
        lost = self._lost(self._output_gradient, self._likeliest)

        def won_back() -> list[tf.Tensor]:
            added = self._network.gradient(self._z, self.points, lost, unconnected_gradients="zero")
            return [g + more for g, more in zip(gradients, added, strict=True)]

        # A backward pass, which models that are certain of few examples do without.
        worth_it = tf.norm(lost) > _NEGLIGIBLE * tf.norm(self._output_gradient)
        return tf.cond(worth_it, won_back, lambda: list(gradients))

    def value_error(self) -> tf.Tensor:
        """About how far rounding has moved the loss, float64 scalar.

        u Σ|∂L/∂z||z| comes from that of z; softmax cross-entropy of a certain example, the
        logarithm of nearly 1, has the absolute error u besides.
        """
        terms = tf.reduce_sum(tf.abs(self._output_gradient * self._recorded))
        if self._output.kind == "softmax cross-entropy":
            terms += tf.reduce_sum(self._term_weights)
        return _ROUNDING[self.dtype] * tf.cast(terms, tf.float64)

    def gradients_after(self, step: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradient at the weights plus `step`, as exact as `sharpened`."""
        if self._output.kind != "softmax cross-entropy":
            return super().gradients_after(step)
        points = [x + d for x, d in zip(self.points, step, strict=True)]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(points)
            value, (z,) = self._loss.evaluate(self.unflatten(points), fetch=[self._output.name])
        lost = self._lost(
            tf.ensure_shape(tape.gradient(value, z), self._recorded.shape),
            tf.argmax(z, axis=1)[:, None],
        )
        gradients = tape.gradient(value, points, unconnected_gradients="zero")
        added = tape.gradient(z, points, lost, unconnected_gradients="zero")
        return [g + more for g, more in zip(gradients, added, strict=True)]

    def _lost(self, derivative: tf.Tensor, likeliest: tf.Tensor) -> tf.Tensor:
        """What rounding took from ∂L/∂z, `[B, C]`, of softmax cross-entropy.

        A row is ω (p - y), and its sum zero. Where the model is certain of the class y, p_y - 1
        is a difference of nearly equal numbers: in single precision it is wrong by 6e-8, which
        is all of it at a loss of 6e-8. The other entries are right: theirs is its value.
        """
        excess = tf.reduce_sum(derivative, axis=1)
        # More than rounding: labels that do not sum to one.
        rounding = 2.0**-20 if derivative.dtype == tf.float32 else 2.0**-48
        explained = tf.abs(excess) <= rounding * self._term_weights
        excess = tf.where(explained, excess, tf.zeros_like(excess))
        count = tf.shape(derivative)[1]
        return -excess[:, None] * tf.one_hot(likeliest[:, 0], count, dtype=derivative.dtype)

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
        if self._output.kind == "softmax cross-entropy":
            # Where the model is certain, C v = ω (p v - p (p.v)) is a difference of nearly equal
            # numbers, in the second derivative by tapes too. C ignores what all entries of v
            # share: taken from the likeliest class, nothing cancels.
            p = self._probabilities
            v = vector - tf.gather(vector, self._likeliest, axis=1, batch_dims=1)
            mean = tf.reduce_sum(p * v, axis=1, keepdims=True)
            return self._term_weights[:, None] * p * (v - mean)
        return self._convex.gradient(
            self._output_gradient, self._recorded, vector, unconnected_gradients="zero"
        )

    def _weights_of_terms(self) -> tf.Tensor:
        """ω `[B]`: by how much each term of the loss counts."""
        terms = self._loss.tensor(self._output.terms)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(terms)
            value, _ = self._loss.evaluate(
                self.unflatten(self.points), overrides={self._output.terms: terms}
            )
        return tf.nn.relu(tape.gradient(value, terms))

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
        p = self._probabilities
        # 1 - p_c as the sum of the others, which cancels nothing.
        rest = tf.matmul(p, 1 - identity)
        scale = tf.transpose(tf.sqrt(self._term_weights[:, None] * p))[:, :, None]
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
        self._few: dict[str, tf.Tensor] | None = None

    # --- formed blocks ------------------------------------------------------------------

    def _structured(self, k: int) -> tuple[tf.Tensor | bool, Callable[[], tf.Tensor]] | None:
        if not self._has_rows():
            return None
        layers, found = self._covering(k), self._taps_for_rows(k)
        if found is not None:
            return self._tap_fitting(found), lambda: self._from_rows(k, found)
        if layers is None:
            return None
        outputs = [(layer.preactivations, False) for layer in layers]
        return self._fitting(outputs), lambda: self._assemble(k, layers)

    def _taps_for_rows(self, k: int) -> list[Tap] | None:
        """Where the rows of the k-th block are formed, or None if they are not."""
        layers, found = self._covering(k), self._tapped(k)
        return found if found and (layers is None or self._has_one_row(layers)) else None

    def _has_one_row(self, layers: list[DenseLayer]) -> bool:
        """Whether one product of all rows is less work than one for each pair of outputs.

        Not where layers are wide, of which inputs and examples are left out that are zero.
        """
        return self._roots_per_example() == 1 and all(n.inputs < MANY_INPUTS for n in layers)

    def _precision(self, k: int) -> tf.DType:
        """Double where one product of rows makes the block.

        It squares their singular values: in single precision nothing is left of those below
        √u of the largest, and what rounding makes of them has to be added to every shift.
        """
        one = self._roots_per_example() == 1 and self._taps_for_rows(k) is not None
        return tf.float64 if one and self._parts[k].size <= _LARGEST_DOUBLE else self.dtype

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
        size, dtype = self._parts[k].size, self._precision(k)
        moved = self._by_position(found)
        inputs = {tap.outputs: self._inputs(tap) for tap in found}
        examples = tf.shape(self._recorded)[0]
        per_example = self._roots_per_example() * size * dtype.size
        chunk = tf.maximum(1, tf.minimum(examples, int(self._memory / per_example)))

        def add(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            stop = tf.minimum(start + chunk, examples)
            rows = [
                formed_rows(inputs[tap.outputs][start:stop], moved[tap.outputs][:, start:stop])
                for tap in found
            ]
            flat = tf.cast(tf.reshape(tf.concat(rows, 2), [-1, size]), dtype)
            return stop, total + _half_of_gram(flat)

        _, matrix = tf.while_loop(
            lambda start, _: start < examples,
            add,
            (tf.constant(0), tf.zeros([size, size], dtype)),
            parallel_iterations=1,
        )
        return self._with_direct_diagonal(k, matrix + tf.transpose(matrix))

    # --- low rank -----------------------------------------------------------------------

    def low_rank(self, k: int) -> tuple[tf.Tensor, Callable[[], LowRank]] | None:
        """Factors of a block that is too large to be formed, or None if they are not known.

        Returns:
            Whether the block has them, a scalar bool (at run time: a batch's size is not known
            before), and a function that makes them, for use under that condition.
        """
        found, fitting = self._low_rank_taps(k)
        if fitting is False:
            return None
        if self._few is None:
            self._few = self._derivatives_if_few()
        few = self._few

        def make() -> LowRank:
            return LowRank([self._piece(tap, few[tap.outputs]) for tap in found])

        formed = sum(self._shapes[t.variable].num_elements() for t in found if _is_formed(t))
        bytes_of_rows = 12.0 * formed * tf.cast(self._row_count(), tf.float64)  # float32 and 64
        possible = (self._row_count() <= MAX_RANK) & (bytes_of_rows <= self._memory)
        possible &= fitting

        def holds() -> tf.Tensor:
            factors = make()
            return self._verified(
                k, lambda v: tf.cast(factors.product(tf.cast(v, tf.float64)), self.dtype)
            )

        return tf.cond(possible, holds, lambda: tf.constant(False)), make

    def _low_rank_taps(self, k: int) -> tuple[list[Tap], tf.Tensor | bool]:
        """The taps of the k-th block and whether they fit; none and False if it has no rows."""
        found = self._tapped(k)
        if found is None or not self._has_rows() or self._rest_gradients[k] is not None:
            return [], False
        fitting = self._tap_fitting(found)
        return ([], False) if fitting is False else (found, fitting)

    def _row_count(self) -> tf.Tensor:
        """r, if no example is left out."""
        return tf.shape(self._recorded)[0] * self._roots_per_example()

    def _few_examples(self) -> tf.Tensor:
        """B, or as many as a system of low rank may have."""
        most = max(1, MAX_RANK // self._roots_per_example())
        return tf.minimum(tf.shape(self._recorded)[0], most)

    def _derivatives_if_few(self) -> dict[str, tf.Tensor]:
        """d `[C, B', P, o]` at every tap of a large block; zeros if B' is not all of B."""
        large = [k for k, part in enumerate(self._parts) if not part.dense]
        found = [tap for k in large for tap in self._low_rank_taps(k)[0]]
        examples = self._few_examples()

        # Of one shape in both branches, and within bounds, since XLA compiles both.
        def none() -> list[tf.Tensor]:
            return [
                tf.zeros([self._roots_per_example(), examples, *self._positions(tap)], self.dtype)
                for tap in found
            ]

        def all_of_them() -> list[tf.Tensor]:
            moved = self._by_position(found)
            return [moved[tap.outputs][:, :examples] for tap in found]

        values = tf.cond(self._row_count() <= MAX_RANK, all_of_them, none)
        return {tap.outputs: value for tap, value in zip(found, values, strict=True)}

    def _piece(self, tap: Tap, moved: tf.Tensor) -> OuterRows | FormedRows:
        outputs = self._shapes[tap.variable][-1]
        moved = tf.ensure_shape(moved, [self._roots_per_example(), None, None, outputs])
        examples = self._few_examples()
        if _is_formed(tap):
            return FormedRows(formed_rows(self._inputs(tap)[:examples], moved))
        d = tf.transpose(moved[:, :, 0], [1, 0, 2])
        if tap.kind == "bias":
            return OuterRows(None, d)
        inputs = self._shapes[tap.variable][:-1].num_elements()
        a = tf.ensure_shape(self._values[tap.inputs], [None, inputs])
        return OuterRows(a[:examples], d)

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

    def _tap_fitting(self, found: Sequence[Tap]) -> tf.Tensor | bool:
        return self._fitting([(tap.outputs, tap.positions) for tap in found])

    def _fitting(self, outputs: Sequence[tuple[str, bool]]) -> tf.Tensor | bool:
        """Whether these tensors have a row an example, or (if True) a number of rows that fits.

        True or False where that is known while tracing. Wrong guesses must not get as far as to
        an operation whose shapes do not match.
        """
        examples, rows = self._recorded.shape[0], tf.shape(self._recorded)[0]
        checks = []
        for name, positions in outputs:
            tensor = self._loss.tensor(name)
            known = tensor.shape[0]
            if examples is not None and known is not None:
                if known % examples if positions else known != examples:
                    return False
                continue
            count = tf.shape(tensor)[0]
            checks.append(tf.equal(count % rows, 0) if positions else tf.equal(count, rows))
        return tf.reduce_all(checks) if checks else True

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
        return int(self._roots.shape[0])

    def _inputs(self, tap: Tap) -> tf.Tensor:
        """a `[B, P, i]`: what the weight is multiplied by at each position."""
        examples, positions = tf.shape(self._recorded)[0], self._positions(tap)[0]
        if tap.kind == "bias":
            return tf.ones([examples, positions, 1], self.dtype)
        a = self._values[tap.inputs]
        if tap.window is not None:
            a = tf.image.extract_patches(a, **tap.window)
        return tf.reshape(a, [examples, positions, self._shapes[tap.variable][:-1].num_elements()])

    def _positions(self, tap: Tap) -> tuple[tf.Tensor | int, int]:
        """P and o: rows of z an example, and their length."""
        outputs = int(self._shapes[tap.variable][-1])
        if not _is_formed(tap):
            return 1, outputs
        size = tf.size(self._loss.tensor(tap.outputs))
        return size // (tf.shape(self._recorded)[0] * outputs), outputs

    def _by_position(self, found: Sequence[Tap]) -> dict[str, tf.Tensor]:
        """d `[C, B, P, o]` at each tap, by the name of its z."""
        derivatives = self._derivatives([tap.outputs for tap in found])
        examples = tf.shape(self._recorded)[0]
        count = self._roots_per_example()
        return {
            tap.outputs: tf.reshape(
                derivatives[tap.outputs],
                [count, examples, -1, int(self._shapes[tap.variable][-1])],
            )
            for tap in found
        }


def _half_of_gram(rows: tf.Tensor) -> tf.Tensor:
    """M with UᵀU = M + Mᵀ: `[r, N]` -> `[N, N]`; what is below its diagonal blocks is zero."""
    size = int(rows.shape[1])
    width = -(-size // (_SLICES if size * rows.dtype.size >= _SLICED else 1))
    found = []
    for start in range(0, size, width):
        product = tf.matmul(rows[:, start : start + width], rows[:, start:], transpose_a=True)
        height = int(product.shape[0])
        on, right = product[:, :height], product[:, height:]
        left = tf.zeros([height, start], rows.dtype)
        found.append(tf.concat([left, (on + tf.transpose(on)) / 4, right], 1))
    return tf.concat(found, 0)


def _is_formed(tap: Tap) -> bool:
    """Whether the rows of the tap's weight are sums over positions, which have to be formed."""
    return tap.positions or tap.kind == "convolution"
