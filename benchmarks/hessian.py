"""Exact Hessian blocks: ours against jitted `jax.hessian` and `tape.jacobian`, one process.

Digits, batch 512, a 64-16-16-10 tanh network of 1,482 weights; the full Hessian and the six
diagonal blocks of kernels and biases. Errors are relative to jax.hessian.

    python benchmarks/hessian.py [--repeats 5]
"""

from __future__ import annotations

import jax
import keras
import numpy as np
import tensorflow as tf
from common import arguments, compare, digits, jax_loss, keras_mlp, save
from jax.flatten_util import ravel_pytree

from keras_qnewton.curvature import Blocks, ExactHessian
from keras_qnewton.loss import as_tensors, record

SIZES = (64, 16, 16, 10)


def ours(model, x, y, partition):
    """A traced function that returns the blocks."""
    variables = as_tensors(model.trainable_variables)
    parts = Blocks(partition).split(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def run():
        loss = record(lambda: cross_entropy(y, model(x)), variables)
        at = ExactHessian().at(loss, loss.at_variables(), parts)
        return [at.block(k) for k in range(len(parts))]

    return lambda: [block.numpy() for block in run()]


def tensorflow_jacobian(model, x, y, pfor):
    """The full Hessian as TensorFlow's documentation has it."""
    variables = as_tensors(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def run():
        with tf.GradientTape(persistent=True) as outer:
            with tf.GradientTape() as inner:
                loss = cross_entropy(y, model(x))
            gradients = inner.gradient(loss, variables)
            flat = tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)
        rows = outer.jacobian(flat, variables, experimental_use_pfor=pfor)
        return tf.concat([tf.reshape(r, [flat.shape[0], -1]) for r in rows], 1)

    return lambda: run().numpy()


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    x, y = digits(512)
    model = keras_mlp(SIZES)
    weights = [v.numpy() for v in model.trainable_variables]
    loss = jax_loss(x, y)
    flat, unravel = ravel_pytree(weights)

    full = jax.jit(jax.hessian(lambda w: loss(unravel(w))))

    def one_block(k):
        def of_block(w):
            return loss([*weights[:k], w.reshape(weights[k].shape), *weights[k + 1 :]])

        return jax.hessian(of_block)

    blocks = jax.jit(lambda parts: [one_block(k)(p) for k, p in enumerate(parts)])
    flats = [w.ravel() for w in weights]

    def jax_full():
        return np.asarray(full(flat))

    def jax_blocks():
        return [np.asarray(b) for b in blocks(flats)]

    (mine,) = ours(model, x, y, "full")()
    reference = jax_full()
    error = np.linalg.norm(mine - reference) / np.linalg.norm(reference)
    print(f"full Hessian, relative difference from jax.hessian: {error:.1e}")
    worst = max(
        np.linalg.norm(a - b) / np.linalg.norm(b)
        for a, b in zip(ours(model, x, y, "variable")(), jax_blocks(), strict=True)
    )
    print(f"diagonal blocks, largest relative difference: {worst:.1e}")

    results = [
        compare(
            "digits, batch 512: full Hessian, N = 1,482",
            ours(model, x, y, "full"),
            {
                "jax.hessian, jitted": jax_full,
                "tf jacobian, while loop": tensorflow_jacobian(model, x, y, pfor=False),
                "tf jacobian, vectorised": tensorflow_jacobian(model, x, y, pfor=True),
            },
            options.repeats,
        ),
        compare(
            "digits, batch 512: six diagonal blocks",
            ours(model, x, y, "variable"),
            {"jax.hessian of each, jitted together": jax_blocks},
            options.repeats,
        ),
    ]
    save("hessian", [{"error": float(error), "largest_block_error": float(worst)}, *results])


if __name__ == "__main__":
    main()
