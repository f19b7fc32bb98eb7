"""One block's matrix, spectrum and factorisation, kept from step to step.

A block's matrix lives for `update_every` steps. What is computed of it lives as long: an
eigendecomposition serves every λ, and a factorisation of H + sI serves while s stays, as it does
with `Constant` and, on mini-batches, from the `memory`-th step on.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import Spectrum
from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.solvers.packing import Packed


class FactorKind(enum.IntEnum):
    """The factorisation that a block keeps.

    `FIRST_ROUTE` is that of the scheduler's first route; the other routes count on from it. The
    numbers are part of an optimizer's saved state.
    """

    EIGEN = 1
    MIXED = 2
    LDL = 3
    FIRST_ROUTE = 4


@dataclasses.dataclass(frozen=True)
class KeptBlock:
    """One block's matrix, spectrum and factorisation, kept from step to step.

    What has no variable is computed whenever it is asked for.

    Attributes:
        variables: "hessian" `[N, N]`, "spectrum" `[fields of Spectrum]`, and "factor": which
            system it is of `[2]`, and the two arrays of a `Packed`.
        update_every: Steps between two evaluations of the matrix.
        iteration: Gives the optimizer's count of steps, an integer scalar.
    """

    variables: Mapping[str, Sequence[keras.Variable]] = dataclasses.field(default_factory=dict)
    update_every: int = 1
    iteration: Callable[[], keras.Variable | tf.Tensor] = lambda: tf.constant(0)

    def matrix(
        self, form: Callable[[], Formed], count: tf.Tensor, weight: tf.Tensor | float = 1.0
    ) -> Formed:
        """The block, formed now or kept; averaged over `count` full batches.

        See `conditioning.noise` for the average. Nothing is assigned: see `keep`.

        Args:
            form: Forms it.
            count: m, float64 scalar.
            weight: What this batch weighs of a full one, float64 scalar; it is counted in m.
        """
        if "hessian" not in self.variables:
            return form()
        (kept,) = self.variables["hessian"]
        old = tf.convert_to_tensor(kept)
        missing = tf.reduce_all(tf.equal(tf.linalg.diag_part(old), 0))

        def averaged(new: tf.Tensor) -> tf.Tensor:
            return self._averaged(tf.cast(new, kept.dtype), old, count, weight, missing)

        if self.update_every == 1:
            formed = form()
            matrix, how = formed.matrix, formed.how
            # A branch of its own would take longer to begin than what is in it.
            matrix = tf.cond(
                count > 1, lambda: tf.cast(averaged(matrix), matrix.dtype), lambda: matrix
            )
            return Formed(matrix, how)
        due = tf.equal(tf.convert_to_tensor(self.iteration()) % self.update_every, 0) | missing

        def evaluated() -> tuple[tf.Tensor, tf.Tensor]:
            formed = form()
            return averaged(formed.matrix), formed.how

        matrix, how = _tf_private.cond(due, evaluated, lambda: (old, tf.constant(Formation.KEPT)))
        return Formed(matrix, how, ~due)

    def keep(self, formed: Formed, count: tf.Tensor) -> tf.Tensor:
        """The matrix that `matrix` gave; it is assigned where a later step needs it.

        Args:
            formed: It; finite, as all else that the step depends on.
            count: See `matrix`.
        """
        if "hessian" not in self.variables:
            return formed.matrix
        (kept,) = self.variables["hessian"]
        new = count > 1 if self.update_every == 1 else ~tf.convert_to_tensor(formed.unchanged)

        def assigned() -> tf.Tensor:
            kept.assign(tf.cast(formed.matrix, kept.dtype))
            return tf.constant(True)

        # Nothing of this step waits for it.
        _tf_private.cond(new, assigned, lambda: tf.constant(False))
        return formed.matrix

    def spectrum(self, unchanged: tf.Tensor | bool, compute: Callable[[], Spectrum]) -> Spectrum:
        """The ends of the block's spectrum, found now and assigned, or kept.

        Kept ones took no products with the matrix.

        Args:
            unchanged: True if the block is the last step's, see `Formed`.
            compute: Finds them.
        """
        if "spectrum" not in self.variables:
            return compute()
        (ends,), new = self._kept_or_computed("spectrum", unchanged, lambda: (tf.stack(compute()),))
        spectrum = Spectrum(*tf.unstack(ends, len(Spectrum._fields)))
        return spectrum._replace(products=tf.where(new, spectrum.products, 0.0))

    @property
    def averages(self) -> bool:
        """Whether the matrix is averaged over batches."""
        return "hessian" in self.variables

    @property
    def has_factor(self) -> bool:
        """Whether a factorisation is kept."""
        return "factor" in self.variables

    def factor(
        self,
        unchanged: tf.Tensor | bool,
        kind: int,
        shift: tf.Tensor | float,
        factorise: Callable[[], Packed],
    ) -> Packed:
        """The factorisation of H + sI, float64; made now and assigned, or kept.

        Args:
            unchanged: True if the block is the last step's, see `Formed`.
            kind: A `FactorKind`, or one of the scheduler's routes after them.
            shift: s, float64 scalar.
            factorise: Factorises H + sI.
        """
        if not self.has_factor:
            return factorise()
        system = tf.stack([tf.constant(kind, tf.float64), tf.convert_to_tensor(shift, tf.float64)])

        def computed() -> tuple[tf.Tensor, ...]:
            return (system, *(tf.cast(array, tf.float64) for array in factorise()))

        def of_system(last: tf.Tensor) -> tf.Tensor:
            return tf.reduce_all(tf.equal(last, system))

        (_, *arrays), _ = self._kept_or_computed("factor", unchanged, computed, of_system)
        return Packed(*arrays)

    def _averaged(
        self,
        new: tf.Tensor,
        old: tf.Tensor,
        count: tf.Tensor,
        weight: tf.Tensor | float,
        missing: tf.Tensor,
    ) -> tf.Tensor:
        """`new` averaged with the `old` ones."""
        # What is kept is older, or that of a small batch alone.
        fresh = (count - weight < 2) | missing
        every = self.update_every
        evaluations = tf.math.ceil(count / every) if every > 1 else count
        return _tf_private.cond(
            fresh, lambda: new, lambda: old + tf.cast(weight / evaluations, new.dtype) * (new - old)
        )

    def _kept_or_computed(
        self,
        name: str,
        unchanged: tf.Tensor | bool,
        compute: Callable[[], Sequence[tf.Tensor]],
        valid: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> tuple[Sequence[tf.Tensor], tf.Tensor]:
        """The values that belong to the matrix, and whether they are new.

        Args:
            name: The variables' name.
            unchanged: True if the block is the last step's.
            compute: One tensor a variable.
            valid: Says of the first kept value whether the kept ones are still valid; None:
                always, while the matrix is unchanged.
        """
        variables = self.variables[name]
        old = [tf.convert_to_tensor(variable) for variable in variables]

        def computed() -> list[tf.Tensor]:
            values = list(compute())
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
            return values

        # Zeros are those before the first step, or of a matrix of zeros.
        new = ~tf.convert_to_tensor(unchanged) | tf.reduce_all(tf.equal(old[0], 0))
        if valid is not None:
            new |= ~valid(old[0])
        return _tf_private.cond(new, computed, lambda: old), new
