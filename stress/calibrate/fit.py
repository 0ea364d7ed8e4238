"""Costs that explain measured times: damped Gauss-Newton on logarithms, with a prior for each cost.

A cost c is searched as x = log c, a time t as log t: costs stay positive, and errors are fractions. What is minimised
is |W (log t(x) - log t)|^2 + |(x - x0) / spread|^2, the second term being the prior. The curvature of the first at the
minimum, with next to no prior, gives the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

#: One standard deviation of a guessed cost, as a factor, as far as intervals go: costs that nobody measured may be
#: wrong together, and no interval may rest on them.
_DOUBTED_FACTOR: Final = 10.0
#: What times of a selftest scatter by, before any residual is seen, and how many residuals that knowledge is worth.
_SCATTER: Final = 0.03
_WORTH: Final = 4
#: Share of a time's scatter that all stages of one run have in common.
_SHARED: Final = 0.5
#: A cost is known if its 95% interval stays within this factor of it.
KNOWN_FACTOR: Final = 2.0

_STEP: Final = 0.01
_MOST_STEPS: Final = 60
_ENOUGH: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Fit:
    """Costs fitted. ``names`` has the costs, the vectors one element for each."""

    names: tuple[str, ...]
    costs: Vector
    #: The covariance of the logarithms of costs, (costs, costs).
    covariance: Matrix
    #: What the times scatter by, as a fraction, and the degrees of freedom of that.
    scatter: float
    freedom: float
    #: Times that these costs give, in ns, and the derivatives of their logarithms to those of costs, (times, costs).
    times: Vector
    jacobian: Matrix

    @property
    def factors(self) -> Vector:
        """Each 95% interval is the cost divided by, and multiplied with, this."""
        return np.asarray(np.exp(t_quantile(self.freedom) * np.sqrt(np.diag(self.covariance))))

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which costs the times tell."""
        return np.asarray(self.factors <= KNOWN_FACTOR)

    def together(self, name: str, least: float = 0.4) -> tuple[str, ...]:
        """Costs that could be larger if this one were smaller, the most of them first."""
        at, spreads = self.names.index(name), np.sqrt(np.diag(self.covariance))
        row = self.covariance[at] / (spreads[at] * spreads)
        return tuple(self.names[i] for i in np.argsort(row) if i != at and row[i] < -least)


def fit(
    model: Callable[[Vector], Vector],
    measured: Vector,
    groups: npt.NDArray[np.int_],
    uncertain: Vector,
    names: Sequence[str],
    prior: Vector,
    factors: Vector,
) -> Fit:
    """Fit the costs of ``names``, of which ``prior`` is a guess good to ``factors``, to ``measured`` times in ns.

    ``model`` gives the times of costs. Times of one of the ``groups`` have a disturbance in common. ``uncertain`` is
    the fraction of each time that is no business of the model.
    """
    goal, centre, spread = np.log(measured), np.log(prior), np.log(factors)
    whiten = _whitener(groups, uncertain)
    precision = np.diag(1 / spread**2)

    def residuals(x: Vector) -> Vector:
        return np.asarray(np.log(np.maximum(model(np.exp(x)), 1e-3)) - goal)

    def loss(x: Vector, off: Vector, scale: float) -> float:
        return float(np.sum((whiten @ off / scale) ** 2) + (x - centre) @ precision @ (x - centre))

    x, scale = centre.copy(), 1.0
    jacobian = np.zeros((goal.size, prior.size))
    # The scatter decides how much the prior weighs, and the prior how large the residuals are.
    for _ in range(3):
        x, off, jacobian = _minimum(residuals, loss, x, whiten, centre, precision, scale)
        tall = whiten @ jacobian / scale
        information = tall.T @ tall
        used = float(np.trace(np.linalg.solve(information + precision, information)))
        squares = float(np.sum((whiten @ off) ** 2))
        freedom = _WORTH + max(goal.size - used, 0.0)
        before, scale = scale, math.sqrt((_WORTH + squares) / freedom)
        if abs(scale / before - 1) < 0.02:
            break
    tall = whiten @ jacobian / scale
    return Fit(
        names=tuple(names),
        costs=np.exp(x),
        covariance=np.asarray(np.linalg.inv(tall.T @ tall + np.eye(prior.size) / math.log(_DOUBTED_FACTOR) ** 2)),
        scatter=scale * _SCATTER,
        freedom=freedom,
        times=np.exp(residuals(x) + goal),
        jacobian=jacobian,
    )


def _whitener(groups: npt.NDArray[np.int_], uncertain: Vector) -> Matrix:
    """The matrix that makes residuals of times independent, with a variance of 1 where they scatter as expected."""
    same = groups[:, None] == groups[None, :]
    covariance = _SCATTER**2 * (_SHARED * same + (1 - _SHARED) * np.eye(groups.size)) + np.diag(uncertain**2)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)))


def information(jacobian: Matrix, groups: npt.NDArray[np.int_], uncertain: Vector, scatter: float) -> Matrix:
    """What times with these derivatives say of costs if they scatter so: the inverse of a covariance."""
    tall = _whitener(groups, uncertain) @ jacobian * (_SCATTER / scatter)
    return np.asarray(tall.T @ tall)


def _minimum(
    residuals: Callable[[Vector], Vector],
    loss: Callable[[Vector, Vector, float], float],
    x: Vector,
    whiten: Matrix,
    centre: Vector,
    precision: Matrix,
    scale: float,
) -> tuple[Vector, Vector, Matrix]:
    """Where the loss is least, near ``x``: residuals and their derivatives there.

    Steps are Levenberg's and Marquardt's. Between two derivations each step corrects the derivatives by what it met
    (Broyden): one costs a prediction for each cost.
    """
    off = residuals(x)
    best, damping = loss(x, off, scale), 1e-3
    jacobian, derived_at = derivatives(residuals, x, off), best
    for _ in range(_MOST_STEPS):
        tall = whiten @ jacobian / scale
        curvature = tall.T @ tall + precision
        slope = tall.T @ (whiten @ off / scale) + precision @ (x - centre)
        step = np.clip(np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), -slope), -1.0, 1.0)
        there = residuals(x + step)
        found = loss(x + step, there, scale)
        gained = best - found
        if gained > 0:
            jacobian = jacobian + np.outer(there - off - jacobian @ step, step) / (step @ step)
            x, off, best, damping = x + step, there, found, damping / 5
        if gained >= _ENOUGH * (1 + best):
            continue
        # What there is to gain, these derivatives do not show: derive again, unless little was gained since.
        if derived_at - best > _ENOUGH * (1 + best):
            jacobian, derived_at = derivatives(residuals, x, off), best
        elif gained >= 0 or damping > 10:
            break
        else:
            damping *= 5
    return x, off, jacobian


def derivatives(of: Callable[[Vector], Vector], x: Vector, here: Vector) -> Matrix:
    """Derivatives at ``x``, where ``of`` is ``here``: (values, arguments)."""
    columns = []
    for at in range(x.size):
        aside = x.copy()
        aside[at] += _STEP
        columns.append((of(aside) - here) / _STEP)
    return np.array(columns).T


def t_quantile(freedom: float) -> float:
    """The 97.5% point of Student's t (Abramowitz and Stegun 26.7.5), for three degrees of freedom and more."""
    z = 1.959964
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
