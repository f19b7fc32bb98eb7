"""Seconds of a classical solver on this machine: measured once, then remembered.

The measurement runs the solver in a loop of the graph, at a few sizes; a few seconds in all,
most of them spent on tracing. It is kept in the process and in a small JSON file in the user's
cache folder, by solver and dtype, under a fingerprint of the device, so that it is not repeated;
without a writable folder it is repeated once a process. `forget` drops it.

A busy machine makes readings longer, never shorter. The shortest of several readings therefore
counts, and the last size is read again before the next is left out as too slow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import scipy.optimize
import tensorflow as tf

from keras_qnewton import registry
from keras_qnewton.types import Solution

Coefficients = tuple[float, float, float]
Solve = Callable[[tf.Tensor, tf.Tensor], Solution]

# Cholesky's panels widen, and LAPACK's threads pay, within these; see `LONGEST`.
SIZES = (16, 64, 128, 256, 512, 1024, 2048)
# Sizes that are always measured: the fit has three coefficients, and checks itself by a fourth.
LEAST_SIZES = 4
# Seconds: a size at which one solve would take longer, by the size before, is left out.
LONGEST = 0.25
_READINGS = 3
# Readings that are added before a size is left out.
_MORE_READINGS = 5
# Work of one reading: small sizes are repeated until they add up to it, 200 times at most.
_CUBE = 256**3
# Part of the fingerprint: raise it when what is measured changes.
_VERSION = 3
# By cache file, device and what was measured.
_measured: dict[tuple[str, str, str], tuple[float, ...]] = {}
# What a cache file may raise that is not there, is torn, or is another program's.
_UNUSABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def coefficients(solver: str = "lu", dtype: str = "float64") -> Coefficients:
    """a, b, c of seconds ≈ a·N³ + b·N² + c for one solve on this machine.

    From the process's memory, else the cache file, else measured now. May be called while a
    `tf.function` is being traced: the measurement steps out of the graph.

    Args:
        solver: Registered name of a solver whose time depends on N alone.
        dtype: "float32" or "float64".
    """
    what = f"{solver} {dtype}"
    a, b, c = remembered(what, lambda: fit(measure(solver, dtype)), _coefficients)
    return a, b, c


def remembered(
    what: str,
    measured: Callable[[], tuple[float, ...]],
    checked: Callable[[Iterable[float]], tuple[float, ...]],
) -> tuple[float, ...]:
    """Numbers from the process's memory, else the cache file, else measured now.

    Args:
        what: Their name, in the cache file.
        measured: Makes them.
        checked: Returns what the file has, or raises one of `_UNUSABLE`.
    """
    device = fingerprint()
    key = (str(cache_file()), device, what)
    if key not in _measured:
        try:
            stored = checked(numbers(_read()[device][what]))
        except _UNUSABLE:
            stored = measured()
            _write(device, what, stored)
        _measured[key] = stored
    return _measured[key]


def known() -> tuple[str, ...]:
    """What the cache file has of this machine: a solver and a dtype each, such as "lu float64"."""
    return tuple(_read().get(fingerprint(), ()))


def forget() -> None:
    """Drops what was measured on this machine, from the process's memory and the cache file.

    What is needed next is measured again: after a calibration on a busy machine, for instance.
    """
    _measured.clear()
    stored = _read()
    if stored.pop(fingerprint(), None) is not None:
        _replace_file(stored)


def measure(
    solver: str,
    dtype: str,
    sizes: Iterable[int] = SIZES,
    system: Callable[[int], np.ndarray] | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
    longest: float = LONGEST,
    least_sizes: int = LEAST_SIZES,
) -> dict[int, float]:
    """Seconds of one solve in a graph by size: the shortest of three readings, after a warm-up.

    The shortest, not the mean: whatever else the machine does can only add time. A size is left
    out, and all larger ones, if a cubic through the size before predicts more than `longest`.
    Before that the size before is read again, up to five times.

    Args:
        solver: Registered name.
        dtype: "float32" or "float64".
        sizes: N, ascending.
        system: From N to a positive definite matrix `[N, N]`; a dense one by default.
        clock: Seconds since some time in the past, ascending.
        longest: Seconds of one solve.
        least_sizes: How many of `sizes`, the smallest, are measured however long they take.

    Warns:
        UserWarning: If one of the smallest sizes was measured that would have been left out.
    """
    solve = registry.resolve("solver", solver, "solver", needs=("solve",)).solve
    timings: dict[int, _Timing] = {}
    slow: list[int] = []
    with tf.init_scope():
        for size in sizes:
            if timings and _stays_slow(timings, size, longest):
                if len(timings) >= least_sizes:
                    break
                slow.append(size)
            matrix = tf.constant((system or positive_definite)(size), dtype)
            timings[size] = _Timing(solve, matrix, clock)
            for _ in range(_READINGS):
                timings[size].read()
    seconds = {size: timing.shortest for size, timing in timings.items()}
    if slow:
        measured = ", ".join(f"{s:.2g} s at N = {size}" for size, s in seconds.items())
        warnings.warn(
            f"Solver {solver!r} in {dtype} was too slow to be calibrated at larger sizes: one "
            f"solve took {measured}, the shortest of several readings. Times predicted from these "
            "may be far too long. If the machine was busy, call "
            "`keras_qnewton.scheduling.calibration.forget()` when it is not, and they are measured "
            f"again; or give them: `SolverTime({solver!r}, table={{size: seconds, ...}})`.",
            stacklevel=2,
        )
    return seconds


class _Timing:
    """Solves of one system, read as often as is asked for; warmed up when made.

    Attributes:
        shortest: Seconds of one solve, by the shortest reading so far; Inf before the first.
    """

    def __init__(self, solve: Solve, matrix: tf.Tensor, clock: Callable[[], float]) -> None:
        size = int(matrix.shape[0])
        self._solve, self._matrix, self._clock = solve, matrix, clock
        self._rhs = tf.ones([size], matrix.dtype)
        self._count = min(200, max(1, _CUBE // size**3))
        self._run = tf.function(repeated, autograph=False)  # one for each static shape
        self._seconds()
        self.shortest = float("inf")

    def read(self) -> None:
        """Adds a reading."""
        self.shortest = min(self.shortest, self._seconds())

    def _seconds(self) -> float:
        count = tf.constant(self._count)
        start = self._clock()
        self._run(self._solve, self._matrix, self._rhs, count).numpy()
        return (self._clock() - start) / self._count


def _stays_slow(timings: Mapping[int, _Timing], size: int, longest: float) -> bool:
    """Whether a cubic through the last size predicts too long a solve, after more readings too."""
    last = max(timings)
    growth = (size / last) ** 3
    for _ in range(_MORE_READINGS):
        if timings[last].shortest * growth <= longest:
            return False
        timings[last].read()
    return timings[last].shortest * growth > longest


def positive_definite(size: int) -> np.ndarray:
    """A matrix that any solver can take; κ about 6."""
    entries = np.random.default_rng(size).normal(size=(size, size))
    return entries @ entries.T / size + np.eye(size)


def repeated(
    solve: Solve,
    matrix: tf.Tensor,
    rhs: tf.Tensor,
    count: tf.Tensor,
) -> tf.Tensor:
    """`count` solves one after the other, in a graph as in training.

    Called from Python one by one, small systems would be charged for the calls, ten times what
    they cost in a graph.
    """

    def again(k: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Each waits for the one before, so that none can be left out or run beside another.
        with tf.control_dependencies([x]):
            return k + 1, solve(tf.identity(matrix), rhs).x

    return tf.while_loop(lambda k, _: k < count, again, (0, rhs))[1]


def fit(seconds_by_size: Mapping[int, float]) -> Coefficients:
    """Non-negative a, b, c that fit a·N³ + b·N² + c to measured times.

    Errors count relative to the time: a small block is predicted as well as a large one.
    Efficiency grows with N, so that the times of small sizes alone may look quadratic; the
    cubic term is at least half of what the most efficient size shows, or the largest blocks
    would look free.
    """
    sizes = np.array(list(seconds_by_size), float)
    times = np.array(list(seconds_by_size.values()), float)
    least = 0.5 * float(np.min(times / sizes**3))
    terms = np.stack([sizes**3, sizes**2, np.ones_like(sizes)], axis=1) / times[:, None]
    # Columns scaled to 1: they differ by nine orders of magnitude.
    scale = terms.max(axis=0)
    solution, _ = scipy.optimize.nnls(terms / scale, 1 - least * terms[:, 0])
    a, b, c = (float(x) for x in solution / scale)
    return a + least, b, c


def fingerprint() -> str:
    """Sixteen hex digits that differ between machines whose timings would."""
    facts = [
        str(_VERSION),
        platform.machine(),
        processor(),
        str(usable_cores()),
        str(tf.config.threading.get_intra_op_parallelism_threads()),
        tf.__version__,
    ]
    for device in tf.config.list_physical_devices("GPU"):
        facts.append(str(tf.config.experimental.get_device_details(device)))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def processor() -> str:
    """What the system calls it; on Linux a line "model name : ..."."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.strip()
    return platform.processor()


