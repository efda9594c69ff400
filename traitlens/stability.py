"""How sure the mean-difference direction is: bootstrap angle to the truth, split-half cosine.

Everything follows from the inner products of the cells' sums, K [C, C], so a thousand draws cost
no pass over the activations. Knows nothing about scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitlens.cells import Cells, Float64
from traitlens.intervals import HIGH, LOW, Interval


@dataclass(frozen=True)
class Angle:
    """Degrees between the estimated direction and the true one: the likely angle, and the one
    that it stays under in 95 % of cases (90 when the difference is no longer than its noise)."""

    degrees: float
    upper: float


def direction_angle(products: Float64, cells: Cells, times: Float64) -> Angle:
    """The angle of mean(pos) - mean(neg) at one layer, from K [C, C] and draws `times` [B, C].

    A draw's difference is D_b = D + e_b with D the estimate. The angle between D_b and D is smaller
    than that between D and the truth T, because D carries noise of its own: ||T||^2 is estimated by
    ||D||^2 - mean ||e_b||^2, and the angle by that between T and T + e_b, e_b split into its parts
    along and across D.
    """
    every = cells.contrast(np.ones((1, len(cells.counts))))[0]
    drawn = cells.contrast(times)
    length2 = float(every @ products @ every)
    if length2 <= 0:
        return Angle(90.0, 90.0)
    shift = drawn - every
    clusters = min(cells.side_counts())
    # Draws of G clusters scatter too little by (G-1)/G in variance.
    stretch = np.sqrt(clusters / (clusters - 1)) if clusters > 1 else np.inf
    noise2 = stretch**2 * np.einsum("bc,cd,bd->b", shift, products, shift, optimize=True)
    along = stretch * (shift @ (products @ every)) / np.sqrt(length2)
    true_length = np.sqrt(max(length2 - float(np.nanmean(noise2)), 0.0))
    if not true_length > 0:
        return Angle(90.0, 90.0)
    across = np.sqrt(np.maximum(noise2 - along**2, 0))
    degrees = np.degrees(np.arctan2(across, true_length + along))
    likely, upper = np.nanquantile(degrees, [0.5, 0.95])
    return Angle(float(likely), float(min(upper, 90.0)))


def split_half_cosine(products: Float64, halves: Float64, cells: Cells) -> Interval:
    """Cosine between the directions of two random halves: mean and middle 95 % over splits.

    `halves` [S, C] is 1 for the cells of the first half. Each half has half the data, so the
    whole's agreement with a fresh sample is better than this.
    """
    first, second = cells.contrast(halves), cells.contrast(1 - halves)
    inner = np.einsum("sc,cd,sd->s", first, products, second, optimize=True)
    sizes = [np.einsum("sc,cd,sd->s", h, products, h, optimize=True) for h in (first, second)]
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = inner / np.sqrt(sizes[0] * sizes[1])
    if not np.isfinite(cosines).any():
        nothing = np.array(np.nan)
        return Interval(nothing, nothing, nothing)
    low, high = np.nanquantile(cosines, [LOW, HIGH])
    return Interval(np.asarray(np.nanmean(cosines)), low, high)


def random_halves(cells: Cells, n_splits: int, *, seed: int) -> Float64:
    """Random halves of the groups, each side halved: [n_splits, C] of 0 and 1."""
    rng = np.random.default_rng(seed)
    on_pos = np.bincount(cells.group[cells.is_pos], minlength=cells.n_groups) > 0
    on_neg = np.bincount(cells.group[~cells.is_pos], minlength=cells.n_groups) > 0
    halves = np.zeros((n_splits, cells.n_groups))
    for split in halves:
        for stratum in (on_pos & on_neg, on_pos & ~on_neg, on_neg & ~on_pos):
            members = rng.permutation(np.flatnonzero(stratum))
            split[members[: len(members) // 2]] = 1
    return halves[:, cells.group]
