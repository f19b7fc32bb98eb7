"""Exact Hessian blocks: ours against jax, PyTorch and TensorFlow, one process.

Parts, chosen by `--parts`; errors are relative to `jax.hessian`, ‖ours - jax‖_F / ‖jax‖_F:

    digits    64-16-16-10 tanh, batch 512: the full Hessian of 1,482 weights, and the six diagonal
              blocks of kernels and biases
    exact     the same in float32 and float64: ours against jax.hessian, no times
    mnist     784-16-16-10 ReLU, batch 2048: the block of the first kernel's 12,544 weights, 14 s
              and several GB for jax; our own extra memory, in a fresh process
    growth    our full-block time by N (hidden widths 8 to 64) and by the batch (128 to 4096)

PyTorch is optional: where it is not installed its lines say so.

    python benchmarks/hessian.py [--repeats 5] [--parts digits exact mnist growth]
        [--mnist PATH] [--batch 2048] [--slow-repeats 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import common
import jax
import jax.numpy as jnp
import keras
import numpy as np
import tensorflow as tf
from common import Run

from keras_qnewton.curvature import Blocks, ExactHessian
from keras_qnewton.loss import as_tensors, record

DIGITS = (64, 16, 16, 10)
MNIST = (784, 16, 16, 10)
LIMITS = {"float32": 1e-5, "float64": 1e-12}
CHUNK = 64


# --- ours and the peers: each a function without arguments that waits for its result ------


def ours(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    partition: str,
    only: Sequence[int] | None = None,
    max_size: int = 2048,
) -> Run:
    """Our blocks, or those in `only`: a traced function that returns tensors."""
    variables = as_tensors(model.trainable_variables)
    parts = Blocks(partition, max_size=max_size).split(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, dtype=variables[0].dtype.name
    )
    x, y = tf.constant(x), tf.constant(y)

    @tf.function(autograph=False)
    def run() -> list[tf.Tensor]:
        loss = record(lambda: cross_entropy(y, model(x)), variables)
        at = ExactHessian().at(loss, loss.at_variables(), parts)
        return [at.block(k) for k in (range(len(parts)) if only is None else only)]

    run.get_concrete_function()
    return run  # on a CPU the call returns when its result is there


def tensorflow_jacobian(model: Any, x: np.ndarray, y: np.ndarray, pfor: bool) -> Run:
    """The full Hessian as TensorFlow's documentation has it."""
    variables = as_tensors(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def run() -> tf.Tensor:
        with tf.GradientTape(persistent=True) as outer:
            with tf.GradientTape() as inner:
                loss = cross_entropy(y, model(x))
            gradients = inner.gradient(loss, variables)
            flat = tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)
        rows = outer.jacobian(flat, variables, experimental_use_pfor=pfor)
        return tf.concat([tf.reshape(r, [flat.shape[0], -1]) for r in rows], 1)

    return run


