"""Quantum linear solvers: ours against other libraries', simulated, one process, two threads.

Every row has the error, the seconds, the qubits and the gates as the simulator got them (a
matrix counts as one; Qiskit's are counted after its decomposition into gates on one and two
qubits). Ours start from nothing in each run: no polynomial or phases are kept. A peer that is not
installed, fails, or takes longer than `--limit` seconds is listed with the reason. Parts, chosen by
`--parts`:

    phases    of the polynomial for 1/x, degrees 101 and 501: largest error on 1,001 points
    solves    random positive definite systems of N = 4 and 16 unknowns by QSVT, ε = 1e-3: error
              of x against `numpy.linalg.solve`. Ours in one run of the circuit, and refined, as
              by default. PennyLane leaves the polynomial to its caller: it gets ours, for the
              norm that its block encoding needs; `qml.qsvt` then finds angles, from monomials.
              It refines nothing: a row has it in a loop like ours, to the same residual.
              It has no signal qubit: a simulator's amplitudes have a real part to take. Qrisp
              has a polynomial and a block encoding of its own
    hhl       N = 2 and 4. Ours with 8 clock qubits; Qiskit's sets the clock by κ. Qrisp's HHL is
              left out: evolution and reciprocal are its caller's to write

    python benchmarks/quantum.py [--repeats 3] [--parts phases solves hhl] [--limit 60]
        [--peers DIRECTORY]

The extra `bench-quantum` has the peers that install beside TensorFlow 2.18. Qrisp, which asks for
a newer JAX, and Qiskit's HHL, which needs Qiskit before 1.0, do not, but they run from a directory
that `--peers` names:

    pip install --target DIRECTORY qrisp qiskit==0.46.3
    pip install --target DIRECTORY --no-deps quantum-linear-solvers
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import common
import numpy as np

from keras_qnewton.solvers import HHL, QSVT
from keras_qnewton.solvers.quantum.chebyshev import clenshaw, maximum
from keras_qnewton.solvers.quantum.inverse_polynomial import inverse_coefficients
from keras_qnewton.solvers.quantum.phases import find_phases, response
from keras_qnewton.solvers.quantum.transforms import inversion

DEGREES = (101, 501)
EPSILON = 1e-3
SYSTEMS = ((4, 2.0), (4, 10.0), (4, 50.0), (16, 10.0), (16, 50.0))
# Not whole numbers: of N = 2 unknowns, a clock holds both eigenvalues exactly if κ is one.
HHL_SYSTEMS = ((2, 9.7), (4, 9.7))
BASIS = ["u", "cx"]
INSTALL = {
    "pyqsp": "pip install pyqsp",
    "nlft_qsp": "pip install nlft-qsp",
    "pennylane": "pip install pennylane",
    "qrisp": "pip install --target DIRECTORY qrisp, and --peers DIRECTORY",
    "linear_solvers": "pip install --target DIRECTORY --no-deps quantum-linear-solvers, with "
    "Qiskit before 1.0, and --peers DIRECTORY",
}


class Answer(NamedTuple):
    """What a run gives: its error, and the circuit's size if there is one."""

    error: float
    qubits: int | None = None
    gates: int | None = None


# What is timed, and what makes an answer of its result afterwards.
Solve = tuple[Callable[[], Any], Callable[[Any], Answer]]
HEADS, WIDTHS = ("error", "seconds", "ratio", "qubits", "gates"), (9, 11, 10, 8, 8)


