"""Damping: what is added to the Hessian, and how that adapts to what the last step achieved.

    model      m(d) = L + g.d + d.H d / 2          d [N]: the step, H [N, N], g [N]
    ratio      rho  = (L(w) - L(w + d)) / (L - m(d))        same batch, same dropout masks

    absolute   x = (H^2 + lambda^2 I)^(-1/2) g     saddle-free: |H| where it is large
    shift      x = (H + s I)^(-1) g,  s = lambda + max(0, -lambda_min(H))
    constant   x = (H + epsilon max|H| I)^(-1) g   the paper's regularisation

References:
    Dauphin et al. 2014, arXiv:1406.2572 (saddle-free Newton, |H|).
    Nocedal & Wright 2006, Algorithm 4.1 (trust ratio) and section 3.4 (shifted Hessians).
    Nielsen 1999, IMM-REP-1999-05, Technical University of Denmark (how λ falls).
    Dennis & Schnabel 1983, Numerical Methods for Unconstrained Optimization and Nonlinear
    Equations, section 6.4.3 (a longer step at once where the model was too pessimistic).
    arXiv:2405.00252 (regularisation by epsilon max|H|).
"""

from __future__ import annotations

from typing import Any, Protocol

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_choice, check_count, check_number, check_switch
from keras_qnewton.conditioning.lanczos import Spectrum
from keras_qnewton.registry import Policy, register

NEGATIVE_CURVATURE = ("auto", "absolute", "shift")
SCALING = ("auto", "none", "diagonal")
# Relative to the largest |eigenvalue|: outside of these λ no longer changes a step in single
# precision, and a scale of the loss changes nothing.
_SMALLEST, _LARGEST = 1e-12, 1e12
# Smallest ratio of λ to that of the step before.
_FASTEST_FALL = 0.25
# Relative to the largest |eigenvalue|: λ below that and a model that is right nevertheless.
_STUCK, _TRUSTED = 1e-11, 0.75
# A block of zeros on a plateau still needs a positive shift.
_TINY = 2.0**-1022


