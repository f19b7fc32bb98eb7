"""The blocks' Newton systems of one step: prepared once, solved at any λ.

H_k, g_k     blocks of the curvature and of the gradient       [N_k, N_k], [N_k]
m            number of batches that are averaged               scalar
n/N          what this batch weighs of a full one              scalar
D            λD² is added; 1, or of the diagonal of H_k        [N_k]
x_k          (n/N) (H_k + λD²)⁻¹ g_k / m, or the like          [N_k]
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import DampingScale
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.directions import (
    BlockProblem,
    BlockStep,
    Direction,
    DirectionState,
    direction,
    max_rank,
    max_rows,
)
from keras_qnewton.directions.lengths import of_another_gradient
from keras_qnewton.loss import SummedLoss
from keras_qnewton.norms import double_norm
from keras_qnewton.replicas import Replicas
from keras_qnewton.settings import Settings
from keras_qnewton.state import NewtonState
from keras_qnewton.step.batch import Batch, Share
from keras_qnewton.step.forming import Forming, formed_before_any_is_kept
from keras_qnewton.step.rounding import ROUNDING


@dataclasses.dataclass(frozen=True)
class System:
    """All blocks, each with the direction that it takes and what that one prepared.

    Attributes:
        curvature: H at the weights.
        gradient: g, one `[N_k]` a block.
        share: m, and n/N.
        rescaled: Whether D is of the diagonal; False if it never is.
        adaptive: Whether λ adapts.
        problems: One a block.
        methods: One a block.
        prepared: What each method's `init` returned.
        forced: ‖g‖ and η, float64 `[2]`; None where the scheduler forces nothing.
        replicas: Those that take the step together; None if there is one.
    """

    curvature: Linearized
    gradient: Sequence[tf.Tensor]
    share: Share
    rescaled: tf.Tensor | bool
    adaptive: bool
    problems: Sequence[BlockProblem]
    methods: Sequence[Direction]
    prepared: Sequence[DirectionState]
    forced: tf.Tensor | None = None
    replicas: Replicas | None = None

    @classmethod
    def of(
        cls,
        batch: Batch,
        curvature: Linearized,
        gradient: Sequence[tf.Tensor],
        loss: tf.Tensor,
        share: Share,
        rescaled: tf.Tensor | bool,
        settings: Settings,
        state: NewtonState,
    ) -> System:
        """The systems of a batch.

        Args:
            batch: Says how the weights are divided.
            curvature: See the attribute.
            gradient: Likewise.
            loss: L(w), scalar, once it and its gradient have passed their checks.
            share: See the attribute.
            rescaled: Likewise.
            settings: The policies.
            state: The blocks that are kept.
        """
        forms = [
            Forming(
                part=part,
                curvature=functools.partial(curvature.formed, k),
                kept=state.block(part),
                share=share,
                ready=loss,
                pruning=settings.pruning,
            )
            for k, part in enumerate(batch.parts)
        ]
        forced = _forced(gradient, share, settings, state)
        problems = _problems(batch, curvature, gradient, forms, rescaled, settings)
        error = ROUNDING[loss.dtype] * tf.abs(tf.cast(loss, tf.float64))
        problems = [
            dataclasses.replace(p, value_error=error, weights=points)
            for p, points in zip(problems, curvature.points, strict=True)
        ]
        if forced is not None:
            problems = [dataclasses.replace(p, tolerance=forced[1]) for p in problems]
        replicas = batch.loss.replicas if isinstance(batch.loss, SummedLoss) else None
        methods = [
            direction(problem, settings, elsewhere=_is_elsewhere(k, problems, replicas))
            for k, problem in enumerate(problems)
        ]
        prepared = [method.init(problem) for method, problem in zip(methods, problems, strict=True)]
        adaptive = settings.damping.adaptive
        return cls(
            curvature,
            gradient,
            share,
            rescaled,
            adaptive,
            problems,
            methods,
            prepared,
            forced,
            replicas,
        )

    @property
    def formations(self) -> list[tf.Tensor]:
        """How each block's matrix came about, a `Formation`, int32 scalars."""
        return [ready.formation for ready in self.prepared]

    @property
    def has_few_rows(self) -> tf.Tensor:
        """Whether a block is solved by its rows, boolean scalar."""
        few = [p.low_rank.holds for p in self.problems if p.low_rank is not None]
        return tf.reduce_any([tf.constant(False), *few])

    def forced_after(self, accepted: tf.Tensor, last: tf.Tensor | None) -> tf.Tensor | None:
        """`Memory.forced` for the next step: a refused one leaves the gradient where it was."""
        if self.forced is None or last is None:
            return last
        return tf.where(accepted, self.forced, last)

    def lengths_after(
        self, blocks: Sequence[BlockStep], last: Mapping[str, tf.Tensor]
    ) -> Mapping[str, tf.Tensor]:
        """`Memory.lengths` for the next step; a block that took no part keeps its own."""
        found = {
            problem.part.name: of_another_gradient(block.lengths)
            for problem, block in zip(self.problems, blocks, strict=True)
            if not isinstance(block.lengths, tuple)
        }
        return {name: found.get(name, lengths) for name, lengths in last.items()}

    def scale(self, loss: tf.Tensor) -> DampingScale:
        """What λ is relative to.

        Args:
            loss: L(w), scalar.
        """
        scales = self._agreed([ready.scale for ready in self.prepared], self._owners)
        scale = DampingScale.of_curvature(scales)
        if not self.adaptive:
            return scale
        gradient, points = self.gradient, self.curvature.points
        if self.rescaled is not False:
            metric = self.damped([tf.ones_like(g) for g in gradient])
            gradient = [g / d for g, d in zip(gradient, metric, strict=True)]
            points = [d * w for d, w in zip(metric, points, strict=True)]
        scale = scale.or_of_gradient(gradient, points, loss, self.share.count)
        return tf.nest.pack_sequence_as(scale, self._agreed(tf.nest.flatten(scale)))

    def solve(self, dampings: Sequence[tf.Tensor], before: Sequence[BlockStep]) -> list[BlockStep]:
        """x of each block at its own λ, float64 scalars.

        Args:
            dampings: λ, one a block.
            before: The last attempt's; of the first one, what the last step left.
        """
        found = []
        for (method, problem, ready), damping, last in zip(
            self._blocks(), dampings, before, strict=True
        ):
            if not isinstance(last.lengths, tuple):
                problem = dataclasses.replace(problem, lengths=last.lengths)
            block = method.solve(problem, ready, damping)
            # One of m batches that share the work.
            part = self.share.part(averaged=problem.kept.averages)
            found.append(block._replace(x=tf.cast(part, block.x.dtype) * block.x))
        flat = [tf.nest.flatten(block) for block in found]
        owners = [o for o, numbers in zip(self._owners, flat, strict=True) for _ in numbers]
        agreed = iter(self._agreed([number for numbers in flat for number in numbers], owners))
        return [
            tf.nest.pack_sequence_as(block, [next(agreed) for _ in numbers])
            for block, numbers in zip(found, flat, strict=True)
        ]

    def noted(self, found: Sequence[BlockStep], dampings: Sequence[tf.Tensor]) -> list[BlockStep]:
        """What `solve` gave last, at these λ, with the numbers that no attempt waits for."""
        noted = [
            method.noted(problem, ready, damping, block)
            for (method, problem, ready), damping, block in zip(
                self._blocks(), dampings, found, strict=True
            )
        ]
        fields = ("condition_number", "sparsity", "products")
        owners = [owner for owner in self._owners for _ in fields]
        numbers = [getattr(block, field) for block in noted for field in fields]
        agreed = iter(self._agreed(numbers, owners))
        return [block._replace(**{field: next(agreed) for field in fields}) for block in noted]

    def _agreed(
        self, tensors: Sequence[tf.Tensor], owners: Sequence[int] | None = None
    ) -> list[tf.Tensor]:
        """See `Replicas.agreed`."""
        return list(tensors) if self.replicas is None else self.replicas.agreed(tensors, owners)

    @property
    def _owners(self) -> list[int]:
        """Number of the worker that solves each block."""
        return [owner(k, self.replicas) for k in range(len(self.problems))]

    def damped(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """D v, of v one `[N_k]` a block."""
        blocks = zip(self._blocks(), vectors, strict=True)
        return [method.damped(problem, ready, v) for (method, problem, ready), v in blocks]

    def product(self, vectors: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """H v, of v one `[N_k]` a block: by the matrix, where one block is all of it."""
        blocks = zip(self._blocks(), vectors, strict=True)
        found, *others = [
            method.product(problem, ready, v) for (method, problem, ready), v in blocks
        ]
        if others or found is None:
            return self.curvature.product(vectors)
        # A matrix that is averaged is not this batch's alone.
        return _tf_private.cond(
            self.share.count > 1, lambda: self.curvature.product(vectors), lambda: [found]
        )

    def _blocks(self) -> list[tuple[Direction, BlockProblem, DirectionState]]:
        return list(zip(self.methods, self.problems, self.prepared, strict=True))


def remembered(
    blank: Sequence[BlockStep], parts: Sequence[Part], lengths: Mapping[str, tf.Tensor]
) -> list[BlockStep]:
    """Blocks before any attempt, with the lengths of solutions that the last step left."""
    pairs = zip(blank, parts, strict=True)
    return [b._replace(lengths=lengths.get(part.name, b.lengths)) for b, part in pairs]


def _forced(
    gradient: Sequence[tf.Tensor], share: Share, settings: Settings, state: NewtonState
) -> tf.Tensor | None:
    """‖g‖ and η, float64 `[2]`; None where the scheduler forces nothing."""
    forcing, scheduler = settings.scheduler.forcing, settings.scheduler
    if forcing is None or state.forced is None:
        return None
    norm = double_norm(tf.stack([double_norm(g) for g in gradient]))
    last_norm, last = tf.unstack(tf.convert_to_tensor(state.forced), 2)
    # Of other data, the norm says nothing of the last step's.
    largest = tf.constant(forcing.largest, tf.float64)
    term = tf.where(share.count > 1, largest, forcing.term(norm, last_norm, last))
    return tf.stack([norm, tf.maximum(term, tf.constant(scheduler.tolerance, tf.float64))])


def owner(k: int, replicas: Replicas | None) -> int:
    """Number of the worker that solves the k-th block, which all take in turn."""
    return 0 if replicas is None else k % replicas.workers


def _is_elsewhere(k: int, problems: Sequence[BlockProblem], replicas: Replicas | None) -> bool:
    """Whether another worker solves the k-th block, and this one has its part in the sums alone.

    Not a single block, whose matrix all workers multiply with, nor one whose factorisation is kept:
    each worker saves all that is kept. One that is not formed is solved by products, which are sums
    over workers.
    """
    if replicas is None or owner(k, replicas) == replicas.number:
        return False
    block = problems[k]
    if block.jacobian is not None:  # to gather its rows takes all workers
        return False
    return len(problems) > 1 and block.part.dense and not block.kept.has_factor


def _problems(
    batch: Batch,
    curvature: Linearized,
    gradient: Sequence[tf.Tensor],
    forms: Sequence[Forming],
    rescaled: tf.Tensor | bool,
    settings: Settings,
) -> list[BlockProblem]:
    """Each block's system, formed when a direction asks for it."""
    parts = [form.part for form in forms]
    # A block that is averaged over batches has too many rows, and one that is rescaled is formed
    # for its diagonal; one that is never formed is neither.
    alone = [
        (f.share.count <= 1) & ~tf.convert_to_tensor(rescaled) if f.part.dense else True
        for f in forms
    ]
    # A circuit that takes rows has a block's matrix beside it, for the other solvers.
    circuits = [max_rows(part, settings) for part in parts]
    limits = [most or max_rank(part, settings) for part, most in zip(parts, circuits, strict=True)]
    found = curvature.low_rank(limits, alone)
    rows = [None if most else few for few, most in zip(found, circuits, strict=True)]
    made = formed_before_any_is_kept(forms, rows)
    return [
        BlockProblem(
            part=part,
            gradient=gradient[k],
            product=functools.partial(_block_product, curvature, k),
            form=made[k],
            low_rank=rows[k],
            jacobian=found[k] if circuits[k] else None,
            rescaled=rescaled,
            semidefinite=curvature.positive_semidefinite,
            kept=forms[k].kept,
            agreed=batch.agreed,
        )
        for k, part in enumerate(parts)
    ]


def _block_product(curvature: Linearized, k: int, vector: tf.Tensor) -> tf.Tensor:
    """H_k v; the curvature is asked only where it is wanted."""
    return curvature.block_product(k, vector)
