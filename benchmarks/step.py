"""A whole layer-wise Newton step: ours against the paper's algorithm, one process.

The paper's algorithm written afresh in JAX from its description: the exact Hessian of every
kernel and bias by `jax.hessian`, plus 5e-3·max|H| on the diagonal, a dense inverse, the step;
compiled once, which the reference code does not do. Ours are stock `compile`/`fit` steps, which
include the trust ratio's extra loss evaluation and the logging of decisions. Parts, chosen by
`--parts`:

    digits    64-16-16-10 tanh, batch 512: `Constant()` damping, which is the paper's mathematics,
              and the default damping
    mnist     784-16-16-10 ReLU, batch 2048: its first layer, 12,560 weights, solved directly
              and by matrix-free conjugate gradients. The paper's step takes minutes and several
              GB, so its stages run one after the other, with the pruning of each row that the
              paper describes, and what is done with is dropped; `--skip-slow` leaves it out
    overhead  seconds a step takes beyond Keras's own fit loop (diabetes, 10-16-16-1, full batch),
              and how often the train step is traced again after the first step
    growth    our step's time by N and by the batch

    python benchmarks/step.py [--repeats 5] [--parts digits mnist overhead growth]
        [--mnist PATH] [--batch 2048] [--slow-repeats 5] [--skip-slow]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import common
import jax
import jax.numpy as jnp
import keras
import numpy as np
from common import Run

from keras_qnewton import Blocks, Constant, QNewton

DIGITS = (64, 16, 16, 10)
MNIST = (784, 16, 16, 10)
REGULARISATION = 5e-3
# Share of a row's entries that pruning keeps; the paper's experiments have 0.5 and 0.1.
KEPT = 0.5


class CountedQNewton(QNewton):
    """Counts its own traces: Keras runs `apply` in Python while it traces a train step only."""

    traces = 0

    def apply(self, *args: Any, **kwargs: Any) -> None:
        self.traces += 1
        super().apply(*args, **kwargs)


def fitted_step(
    optimizer: Any,
    x: np.ndarray,
    y: np.ndarray,
    sizes: Sequence[int] = DIGITS,
    activation: str = "tanh",
) -> Run:
    """One step of a stock `fit`, Keras's own work included."""
    model = common.keras_mlp(sizes, activation)
    model.compile(
        optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return lambda: model.train_on_batch(x, y)


# --- the paper's algorithm ----------------------------------------------------------------


def regularised(hessian: Any) -> Any:
    return hessian + REGULARISATION * jnp.max(jnp.abs(hessian)) * jnp.eye(len(hessian))


def pruned(matrix: Any) -> Any:
    """Each row's largest entries; rows apart from one another, so the result is not symmetric."""
    magnitudes = jnp.abs(matrix)
    smallest_kept = jnp.sort(magnitudes, axis=1)[:, -max(1, int(KEPT * len(matrix)))]
    return jnp.where(magnitudes >= smallest_kept[:, None], matrix, 0)


def paper_step(x: np.ndarray, y: np.ndarray, weights: Sequence[np.ndarray]) -> Run:
    """All diagonal blocks, regularised, inverted, multiplied: jitted once."""
    loss = common.jax_loss(x, y)

    def direction(weights: Sequence[Any], k: int, gradient: Any) -> Any:
        hessian = jax.hessian(common.of_block(loss, weights, k))(weights[k].ravel())
        inverse = jnp.linalg.inv(regularised(hessian))
        return (inverse @ gradient.ravel()).reshape(gradient.shape)

    @jax.jit
    def step(weights: Sequence[Any]) -> list[Any]:
        gradients = jax.grad(loss)(weights)
        return [
            w - 1e-2 * direction(weights, k, g)
            for k, (w, g) in enumerate(zip(weights, gradients, strict=True))
        ]

    return lambda: jax.block_until_ready(step(weights))


def paper_stages(
    x: np.ndarray, y: np.ndarray, weights: Sequence[np.ndarray], activation: str
) -> dict[str, float]:
    """Seconds of each stage over all blocks, compilation left out.

    One block and one stage at a time: together they would not fit into memory. The reference
    code computes the blocks between layers too and throws them away; this does not.
    """
    loss = common.jax_loss(x, y, activation)
    gradients = jax.grad(loss)(list(weights))
    stages = dict.fromkeys(("Hessian", "regularisation", "pruning", "inverse", "product"), 0.0)

    def timed(stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        # The argument is given up where the result can take its place.
        donated = (0,) if stage in ("regularisation", "pruning") else ()
        compiled = jax.jit(function, donate_argnums=donated).lower(*arguments).compile()
        start = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        stages[stage] += time.perf_counter() - start
        return result

    for k, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        flat = jnp.asarray(w.ravel())
        matrix = timed("Hessian", jax.hessian(common.of_block(loss, weights, k)), flat)
        matrix = timed("regularisation", regularised, matrix)
        matrix = timed("pruning", pruned, matrix)
        matrix = timed("inverse", jnp.linalg.inv, matrix)
        timed("product", jnp.matmul, matrix, g.ravel())
        del matrix
        jax.clear_caches()
    return stages


# --- the parts ----------------------------------------------------------------------------


def digits_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    x, y = common.digits(512)
    weights = [v.numpy() for v in common.keras_mlp(DIGITS).trainable_variables]
    paper = paper_step(x, y, weights)
    constant = QNewton(1e-2, curvature="hessian", blocks="variable", damping=Constant())
    return [
        common.compare(
            "digits, batch 512, blocks by variable: a step with the paper's damping",
            fitted_step(constant, x, y),
            {"the paper's algorithm, jitted once": paper},
            options.repeats,
        ),
        common.compare(
            "digits, batch 512: a step of QNewton(blocks='layer')",
            fitted_step(QNewton(blocks="layer"), x, y),
            {
                "the paper's algorithm, jitted once": paper,
                "Adam, for scale": fitted_step(keras.optimizers.Adam(1e-2), x, y),
            },
            options.repeats,
        ),
    ]


def mnist_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    try:
        x, y = common.mnist(options.mnist, options.batch)
    except common.SkippedError as reason:
        print(f"\nmnist: skipped, {reason}")
        return [{"title": "mnist", "skipped": str(reason)}]
    print(f"\nMNIST, batch {options.batch}, ReLU: a step, layer by layer")
    result: dict[str, Any] = {"title": "mnist", "batch": options.batch}
    seconds = {}
    warnings.filterwarnings("ignore", ".*is larger than max_size")  # that is what is measured
    for name, blocks, repeats in (
        ("QNewton, matrix-free first layer", Blocks("layer"), options.repeats),
        ("QNewton, direct first layer", Blocks("layer", max_size=13_000), options.slow_repeats),
    ):
        run = fitted_step(QNewton(blocks=blocks), x, y, MNIST, "relu")
        seconds[name] = common.median_seconds(run, repeats)
        print(f"  {name:<46}{common.milliseconds(seconds[name])}  (runs: {repeats})", flush=True)
        del run
        keras.backend.clear_session()
    result["ours_seconds"] = seconds
    if options.skip_slow:
        print("  the paper's algorithm: skipped, --skip-slow")
        return [result]
    weights = [v.numpy() for v in common.keras_mlp(MNIST, "relu").trainable_variables]
    runs = [paper_stages(x, y, weights, "relu") for _ in range(options.slow_repeats)]
    stages = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
    result["paper_stages_seconds"] = stages
    print(f"  the paper's algorithm, its stages jitted, medians of {len(runs)}:")
    for stage, took in stages.items():
        print(f"    {stage:<44}{common.milliseconds(took)}")
    whole = sum(stages.values())
    for label, total in (
        (f"whole, {KEPT:g} of each row kept", whole),
        ("whole, without pruning", whole - stages["pruning"]),
    ):
        ratios = ", ".join(f"{total / mine:,.1f} x" for mine in seconds.values())
        print(f"    {label:<44}{common.milliseconds(total)}   {ratios} (matrix-free, direct)")
    return [result]


def overhead_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    x = (data.data / data.data.std(0)).astype("float32")
    y = ((data.target - data.target.mean()) / data.target.std())[:, None].astype("float32")

    class Epochs(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[float] = []
            self.traces: list[int] = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            del epoch, logs
            self.ends.append(time.perf_counter())
            self.traces.append(getattr(self.model.optimizer, "traces", 0))

    def fitted(optimizer: Any) -> tuple[float, list[int]]:
        """Median seconds of an epoch, and the traces so far at the end of each."""
        model, epochs = common.keras_mlp((10, 16, 16, 1)), Epochs()
        model.compile(optimizer=optimizer, loss="mse")
        count = 20 * options.repeats
        model.fit(x, y, batch_size=len(x), epochs=count, verbose=0, callbacks=[epochs])
        return float(np.median(np.diff(epochs.ends))), epochs.traces

    mine, traces = fitted(CountedQNewton())
    plain, _ = fitted(keras.optimizers.SGD(1e-2))
    print("\ndiabetes, 10-16-16-1, full batch: an epoch of one step")
    for name, seconds in (
        ("QNewton()", mine),
        ("SGD", plain),
        ("QNewton() beyond Keras's fit loop", mine - plain),
    ):
        print(f"  {name:<46}{common.milliseconds(seconds)}")
    retraces = traces[-1] - traces[0]
    print(
        f"  traces of the train step in the first step: {traces[0]}; after it: {retraces} "
        "(expected 0)",
        flush=True,
    )
    return [
        {
            "title": "overhead",
            "qnewton_seconds": mine,
            "sgd_seconds": plain,
            "beyond_seconds": mine - plain,
            "first_step_traces": traces[0],
            "retraces": retraces,
        }
    ]


def growth_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    def seconds(width: int, batch: int) -> float:
        x, y = common.noise(batch)
        run = fitted_step(QNewton(blocks="layer"), x, y, (64, width, width, 10))
        return common.median_seconds(run, options.repeats)

    # Up to the width at which the first layer is no longer formed as a matrix.
    widths, batches = (8, 12, 16, 24, 31), (256, 512, 1024, 2048, 4096)
    sizes = [common.keras_mlp((64, h, h, 10)).count_params() for h in widths]
    fits = [
        # Factorising the blocks is of order N³, assembling them N².
        common.growth(
            "a step of 64-h-h-10, batch 512", "N", sizes, [seconds(h, 512) for h in widths], 3
        ),
        common.growth("a step of 64-16-16-10", "B", batches, [seconds(16, b) for b in batches], 1),
    ]
    common.growth_verdict(fits)
    return fits


PARTS = {
    "digits": digits_part,
    "mnist": mnist_part,
    "overhead": overhead_part,
    "growth": growth_part,
}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which")
    parser.add_argument(
        "--slow-repeats", type=int, default=5, help="of our direct MNIST solve and the paper's"
    )
    parser.add_argument("--skip-slow", action="store_true", help="no minutes of the paper's step")
    common.add_mnist_options(parser)
    common.add_output_options(parser, "step")
    options = parser.parse_args()
    common.limit_threads()
    results = [result for name in options.parts for result in PARTS[name](options)]
    common.save("step", results, options.json)


if __name__ == "__main__":
    main()
