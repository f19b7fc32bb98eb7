"""What the scheduler believes against what is: seconds of LU, and condition numbers.

a   `tf.linalg.lu` and its solve, traced, N = 128 to 4,096: seconds predicted by the calibration,
    made anew, over seconds measured afterwards
b   κ of training Hessians of digits, 64-w-10, full batch, damped as the optimizer damps them at
    that step: the estimate's seconds over those of the LU solve, and the estimate over κ by
    all eigenvalues
c   predicted seconds of the linear systems of a training on digits, 64-16-16-10, full batch, by
    layer, to a loss of 0.2, a circuit at 1e-12 s a gate or LU: reshaped within an error of 0.1,
    over as they are. What would go to the circuit is solved by LU: prices do not depend on the
    answer but by its rounding

python benchmarks/scheduling.py [--repeats 5] [--widths 14,27,54] [--steps 0,4,8,12]
    [--only a b c]
"""

from __future__ import annotations

import dataclasses
import os
import statistics

# NumPy's and SciPy's BLAS count their threads when they are loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import common
import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_qnewton import Adaptive, QNewton, Scheduler
from keras_qnewton.curvature import ExactHessian, gauss_newton, hessian
from keras_qnewton.directions import BlockProblem, Scheduled
from keras_qnewton.scheduling import CGTime, SolverTime, calibration
from keras_qnewton.settings import Settings
from keras_qnewton.solvers import LU, QSVT

SIZES = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
# Predicted over measured, or the inverse.
WORST, MEDIAN = 2.0, 1.3
# Of an LU solve's seconds, and of the exact κ.
SHARE, ERROR = 0.1, 0.1
# Where a training ends. Below, κ of the first layer is beyond what a scheduler sends to a circuit,
# and the sum is LU's time.
RESHAPING_LOSS = 0.2
# Estimates in one graph, as in training, each from another start vector.
IN_A_ROW = 4


