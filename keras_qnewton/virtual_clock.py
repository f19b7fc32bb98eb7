"""A run priced under any gate time after the fact, from the decisions that were logged.

For each decision the log has N, κ and d, and the α of an encoding where the run's cost model asked
for it. What a run's linear systems would have cost elsewhere needs no second run:

    lu              every system by LU, as the paper's classical side
    best classical  every system by whichever classical model is least, conjugate gradients included
    quantum         every system on the quantum computer, whatever κ and the qubits allow
    scheduled       every system where the scheduler would send it
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton.arguments import check_count, refused
from keras_qnewton.directions import UNSCHEDULED
from keras_qnewton.run_file import runs_of
from keras_qnewton.scheduling import CGTime, LUTime, Scheduler
from keras_qnewton.types import Decision

PLANS = ("lu", "best classical", "quantum", "scheduled")


@dataclasses.dataclass(frozen=True)
class Projection:
    """The cost of a run's linear systems.

    Attributes:
        gate_time: Seconds of a quantum gate.
        decisions: The log.
        seconds: By plan (`PLANS`), one number a decision, float64 `[D]`; NaN where κ is unknown
            and the plan depends on it.
        routes: Where each system would be sent, `[D]`. Blocks whose route is not the
            scheduler's to choose (eigendecompositions, and blocks that are not formed) keep
            it; their "scheduled" price is that of their best classical route.
        break_even: By block, the gate time below which the quantum solve is faster than LU:
            the median over the run. Zero where no gate time is short enough.
    """

    gate_time: float
    decisions: Sequence[Decision]
    seconds: Mapping[str, np.ndarray]
    routes: Sequence[str]
    break_even: Mapping[str, float]

    def total(self, plan: str) -> float:
        """Seconds of all solves of a plan; unknown prices are left out."""
        return float(np.nansum(self.seconds[plan]))

    @property
    def saved(self) -> float:
        """Share of all-LU's time that scheduling saves (the paper: up to 0.9)."""
        return 1.0 - self.total("scheduled") / self.total("lu")

    def by_step(self, plan: str) -> dict[int, float]:
        """Seconds of each optimizer step's solves."""
        out: collections.defaultdict[int, float] = collections.defaultdict(float)
        for decision, seconds in zip(self.decisions, self.seconds[plan], strict=True):
            if not math.isnan(seconds):
                out[int(decision.step or 0)] += float(seconds)
        return dict(out)

    def summary(self) -> str:
        """A table in plain text."""
        lines = [f"gate time {self.gate_time:.3g} s, {len(self.decisions):,} systems"]
        lines += [f"  {plan:<16}{self.total(plan):12.4g} s" for plan in PLANS]
        share = collections.Counter(self.routes)
        lines.append("  sent to         " + ", ".join(f"{r} {n:,}" for r, n in share.items()))
        lines.append(f"  saved against lu {100 * self.saved:.1f} %")
        lines += [
            f"  break-even gate time of {block}: {time:.3g} s"
            for block, time in self.break_even.items()
        ]
        return "\n".join(lines)


def project(
    log: Sequence[Decision] | str | os.PathLike[str],
    gate_time: float = 1e-9,
    scheduler: Scheduler | None = None,
    run: int | None = None,
) -> Projection:
    """Prices a run's linear systems at another gate time.

    At the gate time, and with the scheduler, of the run itself, the routes are the run's, unless
    the price followed a forcing term, which the log does not have. Its α is used if it is of the
    block encoding that `scheduler` prices; elsewhere cost models suppose one.

    Args:
        log: Decisions, or a file that `NewtonLog` wrote.
        gate_time: Seconds that a quantum gate takes.
        scheduler: With a quantum solver, whose other settings and cost models are used; None is
            `Scheduler()`.
        run: Which of the log's runs, from 0; None for the last one of a file, and for all of
            decisions that are given.

    Returns:
        A `Projection`: `print(projection.summary())`, or read `saved`, the share of LU's time,
        and `break_even`, by block the gate time in seconds at which a circuit takes as long as
        LU.

    Raises:
        ValueError: For an empty log, a line that is no decision, a run that is not there, a
            scheduler without a quantum solver or with one of the Jacobian's rows, or a gate time
            that is not positive.

    Warns:
        UserWarning: If a file has several runs, and `run` does not say which.
    """
    return projections(log, [gate_time], scheduler, run)[0]


