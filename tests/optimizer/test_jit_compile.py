"""`jit_compile=True`: routes that XLA compiles, and the settings named of those it does not."""

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Blocks, Constant, QNewton, Scheduler
from tests.optimizer.models import compiled, fit

X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
Y = np.sin(X @ [1.0, -0.5, 0.3]).astype("float32")


def two_losses(jit_compile, **arguments):
    """The losses of two steps on a model of five weights."""
    w = tf.Variable([0.3, -0.2, 0.1, 0.5, 0.1])
    optimizer = QNewton(**arguments)
    optimizer.build([w])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step():
        def loss():
            hidden = tf.tanh(tf.linalg.matvec(X, w[:3]))
            return tf.reduce_mean(tf.square(w[3] * hidden + w[4] - Y))

        return optimizer.minimize(loss, [w])

    return [float(step()) for _ in range(2)]


def routes(*classical, **others):
    return Scheduler(classical=classical or "cholesky", quantum=None, **others)


COMPILED = {
    "constant": {"curvature": "hessian", "damping": Constant(0.1)},
    "ldl": {"scheduler": routes("ldl")},
    "eigen": {"scheduler": routes("eigen")},
    "cg": {"scheduler": routes("cg")},
    "too wide a circuit": {"scheduler": Scheduler(classical="cholesky", max_qubits=1)},
    "exact": {"scheduler": routes(estimator="exact")},
    "update_every": {"update_every": 2},
    "sparsity": {"sparsity": 0.5},
    "not formed": {"blocks": Blocks("full", max_size=2)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_route_takes_the_steps_of_one_that_is_not(name):
    plain = two_losses(False, **COMPILED[name])
    np.testing.assert_allclose(two_losses(True, **COMPILED[name]), plain, rtol=1e-3)


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"scheduler": Scheduler()}, "'lu', 'qsvt'"),
        ({"scheduler": routes("cholesky", "lu")}, "'lu'"),
        ({"scheduler": routes("lapack")}, "'lapack'"),
        ({"scheduler": routes("sparse_lu", "ldl")}, "'sparse_lu'"),
        ({"scheduler": Scheduler(classical="cholesky", quantum="hhl")}, "'hhl'"),
        ({"scheduler": routes(estimator="norm_det")}, "estimator='norm_det'"),
        (
            {
                "curvature": "hessian",
                "damping": Adaptive(negative_curvature="absolute"),
                "scheduler": Scheduler(classical="cholesky"),
            },
            "'qsvt'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_route_that_does_not_compile_is_refused_with_both_settings(arguments, named):
    with pytest.raises(ValueError, match="`jit_compile=True` does not go with") as caught:
        two_losses(True, **arguments)
    assert named in str(caught.value) and "scheduler" in str(caught.value)


def test_fit_names_both_settings_and_changes_no_weight():
    model = compiled(QNewton(scheduler=Scheduler()), jit_compile=True)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"jit_compile=True.*scheduler=Scheduler\("):
        fit(model, 1)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