class Damping(Protocol):
    """A policy for `QNewton(damping=...)`, registered as `@register("damping", name)`.

    Attributes:
        adaptive: True if λ follows the trust ratio and a step that raises the loss is refused.
        definite: True if shifts take account of λ_min's error bound, so that it has to be found
            sharply.
        positive: True if s > 0 for every semidefinite H (but zero, perhaps).
        memory: Steps to average over where the data change; 1 never averages.
        retries: Largest number of times that a poor step is tried again.
        sufficient_ratio: ρ below which a step is tried again.
        promising_ratio: ρ from which on a longer step is tried.
        doublings: Largest number of times that a step is doubled.
        scaling: When λD² takes the place of λI, see `Adaptive`; "none" if never.
    """

    @property
    def adaptive(self) -> bool: ...
    @property
    def definite(self) -> bool: ...
    @property
    def positive(self) -> bool: ...
    @property
    def memory(self) -> int: ...
    @property
    def retries(self) -> int: ...
    @property
    def sufficient_ratio(self) -> float: ...
    @property
    def promising_ratio(self) -> float: ...
    @property
    def doublings(self) -> int: ...
    @property
    def scaling(self) -> str: ...

    def saddle_free(self, linear: bool) -> bool:
        """True if blocks take the absolute-value step; `linear`: a linear system is preferred."""
        ...

    def start(self, scale: tf.Tensor) -> tf.Tensor:
        """λ for the first step; `scale` is the largest |eigenvalue| of H, a float64 scalar."""
        ...

    def shift(self, matrix: tf.Tensor | None, spectrum: Spectrum, damping: tf.Tensor) -> tf.Tensor:
        """s of (H + s I) x = g, float64 scalar.

        Args:
            matrix: H, `[N, N]`; None for a block that is not formed.
            spectrum: Extremal eigenvalues of H with their error bounds.
            damping: λ, float64 scalar.
        """
        ...

    def raised(self, damping: tf.Tensor) -> tf.Tensor:
        """λ for trying a poor step again."""
        ...

    def update(
        self, damping: tf.Tensor, ratio: tf.Tensor, accepted: tf.Tensor, scale: tf.Tensor
    ) -> tf.Tensor:
        """λ for the next step; see `Adaptive.update`."""
        ...

    def stuck(self, damping: tf.Tensor, ratio: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Whether λI is to be λD² from the next step on; see `Adaptive.stuck`."""
        ...


@register("damping", "adaptive")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Adaptive(Policy):
    """Damping λ adapted by the trust ratio ρ; a step that raises the batch's loss is refused.

    λ is added to the curvature, so that steps stay short where the curvature is small. ρ is the
    actual over the predicted reduction of the loss.

    A step with ρ below 1/4 is tried again at once with a larger λ, up to `retries` times. A retry
    uses the same curvature: it costs a solve and a loss, and no Hessian. A step with ρ of 1.1 or
    more is doubled, up to three times, while that lowers the loss.

    The data may change from step to step, as with mini-batches and dropout, which is found out.
    Then a step is one of the last m, at most `memory`: λ starts anew at each, curvature is averaged
    over them, and the step is divided by m. See `conditioning.noise`.

    Where the Hessian H tells next to nothing along the gradient g, λ starts at ‖g‖²/|L|, with the
    loss L, times `initial` over its default. That is Polyak's step. See `conditioning.linear_loss`.

    Args:
        initial: λ at the first step, as a fraction of the Hessian's largest |eigenvalue|.
        negative_curvature: What is done about negative eigenvalues. "absolute" takes their absolute
            values, (H² + λ²I)^(-1/2) g, by an eigendecomposition. "shift" lifts the smallest
            one, λ_min, above zero: (H + (λ + max(0, -λ_min)) I)^(-1) g, a linear system that
            the scheduler sends to a classical or a quantum solver. "auto" is "shift" for positive
            semidefinite curvature, or if the scheduler has a quantum solver, else "absolute".
        retries: How many times a poor step is tried again.
        memory: Over how many steps to average where the data change; 1 never does.
        scaling: What λ is added to. "none" is λI, the same for all weights. "diagonal" is λD² with
            D_j² = |H_jj|, which a weight's unit does not change. "auto" is λI at first. Once
            λ is so small that it only damps weights of a far smaller scale, "auto" is λD². Blocks
            too large to be formed, and `update_every` above 1, have λI.

    Raises:
        ValueError: If an argument is not one of these.
    """

    adaptive = True
    definite = False  # λ adapts, whatever λ_min's error bound adds to it
    positive = True  # s > 0 for every semidefinite H
    # Nocedal & Wright, Algorithm 4.1: below 1/4 the model is not to be trusted that far.
    sufficient_ratio = 0.25
    # From here on the model is so much too pessimistic that a longer step is tried.
    promising_ratio = 1.1
    doublings = 3

    def __init__(
        self,
        initial: float = 1e-2,
        negative_curvature: str = "auto",
        retries: int = 5,
        memory: int = 20,
        scaling: str = "auto",
    ):
        self.initial = check_number("initial", initial, "a positive number")
        self.negative_curvature = check_choice(
            "negative_curvature", negative_curvature, NEGATIVE_CURVATURE
        )
        self.retries = check_count("retries", retries, least=0)
        self.memory = check_count("memory", memory)
        self.scaling = check_choice("scaling", scaling, SCALING)

    def saddle_free(self, linear: bool) -> bool:
        """True if blocks take the absolute-value step; `linear`: "auto" is for a linear system."""
        if self.negative_curvature == "auto":
            return not linear
        return self.negative_curvature == "absolute"

    def start(self, scale: tf.Tensor) -> tf.Tensor:
        """λ for the first step; `scale` is the largest |eigenvalue| of H, a float64 scalar."""
        return tf.maximum(self.initial * scale, _TINY)

    def shift(self, matrix: tf.Tensor | None, spectrum: Spectrum, damping: tf.Tensor) -> tf.Tensor:
        """s such that H + s I is positive definite with smallest eigenvalue ≥ λ.

        Args:
            matrix: Not used by this policy.
            spectrum: Extremal eigenvalues of H with their error bounds.
            damping: λ, float64 scalar.
        """
        del matrix
        return damping + _to_zero(spectrum)

    def raised(self, damping: tf.Tensor) -> tf.Tensor:
        """λ for trying a poor step again."""
        return 8.0 * damping

    def update(
        self, damping: tf.Tensor, ratio: tf.Tensor, accepted: tf.Tensor, scale: tf.Tensor
    ) -> tf.Tensor:
        """λ for the next step.

        Args:
            damping: λ of the attempt that ended this step, float64 scalar, over the length that
                its solution was taken at.
            ratio: ρ, float64 scalar; NaN where the reduction cannot be told from rounding.
            accepted: Boolean scalar.
            scale: The largest |eigenvalue| of H, float64 scalar.
        """
        # Nielsen 1999, equation 2.5: the better the step, the more, without a jump. A square in
        # place of the cube there: as few attempts on a curve fit, and fewer on digits.
        excess = tf.nn.relu(2.0 * ratio - 1.0)
        trusted = damping * tf.maximum(1.0 - excess * excess, _FASTEST_FALL)
        after_accept = tf.where(ratio < self.sufficient_ratio, damping * 4.0, trusted)
        known = tf.where(accepted, after_accept, self.raised(damping))
        # NaN has two causes: the model has converged, or λ is so large that steps vanish. The
        # second must not last.
        start = self.start(scale)
        unknown = tf.where(damping > start, tf.maximum(damping / 4.0, start), damping)
        following = tf.where(tf.math.is_nan(ratio), unknown, known)
        lowest, highest = (tf.maximum(limit * scale, _TINY) for limit in (_SMALLEST, _LARGEST))
        return tf.clip_by_value(following, lowest, highest)

    def stuck(self, damping: tf.Tensor, ratio: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Whether λI is to be λD² from the next step on, boolean scalar.

        A weight with so little curvature that even the smallest λ holds it back, though the model
        may be trusted to go further: the weights' scales differ by too much for one λ.

        Args:
            damping: λ for the next step, float64 scalar.
            ratio: ρ of this step, float64 scalar; NaN is not trusted.
            scale: The largest |eigenvalue| of H, float64 scalar.
        """
        return (damping < _STUCK * scale) & (ratio >= _TRUSTED)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial": self.initial,
            "negative_curvature": self.negative_curvature,
            "retries": self.retries,
            "memory": self.memory,
            "scaling": self.scaling,
        }