class TimeLimitError(BaseException):
    """Not an `Exception`, which libraries catch."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeLimitError after `seconds`, and keeps what a library prints to itself."""

    def stop(*_: Any) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Table:
    """Rows of one problem: ours first, then the peers with their ratios to it."""

    def __init__(self, title: str, options: argparse.Namespace):
        self.options = options
        self.rows: dict[str, dict[str, Any]] = {}
        self.result: dict[str, Any] = {"title": title, "rows": self.rows}
        heads = "".join(f"{h:>{w}}" for h, w in zip(HEADS, WIDTHS, strict=True))
        print(f"\n{title}\n  {'':<38}{heads}")

    def add(self, name: str, run: Solve | str) -> None:
        """Times `run`, or says why there is none. Ratios are to the first row."""
        try:
            if isinstance(run, str):
                raise common.SkippedError(run)
            answer, seconds, runs = self._timed(run)
        except TimeLimitError:
            self._skip(name, f"no answer within {self.options.limit:g} s")
        except common.SkippedError as reason:
            self._skip(name, str(reason))
        except Exception as error:  # whatever a peer raises is its result
            self._skip(name, f"failed, {type(error).__name__}: {str(error)[:90]}")
        else:
            self.rows[name] = row = {**answer._asdict(), "seconds": seconds, "runs": runs}
            first = next(r["seconds"] for r in self.rows.values() if "seconds" in r)
            row["ratio"] = seconds / first
            print(
                f"  {name:<38}{answer.error:>9.1e}{seconds:>11.4f}{row['ratio']:>8.1f} x"
                f"{answer.qubits or '-':>8}{answer.gates or '-':>8}"
                f"{'' if runs > 1 else '  (1 run)'}",
                flush=True,
            )

    def _timed(self, solve: Solve) -> tuple[Answer, float, int]:
        """The answer, and the median of runs after the first; of the first if that took long."""
        run, check = solve
        result = None

        def once() -> float:
            nonlocal result
            start = time.perf_counter()
            result = run()
            return time.perf_counter() - start

        with limited(self.options.limit):
            seconds = [once()]
        if seconds[0] <= self.options.limit / 10:
            with limited(self.options.limit):
                seconds = [once() for _ in range(self.options.repeats)]
        with limited(self.options.limit):
            return check(result), statistics.median(seconds), len(seconds)

    def _skip(self, name: str, reason: str) -> None:
        self.rows[name] = {"skipped": reason}
        print(f"  {name:<38}{reason}", flush=True)

    def timed_out(self) -> list[str]:
        return [k for k, row in self.rows.items() if "no answer" in row.get("skipped", "")]


def peer(module: str, make: Callable[..., Solve], *arguments: Any) -> Solve | str:
    """``make(*arguments)``, or what to install for it."""
    try:
        with limited(60):
            found = common.optional(module) is not None
    except Exception as error:  # a library that does not get on with those beside it
        return f"cannot be imported, {type(error).__name__}: {str(error)[:80]}"
    return make(*arguments) if found else f"not installed: {INSTALL[module]}"


# --- phases -----------------------------------------------------------------------------


def phases_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    return [phases_of(degree, options) for degree in DEGREES]


def phases_of(degree: int, options: argparse.Namespace) -> dict[str, Any]:
    coefficients = inverse_coefficients(degree / 10, degree)
    # As close to 1 as in the solver.
    coefficients *= 0.9 / maximum(coefficients)
    x = np.cos(np.linspace(0, np.pi, 1001))
    wanted = clenshaw(coefficients, lambda v: x * v, np.ones_like(x))

    def ours() -> np.ndarray:
        return find_phases(coefficients)

    def pyqsp() -> np.ndarray:
        from pyqsp.angle_sequence import QuantumSignalProcessingPhases as Phases

        full, _, _ = Phases(coefficients, method="sym_qsp", chebyshev_basis=True)
        return full

    def nlft() -> np.ndarray:
        from nlft_qsp.qsp import ChebyshevQSPPhaseFactors as Phases

        return np.asarray(Phases.solve(list(coefficients)).phi, float)

    def pennylane() -> np.ndarray:
        import pennylane

        monomials = np.polynomial.chebyshev.cheb2poly(coefficients)
        angles = pennylane.poly_to_angles(monomials, "QSP", angle_solver="iterative")
        return np.asarray(angles)

    def solve(run: Callable[[], np.ndarray], part: str) -> Solve:
        def check(phases: np.ndarray) -> Answer:
            return Answer(float(np.max(np.abs(getattr(response(phases, x), part) - wanted))))

        return run, check

    table = Table(f"phases, degree {degree}", options)
    table.add("keras_qnewton", solve(ours, "imag"))
    table.add("pyqsp, sym_qsp", peer("pyqsp", solve, pyqsp, "imag"))
    table.add("nlft-qsp", peer("nlft_qsp", solve, nlft, "real"))
    table.add("PennyLane, iterative", peer("pennylane", solve, pennylane, "real"))
    mine, theirs = table.rows["keras_qnewton"], table.rows["pyqsp, sym_qsp"]
    if degree == max(DEGREES):
        fast = "not compared" if "ratio" not in theirs else met(theirs["ratio"] >= 50)
        print(f"  at least 50 times faster than pyqsp: {fast}")
        print(f"  error at most 1e-12: {met(mine['error'] <= 1e-12)}")
    return table.result


def met(condition: bool) -> str:
    return "yes" if condition else "NO"


# --- solves -----------------------------------------------------------------------------


def system(size: int, kappa: float) -> tuple[np.ndarray, np.ndarray]:
    """A positive definite matrix `[size, size]` of norm 2, and a right-hand side, float64."""
    rng = np.random.default_rng([size, int(kappa)])
    values = 2 * kappa ** -rng.uniform(size=size)
    values[0], values[-1] = 2, 2 / kappa
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = (vectors * values) @ vectors.T
    return (matrix + matrix.T) / 2, rng.normal(size=size)


