"""How long a classical solve takes on this machine: measured once, then remembered.

The measurement is `tf.linalg.lu` and `tf.linalg.lu_solve` in a loop of the graph, a few sizes and
well under two seconds in all. It is kept in the process and in a small JSON file in the
user's cache folder, under a fingerprint of the device, so that it is not repeated; without a
writable folder it is repeated once a process.
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
from collections.abc import Iterable, Mapping

import numpy as np
import scipy.optimize
import tensorflow as tf

Coefficients = tuple[float, float, float]

SIZES = (16, 64, 128, 256, 512, 768)
_REPEATS = 4
# Work of one timing: small sizes are repeated until they add up to it, a thousand times at most.
_CUBE = 256**3
# Part of the fingerprint: raise it when what is measured changes.
_VERSION = 2
_measured: dict[tuple[str, str], Coefficients] = {}


def coefficients(dtype: str = "float64") -> Coefficients:
    """a, b, c of seconds ≈ a·N³ + b·N² + c for one LU solve on this machine.

    From the process's memory, else the cache file, else measured now. May be called while a
    `tf.function` is being traced: the measurement steps out of the graph.

    Args:
        dtype: "float32" or "float64".
    """
    key = (fingerprint(), dtype)
    if key not in _measured:
        stored = _read().get(key[0], {}).get(dtype)
        if stored is None:
            stored = fit(measure(dtype))
            _write(*key, stored)
        _measured[key] = stored
    return _measured[key]


def measure(dtype: str, sizes: Iterable[int] = SIZES) -> dict[int, float]:
    """Seconds of one LU solve in a graph by size: the best of a few, after one to warm up.

    The best, not the mean: whatever else the machine does can only add time.
    """
    seconds = {}
    with tf.init_scope():
        for size in sizes:
            entries = np.random.default_rng(size).normal(size=(size, size))
            matrix = tf.constant(entries + entries.T, dtype)
            count = tf.constant(min(1000, max(1, _CUBE // size**3)))
            runs = []
            for _ in range(_REPEATS + 1):
                start = time.perf_counter()
                _repeated(matrix, tf.ones([size, 1], dtype), count).numpy()
                runs.append((time.perf_counter() - start) / int(count))
            seconds[size] = min(runs[1:])
    return seconds


@tf.function(reduce_retracing=True)
def _repeated(matrix: tf.Tensor, rhs: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """`count` solves one after the other, in a graph as in training.

    Called from Python one by one, small systems would be charged for the calls, ten times what
    they cost in a graph.
    """

    def solve(k: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Each depends on the one before, so that none can be left out or run beside another.
        factors, permutation = tf.linalg.lu(matrix + 1e-30 * x)
        return k + 1, tf.linalg.lu_solve(factors, permutation, rhs)

    return tf.while_loop(lambda k, _: k < count, solve, (0, rhs))[1]


def fit(seconds_by_size: Mapping[int, float]) -> Coefficients:
    """Non-negative a, b, c that fit a·N³ + b·N² + c to measured times.

    Errors count relative to the time: a small block is predicted as well as a large one.
    The cubic term is never zero, whatever noise says, or the largest blocks would look free.
    """
    sizes = np.array(list(seconds_by_size), float)
    times = np.array(list(seconds_by_size.values()), float)
    terms = np.stack([sizes**3, sizes**2, np.ones_like(sizes)], axis=1) / times[:, None]
    # Columns scaled to 1: they differ by nine orders of magnitude.
    scale = terms.max(axis=0)
    solution, _ = scipy.optimize.nnls(terms / scale, np.ones_like(times))
    a, b, c = (float(x) for x in solution / scale)
    if a == 0.0:
        largest = int(np.argmax(sizes))
        a, b = float(times[largest] / sizes[largest] ** 3), 0.0
    return a, b, c


def fingerprint() -> str:
    """Sixteen hex digits that differ between machines whose timings would."""
    facts = [
        str(_VERSION),
        platform.machine(),
        _processor(),
        str(_usable_cores()),
        str(tf.config.threading.get_intra_op_parallelism_threads()),
        tf.__version__,
    ]
    for device in tf.config.list_physical_devices("GPU"):
        facts.append(str(tf.config.experimental.get_device_details(device)))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.strip()
    return platform.processor()


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def cache_file() -> pathlib.Path:
    """`$XDG_CACHE_HOME/keras_qnewton/calibration.json`; by default under `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(root) / "keras_qnewton" / "calibration.json"


def _read() -> dict[str, dict[str, Coefficients]]:
    """What the cache file holds; nothing if it is missing, unreadable or not ours."""
    try:
        stored = json.loads(cache_file().read_text(encoding="utf-8"))
        return {
            str(device): {str(dtype): _coefficients(three) for dtype, three in by_dtype.items()}
            for device, by_dtype in stored.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _coefficients(three: Iterable[float]) -> Coefficients:
    a, b, c = (float(number) for number in three)
    if not (a > 0 and b >= 0 and c >= 0 and a + b + c < float("inf")):
        raise ValueError("not a calibration")
    return a, b, c


def _write(device: str, dtype: str, measured: Coefficients) -> None:
    """Adds one entry to the cache file, or does nothing if the folder cannot be written."""
    everything = _read()
    everything.setdefault(device, {})[dtype] = measured
    path = cache_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be reading: it must see the old file or the new one, whole.
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
        ) as file:
            json.dump(everything, file)
        os.replace(file.name, path)