@register("damping", "constant")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Constant(Policy):
    """The paper's regularisation of the Hessian H, H + ε·max|H|·I, the same at every step.

    There is no trust ratio: every finite step is taken, whether it lowers the loss or not.
    On an indefinite Hessian that diverges at learning rate 1. Use it with a small learning
    rate, for comparison with the paper.

    Args:
        epsilon: ε. The paper's code has 5e-3.
        definite: Whether to add (1 + ε) max(0, -λ_min) to the shift, with the smallest eigenvalue
            λ_min. The paper does not. With it no step goes uphill, however indefinite a Hessian
            is, or pruning made it.

    Raises:
        ValueError: If `epsilon` is negative or not finite, or `definite` is no bool.
    """

    adaptive = False
    memory = 1
    retries = 0
    sufficient_ratio = 0.0
    promising_ratio = float("inf")
    doublings = 0
    scaling = "none"

    def __init__(self, epsilon: float = 5e-3, definite: bool = False):
        self.epsilon = check_number("epsilon", epsilon, "a number, 0 or more", ends="[]")
        self.definite = check_switch("definite", definite)

    @property
    def positive(self) -> bool:
        """True if s > 0 for every semidefinite H but zero."""
        return self.epsilon > 0

    def saddle_free(self, linear: bool) -> bool:
        """Never: the paper solves a linear system."""
        del linear
        return False

    def start(self, scale: tf.Tensor) -> tf.Tensor:
        """λ is not used by this policy: it is logged as ε times the largest |eigenvalue|."""
        return self.epsilon * scale

    def shift(self, matrix: tf.Tensor | None, spectrum: Spectrum, damping: tf.Tensor) -> tf.Tensor:
        """ε·max|H|; for a block that is not formed, ε times its largest |eigenvalue|.

        Args:
            matrix: `[N, N]`, or None for a block that is not formed.
            spectrum: Extremal eigenvalues of H.
            damping: Not used.
        """
        del damping
        if matrix is None:
            scale = tf.maximum(tf.abs(spectrum.lambda_min), tf.abs(spectrum.lambda_max))
        else:
            scale = tf.cast(tf.reduce_max(tf.abs(matrix)), tf.float64)
        shift = self.epsilon * scale
        # ε is in proportion to the shifted matrix. In proportion to H, whose entries may be small
        # beside its eigenvalues, it leaves an eigenvalue so small that a step along it is a
        # thousand times longer.
        return shift + (1 + self.epsilon) * _to_zero(spectrum) if self.definite else shift

    def raised(self, damping: tf.Tensor) -> tf.Tensor:
        """Unchanged: a refused step (one that is not finite) is not tried again."""
        return damping

    def update(
        self, damping: tf.Tensor, ratio: tf.Tensor, accepted: tf.Tensor, scale: tf.Tensor
    ) -> tf.Tensor:
        """Unchanged."""
        del ratio, accepted, scale
        return damping

    def stuck(self, damping: tf.Tensor, ratio: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Never."""
        del damping, ratio, scale
        return tf.constant(False)

    def get_config(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon, "definite": self.definite}


def _to_zero(spectrum: Spectrum) -> tf.Tensor:
    """The shift that lifts the smallest eigenvalue to 0 at least, float64 scalar."""
    # The residual bounds how far below the Ritz value the eigenvalue may lie.
    lowest = spectrum.lambda_min - spectrum.residual_min
    return tf.maximum(tf.zeros_like(lowest), -lowest)