class Problem:
    """A system and the errors of its solutions."""

    def __init__(self, size: int, kappa: float):
        self.size, self.kappa = size, kappa
        self.matrix, self.rhs = system(size, kappa)
        self.exact = np.linalg.solve(self.matrix, self.rhs)
        self.norm = float(np.linalg.norm(self.rhs))

    def error(self, x: Any) -> float:
        return common.relative_difference(np.asarray(x).reshape(-1, 1), self.exact.reshape(-1, 1))


def ours(problem: Problem, solver: Any) -> Solve:
    def run() -> Any:
        inversion.cache_clear()
        return solver.solve(problem.matrix, problem.rhs)

    def check(solution: Any) -> Answer:
        gates = solution.details.get("operations")
        if gates is None:
            gates = sum(map(len, solver.circuit(problem.matrix, problem.rhs)))
        return Answer(problem.error(solution.x), solution.details["qubits"], gates)

    return run, check


def pennylane_solve(problem: Problem, angle_solver: str | None, refined: bool = False) -> Solve:
    """By `qml.qsvt`, or, without an angle solver, by the template `qml.QSVT` with our phases.

    One run, or, `refined`, until the residual that ours stops at, or as many runs.
    """
    import pennylane as qml

    limits = QSVT() if refined else QSVT(max_refinements=0)
    wires = list(range(problem.size.bit_length()))
    device = qml.device("default.qubit", wires=wires)

    def run() -> tuple[np.ndarray, int]:
        # `BlockEncode` scales whatever is larger in this norm, not in the 2-norm.
        alpha = np.sqrt(np.linalg.norm(problem.matrix @ problem.matrix, np.inf)) * (1 + 1e-9)
        kappa = alpha * np.linalg.norm(np.linalg.inv(problem.matrix), 2)
        transform = inversion.__wrapped__(kappa, EPSILON)
        scale = transform.scale
        if angle_solver:
            # Its P is one-sided: |Σ c_k z^k|, not its real part, has to stay below 1.
            largest = np.max(np.abs(np.fft.fft(transform.coefficients, 64 * transform.degree)))
            scale = 0.9 / largest
        coefficients = scale * transform.coefficients
        scaled = problem.matrix / alpha
        if angle_solver:
            monomials = np.polynomial.chebyshev.cheb2poly(coefficients)
        else:
            angles = qml.transform_angles(find_phases(coefficients), "QSP", "QSVT")

        def operations(rhs: np.ndarray) -> Any:
            qml.StatePrep(rhs / np.linalg.norm(rhs), wires=wires[1:])
            if angle_solver:
                qml.qsvt(
                    scaled,
                    monomials,
                    encoding_wires=wires,
                    block_encoding="embedding",
                    angle_solver=angle_solver,
                )
            else:
                projectors = [qml.PCPhase(a, dim=problem.size, wires=wires) for a in angles]
                qml.QSVT(qml.BlockEncode(scaled, wires=wires), projectors)
            return qml.state()

        circuit = qml.QNode(operations, device)
        x, gap = np.zeros(problem.size), problem.rhs
        for _ in range(1 + limits.max_refinements):
            state = circuit(gap)[: problem.size]
            # Our phases have the polynomial in the imaginary part, PennyLane's in the real one.
            amplitudes = state.real if angle_solver else state.imag
            x = x + amplitudes * np.linalg.norm(gap) / (scale * alpha)
            gap = problem.rhs - problem.matrix @ x
            if np.linalg.norm(gap) <= limits.tolerance * problem.norm:
                break
        return x, transform.degree

    def check(result: tuple[np.ndarray, int]) -> Answer:
        x, degree = result
        return Answer(problem.error(x), len(wires), 2 + 2 * degree)

    return run, check


def qrisp_solve(problem: Problem, method: str) -> Solve:
    """By the inversion of a block encoding, amplitudes from the state vector."""

    def run() -> tuple[np.ndarray, Any]:
        import qrisp
        from qrisp.algorithms.cks import CKS
        from qrisp.algorithms.gqsp import inversion
        from qrisp.block_encodings import BlockEncoding

        encoding = BlockEncoding.from_array(problem.matrix)
        kappa = encoding.alpha * np.linalg.norm(np.linalg.inv(problem.matrix), 2)
        inverse = (
            CKS(encoding, EPSILON, kappa)
            if method == "CKS"
            else inversion(encoding, EPSILON, kappa, method=method)
        )
        operand = qrisp.QuantumVariable(problem.size.bit_length() - 1)
        qrisp.prepare(operand, problem.rhs / problem.norm)
        ancillas = inverse.apply(operand)
        circuit = operand.qs.compile()
        amplitude = operand.qs.statevector("function")
        zeros = {variable: variable.decoder(0) for variable in ancillas}
        state = [amplitude({operand: operand.decoder(i), **zeros}) for i in range(problem.size)]
        return np.real(state) * problem.norm * inverse.alpha, circuit

    def check(result: tuple[np.ndarray, Any]) -> Answer:
        x, circuit = result
        return Answer(problem.error(x), circuit.num_qubits(), len(circuit.data))

    return run, check