def lu_seconds(size, repeats):
    """Median seconds of one LU solve, some in a row in one graph as in training."""
    matrix = tf.constant(calibration.positive_definite(size))
    rhs = tf.ones([size], tf.float64)
    times = tf.constant(max(1, 384**3 // size**3))
    solve = LU().solve  # the very same object each time, or the graph is traced anew
    solves = tf.function(calibration.repeated, autograph=False)

    def run():
        solves(solve, matrix, rhs, times).numpy()

    return common.median_seconds(run, repeats) / int(times)


def lu_calibration(repeats):
    model = SolverTime("lu", coefficients=calibration.fit(calibration.measure("lu", "float64")))
    print("a   LU: seconds predicted and measured")
    rows = []
    for size in SIZES:
        predicted, measured = float(model.seconds(size)), lu_seconds(size, repeats)
        factor = max(predicted / measured, measured / predicted)
        rows.append({"size": size, "predicted": predicted, "measured": measured})
        print(f"{size:>6}  {predicted:.3g}  {measured:.3g}  factor {factor:.2f}", flush=True)
    factors = [max(r["predicted"] / r["measured"], r["measured"] / r["predicted"]) for r in rows]
    worst, median = max(factors), statistics.median(factors)
    met = worst <= WORST and median <= MEDIAN
    print(f"    worst factor {worst:.2f}, median {median:.2f}: {'met' if met else 'MISSED'}")
    return {"part": "lu", "rows": rows, "worst": worst, "median": median, "met": met}


def training_systems(width, curvature, steps):
    """(step, H, g, λ) along a training of digits; H as the optimizer has it."""
    x, y = (tf.constant(a) for a in common.digits(1797))
    model = common.keras_mlp((64, width, 10))
    weights = model.trainable_variables

    def loss_fn():
        logits = model(x)
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        )

    optimizer = QNewton(curvature=curvature, damping=Adaptive(negative_curvature="shift"))
    step = tf.function(lambda: optimizer.minimize(loss_fn, weights))
    compute = {"gauss_newton": gauss_newton, "hessian": hessian}[curvature]
    for k in range(max(steps) + 1):
        block = compute(loss_fn, weights)[0] if k in steps else None
        step()
        if block is not None:
            gradient = tf.reshape(block.gradient, [-1])
            yield k, block.matrix, gradient, optimizer.decisions[-1].damping


def condition_numbers(widths, steps, repeats):
    print("b   κ: the estimate's seconds over the LU solve's; the estimate over the exact one")
    per_entry = CGTime().seconds_per_entry
    rows = []
    for width in widths:
        for curvature in ("gauss_newton", "hessian"):
            for k, matrix, gradient, damping in training_systems(width, curvature, steps):
                for row in estimates(matrix, gradient, damping, curvature, repeats):
                    row |= {"width": width, "curvature": curvature, "step": k}
                    row["predicted_seconds"] = per_entry * row["products"] * row["size"] ** 2
                    rows.append(row)
                    print(
                        f"    N = {row['size']:>5}  {curvature:<13}step {k:>2}  λ {damping:.1e}  "
                        f"{row['where']:<9}{row['share']:6.1%} of LU "
                        f"(predicted {row['predicted_seconds']:.3g} s, "
                        f"measured {row['seconds']:.3g} s)  "
                        f"κ {row['kappa']:.3g}, exact {row['exact']:.3g}: {row['error']:+.2%}",
                        flush=True,
                    )
    results = []
    for where in ("choice", "no choice"):
        of = [row for row in rows if row["where"] == where]
        share, error = max(r["share"] for r in of), max(abs(r["error"]) for r in of)
        met = bool(share <= SHARE and error <= ERROR)
        print(
            f"    {where}: largest share {share:.1%}, largest error {error:.1%}: "
            f"{'met' if met else 'MISSED'}"
        )
        results.append({"where": where, "share": share, "error": error, "met": met})
    return {"part": "condition", "rows": rows, "results": results}


def estimates(matrix, gradient, damping, curvature, repeats):
    """Estimate, its seconds, LU's, and the exact κ of one damped Hessian.

    With a quantum solver to choose (products on the host), and without one (in the graph).
    """
    semidefinite, size = curvature == "gauss_newton", len(matrix)
    policy, strength = Adaptive(negative_curvature="shift"), tf.constant(damping, tf.float64)
    gradient = tf.cast(gradient, matrix.dtype)
    a = tf.cast(matrix, tf.float64) + strength * tf.eye(size, dtype=tf.float64)
    b = tf.cast(gradient, tf.float64)
    solve = tf.function(lambda a, b: LU().solve(a, b).x)
    eigenvalues = scipy.linalg.eigvalsh(matrix.numpy().astype("float64"))
    for where, quantum in (("choice", QSVT(backend="emulator")), ("no choice", None)):
        scheduler = Scheduler(quantum=quantum, max_qubits=64)

        def estimate(seed, scheduler=scheduler):
            settings = Settings(ExactHessian(), policy, scheduler, seed=seed)
            problem = BlockProblem.of_matrix(matrix, gradient, semidefinite)
            direction = Scheduled(settings)
            state = direction.init(problem)
            return tf.stack([*direction.estimate(problem, state, strength), state.ends.products])

        @tf.function(autograph=False)
        def estimates_in_a_row(estimate=estimate):
            found = [estimate(0)]
            for seed in range(1, IN_A_ROW):
                with tf.control_dependencies(found[-1:]):
                    found.append(estimate(seed))
            return found

        kappa, shift, products = estimates_in_a_row()[0].numpy()
        # By turns, so that both meet the same moods of the machine; the first compile.
        runs = (lambda run=estimates_in_a_row: run()[-1].numpy(), lambda: solve(a, b).numpy())
        turns = [
            [common.median_seconds(run, 1, warm_up=False) for run in runs]
            for _ in range(1 + repeats)
        ][1:]
        seconds, by_lu = (statistics.median(each) for each in zip(*turns, strict=True))
        seconds /= IN_A_ROW
        values = np.abs(eigenvalues + shift)
        exact = float(values.max() / values.min())
        yield {
            "where": where,
            "size": size,
            "kappa": float(kappa),
            "exact": exact,
            "error": float(kappa) / exact - 1,
            "seconds": seconds,
            "lu_seconds": by_lu,
            "share": seconds / by_lu,
            "products": float(products),
        }


class PerfectCircuit:
    """Priced as a QSVT circuit, and answers as one without error would."""

    name = "qsvt"
    host = True

    def qubits(self, size):
        return QSVT().qubits(size)

    def solve(self, matrix, rhs):
        return dataclasses.replace(LU().solve(matrix, rhs), solver=self.name)


def reshaping():
    print("c   reshaped systems: predicted seconds, and what was traded")
    x, y = common.digits(1797)
    rows = []
    for bound in (False, 0.1):
        scheduler = Scheduler(
            quantum=PerfectCircuit(),
            gate_time=1e-12,
            max_qubits=64,
            reshape=bound,
        )
        model = common.keras_mlp((64, 16, 16, 10))
        optimizer = QNewton(blocks="layer", scheduler=scheduler)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=optimizer, loss=loss)
        until = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, model=model, optimizer=optimizer: setattr(
                model, "stop_training", optimizer.decisions[-1].loss_after <= RESHAPING_LOSS
            )
        )
        model.fit(x, y, batch_size=len(x), epochs=40, verbose=0, callbacks=[until])
        decisions = optimizer.decisions
        rows.append(
            {
                "bound": float(bound),
                "seconds": sum(d.predicted[d.route] for d in decisions),
                "reshaped": sum(d.sparsity_before is not None for d in decisions),
                "systems": len(decisions),
                "largest_error": max((d.error_bound or 0.0) for d in decisions),
                "steps": decisions[-1].step + 1,
                "loss": decisions[-1].loss_after,
            }
        )
        row = rows[-1]
        print(
            f"    bound {bound!s:>5}: {row['seconds']:.3g} s, "
            f"{row['seconds'] / rows[0]['seconds']:.3f} of that as they are; "
            f"{row['reshaped']} of {row['systems']} reshaped, error at most "
            f"{row['largest_error']:.2g}, loss {row['loss']:.2g} after {row['steps']} steps",
            flush=True,
        )
    return {"part": "reshape", "rows": rows}


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    options = common.parser(__doc__)
    options.add_argument("--widths", type=numbers, default=[14, 27, 54])
    options.add_argument("--steps", type=numbers, default=[0, 4, 8, 12])
    options.add_argument("--only", nargs="+", choices=("a", "b", "c"), default=["a", "b", "c"])
    common.add_output_options(options, "scheduling")
    arguments = options.parse_args()
    common.limit_threads()
    results = []
    if "a" in arguments.only:
        results.append(lu_calibration(arguments.repeats))
    if "b" in arguments.only:
        results.append(condition_numbers(arguments.widths, arguments.steps, arguments.repeats))
    if "c" in arguments.only:
        results.append(reshaping())
    common.save("scheduling", results, arguments.json)


if __name__ == "__main__":
    main()
