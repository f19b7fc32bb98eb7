"""The shortcut to a linear system's solution: reflecting about the kernel that it spans."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.checks import check_matrix, check_rhs, relative_residual
from keras_qnewton.solvers.quantum import backends
from keras_qnewton.solvers.quantum.circuit_depth import coarsened as coarsened_in_graph
from keras_qnewton.solvers.quantum.circuit_depth import shortcut_depth
from keras_qnewton.solvers.quantum.circuit_runs import note_first
from keras_qnewton.solvers.quantum.encoded_solver import EncodedSolver
from keras_qnewton.solvers.quantum.encodings import BlockEncoding, pad, padded_qubits
from keras_qnewton.solvers.quantum.encodings.kernel import augmented
from keras_qnewton.solvers.quantum.host import host_solve_from
from keras_qnewton.solvers.quantum.inexact import HostState
from keras_qnewton.solvers.quantum.kernel_polynomial import kernel_degree
from keras_qnewton.solvers.quantum.kernel_problem import KernelProblem, of_length, search
from keras_qnewton.solvers.quantum.readout import CircuitRun
from keras_qnewton.solvers.quantum.resources import Resources
from keras_qnewton.solvers.quantum.spectrum import spectrum_of
from keras_qnewton.solvers.quantum.tomography import Reading
from keras_qnewton.solvers.quantum.transforms import COARSEST, Transform, coarsened
from keras_qnewton.solvers.scaling import exponent_of, matrix_exponent
from keras_qnewton.types import Solution

# ε from which on a run takes fewer queries than a projection of the search.
_COARSE = 0.05
# Success probability of a run below which its T, off by a factor of 9, is searched for after all.
_UNLIKELY = 0.05


class PreparedMatrix(NamedTuple):
    """A matrix made ready.

    Attributes:
        matrix: A `[N, N]`, float64, of an ordinary scale.
        encoding: Block encoding of ``A ⊕ ‖A‖``, padded: as large in α as any that is run.
        lengths: ‖x‖ for right-hand sides of length 1: of the first run, and of refinements. In
            units of the matrix as it was given. A negative one is where a search begins; zero, or
            not finite, if nothing is known.
    """

    matrix: np.ndarray
    encoding: BlockEncoding
    lengths: tuple[float, ...] = (0.0, 0.0)

    def from_lengths(self, lengths: tuple[float, float]) -> PreparedMatrix:
        """With lengths of earlier solutions."""
        return self._replace(lengths=lengths)


@register("solver", "shortcut")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Shortcut(EncodedSolver[PreparedMatrix]):
    """``A x = b`` by a circuit that reflects about the kernel of a matrix which x spans.

    For a guess T of ‖x‖, the vector x ⊕ T spans the kernel of ``(I - |b'⟩⟨b'|) (A ⊕ ‖b‖/T)``,
    ``b' = (b/‖b‖ ⊕ 1)/√2``. A reflection about it, an even polynomial of `kernel_polynomial` of the
    singular values, turns the last basis vector into x with probability ``4r²/(1 + r²)²`` for
    r = ‖x‖/T: into x alone where T is right. Degree about ``κ ln(2√2/epsilon)`` with κ = α/σ_min,
    less than `QSVT`'s, and a success probability near 1 in place of one that falls with 1/κ².
    A call of the encoding comes with two preparations of b.

    T is found by a few kernel projections (`solution_norm`), whose calls are counted; or it is
    given to `solve`; or, in training, that of an attempt before is taken. That of a step before is
    where the search begins, or taken by coarse runs (`solve_from`). The first refinement finds one
    of its own, which later ones share. Length and sign of x come from a
    product with A on
    the classical side, of the direction that is read. A may be indefinite. Refinement, simulation
    and what is said of them are `QSVT`'s.

    Eagerly, `details` holds what `QSVT`'s does, in "queries" and "shots" those of the search, too;
    "probes", the projections of all searches; "norm_ratio", ‖x‖/T of the first run; and "lengths",
    ‖x‖/‖b‖ of the first run and of the last refinement.

    Source: A. M. Dalzell, "A shortcut to an optimal quantum linear system solver" (2024),
    arXiv:2406.12086, sections 2 to 4.

    Args:
        backend: As all arguments but `epsilon`, see `QSVT`.
        encoding: See `QSVT`.
        epsilon: Largest error of one run's direction where T is right: the polynomial is at most
            ε/√2 away from the kernel.
        dtype: See `QSVT`.
        tolerance: See `QSVT`.
        max_refinements: See `QSVT`.
        max_degree: See `QSVT`.
        readout: See `QSVT`.

    Raises:
        ValueError: For arguments out of range.
    """

    name = "shortcut"
    # Whether a training step is told the lengths that the last one found.
    carries = True
    # Of a reflection whose T came from a search, whatever A and b are: 0.98 where T is right.
    success_probability = 0.9
    # 1/x keeps the share of small eigenvectors that noise has none of: it reads residuals better.
    _reading_error = 0.5

    def qubits(self, size: int) -> int:
        """Largest width for N = `size`: signal, projector, ancillas, system of N + 1, work."""
        system, kind = padded_qubits(size + 1), self._encoding_class
        ancillas = 1 + kind.max_ancillas(system)
        work = max(kind.max_work_qubits(system), ancillas - 1, system - 2)
        return 1 + ancillas + system + work

    def amplitudes(self, size: Scalar) -> Scalar:
        """N + 1, the amplitudes that are read."""
        return size + 1

    def _degree(self, condition_number: float) -> int:
        return kernel_degree(condition_number, self.epsilon / math.sqrt(2))

    def at(self, tolerance: float) -> Shortcut:
        """See `InexactSolver.at`; with a degree of no more than a direction that close takes."""
        other = cast(Shortcut, super().at(tolerance))
        other.epsilon = max(self.epsilon, min(coarsened(tolerance), COARSEST))
        return other

    def circuit_depth(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        alpha: Scalar | None = None,
        layers: Scalar | None = None,
        tolerance: Scalar | None = None,
    ) -> tf.Tensor:
        """Layers of gates of one reflection; scalar float64. See `QSVT.circuit_depth`.

        The preparations of b within are counted. Those of the search for T are not, which where a
        solution is read are few.
        """
        epsilon: Scalar = self.epsilon
        if tolerance is not None:
            epsilon = coarsened_in_graph(tolerance, self.epsilon, COARSEST)
        return shortcut_depth(
            self.encoding_name,
            size,
            condition_number,
            sparsity,
            epsilon,
            alpha=alpha,
            layers=layers,
        )

    def solve(self, matrix: TensorLike, rhs: TensorLike, norm: float | None = None) -> Solution:
        """Solves ``matrix @ x = rhs``; see `LinearSolver.solve`, and `init` for its errors.

        Args:
            matrix: A `[N, N]`, symmetric.
            rhs: b `[N]`.
            norm: ‖x‖ or a guess of it, a positive number: the first run takes it as T, without a
                search. None inside a `tf.function`.

        Raises:
            ValueError: If `norm` is not as described.
        """
        if norm is None:
            return super().solve(matrix, rhs)
        if not tf.executing_eagerly():
            raise ValueError(
                f"Argument `norm` must be None inside a tf.function. Received: norm={norm!r}"
            )
        return self.compute(self.init(matrix), rhs, norm)

    def compute(
        self, state: HostState[PreparedMatrix], rhs: TensorLike, norm: float | None = None
    ) -> Solution:
        """Runs the algorithm for `rhs` `[N]`, and again for each residual; `norm`: see `solve`."""
        if norm is not None:
            if not 0 < norm < math.inf:
                raise ValueError(
                    f"Argument `norm` must be a positive number. Received: norm={norm!r}"
                )
            values = np.asarray(tf.convert_to_tensor(rhs), np.float64)
            unit = exponent_of(values)
            # Of a right-hand side of length 1; no norm over- or underflows on the way.
            length = math.ldexp(norm, -unit) / float(np.linalg.norm(np.ldexp(values, -unit)))
            state = dataclasses.replace(state, prepared=state.prepared.from_lengths((length, 0.0)))
        return super().compute(state, rhs)

    def solve_from(
        self,
        matrix: TensorLike,
        rhs: TensorLike,
        lengths: TensorLike,
        tolerance: Scalar | None = None,
    ) -> tuple[Solution, tf.Tensor]:
        """`solve_to` with the lengths of earlier solutions; see `types.CarryingSolver`."""
        matrix = check_matrix(matrix)
        rhs = check_rhs(rhs, matrix.shape[0], matrix.dtype)
        asked = self._tolerance(rhs.dtype) if tolerance is None else tolerance

        def on_host(
            matrix: np.ndarray, rhs: np.ndarray, lengths: np.ndarray, tolerance: float
        ) -> tuple[np.ndarray, tuple[float, float], dict[str, Any]]:
            solver = self if tolerance <= self.tolerance else self.at(tolerance)
            prepared = solver._ready(matrix).from_lengths((float(lengths[0]), float(lengths[1])))
            least = max(solver.tolerance, float(np.finfo(dtype).eps))
            x, details = solver._refine(matrix, rhs, prepared, least)
            return x, details["lengths"], details

        dtype = rhs.dtype.as_numpy_dtype
        if tf.executing_eagerly():
            a, b, before = (np.asarray(v, np.float64) for v in (matrix, rhs, lengths))
            found, left, details = on_host(a, b, before, float(asked))
            x = tf.constant(found, rhs.dtype)
            solution = Solution(x, relative_residual(matrix, x, rhs), self.name, details)
            return solution, tf.constant(left, tf.float64)
        x, left = host_solve_from(
            lambda *given: on_host(*given)[:2], matrix, rhs, lengths, asked, self.name
        )
        return Solution(x, relative_residual(matrix, x, rhs), self.name), left

    def _refine(
        self, matrix: np.ndarray, rhs: np.ndarray, prepared: PreparedMatrix, tolerance: float
    ) -> tuple[np.ndarray, dict[str, Any]]:
        exponent = matrix_exponent(matrix)
        scaled = tuple(math.ldexp(length, exponent) for length in prepared.lengths)
        prepared = prepared._replace(lengths=scaled)
        x, details = super()._refine(matrix, rhs, prepared, tolerance)
        details["lengths"] = tuple(math.ldexp(v, -exponent) for v in details["lengths"])
        return x, details

    def measured(
        self, matrix: tf.Tensor, norm: tf.Tensor, condition_number: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """See `QSVT.measured`: of A and a corner in the middle of its singular values."""
        size = int(matrix.shape[0])
        corner = tf.cast(norm, tf.float64) / tf.sqrt(tf.cast(condition_number, tf.float64))
        larger = tf.pad(tf.cast(matrix, tf.float64), [[0, 1], [0, 1]])
        diagonal = tf.concat([tf.linalg.diag_part(larger)[:size], corner[None]], 0)
        return super().measured(tf.linalg.set_diag(larger, diagonal), norm, condition_number)

    def _prepare(self, matrix: np.ndarray) -> PreparedMatrix:
        """Costs an eigendecomposition, for α, κ and the dilation; it is kept for all T."""
        shortest, longest = spectrum_of(matrix).ends
        if shortest == 0:
            raise ValueError("Argument `matrix` must not be singular. Received: a singular matrix")
        # The corner with the largest α.
        encoding = self._encoding_class(pad(augmented(matrix, longest)))
        self._check_degree(encoding)
        return PreparedMatrix(matrix, encoding)

    def _details(self, prepared: PreparedMatrix) -> dict[str, Any]:
        encoding = prepared.encoding
        degree = self._degree(encoding.effective_condition_number)
        found = self._no_run(degree, 2 + encoding.qubits, encoding)
        return {**found, "probes": 0, "norm_ratio": None, "lengths": prepared.lengths}

    def _first_circuit(
        self, state: HostState[PreparedMatrix], rhs: np.ndarray
    ) -> tuple[BlockEncoding, Transform, np.ndarray]:
        """At the T that a search without errors finds."""
        encoding = state.prepared.encoding

        def exactly(problem: KernelProblem, plan: Transform, _: int) -> np.ndarray:
            found = problem.kernel.transformed(plan.polynomial, problem.start)
            return np.square(found)

        norm = search(encoding, rhs, exactly).norm
        problem = KernelProblem.of(encoding, rhs, norm)
        return problem.kernel, problem.reflection(self.epsilon), problem.start

    def _runner(
        self, prepared: PreparedMatrix, details: dict[str, Any]
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        matrix, encoding = prepared.matrix, prepared.encoding
        ends, readout = encoding.singular_values, self._readout()
        # One backend for all runs: to choose it, gates are made.
        middle = 1 / math.sqrt(ends[0] * ends[1])
        typical = KernelProblem.of(encoding, np.ones(len(matrix)), middle)
        backend, details["backend_reason"] = self._backend(
            typical.kernel, typical.reflection(self.epsilon)
        )
        details["backend"] = backends.name_of(backend)
        readout.check(backend)
        self._warn_of_few_shots(
            readout,
            len(typical.start),
            self.success_probability,
            encoding.condition_number,
        )

        def counted(plan: Transform, shots: int) -> None:
            details["queries"] += plan.degree * max(shots, 1)
            details["shots"] += shots

        def found_by_search(rhs: np.ndarray, number: int, start: float | None = None) -> float:
            def measure(problem: KernelProblem, plan: Transform, probe: int) -> np.ndarray:
                of = backend, problem.kernel, plan, problem.start, self.dtype, number, probe
                found, shots = readout.probabilities(CircuitRun(*of))
                counted(plan, shots)
                return found

            found = search(encoding, rhs, measure, start)
            details["probes"] += found.probes
            return found.norm

        def reflected(rhs: np.ndarray, number: int, norm: float) -> tuple[KernelProblem, Reading]:
            problem = KernelProblem.of(encoding, rhs, norm)
            plan = problem.reflection(self.epsilon)
            outcome = self._read(backend, problem.kernel, plan, problem.start, number)
            counted(plan, outcome.shots)
            return problem, of_solution(outcome, len(rhs))

        # Of the first run, and of the last refinement.
        lengths = list(prepared.lengths)

        def run(rhs: np.ndarray, number: int) -> np.ndarray:
            kind = min(number, 1)
            told = abs(lengths[kind]) if math.isfinite(lengths[kind]) else 0.0
            # Of another right-hand side, the length is a guess, which a search makes sure of.
            known = told > 0 and (lengths[kind] > 0 or self.epsilon >= _COARSE)
            if known:
                norm = min(max(told, 1 / ends[1]), 1 / ends[0])
            else:
                norm = found_by_search(rhs, number, told or None)
            problem, outcome = reflected(rhs, number, norm)
            if known and not (outcome.confident and outcome.success_probability > _UNLIKELY):
                # Lengths that were carried were of other systems than this one.
                problem, outcome = reflected(rhs, number, found_by_search(rhs, number))
            answer = of_length(matrix, rhs, outcome.amplitudes[: len(rhs)])
            lengths[kind] = float(np.linalg.norm(answer)) / float(np.linalg.norm(rhs))
            details["lengths"] = tuple(lengths)
            if number == 0:
                plan, kernel = problem.reflection(self.epsilon), problem.kernel
                success = outcome.success_probability
                resources = Resources(kernel, plan, success, accuracy=self.epsilon)
                note_first(details, outcome, resources)
                details.update(
                    {
                        "degree": plan.degree,
                        "alpha": kernel.alpha,
                        "norm_ratio": lengths[0] / problem.norm,
                    }
                )
            return answer

        return run


def of_solution(outcome: Reading, size: int) -> Reading:
    """The reading with the success probability of x alone, without the last basis vector."""
    squares = np.square(outcome.amplitudes)
    total = float(np.sum(squares))
    share = float(np.sum(squares[:size])) / total if total > 0 else 0.0
    return outcome._replace(success_probability=share * outcome.success_probability)