def projections(
    log: Sequence[Decision] | str | os.PathLike[str],
    gate_times: Sequence[float],
    scheduler: Scheduler | None = None,
    run: int | None = None,
) -> list[Projection]:
    """`project` at several gate times, for little more than the price of one.

    Args:
        log: As for `project`.
        gate_times: Seconds each.
        scheduler: As for `project`.
        run: As for `project`.

    Raises:
        ValueError: As for `project`.
    """
    decisions = [d for d in _run_of(log, run) if d.evaluations is None]
    if not decisions:
        raise ValueError(
            "Argument `log` must have at least one decision about a linear system; quasi-Newton "
            f"steps solve none. Received: log={log!r}"
        )
    scheduler = Scheduler() if scheduler is None else scheduler
    if not isinstance(scheduler, Scheduler):
        raise refused("scheduler", scheduler, "a `Scheduler` object or None")
    if scheduler.quantum is None:
        raise ValueError(
            "Argument `scheduler` must have a quantum solver. "
            "Received: a scheduler with quantum=None"
        )
    if scheduler.by_rows:
        raise ValueError(
            "Argument `scheduler` must have a quantum solver of matrices: what a circuit of the "
            "Jacobian's rows costs depends on how many there are and on the solution's length, "
            f"which a log does not have. Received: scheduler={scheduler!r}"
        )
    times = [Scheduler(quantum=None, gate_time=t).gate_time for t in gate_times]  # checked
    seconds = [{plan: np.full(len(decisions), math.nan) for plan in PLANS} for _ in times]
    routes = [[d.route for d in decisions] for _ in times]
    even = np.full(len(decisions), math.nan)
    alphas = [_alpha(d, scheduler) for d in decisions]
    kinds = [
        (d.size, _was_definite(d, scheduler), alpha is not None)
        for d, alpha in zip(decisions, alphas, strict=True)
    ]
    for size, definite, measured in sorted(set(kinds)):
        own = [k for k, kind in enumerate(kinds) if kind == (size, definite, measured)]
        systems = _Systems(
            size,
            definite,
            np.array([decisions[k].condition_number for k in own], float),
            np.array([max(decisions[k].sparsity, 1) for k in own], float),
            np.array([alphas[k] for k in own], float) if measured else None,
        )
        index, classical, prices = _prices(scheduler, systems, times)
        for t in range(len(times)):
            for plan, values in prices.items():
                seconds[t][plan][own] = values[t]
            for k, i, best in zip(own, index[t], classical[t], strict=True):
                if routes[t][k] in UNSCHEDULED:
                    seconds[t]["scheduled"][k] = best
                else:
                    routes[t][k] = scheduler.routes[i]
        even[own] = _break_even(scheduler, systems, prices["lu"][0])
    names = np.array([str(d.block) for d in decisions])
    break_even = {}
    for block in dict.fromkeys(names.tolist()):
        known = even[(names == block) & ~np.isnan(even)]
        if known.size:
            break_even[block] = float(np.median(known))
    return [
        Projection(time, decisions, prices, where, break_even)
        for time, prices, where in zip(times, seconds, routes, strict=True)
    ]


def _run_of(
    log: Sequence[Decision] | str | os.PathLike[str], run: int | None
) -> Sequence[Decision]:
    """The decisions of one run of a file; all that are given, unless a run is chosen."""
    runs = runs_of(log)
    if run is None and not isinstance(log, (str, os.PathLike)):
        return log
    number = None if run is None else check_count("run", run, least=-len(runs))
    if number is None:
        if len(runs) > 1:
            warnings.warn(
                f"The log has {len(runs)} runs; the last one is priced. Pass `run=` from 0 to "
                f"{len(runs) - 1} to choose.",
                stacklevel=4,
            )
        return runs[-1].decisions if runs else []
    if number >= len(runs):
        raise ValueError(
            f"Argument `run` must be one of the log's {len(runs)} runs, from 0. "
            f"Received: run={run!r}"
        )
    return runs[number].decisions


def _was_definite(decision: Decision, scheduler: Scheduler) -> bool:
    """True if the run knew the system to be definite: only then was every solver priced."""
    classical = {str(solver.name) for solver in scheduler.classical}
    return classical <= set(decision.predicted)


def _alpha(decision: Decision, scheduler: Scheduler) -> float | None:
    """α of the encoding that the scheduler prices, if the log has it."""
    encoding = scheduler.quantum_price.encoding
    return decision.alpha if encoding is not None and decision.encoding == encoding else None


