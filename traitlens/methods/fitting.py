"""What the extraction methods share: what they are and give back, to notebooks too, and how they
fit and scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from traitlens.arrays import Activations, Float32, Float64, Floats, Labels

# More history than the usual 10 saves passes over the rows; much more costs as much as it saves.
HISTORY = 20

# Up to this many values a matrix is promoted to float64; above, memory traffic decides.
DOUBLE_BELOW = 2**22

# Accepted as converged: a slope within 10 times the goal (float32 rows put a floor under it), or a
# position certainly within this share of its length of the optimum (a cosine of 0.9999).
SLACK = 10
CLOSE = 0.014

Extracted = dict[str, Any]
"""What the classes of notebooks give back, by name."""


@dataclass(frozen=True, eq=False)
class MethodResult:
    """`vectors` float32 [L+1, d_model], raw; `details` name -> one number or an array per layer."""

    vectors: Float32
    details: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


class Method(Protocol):
    """A method takes the activations of both polarities and returns directions."""

    def __call__(
        self,
        pos: Activations,
        neg: Activations,
        *,
        groups: tuple[Labels, Labels] | None = None,
        seed: int = 0,
    ) -> MethodResult:
        """Activations [n, L+1, d_model] (or [n, d_model], then one row comes back).

        `groups` labels the rows of each polarity by the prompt they came from, for methods that
        hold rows out; `seed` feeds methods that draw numbers.
        """
        ...


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the search ended, the loss there, how many steps it took, and whether it arrived."""

    at: Float64
    loss: float
    steps: int
    converged: bool


def minimize(
    loss_and_slope: Callable[[Float64], tuple[float, Float64]],
    start: Float64,
    *,
    penalty: float,
    tolerance: float,
    max_steps: int,
) -> Minimum:
    """Descend until no component of the slope exceeds `tolerance`, or for `max_steps`.

    L-BFGS (Liu & Nocedal 1989). `penalty` is the p of the loss's term p/2 ||w||^2, w being all but
    the last variable: with it the slope bounds the distance to the optimum, ||w - w*|| <=
    ||slope|| / p.
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


def working_copy(rows: Float32) -> Floats:
    """The rows in the precision to fit in: float64 where that costs little."""
    return rows.astype(np.float64) if rows.size <= DOUBLE_BELOW else rows


def gap_scaled(direction: Floats, pos: Float32, neg: Float32) -> Float64:
    """The direction [d_model] with the length of the gap along it, pointing at the positives.

    With u the unit direction, u * (u . (mean_pos - mean_neg)); pos and neg are [n, d_model]. A
    classifier's weights have an arbitrary length; this way a steering coefficient of 1 moves an
    activation from the negatives' mean to the positives' along u, whatever the method. A zero
    direction stays zero.
    """
    wide = direction.astype(np.float64)
    norm = np.linalg.norm(wide)
    if norm == 0:
        return wide
    unit = wide / norm
    difference = pos.mean(axis=0, dtype=np.float64) - neg.mean(axis=0, dtype=np.float64)
    return unit * float(unit @ difference)


def extract_with(
    method: Method,
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    seed: int = 0,
) -> Extracted:
    """What a notebook's class gives back: the method's vectors as `vector`, and its details."""
    result = method(pos, neg, groups=groups, seed=seed)
    one_layer = pos.ndim == 2
    named = {"vector": result.vectors} | dict(result.details)
    return {name: _as_given(values, one_layer=one_layer) for name, values in named.items()}


def _as_given(values: np.ndarray[Any, Any], *, one_layer: bool) -> torch.Tensor | float:
    """Tensors; for single-layer input without the layer axis, and scalars as Python numbers."""
    if not one_layer:
        return torch.from_numpy(np.ascontiguousarray(values))
    row = values[0]
    return row.item() if row.ndim == 0 else torch.from_numpy(np.ascontiguousarray(row))
