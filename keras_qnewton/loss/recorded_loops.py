"""Loops of a recorded graph, run again: in line where the number of turns is known, or as loops.

    n known      the body in line, n times: plain operations, that pfor can vectorise
    n unknown    `tf.while_loop` whose condition and body run the recorded ones again

n is known if the loop's condition follows from constants and shapes, as it does for recurrent
layers with a fixed number of time steps. To find out, the body's integers are evaluated while
tracing (`known_values`); its TensorLists become Python lists (`tensor_lists`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.graph_walk import inner_weights, needed, wanted_names
from keras_qnewton.loss.known_values import evaluate_known, known_value
from keras_qnewton.loss.tensor_lists import as_tensor_list

# Runs operations of one graph: (operations, env, names of the weights' handles, wanted names).
Run = Callable[[Sequence[tf.Operation], dict[str, Any], set[str], set[str]], None]

# One turn of a loop: its variables before and after.
Turn = Callable[..., Sequence[tf.Tensor]]
# Is shown an operation that is run again, its inputs' new values and its outputs', in bodies of
# functions and loops, too; may return others in place of the outputs.
Observer = Callable[[tf.Operation, Sequence[Any], Sequence[Any]], Sequence[Any] | None]
# The number of turns, an int32 scalar; None if they cannot be counted.
Count = Callable[[], tf.Tensor | None]

# Collection of a graph: the turns of its loops, by what was known before the first.
_TRIPS = "keras_qnewton/trips"
# Turns up to which a loop's are counted while tracing.
_MOST_COUNTED = 1024


class Widened(NamedTuple):
    """A loop with further variables, after its own.

    Attributes:
        turn: Of all variables.
        start: Those before the first turn.
        finish: Is given those after the last.
    """

    turn: Turn
    start: list[tf.Tensor]
    finish: Callable[[Sequence[tf.Tensor]], None]


@runtime_checkable
class LoopObserver(Protocol):
    """An observer that may change a loop that is run as one."""

    def widened(self, turn: Turn, start: Sequence[tf.Tensor], times: int | Count) -> Widened | None:
        """A loop of the graph with more variables, or None to leave it as it is.

        Args:
            turn: Runs the body, which is shown, too.
            start: The loop's variables before the first turn.
            times: Number of turns, or what counts them when the step runs, if it can.
        """


class _GraphLoop(NamedTuple):
    """A recorded loop as `tf.while_loop` takes it.

    Attributes:
        carried: Positions of its variables that change.
        fixed: The others, by position.
        start: Those that change, before the first turn.
        shapes: Theirs in every turn.
        going_on: Its condition.
        turn: Its body.
    """

    carried: list[int]
    fixed: dict[int, Any]
    start: list[tf.Tensor]
    shapes: list[tf.TensorShape]
    going_on: Callable[..., tf.Tensor]
    turn: Turn


class RecordedLoop:
    """A recorded loop, reduced to the variables that its wanted outputs depend on.

    Lists of intermediate results, which a gradient tape added to it for the backward pass,
    depends on the other variables but not they on it: it is not run again.
    """

    def __init__(self, op: tf.Operation, wanted: set[str]):
        self.op = op
        self.cond, self.body = _tf_private.loop_bodies(op)
        self.cond_operations = needed(self.cond, self.cond.outputs)
        position = {tensor.name: i for i, tensor in enumerate(self.cond.inputs)}
        live = {
            position[n]
            for n in wanted_names(self.cond_operations, self.cond.outputs)
            if n in position
        }
        self.wanted = [i for i, tensor in enumerate(op.outputs) if tensor.name in wanted]
        live.update(self.wanted)
        position = {tensor.name: i for i, tensor in enumerate(self.body.inputs)}
        while True:
            outputs = [self.body.outputs[i] for i in sorted(live)]
            self.body_operations = needed(self.body, outputs)
            read = wanted_names(self.body_operations, outputs)
            more = {position[n] for n in read if n in position} - live
            if not more:
                break
            live |= more
        self.live = sorted(live)
        self.fixed = [i for i in self.live if self.body.outputs[i] is self.body.inputs[i]]

    def trips(self, known: Sequence[np.ndarray | None]) -> list[dict[str, np.ndarray]] | None:
        """The values known in the body in each turn; None if the number of turns is not known."""
        cache = self.op.graph.get_collection_ref(_TRIPS)
        if not cache:
            cache.append({})
        # An array's values alone do not say how it is shaped, but the operation does.
        values = tuple(None if v is None else v.tobytes() for v in known)
        key = (self.op, tuple(self.live), values)
        if key not in cache[0]:
            cache[0][key] = self._trips(known)
        return cache[0][key]

    def _trips(self, known: Sequence[np.ndarray | None]) -> list[dict[str, np.ndarray]] | None:
        turns: list[dict[str, np.ndarray]] = []
        values = list(known)
        while True:
            table = self._known_arguments(self.cond, values)
            evaluate_known(self.cond_operations, table)
            going_on = table.get(self.cond.outputs[0].name)
            if going_on is None:
                return None
            if not going_on:
                return turns
            if len(turns) == _MOST_COUNTED:
                return None
            table = self._known_arguments(self.body, values)
            evaluate_known(self.body_operations, table)
            turns.append(table)
            values = [table.get(tensor.name) for tensor in self.body.outputs]

    def run(
        self,
        inputs: list[Any],
        weights: set[str],
        run_: Run,
        unroll: int,
        observer: Observer | None,
    ) -> list[Any]:
        values = {i: inputs[i] for i in self.live}
        turns = self.trips([known_value(x) for x in inputs])
        if turns is None or len(turns) > unroll:
            times = None if turns is None else len(turns)
            values = self._run_dynamic(values, weights, run_, times, observer)
        else:
            for table in turns:
                values = self._run_once(values, weights, run_, table)
        out: list[Any] = [None] * len(self.op.outputs)
        for i in self.wanted:
            out[i] = values[i]
        return out

    def _known_arguments(
        self, graph: tf.Graph, values: Sequence[np.ndarray | None]
    ) -> dict[str, np.ndarray]:
        return {t.name: v for t, v in zip(graph.inputs, values, strict=True) if v is not None}

    def _arguments(self, graph: tf.Graph, values: dict[int, Any]) -> dict[str, Any]:
        return {graph.inputs[i].name: value for i, value in values.items()}

    def _run_once(
        self,
        values: dict[int, Any],
        weights: set[str],
        run_: Run,
        known: dict[str, np.ndarray],
    ) -> dict[int, Any]:
        """One turn of the body; `known` tensors are not run but taken from the table."""
        env = self._arguments(self.body, values) | known
        operations = [
            op for op in self.body_operations if not all(t.name in known for t in op.outputs)
        ]
        names = {self.body.outputs[i].name for i in self.live}
        run_(operations, env, self._weights(self.body, weights), names)
        return {i: env[self.body.outputs[i].name] for i in self.live}

    def _run_dynamic(
        self,
        values: dict[int, Any],
        weights: set[str],
        run_: Run,
        times: int | None,
        observer: Observer | None,
    ) -> dict[int, Any]:
        loop = self._as_loop(values, weights, run_)
        own, wide = len(loop.start), None
        if isinstance(observer, LoopObserver):
            count = times if times is not None else lambda: self._counted(values, weights, run_)
            wide = observer.widened(loop.turn, loop.start, count)
        more: list[tf.Tensor] = [] if wide is None else wide.start
        end = tf.while_loop(
            lambda *state: loop.going_on(*state[:own]),
            loop.turn if wide is None else wide.turn,
            [*loop.start, *more],
            shape_invariants=[*loop.shapes, *(x.shape for x in more)],
            parallel_iterations=self.op.get_attr("parallel_iterations"),
            maximum_iterations=times,  # XLA differentiates no other loops
        )
        if wide is not None:
            wide.finish(end[own:])
        return loop.fixed | dict(zip(loop.carried, end[:own], strict=True))

    def _counted(self, values: dict[int, Any], weights: set[str], run_: Run) -> tf.Tensor | None:
        """The number of turns, by running what the loop's condition depends on.

        An int32 scalar; None if it depends on more than integers, perhaps on all of the loop.
        """
        counting = RecordedLoop(self.op, set())
        read = {i: values[i] for i in counting.live}
        variables = [self.body.inputs[i] for i in counting.live if i not in counting.fixed]
        if not all(t.dtype.is_integer or t.dtype.is_bool for t in variables):
            return None
        loop = counting._as_loop(read, weights, run_)
        count, *_ = tf.while_loop(
            lambda count, *state: loop.going_on(*state),
            lambda count, *state: [count + 1, *loop.turn(*state)],
            [tf.constant(0), *loop.start],
            shape_invariants=[tf.TensorShape([]), *loop.shapes],
        )
        return count

    def _as_loop(self, values: dict[int, Any], weights: set[str], run_: Run) -> _GraphLoop:
        # Fixed variables, weights among them, are captured instead of carried: their gradient
        # is then summed by TensorFlow.
        carried = [i for i in self.live if i not in self.fixed]
        fixed = {i: as_tensor_list(values[i]) for i in self.fixed}

        def going_on(*state: Any) -> tf.Tensor:
            now = fixed | dict(zip(carried, state, strict=True))
            env = self._arguments(self.cond, now)
            (output,) = self.cond.outputs
            run_(self.cond_operations, env, self._weights(self.cond, weights), {output.name})
            return env[output.name]

        def turn(*state: Any) -> list[Any]:
            now = fixed | dict(zip(carried, state, strict=True))
            after = self._run_once(now, weights, run_, {})
            return [as_tensor_list(after[i]) for i in carried]

        start = [tf.convert_to_tensor(as_tensor_list(values[i])) for i in carried]
        shapes = [
            x.shape if x.dtype == tf.variant else self.body.inputs[i].shape
            for i, x in zip(carried, start, strict=True)
        ]
        return _GraphLoop(carried, fixed, start, shapes, going_on, turn)

    def _weights(self, graph: tf.Graph, weights: set[str]) -> set[str]:
        return inner_weights(graph, [t.name for t in self.op.inputs], weights)
