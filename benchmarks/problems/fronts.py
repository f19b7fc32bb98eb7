"""Burgers' and Allen and Cahn's equations, whose solutions grow steep fronts.

    burgers     u_t + u u_x = (0.01/π) u_xx, u(x, 0) = -sin πx, u = 0 at x = -1, 1
    allen_cahn  u_t = 1e-4 u_xx + 5 (u - u³), u(x, 0) = x² cos πx, periodic with its slope

Both as in Raissi, Perdikaris & Karniadakis 2019 (J. Comput. Phys. 378); the factor of 100 at Allen
and Cahn's start is Wight & Zhao's (arXiv 2007.04542). The references are `spectral`'s.

Published errors are those of Raissi et al. for Burgers' (nine layers of 20, 10,000 points, L-BFGS),
and for Allen and Cahn's those of JAX-PI (Wang, Sankaran, Wang & Perdikaris 2023, arXiv 2308.08468;
its repository's tables): a plain network, and the best of a search over Fourier features, weights,
causality and optimizers, both by Adam on a GPU.
"""

from __future__ import annotations

import math

import tensorflow as tf

from . import spectral
from .equations import Equation, Points, slopes, slopes_and_bend
from .problem import Field

ENDS = (-1.0, 1.0)


def _burgers_residuals(field: Field, points: Points) -> dict[str, tf.Tensor]:
    u, u_x, u_t, u_xx = slopes_and_bend(field, points.inside)
    return {
        "equation": u_t + u * u_x - spectral.VISCOSITY * u_xx,
        "initial": field(points.initial) + tf.sin(math.pi * points.initial[:, :1]),
        "left": field(points.left),
        "right": field(points.right),
    }


def _allen_cahn_residuals(field: Field, points: Points) -> dict[str, tf.Tensor]:
    u, _, u_t, u_xx = slopes_and_bend(field, points.inside)
    place = points.initial[:, :1]
    left, left_slope, _ = slopes(field, points.left)
    right, right_slope, _ = slopes(field, points.right)
    return {
        "equation": u_t - spectral.DIFFUSIVITY * u_xx - spectral.REACTION * (u - u**3),
        "initial": field(points.initial) - place**2 * tf.cos(math.pi * place),
        "boundary": left - right,
        "boundary slope": left_slope - right_slope,
    }


def burgers() -> Equation:
    published = {"L-BFGS": 6.7e-4}
    return Equation("burgers", ENDS, _burgers_residuals, spectral.burgers, published=published)


def allen_cahn() -> Equation:
    return Equation(
        "allen_cahn",
        ENDS,
        _allen_cahn_residuals,
        spectral.allen_cahn,
        weights={"initial": 100.0},
        published={"Adam": 5.17e-1, "JAX-PI": 5.37e-5},
    )
