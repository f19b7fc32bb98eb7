"""The generalised Gauss-Newton matrix: positive semidefinite curvature.

    z   = network(w)            the output in which the loss is convex       any shape
    J   = dz/dw,  C = d²L/dz²   C is block diagonal over examples, and psd
    G   = Jᵀ C J + R            R: what depends on w beside z (a weight regulariser), exactly

G v takes three passes: J v (forward mode, as two reverse ones), C (J v), and Jᵀ of that.

References:
    Schraudolph 2002, Neural Computation 14(7), section 3 (the matrix and its products).
    Martens 2020, arXiv:1412.1193, section 8 (G equals the Fisher matrix for these losses).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.hessian import ExactHessian
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.structured import Structured
from keras_qnewton.loss.structure import ConvexOutput, DenseLayer, convex_output
from keras_qnewton.registry import Policy, register


@register("curvature", "gauss_newton")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class GaussNewton(Policy):
    """Gauss-Newton curvature, for softmax or sigmoid cross-entropy and squared error.

    The loss and the network's output are found in the recorded operations.

    Args:
        memory: Bytes that the vectorised rows of one chunk may take, approximately.
    """

    def __init__(self, memory: float = 512e6):
        self._memory = ExactHessian(memory).memory

    def at(self, loss: Any, weights: Sequence[tf.Tensor], parts: Sequence[Part]) -> Linearized:
        """Differentiates `loss` at `weights`; see `ExactHessian.at`.

        Raises:
            ValueError: If the loss is not recognisably convex in an output.
        """
        output = convex_output(loss)
        if output is None:
            raise ValueError(
                "Argument `curvature` can be 'gauss_newton' only for a loss that is a softmax or "
                "sigmoid cross-entropy or a squared error of one output. Use 'auto' or 'hessian'. "
                "Received: curvature='gauss_newton' and another loss"
            )
        return StructuredGaussNewton(loss, weights, parts, self._memory, output=output)

    def get_config(self) -> dict[str, Any]:
        return {"memory": self._memory}


@register("curvature", "auto")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class AutoCurvature(Policy):
    """Gauss-Newton where the loss is recognisably convex in the output, else the exact Hessian.

    Args:
        memory: Bytes that the vectorised rows of one chunk may take, approximately.
    """

    def __init__(self, memory: float = 512e6):
        self._exact, self._gauss_newton = ExactHessian(memory), GaussNewton(memory)

    def at(self, loss: Any, weights: Sequence[tf.Tensor], parts: Sequence[Part]) -> Linearized:
        """Differentiates `loss` at `weights`; see `ExactHessian.at`."""
        policy = self._exact if convex_output(loss) is None else self._gauss_newton
        return policy.at(loss, weights, parts)

    def get_config(self) -> dict[str, Any]:
        return {"memory": self._exact.memory}


class GaussNewtonLinearized(Linearized):
    """A loss differentiated once through the network and twice through its convex part."""

    positive_semidefinite = True

    def __init__(self, *args: Any, output: ConvexOutput, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._output = output
        loss, points = self._loss, self.points
        recorded = loss.tensor(output.name)
        self._probe = tf.zeros_like(recorded)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._forward:
            self._forward.watch(self._probe)
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._network:
                self._network.watch(points)
                _, (self._z,) = loss.evaluate(self.unflatten(points), fetch=[output.name])
            # Jᵀu: linear in u, so that its derivative in u along v is J v.
            self._pulled = self._network.gradient(
                self._z, points, self._probe, unconnected_gradients="zero"
            )
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._convex:
            self._convex.watch(recorded)
            with tf.GradientTape(watch_accessed_variables=False) as first:
                first.watch(recorded)
                value, _ = loss.evaluate(self.unflatten(points), overrides={output.name: recorded})
            self._output_gradient = first.gradient(value, recorded)
        self._recorded = recorded
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._rest:
            self._rest.watch(points)
            with tf.GradientTape(watch_accessed_variables=False) as first:
                first.watch(points)
                value, _ = loss.evaluate(
                    self.unflatten(points), overrides={output.name: tf.stop_gradient(recorded)}
                )
            self._rest_gradients = first.gradient(value, points)

    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """G v with the whole matrix: one `[N_k]` a block in, one out."""
        curved = self._output_product(self._jacobian_product(self._pulled, list(vectors)))
        out = self._network.gradient(self._z, self.points, curved, unconnected_gradients="zero")
        for gradient, vector in zip(self._rest_gradients, vectors, strict=True):
            if gradient is not None:
                rest = self._rest.gradient(
                    gradient, self.points, vector, unconnected_gradients="zero"
                )
                out = [a + b for a, b in zip(out, rest, strict=True)]
        return out

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """G_k v with the k-th diagonal block, `[N_k]`."""
        curved = self._output_product(self._jacobian_product(self._pulled[k], vector))
        out = self._network.gradient(self._z, self.points[k], curved, unconnected_gradients="zero")
        if self._rest_gradients[k] is not None:
            out += self._rest.gradient(
                self._rest_gradients[k], self.points[k], vector, unconnected_gradients="zero"
            )
        return out

    def _jacobian_product(self, pulled: Any, vector: Any) -> tf.Tensor:
        return self._forward.gradient(pulled, self._probe, vector, unconnected_gradients="zero")

    def _output_product(self, vector: tf.Tensor) -> tf.Tensor:
        return self._convex.gradient(
            self._output_gradient, self._recorded, vector, unconnected_gradients="zero"
        )


class StructuredGaussNewton(Structured, GaussNewtonLinearized):
    """Gauss-Newton blocks of dense layers from per-example Jacobians of the output."""

    def _covering(self, k: int) -> list[DenseLayer] | None:
        # Per-example Jacobians need one row of outputs an example.
        return super()._covering(k) if self._recorded.shape.rank == 2 else None

    def _preactivation_curvature(
        self, layers: list[DenseLayer]
    ) -> tuple[list[tf.Tensor], Callable[[int, int], tuple[Any, Any, Any]]]:
        """a_l of each layer, and (m, l) -> J_mᵀ C J_l `[B, o, p]` with no second part."""
        names = [layer.preactivations for layer in layers]
        shifts = [tf.zeros_like(self._loss.tensor(name)) for name in names]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(shifts)
            _, (z, *activations) = self._loss.evaluate(
                self.unflatten(self.points),
                shifts=dict(zip(names, shifts, strict=True)),
                fetch=[self._output.name, *(layer.activations for layer in layers)],
            )

        def row(unit: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
            direction = tf.broadcast_to(unit, tf.shape(self._recorded))
            return (
                tape.gradient(z, shifts, direction, unconnected_gradients="zero"),
                self._output_product(direction),
            )

        count = int(self._recorded.shape[1])
        jacobians, curvature = self._per_output(row, count)
        # [C, B, o] -> [B, C, o]; and [C, B, C] -> [B, C, C].
        jacobians = [tf.transpose(j, [1, 0, 2]) for j in jacobians]
        curvature = tf.transpose(curvature, [1, 0, 2])
        curved = [tf.matmul(curvature, j) for j in jacobians]

        def pair(m: int, j: int) -> tuple[tf.Tensor, None, None]:
            return tf.matmul(jacobians[m], curved[j], transpose_a=True), None, None

        return activations, pair