def usable_cores() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def cache_file() -> pathlib.Path:
    """`$XDG_CACHE_HOME/keras_qnewton/calibration.json`; by default under `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(root) / "keras_qnewton" / "calibration.json"


def _read() -> dict[str, dict[str, Any]]:
    """Entries of the cache file by device; none if it is missing, unreadable or not ours."""
    try:
        stored = json.loads(cache_file().read_text(encoding="utf-8"))
        return {device: entries for device, entries in stored.items() if isinstance(entries, dict)}
    except _UNUSABLE:
        return {}


def numbers(stored: Any) -> list[float]:
    """What the cache file has, if it is a list of numbers.

    Raises:
        TypeError: If it is not.
        OverflowError: If one is too large.
    """
    if not isinstance(stored, list) or any(type(x) not in (int, float) for x in stored):
        raise TypeError("not a list of numbers")
    return [float(x) for x in stored]


def _coefficients(three: Iterable[float]) -> Coefficients:
    a, b, c = (float(number) for number in three)
    if not (a > 0 and b >= 0 and c >= 0 and a + b + c < float("inf")):
        raise ValueError("not a calibration")
    return a, b, c


def _write(device: str, what: str, measured: tuple[float, ...]) -> None:
    """Adds one entry to the cache file, or does nothing if the folder cannot be written."""
    everything = _read()
    everything.setdefault(device, {})[what] = measured
    _replace_file(everything)


def _replace_file(everything: dict[str, dict[str, Any]]) -> None:
    """Writes the cache file anew, or does nothing if the folder cannot be written."""
    path, temporary = cache_file(), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be reading: it must see the old file or the new one, whole.
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
        ) as file:
            temporary = file.name
            json.dump(everything, file)
        os.replace(temporary, path)
    except _UNUSABLE:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
