"""What the benchmarks share: threads, timing, data, the peers' networks, results as JSON."""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import importlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import pathlib
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# PyTorch's threads otherwise spin while they wait for one another: if anything else runs on the
# machine, it gets up to ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# TensorFlow's faster matrix products, for ours and for TensorFlow's own: by itself it uses them on
# some processors only.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"
THREADS = 2
# A shorter run is repeated within one timing, like `timeit`'s: at first call caches are cold, and
# threads that a peer left behind still spin.
SHORTEST_TIMING = 0.02
# Exponents from noisy times: a fit this far above the theory is no evidence against it.
EXPONENT_TOLERANCE = 0.15

Run = Callable[[], Any]
Row = dict[str, Any]
# How a note begins that is an error; others say what the machine or the time did not allow.
FAILED = "failed:"


# --- options and threads ----------------------------------------------------------------


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with `--repeats`, to which a benchmark adds its own."""
    out = argparse.ArgumentParser(description=description)
    out.add_argument("--repeats", type=int, default=5, help="timed runs; the median counts")
    return out


def add_mnist_options(to: argparse.ArgumentParser) -> None:
    to.add_argument("--batch", type=int, default=2048, help="of the mnist part")
    to.add_argument(
        "--mnist",
        metavar="PATH",
        default=os.environ.get("MNIST_NPZ"),
        help="NumPy archive of MNIST digits, keys x [n, 784] and y (default: the environment's "
        "MNIST_NPZ, else keras.datasets.mnist, which downloads)",
    )


def add_output_options(to: argparse.ArgumentParser, name: str, figure: bool = False) -> None:
    """`--json` and, where there is one, `--figure`: files in `benchmarks/results` by default."""
    for option, suffix in (("json", "json"), *((("figure", "png"),) if figure else ())):
        to.add_argument(
            f"--{option}",
            metavar="FILE",
            type=pathlib.Path,
            default=RESULTS / f"{name}.{suffix}",
            help="(default: %(default)s)",
        )


def limit_threads() -> None:
    """Two threads for everyone; called before any library has computed anything."""
    if hasattr(os, "sched_setaffinity"):
        # The one limit that all libraries respect: jax has no setting for its thread pool.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    torch = optional("torch")
    if torch is not None:
        torch.set_num_threads(THREADS)


def optional(name: str) -> Any:
    """The module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# --- timing -----------------------------------------------------------------------------


def median_seconds(run: Run, repeats: int, warm_up: bool = True) -> float:
    """Median over `repeats` timings, after a run that compiles; `run` must wait for its result."""
    if warm_up:
        run()
    first = _mean_seconds(run, 1)
    number = math.ceil(SHORTEST_TIMING / first) if warm_up else 1
    seconds = [first] if number == 1 else []
    while len(seconds) < repeats:
        seconds.append(_mean_seconds(run, number))
    return statistics.median(seconds)


def _mean_seconds(run: Run, number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        run()
    return (time.perf_counter() - start) / number


def compare(
    title: str,
    ours: Run,
    peers: dict[str, Run | str],
    repeats: int,
    slow: dict[str, Run] | None = None,
    slow_repeats: int = 1,
) -> dict[str, Any]:
    """Times ours and the peers in this process, prints seconds and ratios to ours.

    Args:
        title: What is computed.
        ours: Runs ours.
        peers: By name; a string in a run's place says why there is none.
        repeats: Timed runs of each.
        slow: Peers that are compiled already and take so long that they run `slow_repeats`
            times only, without a run to warm up.
        slow_repeats: See `slow`.
    """
    mine = median_seconds(ours, repeats)
    print(f"\n{title}\n  {'keras_qnewton':<46}{milliseconds(mine)}")
    out: dict[str, Any] = {"title": title, "ours_seconds": mine, "peers": {}}

    def report(name: str, seconds: float, note: str = "") -> None:
        print(f"  {name:<46}{milliseconds(seconds)}{seconds / mine:>9.1f} x{note}", flush=True)
        out["peers"][name] = {"seconds": seconds, "ratio": seconds / mine}

    for name, run in peers.items():
        if isinstance(run, str):
            print(f"  {name:<46}{run:>13}")
            out["peers"][name] = {"skipped": run}
        else:
            report(name, median_seconds(run, repeats))
    for name, run in (slow or {}).items():
        runs = "1 run" if slow_repeats == 1 else f"{slow_repeats} runs"
        report(name, median_seconds(run, slow_repeats, warm_up=False), f"  ({runs})")
    return out


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:>10,.1f} ms"