def jax_rows(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The Hessian by products with unit vectors, `CHUNK` vectorised at a time."""

    def hessian(flat: Any) -> Any:
        _, product = jax.linearize(jax.grad(function), flat)

        def row(i: Any) -> Any:
            return product(jnp.zeros_like(flat).at[i].set(1))

        return jax.lax.map(row, jnp.arange(flat.size), batch_size=CHUNK)

    return hessian


def jax_run(function: Callable[[Any], Any], at: Any) -> Run:
    """Compiled here and now, so that the first run is a run like any other."""
    compiled = jax.jit(function).lower(at).compile()
    return lambda: jax.block_until_ready(compiled(at))


def jax_runs(transform: Callable[..., Any], functions: Sequence[Any], points: Sequence[Any]) -> Run:
    """`transform(f)(point)` for each of the functions, all compiled together."""
    return jax_run(
        lambda at: [transform(f)(p) for f, p in zip(functions, at, strict=True)], list(points)
    )


def torch_runs(
    transform: Callable[..., Any], functions: Sequence[Any], points: Sequence[np.ndarray]
) -> Run:
    import torch

    tensors = [torch.from_numpy(p.copy()) for p in points]
    transformed = [transform(f) for f in functions]
    return lambda: [f(p) for f, p in zip(transformed, tensors, strict=True)]


def with_best_threads(run: Run) -> Run:
    """`run` with one thread or two: on small operations PyTorch is often faster with one."""
    import torch

    seconds = {}
    for threads in range(1, common.THREADS + 1):
        torch.set_num_threads(threads)
        seconds[threads] = common.median_seconds(run, 1)
    best = min(seconds, key=seconds.__getitem__)

    def chosen() -> Any:
        torch.set_num_threads(best)
        return run()

    return chosen


def torch_rows(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    import torch

    return torch.func.jacrev(torch.func.grad(function), chunk_size=CHUNK)


def torch_peers(
    x: np.ndarray, y: np.ndarray, weights: Sequence[np.ndarray], blocks: bool
) -> dict[str, Run | str]:
    names = ("torch.func.hessian", f"torch jacrev of grad, {CHUNK} rows at a time")
    torch = common.optional("torch")
    if torch is None:
        return dict.fromkeys(names, "not installed")
    loss = common.torch_loss(x, y)
    tensors = [torch.from_numpy(w.copy()) for w in weights]
    if blocks:
        functions = [common.of_block(loss, tensors, k) for k in range(len(weights))]
        points = [w.ravel() for w in weights]
    else:
        functions, points = [common.of_all(loss, tensors)], [flattened(weights)]
    return {
        names[0]: with_best_threads(torch_runs(torch.func.hessian, functions, points)),
        names[1]: with_best_threads(torch_runs(torch_rows, functions, points)),
    }


def flattened(weights: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([w.ravel() for w in weights])


# --- the parts ----------------------------------------------------------------------------


def digits_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    x, y = common.digits(512)
    model = common.keras_mlp(DIGITS)
    weights = [v.numpy() for v in model.trainable_variables]
    loss = common.jax_loss(x, y)
    whole, flat = [common.of_all(loss, weights)], [flattened(weights)]
    blocks = [common.of_block(loss, weights, k) for k in range(len(weights))]
    flats = [w.ravel() for w in weights]
    return [
        common.compare(
            "digits, batch 512: full Hessian, N = 1,482",
            ours(model, x, y, "full"),
            {
                "jax.hessian, jitted": jax_runs(jax.hessian, whole, flat),
                f"jax H v, jitted, {CHUNK} rows at a time": jax_runs(jax_rows, whole, flat),
                **torch_peers(x, y, weights, blocks=False),
                "tf jacobian, while loop": tensorflow_jacobian(model, x, y, pfor=False),
                "tf jacobian, vectorised": tensorflow_jacobian(model, x, y, pfor=True),
            },
            options.repeats,
        ),
        common.compare(
            "digits, batch 512: six diagonal blocks",
            ours(model, x, y, "variable"),
            {
                "jax.hessian of each, jitted together": jax_runs(jax.hessian, blocks, flats),
                f"jax H v, jitted, {CHUNK} rows at a time": jax_runs(jax_rows, blocks, flats),
                **torch_peers(x, y, weights, blocks=True),
            },
            options.repeats,
        ),
    ]


def exact_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    del options
    results = []
    print("\ndigits, batch 512: relative difference from jax.hessian")
    for dtype, limit in LIMITS.items():
        with jax.experimental.enable_x64(dtype == "float64"):
            x, y = common.digits(512)
            x = x.astype(dtype)
            model = common.keras_mlp(DIGITS, dtype=dtype)
            weights = [v.numpy() for v in model.trainable_variables]
            loss = common.jax_loss(x, y)
            full = jax.jit(jax.hessian(common.of_all(loss, weights)))(flattened(weights))
            whole = common.relative_difference(ours(model, x, y, "full")()[0], full)
            worst = max(
                common.relative_difference(
                    mine, jax.jit(jax.hessian(common.of_block(loss, weights, k)))(w.ravel())
                )
                for k, (mine, w) in enumerate(
                    zip(ours(model, x, y, "variable")(), weights, strict=True)
                )
            )
        print(
            f"  {dtype}: full {whole:.1e}, worst of six blocks {worst:.1e} "
            f"(limit {limit:.0e}: {'kept' if max(whole, worst) <= limit else 'EXCEEDED'})"
        )
        results.append({"dtype": dtype, "full_error": whole, "block_error": worst})
    return results


def mnist_memory(path: str | None, batch: int) -> float:
    """Peak minus resident bytes before, for our block; run in a process of its own."""
    common.limit_threads()
    x, y = common.mnist(path, batch)
    run = ours(common.keras_mlp(MNIST, "relu"), x, y, "variable", only=[0], max_size=20_000)
    before = common.memory_bytes("VmRSS")
    run()
    return common.memory_bytes("VmHWM") - before


def mnist_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    try:
        x, y = common.mnist(options.mnist, options.batch)
    except common.SkippedError as reason:
        print(f"\nmnist: skipped, {reason}")
        return [{"title": "mnist", "skipped": str(reason)}]
    print(f"\nMNIST, batch {options.batch}, ReLU, block of the first kernel")
    extra = common.in_fresh_process(mnist_memory, options.mnist, options.batch)
    model = common.keras_mlp(MNIST, "relu")
    weights = [v.numpy() for v in model.trainable_variables]
    loss = common.of_block(common.jax_loss(x, y, "relu"), weights, 0)
    flat = weights[0].ravel()
    result_bytes = 4 * flat.size**2
    print(f"  our extra memory {extra / 1e9:.2f} GB, the matrix {result_bytes / 1e9:.2f} GB of it")
    run = ours(model, x, y, "variable", only=[0], max_size=20_000)
    slow = {
        "jax.hessian, jitted": jax_run(jax.hessian(loss), flat),
        f"jax H v, jitted, {CHUNK} rows at a time": jax_run(jax_rows(loss), flat),
    }
    missing: dict[str, Run | str] = {}
    torch = common.optional("torch")
    name = f"torch jacrev of grad, {CHUNK} rows at a time"
    if torch is None:
        missing[name] = "not installed"
    else:
        torch.set_num_threads(common.THREADS)
        tensors = [torch.from_numpy(w.copy()) for w in weights]
        function = common.of_block(common.torch_loss(x, y, "relu"), tensors, 0)
        slow[name] = torch_runs(torch_rows, [function], [flat])
    kept: list[Any] = []

    def jax_kept() -> None:
        kept[:] = [reference()]

    reference = slow["jax.hessian, jitted"]
    slow["jax.hessian, jitted"] = jax_kept
    result = common.compare(
        f"MNIST, batch {options.batch}, ReLU: block of the first kernel, N = {flat.size:,}",
        run,
        missing,
        options.repeats,
        slow,
        options.slow_repeats,
    )
    error = common.relative_difference(run()[0], kept[0])
    print(f"  relative difference from jax.hessian: {error:.1e} (limit {LIMITS['float32']:.0e})")
    return [{**result, "error": error, "extra_bytes": extra}]


def growth_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    def seconds(width: int, batch: int) -> float:
        x, y = common.noise(batch)
        model = common.keras_mlp((64, width, width, 10))
        return common.median_seconds(ours(model, x, y, "full"), options.repeats)

    widths, batches = (8, 12, 16, 24, 32, 48, 64), (128, 256, 512, 1024, 2048, 4096)
    sizes = [common.keras_mlp((64, h, h, 10)).count_params() for h in widths]
    fits = [
        common.growth(
            "full Hessian of 64-h-h-10, batch 512", "N", sizes, [seconds(h, 512) for h in widths], 2
        ),
        common.growth(
            "full Hessian of 64-16-16-10", "B", batches, [seconds(16, b) for b in batches], 1
        ),
    ]
    common.growth_verdict(fits)
    return fits


PARTS = {"digits": digits_part, "exact": exact_part, "mnist": mnist_part, "growth": growth_part}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which")
    parser.add_argument("--slow-repeats", type=int, default=5, help="of peers that take over 5 s")
    common.add_mnist_options(parser)
    common.add_output_options(parser, "hessian")
    options = parser.parse_args()
    common.limit_threads()
    results = [result for name in options.parts for result in PARTS[name](options)]
    common.save("hessian", results, options.json)


if __name__ == "__main__":
    main()
