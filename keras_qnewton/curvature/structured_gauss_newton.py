"""Gauss-Newton blocks of linear layers from per-example derivatives of the output.

With C = Σ_c s_c s_cᵀ for each example b (`OutputCurvature.roots`), and J_l the derivative of the
output in a layer's z_l = a_l W_l + b_l, one backward pass for each c gives

    d_lc = J_lᵀ s_c             [B, o]      at P positions of an example: [B, P, o]

of which the block is made in one of three ways:

    H_ml = Σ_c d_mc d_lcᵀ       [B, o, p]   of dense layers; assembled by `structured`, D = 0
    U[(b,c)] = Σ_p a_bp ⊗ d_bcp [r, N]      r = B C rows, sums over positions; G = UᵀU
    U as a [B, i] and d         [B, C, o]   of blocks that are not formed: `low_rank`

As in `structured`, what depends on the weights beside z_l is added to formed blocks as a
diagonal, and the result is verified. Blocks that have such a part have no factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.example_sums import MANY_INPUTS, half_of_gram
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.curvature.linearized_gauss_newton import GaussNewtonLinearized
from keras_qnewton.curvature.low_rank import FormedRows, LowRank, OuterRows, RowFactors, formed_rows
from keras_qnewton.curvature.outputs import ConvexOutput, ConvexPart, OutputCurvature
from keras_qnewton.curvature.structured import Assembly, LayerPair, Structured
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.structure import DenseLayer, Tap, dense_layers, taps, with_biases

# N up to which a block may be in double precision: the solver of such a one holds it so anyway.
_LARGEST_DOUBLE = 2048
# Bytes of a block's rows, as many as it may have, up to which they are kept while it is solved.
_CACHED = 2**25


class StructuredGaussNewton(Structured, GaussNewtonLinearized):
    """A `GaussNewtonLinearized` whose blocks of linear layers are assembled; see the module."""

    def __init__(
        self,
        loss: RecordedLoss,
        weights: Sequence[tf.Tensor],
        parts: Sequence[Part],
        memory: float,
        output: ConvexOutput,
        output_curvature: Callable[[ConvexPart], OutputCurvature] | None = None,
    ):
        self._taps = taps(loss)
        layers = {layer.activations for layer in dense_layers(loss)}
        inputs = sorted(layers | {tap.inputs for tap in self._taps.values()})
        super().__init__(loss, weights, parts, memory, output, output_curvature, fetch=inputs)

    # --- formed blocks ------------------------------------------------------------------

    def _assembly(self, k: int) -> Assembly | Formation:
        if not self._has_rows():
            return self._unless_loop(Formation.OUTPUT)
        layers, found = self._covering(k), self._tapped(k)
        if found and (layers is None or self._has_one_row(layers)):
            dtype = self._precision_of_rows(k)
            return Assembly(
                self._tap_fitting(found),
                lambda: self._from_rows(k, found, dtype),
                dtype,
                Formation.ROWS,
            )
        if layers is None:
            return self._unless_loop(Formation.NOT_LINEAR)
        outputs = [(layer.preactivations, False) for layer in layers]
        fitting, affordable = self._fitting(outputs), self._affordable(layers)

        def from_layers() -> tf.Tensor:
            return self._assemble(k, layers)

        if fitting is False or affordable is True:
            return Assembly(fitting, from_layers, self.dtype, Formation.LAYERS)
        if found is None:
            both = tf.logical_and(fitting, affordable)
            why_not = tf.where(fitting, Formation.MEMORY, Formation.OUTPUT)
            return Assembly(both, from_layers, self.dtype, Formation.LAYERS, why_not)

        def from_rows() -> tf.Tensor:  # some examples at a time
            return self._from_rows(k, found, self.dtype)

        return Assembly(
            fitting,
            lambda: tf.cond(affordable, from_layers, from_rows),
            self.dtype,
            tf.where(affordable, Formation.LAYERS, Formation.ROWS),
        )

    def _has_one_row(self, layers: list[DenseLayer]) -> bool:
        """True if one product of all rows is less work than one for each pair of outputs.

        Wide layers are an exception: their products leave out inputs and examples that are zero.
        """
        return self._roots_per_example() == 1 and all(n.inputs < MANY_INPUTS for n in layers)

    def _precision_of_rows(self, k: int) -> tf.DType:
        """Double where one product of rows makes the block.

        It squares their singular values: in single precision nothing is left of those below
        √u of the largest, and what rounding makes of them has to be added to every shift.
        """
        one = self._roots_per_example() == 1
        return tf.float64 if one and self._parts[k].size <= _LARGEST_DOUBLE else self.dtype

    def _linear_outputs(self) -> list[str]:
        return [*super()._linear_outputs(), *(tap.outputs for tap in self._taps.values())]

    def _preactivation_curvature(
        self, layers: list[DenseLayer]
    ) -> tuple[list[tf.Tensor], Callable[[int, int], LayerPair]]:
        """a_l of each layer, and (m, l) -> Σ_c d_mc d_lcᵀ `[B, o, p]` with no second part."""
        found = self._derivatives([layer.preactivations for layer in layers])
        # [C, B, o] -> [B, C, o].
        d = [tf.transpose(found[layer.preactivations], [1, 0, 2]) for layer in layers]

        def pair(m: int, j: int) -> LayerPair:
            return LayerPair(tf.matmul(d[m], d[j], transpose_a=True), None, None)

        return [self._values[layer.activations] for layer in layers], pair

    def _from_rows(self, k: int, found: list[Tap], dtype: tf.DType) -> tf.Tensor:
        """Σ_b U_bᵀ U_b, some examples at a time, plus the direct dependence on the weights."""
        size = self._parts[k].size
        moved = self._by_position(found)
        inputs = {tap.outputs: self._inputs(tap) for tap in found}
        examples = tf.shape(self._z)[0]
        per_example = self._roots_per_example() * size * dtype.size
        chunk = tf.maximum(1, tf.minimum(examples, int(self._memory / per_example)))

        def add(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            stop = tf.minimum(start + chunk, examples)
            rows = [
                formed_rows(inputs[tap.outputs][start:stop], moved[tap.outputs][:, start:stop])
                for tap in found
            ]
            flat = tf.cast(tf.reshape(tf.concat(rows, 2), [-1, size]), dtype)
            return stop, total + half_of_gram(flat)

        _, matrix = tf.while_loop(
            lambda start, _: start < examples,
            add,
            (tf.constant(0), tf.zeros([size, size], dtype)),
            parallel_iterations=1,
        )
        return self._with_direct_diagonal(k, matrix + tf.transpose(matrix))

    # --- low rank -----------------------------------------------------------------------

    def low_rank(
        self, max_ranks: Sequence[int], used: Sequence[tf.Tensor | bool]
    ) -> list[RowFactors | None]:
        """See `Linearized.low_rank`. A batch's size is not known before the step runs."""
        limits = [n if self._rank_may_be_within(n) else 0 for n in max_ranks]
        found = [self._low_rank_taps(k) if n else ([], False) for k, n in enumerate(limits)]
        limit = max((n for n, (taps, _) in zip(limits, found, strict=True) if taps), default=0)
        if not limit:
            return [None] * len(max_ranks)
        candidates = [k for k, (taps, _) in enumerate(found) if taps]
        fit = tf.reduce_all([found[k][1] for k in candidates])
        needed = fit & tf.reduce_any([used[k] for k in candidates])
        pieces = self._pieces_if(needed, [tap for k in candidates for tap in found[k][0]], limit)
        out: list[RowFactors | None] = [None] * len(max_ranks)
        for k in candidates:
            out[k] = self._factors(k, found[k][0], limits[k], fit & used[k], pieces)
        return out

    def _factors(
        self,
        k: int,
        taps: Sequence[Tap],
        max_rank: int,
        needed: tf.Tensor,
        pieces: dict[int, Callable[[int], OuterRows | FormedRows]],
    ) -> RowFactors:
        """The k-th block's factors of at most `max_rank` rows, made and verified if needed."""
        count = max_rank // self._roots_per_example()
        formed = sum(self._weights(tap) for tap in taps if _is_formed(tap))
        cached = [tap for tap in taps if _is_formed(tap) and 8 * max_rank * formed <= _CACHED]
        shapes = [(count, self._roots_per_example(), self._weights(tap)) for tap in cached]
        if self._parts[k].dense:  # verified here or where it is formed
            self._checks[k] = self._check(k)

        def checked() -> tuple[tf.Tensor, list[tf.Tensor]]:
            made = [pieces[tap.variable](count) for tap in taps]
            factors = LowRank(made)
            verified = self._verified(
                k, lambda v: tf.cast(factors.product(tf.cast(v, tf.float64)), self.dtype)
            )
            rows = [piece.rows for piece in made if isinstance(piece, FormedRows) and cached]
            return verified, [_padded(array, count) for array in rows]

        def unchecked() -> tuple[tf.Tensor, list[tf.Tensor]]:
            return tf.constant(False), [tf.zeros(shape, tf.float64) for shape in shapes]

        bytes_of_rows = 12.0 * formed * tf.cast(self._row_count(), tf.float64)  # float32 and 64
        possible = needed & (self._row_count() <= max_rank) & (bytes_of_rows <= self._memory)
        holds, arrays = tf.cond(possible, checked, unchecked)

        def make() -> LowRank:
            examples = tf.minimum(tf.shape(self._z)[0], count)
            known = {
                tap.variable: FormedRows(rows[:examples])
                for tap, rows in zip(cached, arrays, strict=True)
            }
            return LowRank([known.get(t.variable) or pieces[t.variable](count) for t in taps])

        return RowFactors(holds, make, max_rank)

    def _rank_may_be_within(self, limit: int) -> bool:
        """False if a batch is known to have more rows than `limit`, or has none."""
        if not self._has_rows():
            return False
        examples = self._z.shape[0]
        return self._roots_per_example() * (1 if examples is None else int(examples)) <= limit

    def _low_rank_taps(self, k: int) -> tuple[list[Tap], tf.Tensor | bool]:
        """The taps of the k-th block and whether they fit; none and False if it has no rows."""
        found = self._tapped(k)
        if found is None or self._remainder.depends_on(k):
            return [], False
        fitting = self._tap_fitting(found)
        return ([], False) if fitting is False else (found, fitting)

    def _row_count(self) -> tf.Tensor:
        """r, if no example is left out."""
        return tf.shape(self._z)[0] * self._roots_per_example()

    def _pieces_if(
        self, needed: tf.Tensor, found: Sequence[Tap], max_rank: int
    ) -> dict[int, Callable[[int], OuterRows | FormedRows]]:
        """Each weight's rows of its first B' examples, which have `max_rank` rows at most.

        Zeros, if B' is not all of B, or where they are not needed. By variable, a function of how
        many examples there may be.
        """
        roots = self._roots_per_example()
        examples = tf.minimum(tf.shape(self._z)[0], max_rank // roots)

        # Both branches have the same shape and stay within bounds, since XLA compiles both.
        def none() -> list[tf.Tensor]:
            return [tf.zeros([roots, examples, *self._positions(tap)], self.dtype) for tap in found]

        def all_of_them() -> list[tf.Tensor]:
            moved = self._by_position(found)
            return [moved[tap.outputs][:, :examples] for tap in found]

        values = tf.cond(needed & (self._row_count() <= max_rank), all_of_them, none)

        def piece(tap: Tap, d: tf.Tensor) -> Callable[[int], OuterRows | FormedRows]:
            d = tf.ensure_shape(d, [roots, None, None, self._shapes[tap.variable][-1]])
            if _is_formed(tap):
                return lambda n: FormedRows(formed_rows(self._inputs(tap)[:n], d[:, :n]))
            d = tf.transpose(d[:, :, 0], [1, 0, 2])
            if tap.kind == "bias":
                return lambda n: OuterRows(None, d[:n])
            a = self._values[tap.inputs][:examples]
            if tap.bias is not None:
                a = tf.concat([a, tf.ones_like(a[:, :1])], 1)
            a = tf.ensure_shape(a, [None, self._weights(tap) // int(d.shape[2])])
            return lambda n: OuterRows(a[:n], d[:n])

        return {t.variable: piece(t, d) for t, d in zip(found, values, strict=True)}

    # --- rows of derivatives ------------------------------------------------------------

    def _has_rows(self) -> bool:
        """Per-example derivatives need one row of outputs an example, and pfor."""
        return self._roots is not None and self._loss.vectorizable

    def _tapped(self, k: int) -> list[Tap] | None:
        """Where the block's weights enter, in their order, or None if one is not known to."""
        indices = self._parts[k].indices
        in_precision = all(self._dtypes[i] == self.dtype for i in indices)
        if not in_precision or not all(i in self._taps for i in indices):
            return None
        return with_biases([self._taps[i] for i in indices])

    def _tap_fitting(self, found: Sequence[Tap]) -> tf.Tensor | bool:
        return self._fitting([(tap.outputs, tap.positions) for tap in found])

    def _fitting(self, outputs: Sequence[tuple[str, bool]]) -> tf.Tensor | bool:
        """True if these tensors have a row an example or, at positions, a number of rows that fits.

        A bool where that is known while tracing, else a tensor. Wrong guesses must not get as far
        as to an operation whose shapes do not match.
        """
        examples, rows = self._z.shape[0], tf.shape(self._z)[0]
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
        """C, the number of roots s; 0 where there are none."""
        return 0 if self._roots is None else int(self._roots.shape[0])

    def _weights(self, tap: Tap) -> int:
        """How many weights enter at the tap."""
        bias = 0 if tap.bias is None else self._shapes[tap.bias].num_elements()
        return int(self._shapes[tap.variable].num_elements() + bias)

    def _inputs(self, tap: Tap) -> tf.Tensor:
        """a `[B, P, i]`: what the weight is multiplied by at each position."""
        examples, positions = tf.shape(self._z)[0], self._positions(tap)[0]
        if tap.kind == "bias":
            return tf.ones([examples, positions, 1], self.dtype)
        a = self._values[tap.inputs]
        if tap.window is not None:
            a = tf.image.extract_patches(a, **tap.window)
        a = tf.reshape(a, [examples, positions, self._shapes[tap.variable][:-1].num_elements()])
        return a if tap.bias is None else tf.concat([a, tf.ones_like(a[:, :, :1])], 2)

    def _positions(self, tap: Tap) -> tuple[tf.Tensor | int, int]:
        """P and o: rows of z an example, and their length."""
        outputs = int(self._shapes[tap.variable][-1])
        if not _is_formed(tap):
            return 1, outputs
        size = tf.size(self._loss.tensor(tap.outputs))
        return size // (tf.shape(self._z)[0] * outputs), outputs

    def _by_position(self, found: Sequence[Tap]) -> dict[str, tf.Tensor]:
        """d `[C, B, P, o]` at each tap, by the name of its z."""
        derivatives = self._derivatives([tap.outputs for tap in found])
        examples = tf.shape(self._z)[0]
        count = self._roots_per_example()
        return {
            tap.outputs: tf.reshape(
                derivatives[tap.outputs],
                [count, examples, -1, int(self._shapes[tap.variable][-1])],
            )
            for tap in found
        }


def _padded(rows: tf.Tensor, count: int) -> tf.Tensor:
    """`rows` `[B', C, N]` in float64, with zeros up to `count` examples."""
    missing = count - tf.shape(rows)[0]
    padded = tf.pad(tf.cast(rows, tf.float64), [[0, missing], [0, 0], [0, 0]])
    return tf.ensure_shape(padded, [count, *rows.shape[1:]])


def _is_formed(tap: Tap) -> bool:
    """True if the rows of the tap's weight are sums over positions, which have to be formed."""
    return tap.positions or tap.kind == "convolution"