def growth(
    title: str, symbol: str, sizes: Sequence[int], seconds: Sequence[float], theory: float
) -> dict[str, Any]:
    """Fits seconds ~ size^p by least squares in the logarithms, and prints p beside `theory`."""
    exponent = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    worse = exponent > theory + EXPONENT_TOLERANCE
    times = ", ".join(f"{n:,}: {1e3 * s:,.1f}" for n, s in zip(sizes, seconds, strict=True))
    print(f"\n{title}, ms by {symbol}: {times}")
    verdict = "WORSE" if worse else "not worse"
    print(f"  {symbol}^{exponent:.2f}, theory {symbol}^{theory:g}: {verdict}", flush=True)
    return {
        "title": title,
        "variable": symbol,
        "sizes": list(sizes),
        "seconds": list(seconds),
        "exponent": exponent,
        "theory": theory,
        "worse": worse,
    }


def growth_verdict(fits: Sequence[dict[str, Any]]) -> None:
    worse = [fit["title"] for fit in fits if fit["worse"]]
    print(
        f"\ngrowth: {'worse than theory: ' + '; '.join(worse) if worse else 'none is worse'} "
        f"(tolerance {EXPONENT_TOLERANCE} in the exponent)"
    )


# --- processes and memory ---------------------------------------------------------------


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` in a new interpreter: its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def rows_of_child(
    rows: Callable[..., Iterable[Row]],
    arguments: tuple[Any, ...],
    until: float,
    late: str,
) -> Iterator[Row | str]:
    """Rows that `rows(*arguments)` makes in a new interpreter, as they come; or, last, a note.

    Args:
        rows: Makes the rows; of a module's top level.
        arguments: Its arguments.
        until: When to give up, by `time.perf_counter`.
        late: The note then.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_send_rows, args=(sending, rows, arguments))
    child.start()
    sending.close()  # so that the end of the child is the end of the pipe
    try:
        while receiving.poll(max(0.0, until - time.perf_counter())):
            received = receiving.recv()
            if received is None:
                return
            yield received
            if isinstance(received, str):
                return
        yield late
    except EOFError:
        yield "its process ended without a result: out of memory?"
    finally:
        child.kill()
        child.join()


def _send_rows(
    connection: Any, rows: Callable[..., Iterable[Row]], arguments: tuple[Any, ...]
) -> None:
    """Sends the rows, and None; or the text of an error."""
    limit_threads()
    try:
        for row in rows(*arguments):
            connection.send(row)
        connection.send(None)
    except Exception:  # of any kind: the parent prints it, and goes on with the others
        connection.send(f"{FAILED} {traceback.format_exc()}")


def memory_bytes(field: str) -> float:
    """VmRSS (now) or VmHWM (its peak) of this process; NaN where the system does not say.

    Not `ru_maxrss`: a child process starts with its parent's there.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(field + ":"):
                return 1024.0 * int(line.split()[1])
    return math.nan


# --- results ----------------------------------------------------------------------------


def save(
    name: str, runs: Sequence[Any], path: pathlib.Path | None = None, tell: bool = True
) -> None:
    """Writes `benchmarks/results/<name>.json`, or another file: `about`, and the runs."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    # A process that is ended meanwhile leaves the file as it was.
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps({"about": about(), "runs": list(runs)}, indent=1) + "\n", "utf-8")
    new.replace(path)
    if tell:
        print(f"\nwritten: {path}")


def about() -> dict[str, str]:
    """What a file of results has to say of its origin.

    The load is the mean number of processes that wanted to run in the last minute, this one and its
    threads included: above `THREADS`, others were at work.
    """
    from keras_qnewton.scheduling import calibration

    model = calibration.processor().rpartition(": ")[2] or platform.machine()
    packages = ("keras-qnewton", "tensorflow", "keras", "numpy", "scipy")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return {
        "command": _command(sys.argv),
        "date": datetime.date.today().isoformat(),
        "machine": f"{model}, {THREADS} threads, {platform.system()}",
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "versions": f"Python {platform.python_version()}, {', '.join(versions)}",
    }


def _command(arguments: Sequence[str]) -> str:
    """How this process was called, but for the files that it writes."""
    name, *options = arguments
    kept: list[str] = []
    for before, option in zip(["", *options], options, strict=False):
        if not {before, option} & {"--json", "--figure", "--figures"}:
            kept.append(option)
    return " ".join(["python", f"benchmarks/{pathlib.Path(name).name}", *kept])


def relative_difference(a: Any, b: Any) -> float:
    """‖a - b‖_F / ‖b‖_F, summed in float64 a few rows at a time: matrices may be large."""
    a, b = np.asarray(a), np.asarray(b)
    difference = norm = 0.0
    for start in range(0, len(b), 1024):
        left, right = (m[start : start + 1024].astype("float64") for m in (a, b))
        difference += float(np.sum((left - right) ** 2))
        norm += float(np.sum(right**2))
    return math.sqrt(difference / norm)


# --- data and networks ------------------------------------------------------------------


class SkippedError(Exception):
    """A part of a benchmark cannot run here; the message says why."""


def digits(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's digits, pixels in [0, 1]: `[batch, 64]` float32 and `[batch]` int32."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x[:batch] / 16).astype("float32"), y[:batch].astype("int32")


def noise(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels and labels of the shapes of `digits`, for any batch."""
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(batch, 64)).astype("float32")
    return x, generator.integers(10, size=batch).astype("int32")


def mnist(path: str | None, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """MNIST digits, pixels in [0, 1]: `[batch, 784]` float32 and `[batch]` int32."""
    if path:
        if not pathlib.Path(path).exists():
            raise SkippedError(f"no such file: {path}")
        with np.load(path) as data:
            x, y = data["x"], data["y"]
    else:
        import keras

        try:
            (x, y), _ = keras.datasets.mnist.load_data()
        except Exception as error:  # whatever a failed download raises
            raise SkippedError(
                f"MNIST cannot be downloaded, and --mnist names no file ({error})"
            ) from error
    x = x[:batch].reshape(-1, 784)
    return (x / 255).astype("float32"), y[:batch].astype("int32")


def keras_mlp(sizes: Sequence[int], activation: str = "tanh", dtype: str = "float32") -> Any:
    import keras

    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(n, activation=activation, dtype=dtype) for n in sizes[1:-1]]
    return keras.Sequential(
        [
            keras.layers.Input((sizes[0],), dtype=dtype),
            *hidden,
            keras.layers.Dense(sizes[-1], dtype=dtype),
        ]
    )


def _mlp(a: Any, weights: Sequence[Any], nonlinearity: Callable[[Any], Any]) -> Any:
    """Logits of the network with weights [kernel, bias, kernel, bias, ...], in any library."""
    for k in range(0, len(weights), 2):
        a = a @ weights[k] + weights[k + 1]
        if k + 2 < len(weights):
            a = nonlinearity(a)
    return a


def jax_loss(x: np.ndarray, y: np.ndarray, activation: str = "tanh") -> Callable[[Any], Any]:
    """The same network's cross-entropy as a function of [kernel, bias, kernel, bias, ...]."""
    import jax
    import jax.numpy as jnp

    nonlinearity = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]

    def loss(weights: Sequence[Any]) -> Any:
        logits = _mlp(x, weights, nonlinearity)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])

    return loss


def torch_loss(x: np.ndarray, y: np.ndarray, activation: str = "tanh") -> Callable[[Any], Any]:
    """The same in PyTorch."""
    import torch

    nonlinearity = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y.astype("int64"))

    def loss(weights: Sequence[Any]) -> Any:
        return torch.nn.functional.cross_entropy(_mlp(inputs, weights, nonlinearity), labels)

    return loss


def of_block(loss: Callable[[Any], Any], weights: Sequence[Any], k: int) -> Callable[[Any], Any]:
    """The loss as a function of one weight, flattened; the others as they are."""
    shape = tuple(weights[k].shape)

    def function(flat: Any) -> Any:
        return loss([*weights[:k], flat.reshape(shape), *weights[k + 1 :]])

    return function


def of_all(loss: Callable[[Any], Any], weights: Sequence[Any]) -> Callable[[Any], Any]:
    """The loss as a function of all weights in one vector."""
    shapes = [tuple(w.shape) for w in weights]
    ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
    starts = [0, *ends[:-1]]

    def function(flat: Any) -> Any:
        pieces = zip(starts, ends, shapes, strict=True)
        return loss([flat[a:b].reshape(shape) for a, b, shape in pieces])

    return function
