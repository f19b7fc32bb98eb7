"""Base of the solvers by factorisation: settings, checks of the input, refinement, answer.

FactorisedSolver           settings and checks
  GraphFactorisedSolver    TensorFlow operations: `factorise` and `substitute` are left to write
  HostFactorisedSolver     one host call a solve: `factorise` and `solve_on_host` are
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import tensorflow as tf

from keras_qnewton.arguments import check_count, check_number
from keras_qnewton.solvers.arrays import TensorLike
from keras_qnewton.solvers.checks import check_matrix, check_rhs
from keras_qnewton.solvers.linear_solver import LinearSolver
from keras_qnewton.solvers.refinement import refined, target
from keras_qnewton.solvers.scaling import unit_beside
from keras_qnewton.types import Solution

# Solution `[N]` and relative residual; None where there are no factors.
HostAnswer: TypeAlias = "tuple[np.ndarray, np.float64] | None"
# From a state's arrays, a right-hand side and the residual that needs no refinement.
HostSolve: TypeAlias = Callable[[Sequence[np.ndarray], np.ndarray, float], HostAnswer]


class MatrixState(Protocol):
    """The state of a matrix.

    Attributes:
        matrix: A, tensor `[N, N]`.
    """

    @property
    def matrix(self) -> tf.Tensor: ...


class Factorisation(MatrixState, Protocol):
    """A matrix and its factors.

    Attributes:
        exists: Scalar bool, False where A has no such factors; None if the factors say so
            themselves, by not being finite.
    """

    @property
    def exists(self) -> tf.Tensor | None: ...


_State = TypeVar("_State", bound=MatrixState)
_Factors = TypeVar("_Factors", bound=Factorisation)


class FactorisedSolver(LinearSolver[_State]):
    """A factorisation and its iterative refinement (`refinement`).

    A matrix without such factors never raises: its solution and residual are NaN.

    Args:
        refinements: Steps of iterative refinement with float64 residuals, at most.
        tolerance: Relative residual that needs no refinement; None for √u, u the unit round-off
            of the matrix's dtype (2.4e-4 in float32, 1.1e-8 in float64), 0 to refine always.

    Raises:
        ValueError: If `refinements` or `tolerance` is negative.
    """

    def __init__(self, refinements: int = 1, tolerance: float | None = None):
        self.refinements = check_count("refinements", refinements, least=0)
        wanted = "None or a number, 0 or more"
        if tolerance is not None:
            tolerance = check_number("tolerance", tolerance, wanted, most=math.inf, ends="[]")
        self.tolerance = tolerance

    @abc.abstractmethod
    def factorise(self, matrix: tf.Tensor) -> _State:
        """The state of `matrix` `[N, N]`, which has been checked."""

    @abc.abstractmethod
    def refined(self, state: _State, rhs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Solution `[N]` and float64 relative residual for `rhs` `[N]`, which has been checked."""

    def init(self, matrix: TensorLike) -> _State:
        """Factorises `matrix` `[N, N]`, float32 or float64."""
        return self.factorise(check_matrix(matrix))

    def compute(self, state: _State, rhs: TensorLike) -> Solution:
        """Solves for `rhs` `[N]` with the factors of `init`."""
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        unit = unit_beside(self.largest_entries(state.matrix), rhs)
        x, residual = self.refined(state, rhs / unit)
        return Solution(x * unit, residual, self.name)

    def largest_entries(self, matrix: tf.Tensor) -> tf.Tensor:
        """Entries of `matrix` `[N, N]`, one of its largest among them."""
        return matrix

    def limit(self, dtype: tf.DType) -> float:
        """The relative residual that needs no refinement, for a matrix of `dtype`."""
        return target(self.tolerance, dtype.as_numpy_dtype)

    def get_config(self) -> dict[str, Any]:
        return {"refinements": self.refinements, "tolerance": self.tolerance}


class GraphFactorisedSolver(FactorisedSolver[_Factors]):
    """A `FactorisedSolver` of TensorFlow operations: works in a `tf.function`, and exports."""

    @abc.abstractmethod
    def substitute(self, state: _Factors, rhs: tf.Tensor) -> tf.Tensor:
        """``A^-1 b`` by the factors alone, for `rhs` `[N]`; anything where they do not exist."""

    def refined(self, state: _Factors, rhs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        exists = state.exists
        nan = None if exists is None else tf.constant(float("nan"), rhs.dtype)

        def apply_inverse(vector: tf.Tensor) -> tf.Tensor:
            x = self.substitute(state, vector)
            return x if exists is None else tf.where(exists, x, nan)

        limit = self.limit(rhs.dtype)
        return refined(apply_inverse, state.matrix, rhs, self.refinements, limit)


class HostFactorisedSolver(FactorisedSolver[_State]):
    """A `FactorisedSolver` by a host call, eagerly or from a `tf.function`.

    It neither exports nor compiles with XLA. A state is a tuple of tensors.
    """

    host = True
    traces = True

    @abc.abstractmethod
    def solve_on_host(
        self, arrays: Sequence[np.ndarray], rhs: np.ndarray, limit: float
    ) -> HostAnswer:
        """Solves and refines in NumPy.

        Args:
            arrays: Values of the state.
            rhs: b `[N]`.
            limit: Relative residual that needs no refinement.

        Returns:
            x `[N]` of the dtype of `rhs` and its relative residual; None where there are no
            factors.
        """

    def refined(self, state: _State, rhs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # States are NamedTuples, which a protocol with a field cannot say.
        return self.on_host(self.solve_on_host, tuple(state), rhs)  # type: ignore[arg-type]

    def on_host(
        self, solve: HostSolve, tensors: Sequence[tf.Tensor], rhs: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`solve` as one host call; its answer is NaN where it has none, or a residual of NaN."""
        limit = self.limit(rhs.dtype)

        def call(*values: np.ndarray) -> tuple[np.ndarray, np.float64]:
            *arrays, b = values
            # Overflow and NaN are told by the residual, not by warnings.
            with np.errstate(all="ignore"):
                answer = solve(arrays, b, limit)
            if answer is None or np.isnan(answer[1]):
                return np.full_like(b, np.nan), np.float64(np.nan)
            return answer

        x, residual = tf.numpy_function(
            call, [*tensors, rhs], [rhs.dtype, tf.float64], stateful=False
        )
        return tf.ensure_shape(x, rhs.shape), tf.ensure_shape(residual, [])