@dataclasses.dataclass(frozen=True)
class _Systems:
    """Systems of one size.

    Attributes:
        size: N.
        definite: Whether they are known to be.
        kappa: κ, `[M]`.
        sparsity: d, `[M]`.
        alpha: α/‖A‖₂, `[M]`; None where it is not known.
    """

    size: int
    definite: bool
    kappa: np.ndarray
    sparsity: np.ndarray
    alpha: np.ndarray | None

    def rows(self, gate_times: np.ndarray) -> tf.Tensor:
        """κ, d, a gate time, and α where it is known, `[M, 3]` or `[M, 4]`."""
        known = [] if self.alpha is None else [self.alpha]
        return tf.stack([self.kappa, self.sparsity, gate_times, *known], 1)

    def repeated(self, gate_times: Sequence[float]) -> tf.Tensor:
        """`rows` at each of the gate times, one after the other."""
        each = [self.rows(np.full(len(self.kappa), time)) for time in gate_times]
        return tf.concat(each, 0)


def _told(scheduler: Scheduler, row: tf.Tensor) -> dict[str, Any]:
    """What the cost model is told of a system of `_Systems.rows`."""
    return scheduler.quantum_price.told(row[3]) if row.shape[0] == 4 else {}


def _prices(
    scheduler: Scheduler, systems: _Systems, gate_times: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The scheduler's choice, the best classical price, and the price by plan, each `[G, M]`."""
    cg, size, definite = CGTime(), systems.size, systems.definite
    models = dict(zip(scheduler.routes, scheduler.classical_cost, strict=False))
    lu = models.get("lu", LUTime())

    def price(row: tf.Tensor) -> tuple[tf.Tensor, ...]:
        k, d, told = row[0], row[1], _told(scheduler, row)
        at = copy.copy(scheduler)
        at.gate_time = row[2]
        index, _, _ = at.choose_index(size, k, d, definite, measured=told)
        known = tf.math.is_finite(k) & (k > 0)
        unknown = tf.constant(math.nan, tf.float64)
        safe = tf.where(known, tf.maximum(k, 1.0), tf.ones_like(k))
        quantum = at.quantum_price.seconds(size, safe, d, at.gate_time, told)
        conjugate = cg.seconds(size, safe, d)
        return (
            index,
            tf.cast(lu.seconds(size, safe, d, at.gate_time), tf.float64),
            tf.where(known, quantum, unknown),
            tf.where(known, conjugate, unknown),
            at.predict(size, k, d, definite, told),
        )

    # A loop of the graph: outside of one, each row is a call of its own.
    @functools.partial(tf.function, autograph=False)
    def priced(rows: tf.Tensor) -> Any:
        signature = (tf.int32, *[tf.float64] * 4)
        return tf.map_fn(price, rows, fn_output_signature=signature)

    index, by_lu, quantum, conjugate, predicted = (
        t.numpy() for t in priced(systems.repeated(gate_times))
    )
    own = predicted[:, : len(scheduler.routes) - 1]
    best = np.nanmin(np.concatenate([own, np.stack([by_lu, conjugate], 1)], 1), 1)
    chosen = np.take_along_axis(predicted, index[:, None].astype(int), 1)[:, 0]
    plans = {"lu": by_lu, "best classical": best, "quantum": quantum, "scheduled": chosen}
    shape = len(gate_times), len(systems.kappa)
    return (
        index.reshape(shape),
        best.reshape(shape),
        {plan: values.reshape(shape) for plan, values in plans.items()},
    )


def _break_even(scheduler: Scheduler, systems: _Systems, by_lu: np.ndarray) -> np.ndarray:
    """The gate time at which the quantum price is LU's, `[M]`.

    Prices grow with the gate time, for most models in proportion; bisection in its logarithm
    takes any that grow.
    """

    size, kappa = systems.size, systems.kappa

    @functools.partial(tf.function, autograph=False)
    def quantum(gate_times: tf.Tensor) -> tf.Tensor:
        def seconds(row: tf.Tensor) -> tf.Tensor:
            told = _told(scheduler, row)
            kappa = tf.maximum(row[0], 1.0)
            return scheduler.quantum_price.seconds(size, kappa, row[1], row[2], told)

        return tf.map_fn(seconds, systems.rows(gate_times), fn_output_signature=tf.float64)

    known = np.isfinite(kappa) & (kappa > 0)
    guess = by_lu / quantum(tf.ones(len(kappa), tf.float64)).numpy()
    proportional = np.isclose(quantum(tf.constant(guess)).numpy(), by_lu, rtol=1e-12, atol=0)
    if np.all(proportional[known]):
        return np.where(known, guess, math.nan)
    low, high = np.full(len(kappa), -40.0), np.full(len(kappa), 5.0)  # log10 of seconds
    for _ in range(60):
        middle = (low + high) / 2
        below = quantum(tf.constant(10.0**middle)).numpy() <= by_lu
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(known, np.where(low > -39.9, 10.0**low, 0.0), math.nan)
