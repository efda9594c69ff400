"""Minimizing a smooth function with L-BFGS (Liu & Nocedal 1989; scipy's implementation).

Giving a direction the size of the gap between the two sides, so that methods can be compared.

A classifier's weights and a component's column have arbitrary lengths; a steering coefficient
would mean something else for each. Every method but mean_diff (whose length is the gap already)
returns u * (u . (mean_pos - mean_neg)) with u its unit direction: coefficient 1 moves an
activation from the negatives' mean to the positives' mean along u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traitlens.stats.sides import FloatArray

# More history than the usual 10 saves passes over the rows; much more costs as much as it saves.
HISTORY = 20

# Up to this many values a matrix is promoted to float64; above, memory traffic decides.
DOUBLE_BELOW = 2**22

# Accepted as converged: a slope within 10 times the goal (float32 rows put a floor under it), or a
# position certainly within this share of its length of the optimum (a cosine of 0.9999).
SLACK = 10

CLOSE = 0.014

Float64 = npt.NDArray[np.float64]

LossAndSlope = Callable[[Float64], tuple[float, Float64]]


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the search ended, the loss there, how many steps it took, and whether it arrived."""

    at: Float64
    loss: float
    steps: int
    converged: bool


def working_copy(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    """The rows in the precision to fit in: float64 where that costs little."""
    return rows.astype(np.float64) if rows.size <= DOUBLE_BELOW else rows


def minimize(
    loss_and_slope: LossAndSlope,
    start: Float64,
    *,
    penalty: float,
    tolerance: float,
    max_steps: int,
) -> Minimum:
    """Descend until no component of the slope exceeds `tolerance`, or for `max_steps`.

    `penalty` is the p of the loss's term p/2 ||w||^2, w being all but the last variable: with it
    the slope bounds the distance to the optimum, ||w - w*|| <= ||slope|| / p.
    """
    from scipy.optimize import minimize as scipy_minimize

    options = {
        "maxcor": HISTORY,
        "maxiter": max_steps,
        "maxfun": 10 * max_steps,
        "gtol": tolerance,
        "ftol": 0.0,
    }
    found = scipy_minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", options=options)
    slope, at = np.asarray(found.jac), np.asarray(found.x)
    flat = np.abs(slope).max() <= SLACK * tolerance
    close = np.linalg.norm(slope) <= CLOSE * penalty * np.linalg.norm(at[:-1])
    return Minimum(at, float(found.fun), int(found.nit), converged=bool(flat or close))


def gap_scaled(
    direction: npt.NDArray[np.floating], pos: FloatArray, neg: FloatArray
) -> npt.NDArray[np.float64]:
    """The direction [d_model] with the length of the gap along it, pointing at the positives.

    pos and neg are [n, d_model]. A zero direction stays zero.
    """
    wide = direction.astype(np.float64)
    norm = np.linalg.norm(wide)
    if norm == 0:
        return wide
    unit = wide / norm
    difference = pos.mean(axis=0, dtype=np.float64) - neg.mean(axis=0, dtype=np.float64)
    return unit * float(unit @ difference)
