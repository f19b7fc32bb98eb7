"""Rows of U in G = UᵀU, one a root of an example's curvature, from the uses of each weight.

    s_r                             root r of each example's C        [R, *z.shape]
    d = ∂(z . s_r)/∂z_u             at a use z_u = f(a, W)            [R, B, P, ...]
    U[(b,r)] = Σ_u Σ_p a_bp ⊗ d_rbp   sums over uses and positions    [R, B, N]

One backward pass for each root gives d at all uses. An example has P rows of z_u: 1 in a dense
layer, and as many as there are positions in a convolution. An output may be of some examples of a
batch only (`example_frames`). That an example's output depends on its own rows alone is verified by
whoever builds on it.

An example may have T rows of z, as a sequence has whose every token is classified. Then its roots
are those of each of these rows, zero on the others: T times as many.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton.curvature.contractions import lengths
from keras_qnewton.curvature.example_frames import Frame, frames
from keras_qnewton.curvature.examples_apart import ExamplesApart
from keras_qnewton.curvature.output_jacobian import OutputJacobian
from keras_qnewton.curvature.outputs import OutputCurvature
from keras_qnewton.curvature.pieces import Piece
from keras_qnewton.curvature.roots_of_examples import Roots
from keras_qnewton.curvature.row_factors import Factor, OfPiece, joined
from keras_qnewton.loss.graph_walk import ancestors
from keras_qnewton.loss.uses import Use
from keras_qnewton.loss.windows import patches

# Roots up to which a backward pass for each is traced: pfor takes longer to trace.
_FEW_ROOTS = 4


class ExampleRows:
    """Rows of U that belong to one output.

    Args:
        jacobian: Of all outputs.
        number: Of this one among them.
        curvature: Its C; one that has roots.
        each: Applies a function to each row of a tensor (`Linearized.of_each`).
        apart: What an example of the output is.

    Attributes:
        count: R, with all rows of z of an example; 0 where roots are too many.
        known_examples: B where it is known while tracing, else None.
        examples: B, int32 scalar.
        rows_of_z: T.
        rows_each: Rows an example of each use, by its name; None where they are not proved.
    """

    def __init__(
        self,
        jacobian: OutputJacobian,
        number: int,
        curvature: OutputCurvature,
        each: Callable[[Callable[[Any], Any], Any, Any], Any],
        apart: ExamplesApart,
    ):
        self._jacobian, self._number, self._curvature = jacobian, number, curvature
        self._each = each
        self.rows_of_z, self.rows_each = rows_of_z, _ = apart
        of_rows = curvature.roots()
        self._roots = None if of_rows is None else Roots(of_rows, rows_of_z)
        self.count = 0 if self._roots is None else self._roots.count
        rows = 1 if curvature.one_example else curvature.z.shape[0]
        self.known_examples = None if rows is None else rows // rows_of_z
        self.examples: tf.Tensor = tf.convert_to_tensor(
            1 if curvature.one_example else lengths(curvature.z)[0] // rows_of_z
        )
        z = jacobian.outputs[number]
        self._frames = (
            dict.fromkeys((t.name for op in ancestors([z]) for t in op.outputs), Frame(None, 1))
            if curvature.one_example
            else frames(z, self.known_examples)
        )

    @property
    def roots(self) -> Roots:
        """s; an error where there are too many."""
        if self._roots is None:
            raise ValueError("This output has no roots.")
        return self._roots

    def coefficients(self) -> tf.Tensor:
        """c `[B·R]`, float64: Uᵀc is the gradient of this output's terms, where roots span it."""
        known = self._curvature.coefficients()
        if known is not None:
            c, exist = known
            flat = tf.cast(tf.reshape(c, [-1]), tf.float64)
            return tf.where(exist, flat, tf.zeros_like(flat))
        of_rows = self.roots.of_rows
        count, rounding = int(of_rows.shape[0]), float(np.finfo(of_rows.dtype.as_numpy_dtype).eps)
        alone = self._curvature.one_example
        inner = of_rows.shape[1 if alone else 2 :].num_elements()
        # A batch may be empty: what is not known is the number of rows.
        roots = tf.cast(tf.reshape(of_rows, [count, -1, inner]), tf.float64)
        gradient = tf.reshape(tf.cast(self._curvature.gradient, tf.float64), [-1, inner])
        # The shortest c of each row of z, of roots that may be linearly dependent.
        inverse = tf.linalg.pinv(
            tf.transpose(roots, [1, 2, 0]), rcond=10 * max(count, inner) * rounding
        )
        return tf.reshape(tf.linalg.matvec(inverse, gradient), [-1])

    def turn(self, number: tf.Tensor) -> ExampleRows:
        """Those of some of an example's roots; see `Roots.turn`."""
        some = copy.copy(self)
        some._roots = self.roots.turn(number)
        some.count = some._roots.count
        return some

    def reached(self, piece: Piece) -> Piece | None:
        """`piece` with those uses that the output depends on; None if there are none."""
        if piece.bias is not None:
            return piece if piece.bias.outputs.name in self._frames else None
        uses = tuple(use for use in piece.uses if use.outputs.name in self._frames)
        return piece._replace(uses=uses) if uses else None

    def fit(self, found: Sequence[Piece]) -> tf.Tensor | bool:
        """True if all tensors have one row, or some whole number of rows, for each example.

        A bool where that is known while tracing, else a tensor. Wrong guesses must not get as far
        as to an operation whose shapes do not match.

        Args:
            found: What the rows are of.
        """
        checks, each = [], self.rows_each or {}
        for use in (use for piece in found for use in (*piece.uses, piece.bias) if use is not None):
            known, whole = use.outputs.shape[0], not use.positions
            frame = self._frames.get(use.outputs.name)
            if frame is None:
                return False
            if frame.total is not None and known is not None:
                if known % frame.total if frame.total else known:
                    return False
                continue
            count, examples = lengths(use.outputs)[0], self._total(frame)
            rows = each.get(use.outputs.name, 1 if whole else None)
            if rows is not None and frame.total is None:
                checks.append(tf.equal(count, rows * examples))
            elif whole and frame.total != 1:
                checks.append(tf.equal(count, examples))
            else:
                examples = tf.convert_to_tensor(examples)
                of_none = (examples > 0) | tf.equal(count, 0)
                checks.append(of_none & tf.equal(count % tf.maximum(examples, 1), 0))
        return tf.reduce_all(checks) if checks else True

    def total(self, tensor: tf.Tensor) -> tf.Tensor | int:
        """How many examples `tensor` is of, this output's among them."""
        frame = self._frames.get(tensor.name)
        return self._total(Frame(None, self.known_examples) if frame is None else frame)

    def _total(self, frame: Frame) -> tf.Tensor | int:
        return self.examples if frame.total is None else frame.total

    def derivatives(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """d `[R, *z_u.shape]` at each of the tensors z_u, in the weights' precision."""

        def one(root: tf.Tensor) -> list[tf.Tensor]:
            return self._jacobian.inner_derivatives(self._number, root, tensors)

        if self.count <= _FEW_ROOTS:
            passes = [one(root) for root in tf.unstack(self.roots.tensor())]
            found = [tf.stack(d) for d in zip(*passes, strict=True)]
        else:
            specs = [tf.TensorSpec(t.shape, t.dtype) for t in tensors]
            found = self._each(one, self.roots.tensor(), specs)
        return [tf.cast(d, self.dtype) for d in found]

    @property
    def dtype(self) -> tf.DType:
        """The precision of derivatives and rows."""
        return self._curvature.dtype

    def of_blocks(self, blocks: Sequence[Sequence[Piece]]) -> list[list[OfPiece]]:
        """What the rows of blocks of pieces are made of; one backward pass for each root."""
        reached = [[self.reached(piece) for piece in found] for found in blocks]
        some = [piece for found in reached for piece in found if piece is not None]
        tensors = [t for piece in some for t in piece.tensors]
        factors = iter(self.factors_of(some, self.derivatives(tensors)) if some else [])
        return [
            [
                OfPiece(piece, next(factors) if there is not None else [])
                for piece, there in zip(found, of_block, strict=True)
            ]
            for found, of_block in zip(blocks, reached, strict=True)
        ]

    def factors_of(
        self, found: Sequence[Piece], derivatives: Sequence[tf.Tensor]
    ) -> list[list[Factor]]:
        """The same from the derivatives in all pieces' tensors."""
        values = iter(derivatives)
        return [self._factors(piece, [next(values) for _ in piece.tensors]) for piece in found]

    def _factors(self, piece: Piece, derivatives: Sequence[tf.Tensor]) -> list[Factor]:
        if piece.bias is not None:
            (use,), (d,) = piece.uses, derivatives
            return [self._factor(use, d, with_one=True)]
        grouped: dict[object, list[Factor]] = {}
        for use, d in zip(piece.uses, derivatives, strict=True):
            factor = self._factor(use, d)
            if len(piece.uses) > 1:
                factor = factor.with_smaller_inputs()
            grouped.setdefault(factor.key, []).append(factor)
        return [joined(factors) for factors in grouped.values()]

    def _factor(self, use: Use, derivatives: tf.Tensor, with_one: bool = False) -> Factor:
        frame = self._frame(use)
        count = self._positions(use, frame)
        examples = -1 if frame.total is None else frame.total
        if use.transposed:
            derivatives = _patches_of_roots(derivatives, use)
        shape = [int(n) if n is not None else None for n in use.outputs.shape[1:]]
        a = use.inputs_by_position()
        if a is not None:
            a = tf.cast(a, derivatives.dtype)
            if use.equation.by_example:
                a = frame.taken(_by_example(a, [], examples, count, use.dealt), axis=0)
            if with_one:
                a = tf.concat([a, tf.ones_like(a[..., :1])], -1)
        inner = _inner_shape(derivatives, None if use.transposed else shape, use.inner)
        d = tf.reshape(derivatives, [self.count, -1, *inner])
        d = _by_example(d, [self.count], examples, count, use.dealt)
        return Factor(use, a, frame.taken(d, axis=1))

    def has_one_position(self, piece: Piece) -> bool:
        """Whether an example is known to have one row of each of the piece's tensors."""
        return all(
            self._known_positions(use, self._frame(use)) == 1
            for use in (*piece.uses, *([] if piece.bias is None else [piece.bias]))
        )

    def _frame(self, use: Use) -> Frame:
        return self._frames[use.outputs.name] or Frame(None, self.known_examples)

    def _known_positions(self, use: Use, frame: Frame) -> int | None:
        """P, where it is known while tracing."""
        rows = use.outputs.shape[0]
        if rows is not None and frame.total is not None:
            return int(rows) // frame.total if frame.total else 1
        each = (self.rows_each or {}).get(use.outputs.name, 1)
        if not use.positions and frame.total is None and each == 1:
            return 1  # `fit` has seen it
        return None

    def _positions(self, use: Use, frame: Frame) -> tf.Tensor | int:
        """P."""
        known = self._known_positions(use, frame)
        if known is not None:
            return known
        # An empty batch has as many as it likes.
        total = self._total(frame)
        return tf.where(tf.equal(total, 0), 1, lengths(use.outputs)[0] // tf.maximum(total, 1))


def _by_example(
    tensor: tf.Tensor,
    before: list[int],
    examples: int,
    count: tf.Tensor | int,
    dealt: int,
) -> tf.Tensor:
    """`[*before, B·P, ...]` -> `[*before, B, P, ...]`; P comes first where examples are dealt."""
    axis = len(before)
    rest = lengths(tensor, axis + 1)
    if dealt == 1:
        return tf.reshape(tensor, [*before, examples, count, *rest])
    parted = tf.reshape(tensor, [*before, dealt, examples, count // dealt, *rest])
    order = list(range(parted.shape.rank))
    order[axis], order[axis + 1] = axis + 1, axis
    return tf.reshape(tf.transpose(parted, order), [*before, examples, count, *rest])


def _patches_of_roots(derivatives: tf.Tensor, use: Use) -> tf.Tensor:
    """Patches of d `[R, n, h, w, c]` -> `[R, n, h', w', size·c]`."""
    if use.window is None:
        raise ValueError("This use has no window.")
    count, rows = derivatives.shape[0], tf.shape(derivatives)[1]
    flat = tf.reshape(derivatives, tf.concat([[count * rows], tf.shape(derivatives)[2:]], 0))
    flat = tf.ensure_shape(flat, [None, *use.outputs.shape[1:]])
    found = patches(flat, use.window)
    shape = [count, rows, *_inner_shape(found[None], None, None)]
    return tf.reshape(found, shape)


def _inner_shape(
    derivatives: tf.Tensor, shape: Sequence[int | None] | None, inner: tuple[int, ...] | None
) -> list[tf.Tensor | int]:
    """Lengths of all axes of z_u but the first."""
    shape = derivatives.shape[2:] if shape is None else shape
    known = [n if n is not None else tf.shape(derivatives)[i + 2] for i, n in enumerate(shape)]
    return known if inner is None else [*known[:-1], *inner]


def rows_fit(outputs: Sequence[ExampleRows], found: Sequence[Piece]) -> tf.Tensor | bool:
    """True if each output's examples have whole numbers of rows; a bool if known.

    Args:
        outputs: The rows of each output.
        found: What they are of.
    """
    checks = []
    for output in outputs:
        reached = [output.reached(piece) for piece in found]
        checks.append(output.fit([piece for piece in reached if piece is not None]))
    return all_hold(checks)


def all_hold(checks: Sequence[tf.Tensor | bool]) -> tf.Tensor | bool:
    """Whether all hold: a bool where that is known while tracing, else a scalar bool tensor."""
    if any(check is False for check in checks):
        return False
    unknown = [check for check in checks if check is not True]
    return tf.reduce_all(unknown) if unknown else True
