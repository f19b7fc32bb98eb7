"""What the benchmarks share: timing, the peers' networks, and results as a table and JSON."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

# Two threads for everyone: set before any of the libraries is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs; the median counts")
    return parser.parse_args()


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Median over `repeats` runs, after one that compiles; `run` must wait for its result."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def compare(
    title: str, ours: Callable[[], Any], peers: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, Any]:
    """Times ours and the peers in this process, prints seconds and ratios to ours."""
    mine = median_seconds(ours, repeats)
    print(f"\n{title}\n  {'keras_qnewton':<44}{1e3 * mine:>10.1f} ms")
    out: dict[str, Any] = {"title": title, "ours_seconds": mine, "peers": {}}
    for name, run in peers.items():
        seconds = median_seconds(run, repeats)
        print(f"  {name:<44}{1e3 * seconds:>10.1f} ms{seconds / mine:>9.1f} x")
        out["peers"][name] = {"seconds": seconds, "ratio": seconds / mine}
    return out


def save(name: str, results: Sequence[Any]) -> None:
    """Writes `benchmarks/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(list(results), indent=2))
    print(f"\nwritten: {path}")


def digits(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's digits, pixels in [0, 1]: `[batch, 64]` float32 and `[batch]` int32."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x[:batch] / 16).astype("float32"), y[:batch].astype("int32")


def keras_mlp(sizes: Sequence[int], activation: str = "tanh") -> Any:
    import keras

    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(n, activation=activation) for n in sizes[1:-1]]
    return keras.Sequential(
        [keras.layers.Input((sizes[0],)), *hidden, keras.layers.Dense(sizes[-1])]
    )


def jax_loss(x: np.ndarray, y: np.ndarray, activation: str = "tanh") -> Callable[[Any], Any]:
    """The same network's cross-entropy as a function of [kernel, bias, kernel, bias, ...]."""
    import jax
    import jax.numpy as jnp

    nonlinearity = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]

    def loss(weights: Sequence[Any]) -> Any:
        a = x
        for k in range(0, len(weights), 2):
            a = a @ weights[k] + weights[k + 1]
            if k + 2 < len(weights):
                a = nonlinearity(a)
        return -jnp.mean(jax.nn.log_softmax(a)[jnp.arange(len(y)), y])

    return loss
