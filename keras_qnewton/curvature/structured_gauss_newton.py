"""Gauss-Newton blocks from per-example derivatives of the outputs.

With C = Σ_r s_r s_rᵀ for each example b of an output (`OutputCurvature.roots`), one backward pass
for each r gives the derivative of z . s_r at every use of a weight (`example_rows`), of which the
block is made in one of three ways:

    H_ml = Σ_r d_mr d_lrᵀ       [B, o, p]   of dense layers; assembled by `structured`, D = 0
    U[(b,r)] = Σ_p a_bp ⊗ d_rbp [B R, N]    sums over uses and positions; G = Σ UᵀU over outputs
    U as a [B, i] and d         [B, R, o]   of blocks that are not formed: `few_rows`

What depends on the weights beside the outputs is added to formed blocks: penalties as a diagonal,
a rest that is not convex by products with unit vectors. Rows are verified: Uᵀε of random ε, against
a backward pass of Σ ε s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.example_rows import ExampleRows, all_hold
from keras_qnewton.curvature.example_sums import MANY_INPUTS
from keras_qnewton.curvature.few_rows import Candidate, FewRows, apart
from keras_qnewton.curvature.formation import Formation, Formed, by_passes
from keras_qnewton.curvature.gradient_of_rows import gradient_of_rows
from keras_qnewton.curvature.gram_of_rows import RowsOfOutput, gram_of_rows, sum_of_turns
from keras_qnewton.curvature.linearized import Point
from keras_qnewton.curvature.linearized_gauss_newton import GaussNewtonLinearized
from keras_qnewton.curvature.low_rank import RowFactors
from keras_qnewton.curvature.memory import memory_of_a_batch
from keras_qnewton.curvature.outputs import ConvexLoss, ConvexPart, OutputCurvature
from keras_qnewton.curvature.pieces import Piece
from keras_qnewton.curvature.row_check import RowCheck, rounding
from keras_qnewton.curvature.row_factors import OfPiece
from keras_qnewton.curvature.rows_by_passes import BlockByPasses, Limits, Passes
from keras_qnewton.curvature.seen_rows import CurvedOutput, Run, SeenRows
from keras_qnewton.curvature.shared_by_examples import RowsWhileHeld, Shared, ThroughShared
from keras_qnewton.curvature.structured import Assembly, LayerPair, Structured
from keras_qnewton.loss.shared_tensors import shared_tensors
from keras_qnewton.loss.structure import DenseLayer, dense_layers
from keras_qnewton.norms import norm

# N up to which a block may be in double precision: the solver of such a one holds it so anyway.
_LARGEST_DOUBLE = 2048
# Turns up to which a loop is run in line. An LSTM of 10 time steps took 15 s to trace in line and
# 13 ms a step, as a loop 11 s and 19 ms; of 28 it took 38 s to trace in line, as a loop 10 s.
_UNROLLED = 8
# Roots up to which passes through a loop, one after another, are not worth running it in line.
_ROOTS_IN_LOOPS = 32


class StructuredGaussNewton(Structured, GaussNewtonLinearized):
    """A `GaussNewtonLinearized` whose blocks are assembled from rows; see the module."""

    def __init__(
        self,
        point: Point,
        convex: ConvexLoss,
        output_curvature: Callable[[ConvexPart], OutputCurvature] | None = None,
    ):
        layers = dense_layers(point.loss)
        inside = [n for layer in layers for n in (layer.activations, layer.preactivations)]
        names = list(dict.fromkeys(output.name for output in convex.outputs))
        shared = shared_tensors(point.loss, names)
        super().__init__(point, convex, output_curvature, fetch=[*inside, *shared])
        self._sizes = [shape.num_elements() for shape in self._shapes]
        run = Run(self._jacobian, self._uses, self._passage, self._sizes)
        recorded = [point.loss.tensor(output.name) for output in convex.outputs]
        outputs = [
            CurvedOutput(*of) for of in zip(self._position, self._curvatures, recorded, strict=True)
        ]
        # Of few rows, and of blocks that are formed.
        self._seen = self._seen_free = SeenRows(run, outputs, self.of_each, self.dtype)
        self._held: Shared | None = None
        held = Shared(shared, [self._values[name] for name in shared])
        if shared and self._holding_pays(held):
            while_held = RowsWhileHeld(
                point.loss, point.weights, held, outputs, names, self.of_each, self.dtype
            )
            if while_held.are_linear:
                self._seen, self._held = while_held, held
        # By output and block, where those of all blocks are made at once.
        self._shared: list[list[list[OfPiece]]] | None = None

    def _holding_pays(self, held: Shared) -> bool:
        """Whether a block has no rows, but may have them once what examples share is held.

        That takes a pass for each of its numbers, where single passes take one a row, or a weight.
        """
        dense = [k for k, part in enumerate(self._parts) if part.dense]
        if self._is_proved and all(self._covering(k) or self._pieces(k) for k in dense):
            return False
        largest = max((self._parts[k].size for k in dense), default=0)
        known = self._seen.known_number
        return held.size < (largest if known is None else min(largest, known))

    @property
    def _seldom_fails(self) -> bool:
        """See `Structured`. Single passes are no exception where a batch may have fewer rows."""
        return self._is_proved and self._held is None

    @property
    def _rows(self) -> list[ExampleRows]:
        return self._seen.rows

    # --- the gradient -------------------------------------------------------------------

    @functools.cached_property
    def _value_and_gradients(self) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        """Uᵀc where outputs' gradients are sums of their roots: rows are wanted anyway."""
        found = self._blocks_of_gradient()
        coefficients = [curvature.coefficients() for curvature in self._curvatures]
        known = [pair for pair in coefficients if pair is not None]
        if found is None or not known or len(known) < len(coefficients):
            return self._value_and_gradients_by_tape()
        ours = gradient_of_rows(
            self._rows, found, [c for c, _ in known], self._parts, self.dtype, self._memory
        )
        self._shared = ours.pieces

        def by_tape() -> list[tf.Tensor]:
            through = self._through_outputs()
            return [
                tf.zeros(shape, dtype) if g is None else g
                for g, shape, dtype in zip(through, self._shapes, self._dtypes, strict=True)
            ]

        exist = tf.reduce_all(tf.stack([there for _, there in known])) & ours.finite
        through: list[tf.Tensor | None] = _tf_private.cond(
            exist, lambda: self.unflatten(ours.flat), by_tape
        )
        return self._remainder.value, self._with_gradient_beside(through)

    def _blocks_of_gradient(self) -> list[list[Piece]] | None:
        """The pieces of all blocks, if all of the gradient comes through their rows."""
        # A tensor of two kinds of terms is there twice, with the gradient of both.
        outputs = [output.name for output in self._convex.outputs]
        if sorted(outputs) != sorted(self._convex.held) or not self._is_proved:
            return None
        if self._held is not None or any(rows.rows_of_z > 1 for rows in self._rows):
            return None
        found = [self._pieces(k) for k in range(len(self._parts))]
        known = [some for some in found if some is not None]
        whole = len(known) == len(found) and all(self._seen.fit(some) is True for some in known)
        return known if whole else None

    @classmethod
    def at(
        cls,
        point: Point,
        convex: ConvexLoss,
        output_curvature: Callable[[ConvexPart], OutputCurvature] | None = None,
    ) -> StructuredGaussNewton:
        """One that keeps loops as loops, if every block has rows then, of few roots.

        Through a loop each root is a pass of its own. A block without rows takes products with
        unit vectors. Both are vectorised where loops are run in line.
        """
        kept = point.loss.keeping_loops(longer_than=_UNROLLED)
        found = cls(point._replace(loss=kept), convex, output_curvature)
        if point.loss.vectorizable == kept.vectorizable or found._all_may_have_rows():
            return found
        return cls(point, convex, output_curvature)

    def _all_may_have_rows(self) -> bool:
        few = self._seen.have_roots and sum(rows.count for rows in self._rows) <= _ROOTS_IN_LOOPS
        return few and all(
            bool(self._covering(k) or self._pieces(k))
            for k, part in enumerate(self._parts)
            if part.dense
        )

    # --- formed blocks ------------------------------------------------------------------

    def _assembly(self, k: int) -> Assembly | Formation:
        if not self._seen.have_roots:
            return self._unless_loop(Formation.OUTPUT)
        layers, found = self._covering(k), self._pieces(k)
        if not self._roots_pay(k):
            return self._unless_loop(Formation.OUTPUT)
        if found and (layers is None or self._has_one_row(layers)):
            dtype = self._precision_of_rows(k)
            fitting = self._seen.fit(found)
            make = functools.partial(self._verified_rows, k, found, dtype)
            if self._held is None:
                return Assembly(fitting, make, dtype, Formation.ROWS)
            if self._seen.known_number is None:
                fitting = all_hold([fitting, self._seen.number > self._held.size])
            return Assembly(fitting, make, dtype, Formation.SHARED, Formation.NOT_LINEAR)
        if layers is None:
            return self._unless_loop(Formation.NOT_LINEAR)
        fitting, affordable = self._layers_fit(layers), self._affordable(layers)

        def from_layers() -> tuple[tf.Tensor, tf.Tensor]:
            return self._verified(k, self._assemble(k, layers))

        if fitting is False or affordable is True:
            return Assembly(fitting, from_layers, self.dtype, Formation.LAYERS)
        if found is None:
            both = tf.logical_and(fitting, affordable)
            why_not = tf.where(fitting, Formation.MEMORY, Formation.OUTPUT)
            return Assembly(both, from_layers, self.dtype, Formation.LAYERS, why_not)

        def from_rows() -> tuple[tf.Tensor, tf.Tensor]:  # some examples at a time
            return self._verified_rows(k, found, self.dtype)

        return Assembly(
            fitting,
            lambda: _tf_private.cond(affordable, from_layers, from_rows),
            self.dtype,
            tf.where(affordable, Formation.LAYERS, Formation.ROWS),
        )

    def _roots_pay(self, k: int) -> bool:
        """False where all rows of an example of z have more roots than the block has columns.

        Each takes a pass.
        """
        several = [rows.count for rows in self._rows if rows.rows_of_z > 1]
        return sum(several) <= self._parts[k].size

    def _has_one_row(self, layers: list[DenseLayer]) -> bool:
        """True if one product of all rows is less work than one for each pair of outputs.

        Wide layers are an exception: their products leave out inputs and examples that are zero.
        """
        return self._seen.have_one_root and all(n.inputs < MANY_INPUTS for n in layers)

    def _precision_of_rows(self, k: int) -> tf.DType:
        """Double where one product of rows makes the block.

        It squares their singular values: in single precision nothing is left of those below
        √u of the largest, and what rounding makes of them has to be added to every shift.
        """
        one = self._seen.have_one_root
        return tf.float64 if one and self._parts[k].size <= _LARGEST_DOUBLE else self.dtype

    def _preactivation_curvature(
        self, layers: list[DenseLayer]
    ) -> tuple[list[tf.Tensor], Callable[[int, int], LayerPair]]:
        """a_l of each layer, and (m, l) -> Σ_r d_mr d_lrᵀ `[B, o, p]` with no second part."""
        inside = [self._inside[layer.preactivations] for layer in layers]
        by_output = [rows.derivatives(inside) for rows in self._rows]
        # [R, B, o] -> [B, R, o].
        d = [
            tf.transpose(tf.concat([found[m] for found in by_output], 0), [1, 0, 2])
            for m in range(len(layers))
        ]

        def pair(m: int, j: int) -> LayerPair:
            return LayerPair(tf.matmul(d[m], d[j], transpose_a=True), None, None)

        return [self._values[layer.activations] for layer in layers], pair

    def _from_rows(
        self, k: int, found: list[Piece], dtype: tf.DType
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Σ UᵀU over outputs plus what is beside them, and Σ Uᵀε, if that is to be checked.

        ε is another column of U.
        """
        size, noise = self._parts[k].size, None if self._is_proved else self._seen.check.noise
        columns, derivatives = size + (noise is not None), self._of_shared(k)

        def gram(outputs: dict[int, ExampleRows]) -> tf.Tensor:
            rows = [self._rows_of_output(k, i, of, found, derivatives) for i, of in outputs.items()]
            return gram_of_rows(rows, size, self._memory, self.dtype, dtype)

        together = {i: of for i, of in enumerate(self._rows) if of.rows_of_z == 1}
        grams = [gram(together)] if together or not self._rows else []
        for i, of in enumerate(self._rows):
            if of.rows_of_z > 1:
                one = functools.partial(lambda i, of, turn: gram({i: of.turn(turn)}), i, of)
                grams.append(sum_of_turns(one, of.roots.turns, columns, dtype))
        total = tf.add_n(grams)
        if noise is None:
            return self._with_direct(k, total), None
        return self._with_direct(k, total[:size, :size]), total[:size, size]

    def _rows_of_output(
        self,
        k: int,
        i: int,
        of: ExampleRows,
        found: list[Piece],
        derivatives: tf.Tensor | None,
    ) -> RowsOfOutput:
        """The block's rows of the i-th output, or of one of its turns; ε is their last column."""
        every = [*found, *self._seen.shared]
        made = self._shared[i][k] if self._shared else of.of_blocks([every])[0]
        through = None
        if derivatives is not None:
            through = ThroughShared(made[len(found) :], derivatives)

        def noise() -> tf.Tensor:
            return of.roots.among(self._seen.check.noise(i))

        column = None if self._is_proved else noise
        return RowsOfOutput(
            of.examples, of.known_examples, of.count, made[: len(found)], column, through
        )

    def _of_shared(self, k: int) -> tf.Tensor | None:
        """D `[Q, N_k]`, derivatives of what examples share; None if nothing is held."""
        held, indices = self._held, self._parts[k].indices
        if held is None:
            return None
        inside = [self._inside[name] for name in held.names]

        def row(unit: tf.Tensor) -> tf.Tensor:
            pulled = self._jacobian.transposed_from(inside, held.seeds(unit), indices)
            return self.flatten_block(k, pulled)

        return self.of_unit_vectors(row, held.size, self._parts[k].size)

    def _with_direct(self, k: int, matrix: tf.Tensor) -> tf.Tensor:
        """`matrix` and what depends on the block's weights beside the outputs."""
        if not self._remainder.depends_on(self._parts[k].indices):
            return matrix
        if self.positive_semidefinite:  # penalties, and nothing but a diagonal
            diagonal = tf.linalg.diag_part(matrix) + tf.cast(self._diagonal(k), matrix.dtype)
            return tf.linalg.set_diag(matrix, diagonal)
        rest = self.matrix_of_products(self._parts[k].size, lambda v: self._remainder_product(k, v))
        return matrix + tf.cast(rest, matrix.dtype)

    def _diagonal(self, k: int) -> tf.Tensor:
        """The second derivative of penalties in the block's weights, `[N_k]`."""
        return self._remainder_product(k, tf.ones_like(self.points[k]))

    # --- blocks whose rows are not known by uses ---------------------------------------------

    def _formed_generically(self, k: int, reason: tf.Tensor, dtype: tf.DType) -> Formed:
        """G_k by as few single passes as there are rows, or columns."""
        indices = self._parts[k].indices

        def forward(vector: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
            along = self._along(self.unflatten_block(k, vector), indices)
            return along, self._curved(along)

        def backward(along: list[tf.Tensor]) -> tf.Tensor:
            return self.flatten_block(k, self._jacobian.transposed(along, indices))

        def backward_of(i: int, seed: tf.Tensor) -> tf.Tensor:
            found = self._jacobian.transposed_of(self._position[i], seed, indices)
            return self.flatten_block(k, found)

        size = self._parts[k].size
        rows = self._rows
        if any(of.rows_of_z > 1 for of in rows):  # a row of z is as good as an example here
            rows = self._seen.one_by_one()
        passes = Passes(size, rows, self._curvatures, forward, backward, backward_of, self.of_each)
        limits = Limits(
            self._chunk(size),
            memory_of_a_batch(self._memory),
            self._loss.bytes_per_evaluation(),
            self._rounding_of_outputs(),
        )
        matrix, way = BlockByPasses(passes, limits, self.dtype, dtype).matrix()
        return Formed(self._with_direct(k, matrix), by_passes(reason, way))

    # --- verification -------------------------------------------------------------------

    @property
    def _is_proved(self) -> bool:
        """Whether rows need no check."""
        return self._seen.proved

    def _verified(self, k: int, matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | bool]:
        """`matrix`, and whether it is the block's; False of NaN."""
        return (matrix, True) if self._is_proved else super()._verified(k, matrix)

    def _verified_rows(
        self, k: int, found: list[Piece], dtype: tf.DType
    ) -> tuple[tf.Tensor, tf.Tensor | bool]:
        """The block of its rows, and whether these are those of a backward pass."""
        matrix, lifted = self._from_rows(k, found, dtype)
        return matrix, True if lifted is None else self._are_rows(k, self._seen, lifted)

    def _are_rows(self, k: int, seen: SeenRows, lifted: tf.Tensor) -> tf.Tensor:
        """True if Σ Uᵀε `[N_k]` is that of one backward pass; a scalar bool, False of NaN."""
        if seen.proved:
            return tf.math.is_finite(tf.reduce_sum(lifted))
        expected = self._lifted_by_tapes(k, seen.check)
        error = norm(tf.cast(lifted, self.dtype) - expected)
        return error <= self._rounding_of_outputs() * norm(expected)

    def _rounding_of_outputs(self) -> float:
        """A loss, or a use, of another precision rounds it, whatever the weights have."""
        used = [use.outputs.dtype for use in self._uses.found]
        return rounding([self.dtype, *used, *(c.z.dtype for c in self._curvatures)])

    def _lifted_by_tapes(self, k: int, check: RowCheck) -> tf.Tensor:
        """Uᵀε `[N_k]` by one backward pass."""
        seeds, indices = self._of_outputs(check.seeds()), self._parts[k].indices
        return self.flatten_block(k, self._jacobian.transposed(seeds, indices))

    # --- low rank -----------------------------------------------------------------------

    def low_rank(
        self, max_ranks: Sequence[int], used: Sequence[tf.Tensor | bool]
    ) -> list[RowFactors | None]:
        """See `Linearized.low_rank`. A batch's size is not known before the step runs."""
        out: list[RowFactors | None] = [None] * len(max_ranks)
        if not self._seen.have_roots:
            return out
        blocks = sum(limit > 0 for limit in max_ranks)
        seen, memory = self._seen_free, memory_of_a_batch(blocks * self._memory) / max(blocks, 1)
        few = FewRows(seen.rows, seen.check.noise, memory)
        found = {
            k: self._candidate(few, k, limit, used[k]) for k, limit in enumerate(max_ranks) if limit
        }
        candidates = {k: candidate for k, candidate in found.items() if candidate is not None}
        for k, factors in zip(candidates, few.factors(list(candidates.values())), strict=True):
            out[k] = factors
        return out

    def _candidate(
        self, few: FewRows, k: int, limit: int, used: tf.Tensor | bool
    ) -> Candidate | None:
        """The k-th block, if it may have no more than `limit` rows and a diagonal beside them."""
        indices = self._parts[k].indices
        found = self._pieces_of(k, self._seen_free)
        has_diagonal = self._remainder.depends_on(indices)
        if found is None or (has_diagonal and not self.positive_semidefinite):
            return None
        if has_diagonal:
            found = apart(found)
        fitting = self._seen_free.fit(found)
        if fitting is False or not few.may_be_within(found, limit):
            return None
        return Candidate(
            found,
            limit,
            tf.convert_to_tensor(fitting) & used,
            functools.partial(self._are_rows, k, self._seen_free),
            tf.cast(self._diagonal(k), tf.float64) if has_diagonal else None,
            tuple(self._remainder.depends_on([i]) for i in indices) if has_diagonal else (),
        )

    # --- rows of derivatives ------------------------------------------------------------

    @functools.cached_property
    def _layers(self) -> list[DenseLayer]:
        """The dense layers whose weights are used nowhere else, if z has a row an example."""
        if any(rows.rows_of_z > 1 for rows in self._rows):
            return []
        return [
            layer
            for layer in super()._layers
            if all(len(self._uses.of(i) or ()) == 1 for i in layer.variables)
        ]

    @property
    def _can_assemble(self) -> bool:
        """True: a backward pass for each root will do."""
        return True

    def _pieces(self, k: int) -> list[Piece] | None:
        """What the block's columns of U are made of, or None if that is not known."""
        return self._pieces_of(k, self._seen)

    def _pieces_of(self, k: int, seen: SeenRows) -> list[Piece] | None:
        indices = self._parts[k].indices
        if not all(self._dtypes[i] == self.dtype for i in indices):
            return None
        return seen.pieces(indices)

    def _covering(self, k: int) -> list[DenseLayer] | None:
        """See `Structured`; layers are not known by themselves where examples share tensors."""
        return super()._covering(k) if self._held is None else None

    def _layers_fit(self, layers: Sequence[DenseLayer]) -> tf.Tensor | bool:
        """True if these layers have a row an example of each output; a bool if known."""
        checks: list[tf.Tensor | bool] = []
        for of_output in self._rows:
            for layer in layers:
                tensor = self._loss.tensor(layer.preactivations)
                known, total = tensor.shape[0], of_output.total(self._inside[layer.preactivations])
                if known is not None and isinstance(total, int):
                    checks.append(total == known)
                else:
                    checks.append(tf.equal(tf.shape(tensor)[0], total))
        return all_hold(checks)
