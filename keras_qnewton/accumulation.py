"""Several batches, one step: what `gradient_accumulation_steps` means for Newton's method.

    batch 1 ... K - 1    kept: inputs, targets, sample weights, masks
    batch K              the step of all K: the mean of their losses is what is linearised, solved
                         for and tried

A batch whose loss has NaN or Inf is refused when it comes. What else fails the step of all K drops
them all.

Keras averages gradients over K batches. A Newton step needs the curvature of the same K batches,
and their loss at every point that it tries. So it is the data that are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss import RecordedLoss, at_data, data_of
from keras_qnewton.replicas import Replicas
from keras_qnewton.step.checks import finite
from keras_qnewton.step.earlier_assignments import hold_earlier_assignments


class Accumulation:
    """The batches of the step to come, in variables that are not saved.

    A training that is resumed between two steps has lost the batches since the last one: its first
    step is of those that are left.

    Args:
        batches: K, at least 2.
        joined: Whether they have to be joined to one batch, since the curvature is not that of a
            function, which is the same for a mean of losses.
    """

    def __init__(self, batches: int, joined: bool = False):
        self._batches, self._to_be_joined = batches, joined
        self._kept: dict[int, _Kept] = {}  # by the replica's number in this process

    def steps(self, number: tf.Tensor) -> tf.Tensor:
        """How many steps so many batches are, integer scalar."""
        return tf.convert_to_tensor(number) // self._batches

    def is_last(self, number: tf.Tensor) -> tf.Tensor:
        """Whether a step is taken of the batch before which so many were, boolean scalar."""
        return tf.equal(tf.convert_to_tensor(number) % self._batches, self._batches - 1)

    def add(
        self,
        losses: Sequence[RecordedLoss],
        number: tf.Tensor,
        step: Callable[[list[RecordedLoss]], Sequence[tf.Tensor]],
        none: Callable[[], Sequence[tf.Tensor]] = lambda: (),
        replicas: Replicas | None = None,
    ) -> list[tf.Tensor]:
        """Keeps the data of `losses`; of every K-th batch it calls `step` with those of all K.

        Batches whose size is not known while the graph is traced are joined to one. Others, whose
        size is written in the graph, and those with scalars among their data, have one loss each,
        of which the mean is taken: then the graph grows with K.

        Args:
            losses: Of the batch, one a replica of this process.
            number: How many batches were before, integer scalar.
            step: Called once, in a branch of the graph, with one loss a replica.
            none: In the other branch, makes what is returned where no step is taken.
            replicas: Have each their data kept on their device; None if there is one.

        Returns:
            What `step` or `none` returned.

        Raises:
            ValueError: If XLA compiles the graph, the data have other shapes or dtypes than
                those that were kept, or cannot be joined and have to be.
            tf.errors.InvalidArgumentError: At run time, if the batch's loss has NaN or Inf. Such a
                batch is not kept.
        """
        self._check_graph()
        joined = all(_grows(data_of(loss)) for loss in losses)
        each = replicas.each if replicas is not None else _each
        added = each(lambda at: self._added(at, losses[at], number, joined), range(len(losses)))

        last = self.is_last(number)

        def take() -> list[tf.Tensor]:
            taken = step(each(lambda of: at_data(of.loss, *of.batches), added))
            return [tf.constant(True), *taken]

        # Not in the branches: variables of several devices cannot enter one. Before the step: one
        # that fails would fail again with the same batches.
        assigned = each(lambda of: of.kept.assign(of.rows, unless=last), added)
        # Weights of several devices cannot enter one operation, as that of `_tf_private.cond` is.
        cond = _tf_private.cond if replicas is None else tf.cond
        with tf.control_dependencies([op for some in assigned for op in some]):
            _, *found = cond(last, take, lambda: [tf.constant(True), *none()])
        return found

    def _added(self, at: int, loss: RecordedLoss, number: tf.Tensor, joined: bool) -> _Added:
        """The batches so far and that of `loss`, of one replica."""
        data = data_of(loss)
        if self._to_be_joined and not joined:
            raise ValueError(
                '`curvature="fisher"` and `gradient_accumulation_steps` need batches whose size is '
                "not written in the graph: those of `tf.data.Dataset.batch` without "
                "`drop_remainder`. `fit` of arrays writes it there if it divides their length. "
                f"Received: data of shapes {[t.shape for t in data]}. No weight was changed."
            )
        rows = [t if joined else t[None] for t in data]
        kept = self._kept.setdefault(at, _Kept())
        kept.prepare(rows)
        value = finite(loss.value, "The loss")
        # The batch's statistics are not taken in, either.
        hold_earlier_assignments(value.op)
        with tf.control_dependencies([value.op, *_of_one_length(rows)]):
            # What a step that failed has left is dropped.
            first = tf.equal(tf.convert_to_tensor(number) % self._batches, 0)
            before = [v[: tf.where(first, 0, tf.shape(v)[0])] for v in kept.values()]
            rows = [tf.concat(both, 0) for both in zip(before, rows, strict=True)]
        # Made here, so that a step is given them as it is given a batch.
        batches = [rows] if joined else [[_row(r, k) for r in rows] for k in range(self._batches)]
        names = [t.name for t in data]
        named = [dict(zip(names, batch, strict=True)) for batch in batches]
        return _Added(loss, kept, rows, named)

    def _check_graph(self) -> None:
        if _tf_private.compiled_by_xla():
            raise ValueError(
                "`jit_compile=True` does not go with `gradient_accumulation_steps`: XLA has no "
                "tensors whose size changes, as that of the batches that are kept does. Pass "
                "`jit_compile=False`, or leave accumulation out and use a larger batch. "
                f"Received: gradient_accumulation_steps={self._batches}. No weight was changed."
            )


class _Kept:
    """The variables of one replica, on the device where they are first asked for."""

    def __init__(self) -> None:
        self._kinds: list[tuple[tf.DType, tuple[int | None, ...] | None]] = []
        self._variables: list[tf.Variable] | None = None

    def prepare(self, rows: Sequence[tf.Tensor]) -> None:
        """Makes variables for such rows, once.

        Raises:
            ValueError: If those that there are have other shapes or dtypes.
        """
        kinds = [(r.dtype, None if r.shape.rank is None else tuple(r.shape[1:])) for r in rows]
        if self._variables is None:
            device = rows[0].device if rows else None
            with _tf_private.outside_of_strategies(), tf.device(device or None):
                self._variables = [_empty(*kind) for kind in kinds]
            self._kinds = kinds
        if kinds != self._kinds:
            raise ValueError(
                "Argument `gradient_accumulation_steps` needs batches of one kind: as many "
                "tensors, of the same dtypes and shapes but for the number of examples. "
                f"Received: {kinds} after {self._kinds}. No weight was changed."
            )

    def values(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(variable) for variable in self._variables or ()]

    def assign(self, rows: Sequence[tf.Tensor], unless: tf.Tensor) -> list[tf.Operation]:
        """Keeps `rows`, or none."""
        return [
            variable.assign(value[: tf.where(unless, 0, tf.shape(value)[0])]).op
            for variable, value in zip(self._variables or (), rows, strict=True)
        ]


class _Added(NamedTuple):
    """A replica's batches, with the last one."""

    loss: RecordedLoss
    kept: _Kept
    rows: list[tf.Tensor]
    batches: list[dict[str, tf.Tensor]]


