"""A whole layer-wise Newton step: ours against the paper's algorithm, one process.

The paper's algorithm written afresh in JAX from its description: the exact Hessian of every
kernel and bias by `jax.hessian`, plus 5e-3·max|H| on the diagonal, a dense inverse, the step;
compiled once, which the reference code does not do. Ours is a stock `compile`/`fit` step with
`Constant()` damping, which is the same mathematics, and the default `QNewton()`; both
include the trust ratio's extra loss evaluation and the logging of decisions.

    python benchmarks/step.py [--repeats 5]
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np
from common import arguments, compare, digits, jax_loss, keras_mlp, save

from keras_qnewton import Constant, QNewton

SIZES = (64, 16, 16, 10)


def paper_step(x, y, weights):
    """All diagonal blocks, regularised, inverted, multiplied: jitted once."""
    loss = jax_loss(x, y)
    shapes = [w.shape for w in weights]

    def direction(weights, k, gradient):
        def of_block(flat):
            return loss([*weights[:k], flat.reshape(shapes[k]), *weights[k + 1 :]])

        hessian = jax.hessian(of_block)(weights[k].ravel())
        hessian += 5e-3 * jnp.max(jnp.abs(hessian)) * jnp.eye(len(hessian))
        return (jnp.linalg.inv(hessian) @ gradient.ravel()).reshape(shapes[k])

    @jax.jit
    def step(weights):
        gradients = jax.grad(loss)(weights)
        return [
            w - 1e-2 * direction(weights, k, g)
            for k, (w, g) in enumerate(zip(weights, gradients, strict=True))
        ]

    return lambda: [np.asarray(w) for w in step(weights)]


def fitted_step(optimizer, x, y):
    """One step of a stock `fit`, Keras's own work included."""
    model = keras_mlp(SIZES)
    model.compile(
        optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return lambda: model.train_on_batch(x, y)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    x, y = digits(512)
    weights = [v.numpy() for v in keras_mlp(SIZES).trainable_variables]
    paper = paper_step(x, y, weights)
    constant = QNewton(1e-2, curvature="hessian", blocks="variable", damping=Constant())
    results = [
        compare(
            "digits, batch 512, blocks by variable: a step with the paper's damping",
            fitted_step(constant, x, y),
            {"the paper's algorithm, jitted once": paper},
            options.repeats,
        ),
        compare(
            "digits, batch 512: a step of QNewton(blocks='layer')",
            fitted_step(QNewton(blocks="layer"), x, y),
            {
                "the paper's algorithm, jitted once": paper,
                "Adam, for scale": fitted_step(keras.optimizers.Adam(1e-2), x, y),
            },
            options.repeats,
        ),
    ]
    save("step", results)


if __name__ == "__main__":
    main()
