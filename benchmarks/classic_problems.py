"""The 35 test problems of Moré, Garbow & Hillstrom: residuals r(x), starts, and listed minima.

A problem's objective is f(x) = Σ r_i(x)². Residuals are TensorFlow operations in float64.
Dimensions that the paper leaves open are fixed here, in `PROBLEMS`.

Reference:
    Moré, Garbow & Hillstrom 1981, ACM TOMS 7(1), 17-41; each function's docstring begins with its
    number there. The residual of no. 11 is misprinted in the paper; it is as in their program.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

Residuals = Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Classic:
    """One problem.

    Attributes:
        number: In the paper.
        name: In the paper.
        residuals: From x `[n]` to r(x) `[m]`, float64.
        start: The standard starting point, `[n]`.
        minima: Listed values of f at a global minimum, at more digits than the paper has.
        local: Those of other local minima; at some of them an x is at infinity.
    """

    number: int
    name: str
    residuals: Residuals
    start: Sequence[float]
    minima: Sequence[float] = (0.0,)
    local: Sequence[float] = ()

    def start_times(self, factor: float) -> np.ndarray:
        """The start times `factor` `[n]`, as MINPACK has it: `factor` itself where it is zero."""
        start = np.array(self.start, "float64")
        if factor != 1 and not start.any():
            return np.full_like(start, factor)
        return factor * start


def _constant(values: Sequence[float] | np.ndarray) -> tf.Tensor:
    return tf.constant(values, tf.float64)


def _counted(first: int, last: int) -> tf.Tensor:
    """first, first + 1, ..., last."""
    return _constant(np.arange(first, last + 1, dtype="float64"))


def rosenbrock(x: tf.Tensor) -> tf.Tensor:
    """1 and 21, extended: pairs in a valley x₂ = x₁²."""
    odd, even = x[::2], x[1::2]
    return tf.concat([10 * (even - odd**2), 1 - odd], 0)


def freudenstein_roth(x: tf.Tensor) -> tf.Tensor:
    """2: two cubics."""
    a, b = x[0], x[1]
    return tf.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])


def powell_badly_scaled(x: tf.Tensor) -> tf.Tensor:
    """3: x₁ near 1e-5, x₂ near 9."""
    return tf.stack([1e4 * x[0] * x[1] - 1, tf.reduce_sum(tf.exp(-x)) - _constant(1.0001)])


def brown_badly_scaled(x: tf.Tensor) -> tf.Tensor:
    """4: x₁ is 1e6, x₂ is 2e-6."""
    return tf.stack([x[0] - 1e6, x[1] - _constant(2e-6), x[0] * x[1] - 2])


def beale(x: tf.Tensor) -> tf.Tensor:
    """5: products with powers."""
    powers = tf.stack([x[1], x[1] ** 2, x[1] ** 3])
    return _constant([1.5, 2.25, 2.625]) - x[0] * (1 - powers)


def jennrich_sampson(x: tf.Tensor) -> tf.Tensor:
    """6: two growing exponentials, of ten points."""
    i = _counted(1, 10)
    return 2 + 2 * i - (tf.exp(i * x[0]) + tf.exp(i * x[1]))


def helical_valley(x: tf.Tensor) -> tf.Tensor:
    """7: a valley along a helix; the angle is in (-1/4, 3/4) turns."""
    angle = tf.atan2(-x[0], x[1]) / (2 * math.pi) + 0.25
    radius = tf.sqrt(x[0] ** 2 + x[1] ** 2)
    return tf.stack([10 * (x[2] - 10 * angle), 10 * (radius - 1), x[2]])


def bard(x: tf.Tensor) -> tf.Tensor:
    """8: a rational function of 15 points."""
    y = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
    u = _counted(1, 15)
    v = 16 - u
    return _constant(y) - (x[0] + u / (v * x[1] + tf.minimum(u, v) * x[2]))


def gaussian(x: tf.Tensor) -> tf.Tensor:
    """9: a Gaussian at 15 points."""
    half = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]
    t = (8 - _counted(1, 15)) / 2
    return x[0] * tf.exp(-x[1] * (t - x[2]) ** 2 / 2) - _constant([*half, 0.3989, *half[::-1]])


def meyer(x: tf.Tensor) -> tf.Tensor:
    """10: a thermistor's resistance, 16 temperatures."""
    y = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744]
    y += [8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
    return x[0] * tf.exp(x[1] / (45 + 5 * _counted(1, 16) + x[2])) - _constant(y)


def gulf(x: tf.Tensor) -> tf.Tensor:
    """11: Gulf research and development, 99 points."""
    t = np.arange(1, 100) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return tf.exp(-(tf.abs(_constant(y) - x[1]) ** x[2]) / x[0]) - _constant(t)


def box(x: tf.Tensor) -> tf.Tensor:
    """12: three exponentials at ten points."""
    t = _counted(1, 10) / 10
    return tf.exp(-t * x[0]) - tf.exp(-t * x[1]) - x[2] * (tf.exp(-t) - tf.exp(-10 * t))


def powell_singular(x: tf.Tensor) -> tf.Tensor:
    """13 and 22, extended: a singular Jacobian at the minimum, for each four."""
    a, b, c, d = x[::4], x[1::4], x[2::4], x[3::4]
    linear = [a + 10 * b, math.sqrt(5) * (c - d)]
    return tf.concat([*linear, (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2], 0)


def wood(x: tf.Tensor) -> tf.Tensor:
    """14: two valleys, coupled."""
    a, b, c, d = tf.unstack(x)
    valleys = [10 * (b - a**2), 1 - a, math.sqrt(90) * (d - c**2), 1 - c]
    return tf.stack([*valleys, math.sqrt(10) * (b + d - 2), (b - d) / math.sqrt(10)])


def kowalik_osborne(x: tf.Tensor) -> tf.Tensor:
    """15: a rational function of 11 points."""
    y = [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
    u = _constant([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])
    return _constant(y) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x: tf.Tensor) -> tf.Tensor:
    """16: sums of two squares at 20 points, far from zero."""
    t = _counted(1, 20) / 5
    return (x[0] + t * x[1] - tf.exp(t)) ** 2 + (x[2] + x[3] * tf.sin(t) - tf.cos(t)) ** 2


def osborne1(x: tf.Tensor) -> tf.Tensor:
    """17: a sum of two exponentials, 33 points."""
    y = [0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751]
    y += [0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490]
    y += [0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406]
    t = 10 * _counted(0, 32)
    return _constant(y) - (x[0] + x[1] * tf.exp(-t * x[3]) + x[2] * tf.exp(-t * x[4]))


def biggs_exp6(x: tf.Tensor) -> tf.Tensor:
    """18: three exponentials, 13 points."""
    t = _counted(1, 13) / 10
    y = tf.exp(-t) - 5 * tf.exp(-10 * t) + 3 * tf.exp(-4 * t)
    return x[2] * tf.exp(-t * x[0]) - x[3] * tf.exp(-t * x[1]) + x[5] * tf.exp(-t * x[4]) - y


def osborne2(x: tf.Tensor) -> tf.Tensor:
    """19: an exponential and three Gaussians, 65 points."""
    y = [1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746]
    y += [0.679, 0.608, 0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649]
    y += [0.694, 0.644, 0.624, 0.661, 0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395]
    y += [0.375, 0.372, 0.391, 0.396, 0.405, 0.428, 0.429, 0.523, 0.562, 0.607, 0.653]
    y += [0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739]
    y += [0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054]
    t = _counted(0, 64)[:, None] / 10
    peaks = x[1:4] * tf.exp(-((t - x[8:11]) ** 2) * x[5:8])
    return _constant(y) - x[0] * tf.exp(-t[:, 0] * x[4]) - tf.reduce_sum(peaks, 1)


def watson(x: tf.Tensor) -> tf.Tensor:
    """20: a differential equation by a polynomial, 31 points."""
    n = int(x.shape[0])
    t = np.arange(1, 30)[:, None] / 29
    powers = t ** np.arange(n)
    slopes = np.concatenate([np.zeros([29, 1]), np.arange(1, n) * powers[:, : n - 1]], 1)
    inside = tf.linalg.matvec(_constant(slopes), x)
    inside -= tf.linalg.matvec(_constant(powers), x) ** 2 + 1
    return tf.concat([inside, [x[0], x[1] - x[0] ** 2 - 1]], 0)


def penalty1(x: tf.Tensor) -> tf.Tensor:
    """23: a sphere, and a small penalty."""
    return tf.concat([math.sqrt(1e-5) * (x - 1), [tf.reduce_sum(x**2) - 0.25]], 0)


def penalty2(x: tf.Tensor) -> tf.Tensor:
    """24: a weighted sphere, and a small penalty of exponentials."""
    n = int(x.shape[0])
    grown, i = tf.exp(x / 10), np.arange(2, n + 1)
    pairs = grown[1:] + grown[:-1] - _constant(np.exp(i / 10) + np.exp((i - 1) / 10))
    small = math.sqrt(1e-5) * tf.concat([pairs, grown[1:] - math.exp(-0.1)], 0)
    sphere = tf.reduce_sum(_constant(np.arange(n, 0, -1)) * x**2) - 1
    return tf.concat([[x[0] - 0.2], small, [sphere]], 0)


def variably_dimensioned(x: tf.Tensor) -> tf.Tensor:
    """25: a weighted sum, and its square."""
    total = tf.reduce_sum(_counted(1, int(x.shape[0])) * (x - 1))
    return tf.concat([x - 1, [total, total**2]], 0)


def trigonometric(x: tf.Tensor) -> tf.Tensor:
    """26: sines and cosines."""
    n = int(x.shape[0])
    return n - tf.reduce_sum(tf.cos(x)) + _counted(1, n) * (1 - tf.cos(x)) - tf.sin(x)


def brown_almost_linear(x: tf.Tensor) -> tf.Tensor:
    """27: linear but for a product."""
    linear = x[:-1] + tf.reduce_sum(x) - (int(x.shape[0]) + 1)
    return tf.concat([linear, [tf.reduce_prod(x) - 1]], 0)


def _grid(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / (n + 1)


def boundary_value(x: tf.Tensor) -> tf.Tensor:
    """28: a boundary value problem by differences."""
    n = int(x.shape[0])
    padded = tf.pad(x, [[1, 1]])
    cubic = (x + _constant(_grid(n)) + 1) ** 3 / (2 * (n + 1) ** 2)
    return 2 * x - padded[:-2] - padded[2:] + cubic


def integral_equation(x: tf.Tensor) -> tf.Tensor:
    """29: the same as an integral equation."""
    t = _grid(int(x.shape[0]))
    kernel = np.minimum(t[:, None] * (1 - t), t * (1 - t[:, None])) / (2 * (len(t) + 1))
    return x + tf.linalg.matvec(_constant(kernel), (x + _constant(t) + 1) ** 3)


def broyden_tridiagonal(x: tf.Tensor) -> tf.Tensor:
    """30: quadratic, of three neighbours."""
    padded = tf.pad(x, [[1, 1]])
    return (3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1


def broyden_banded(x: tf.Tensor) -> tf.Tensor:
    """31: cubic, of five neighbours before and one behind."""
    away = np.subtract.outer(np.arange(int(x.shape[0])), np.arange(int(x.shape[0])))
    band = ((away <= 5) & (away >= -1) & (away != 0)).astype("float64")
    return x * (2 + 5 * x**2) + 1 - tf.linalg.matvec(_constant(band), x * (1 + x))


def linear_full_rank(x: tf.Tensor) -> tf.Tensor:
    """32: linear, of 20 rows."""
    missing = 20 - int(x.shape[0])
    return tf.pad(x, [[0, missing]]) - 0.1 * tf.reduce_sum(x) - 1


def linear_rank1(x: tf.Tensor) -> tf.Tensor:
    """33: linear, of 20 rows and rank 1."""
    return _counted(1, 20) * tf.reduce_sum(_counted(1, int(x.shape[0])) * x) - 1


def linear_rank1_zeros(x: tf.Tensor) -> tf.Tensor:
    """34: the same with zeros in two rows and columns."""
    total = tf.reduce_sum(_counted(2, int(x.shape[0]) - 1) * x[1:-1])
    return tf.pad(_counted(1, 18), [[1, 1]]) * total - 1


def chebyquad(x: tf.Tensor) -> tf.Tensor:
    """35: nodes of equal weights, by Chebyshev polynomials on [0, 1]."""
    before, last = tf.ones_like(x), 2 * x - 1
    means = []
    for i in range(1, int(x.shape[0]) + 1):
        integral = 0.0 if i % 2 else -1 / (i**2 - 1)
        means.append(tf.reduce_mean(last) - integral)
        before, last = last, 2 * (2 * x - 1) * last - before
    return tf.stack(means)


_T = _grid(10)
_OSBORNE2 = (1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5)
PROBLEMS: Sequence[Classic] = (
    Classic(1, "Rosenbrock", rosenbrock, (-1.2, 1.0)),
    Classic(2, "Freudenstein and Roth", freudenstein_roth, (0.5, -2.0), local=(48.98425367924,)),
    Classic(3, "Powell badly scaled", powell_badly_scaled, (0.0, 1.0)),
    Classic(4, "Brown badly scaled", brown_badly_scaled, (1.0, 1.0)),
    Classic(5, "Beale", beale, (1.0, 1.0)),
    Classic(6, "Jennrich and Sampson", jennrich_sampson, (0.3, 0.4), (124.3621823556,)),
    Classic(7, "Helical valley", helical_valley, (-1.0, 0.0, 0.0)),
    Classic(8, "Bard", bard, (1.0,) * 3, (8.214877306579e-3,), (17.42869333,)),
    Classic(9, "Gaussian", gaussian, (0.4, 1.0, 0.0), (1.127932769619e-8,)),
    Classic(10, "Meyer", meyer, (0.02, 4000.0, 250.0), (87.94585517053,)),
    Classic(11, "Gulf research", gulf, (5.0, 2.5, 0.15)),
    Classic(12, "Box", box, (0.0, 10.0, 20.0)),
    Classic(13, "Powell singular", powell_singular, (3.0, -1.0, 0.0, 1.0)),
    Classic(14, "Wood", wood, (-3.0, -1.0, -3.0, -1.0)),
    Classic(
        15,
        "Kowalik and Osborne",
        kowalik_osborne,
        (0.25, 0.39, 0.415, 0.39),
        (3.075056038492e-4,),
        (1.027346e-3,),
    ),
    Classic(16, "Brown and Dennis", brown_dennis, (25.0, 5.0, -5.0, -1.0), (85822.20162636,)),
    Classic(17, "Osborne 1", osborne1, (0.5, 1.5, -1.0, 0.01, 0.02), (5.464894697483e-5,)),
    Classic(
        18, "Biggs EXP6", biggs_exp6, (1.0, 2.0, 1.0, 1.0, 1.0, 1.0), local=(5.655649925500e-3,)
    ),
    Classic(19, "Osborne 2", osborne2, _OSBORNE2, (4.013773629355e-2,)),
    Classic(20, "Watson", watson, (0.0,) * 9, (1.399760138e-6,)),
    Classic(21, "Extended Rosenbrock", rosenbrock, (-1.2, 1.0) * 5),
    Classic(22, "Extended Powell singular", powell_singular, (3.0, -1.0, 0.0, 1.0) * 3),
    Classic(23, "Penalty I", penalty1, tuple(range(1, 11)), (7.087651467e-5,)),
    Classic(24, "Penalty II", penalty2, (0.5,) * 10, (2.936605374567e-4,)),
    Classic(25, "Variably dimensioned", variably_dimensioned, 1 - np.arange(1, 11) / 10),
    Classic(26, "Trigonometric", trigonometric, (0.1,) * 10, local=(2.795056e-5,)),
    Classic(27, "Brown almost-linear", brown_almost_linear, (0.5,) * 10, local=(1.0,)),
    Classic(28, "Discrete boundary value", boundary_value, _T * (_T - 1)),
    Classic(29, "Discrete integral equation", integral_equation, _T * (_T - 1)),
    Classic(30, "Broyden tridiagonal", broyden_tridiagonal, (-1.0,) * 10),
    Classic(31, "Broyden banded", broyden_banded, (-1.0,) * 10),
    Classic(32, "Linear, full rank", linear_full_rank, (1.0,) * 10, (10.0,)),
    Classic(33, "Linear, rank 1", linear_rank1, (1.0,) * 10, (380 / 82,)),
    Classic(34, "Linear, rank 1, zeros", linear_rank1_zeros, (1.0,) * 10, (454 / 74,)),
    Classic(35, "Chebyquad", chebyquad, np.arange(1, 9) / 9, (3.516873725677e-3,)),
)