def _each(function: Callable[[Any], Any], of: Sequence[Any]) -> list[Any]:
    return [function(one) for one in of]


def _grows(data: Sequence[tf.Tensor]) -> bool:
    """Whether batches of such data can be joined: their size is not written in the graph."""
    return all(t.shape.rank and t.shape[0] is None for t in data)


def accumulation_of(optimizer: Any) -> Accumulation | None:
    """As the optimizer's `gradient_accumulation_steps` asks for; None if it is None."""
    steps = optimizer.gradient_accumulation_steps
    of_examples = bool(getattr(optimizer.curvature, "of_examples", False))
    return None if steps is None else Accumulation(steps, joined=of_examples)


@contextlib.contextmanager
def as_of_one_batch(optimizer: Any) -> Iterator[None]:
    """Has Keras take what it is given for one batch's: it is of all accumulated ones already."""
    steps = optimizer.gradient_accumulation_steps
    optimizer.gradient_accumulation_steps = None
    try:
        yield
    finally:
        optimizer.gradient_accumulation_steps = steps


def _empty(dtype: tf.DType, shape: tuple[int | None, ...] | None) -> tf.Variable:
    """A variable of no rows `[0, *shape]`, which may get more."""
    zeros = tf.zeros([0, *(n or 0 for n in shape or ())], dtype)
    return tf.Variable(
        zeros,
        trainable=False,
        shape=tf.TensorShape(None) if shape is None else [None, *shape],
        name="accumulated_batches",
    )


def _row(rows: tf.Tensor, k: int) -> tf.Tensor:
    """The k-th of `rows`; the last one where there are fewer."""
    return rows[tf.minimum(k, tf.shape(rows)[0] - 1)]


def _of_one_length(rows: Sequence[tf.Tensor]) -> list[tf.Operation]:
    """Checks that all tensors of a batch have as many examples."""
    return [
        tf.debugging.assert_equal(
            tf.shape(row)[0],
            tf.shape(rows[0])[0],
            "Argument `gradient_accumulation_steps` needs data whose tensors have the examples for "
            "their first axis. Sparse and ragged inputs have not.",
        )
        for row in rows[1:]
    ]