PEERS: tuple[tuple[str, str, Callable[..., Solve], str | None], ...] = (
    ("PennyLane qml.QSVT, our phases", "pennylane", pennylane_solve, None),
    (
        "PennyLane qml.QSVT, refined like ours",
        "pennylane",
        functools.partial(pennylane_solve, refined=True),
        None,
    ),
    ("PennyLane qml.qsvt, root-finding", "pennylane", pennylane_solve, "root-finding"),
    ("PennyLane qml.qsvt, iterative", "pennylane", pennylane_solve, "iterative"),
    ("Qrisp inversion, QSVT", "qrisp", qrisp_solve, "QSVT"),
    ("Qrisp CKS", "qrisp", qrisp_solve, "CKS"),
)


def solves_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    out, too_slow = [], {}
    for size, kappa in SYSTEMS:
        problem = Problem(size, kappa)
        table = Table(f"N = {size}, κ = {kappa:g}, ε = {EPSILON:g}", options)
        single = QSVT(backend="cirq", epsilon=EPSILON, max_refinements=0)
        table.add("keras_qnewton, one run", ours(problem, single))
        table.add("keras_qnewton, refined", ours(problem, QSVT(backend="cirq", epsilon=EPSILON)))
        for name, module, make, method in PEERS:
            table.add(name, too_slow.get(name) or peer(module, make, problem, method))
        for name in table.timed_out():
            reason = f"not tried: longer than {options.limit:g} s at N = {size}, κ = {kappa:g}"
            too_slow.setdefault(name, reason)
        out.append(table.result)
    rows = out[-1]["rows"]
    for name in ("keras_qnewton, one run", "keras_qnewton, refined"):
        # A larger error is no answer to the same question.
        mine, error = rows[name]["seconds"], 2 * rows[name]["error"]
        faster = [
            k
            for k, _, _, _ in PEERS
            if rows[k].get("seconds", np.inf) < mine and rows[k]["error"] <= error
        ]
        print(f"  as exact as {name}, and faster: {', '.join(faster) or 'none'}")
    return out


# --- HHL --------------------------------------------------------------------------------


def qiskit_hhl(problem: Problem) -> Solve:
    import linear_solvers
    from qiskit import transpile
    from qiskit.quantum_info import Statevector

    def run() -> tuple[np.ndarray, Any]:
        solver = linear_solvers.HHL(epsilon=1e-2)
        circuit = solver.construct_circuit(problem.matrix, problem.rhs, neg_vals=False)
        state = Statevector(circuit).data
        # The flag is the most significant qubit, then the clock, back at 0.
        kept = state[len(state) // 2 :][: problem.size]
        return kept.real * problem.norm / solver.scaling, circuit

    def check(result: tuple[np.ndarray, Any]) -> Answer:
        x, circuit = result
        gates = transpile(circuit, basis_gates=BASIS, optimization_level=0).size()
        return Answer(problem.error(x), circuit.num_qubits, gates)

    return run, check


def hhl_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    out = []
    for size, kappa in HHL_SYSTEMS:
        problem = Problem(size, kappa)
        table = Table(f"HHL, N = {size}, κ = {kappa:g}", options)
        table.add("keras_qnewton, one run", ours(problem, HHL(max_refinements=0)))
        table.add("keras_qnewton, refined", ours(problem, HHL()))
        table.add("Qiskit HHL", peer("linear_solvers", qiskit_hhl, problem))
        out.append(table.result)
    return out


PARTS = {"phases": phases_part, "solves": solves_part, "hhl": hhl_part}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.set_defaults(repeats=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=float, default=60, help="seconds that a peer may take")
    parser.add_argument(
        "--peers", metavar="DIRECTORY", help="where peers are, if not installed beside the rest"
    )
    common.add_output_options(parser, "quantum")
    options = parser.parse_args()
    if options.peers:
        # Last: NumPy, SciPy and JAX are everybody's.
        sys.path.append(options.peers)
    common.limit_threads()
    results = []
    for part in options.parts:
        results += PARTS[part](options)
    common.save("quantum", results, options.json)


if __name__ == "__main__":
    main()
