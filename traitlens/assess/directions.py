"""How good a trait vector is, layer by layer, with 95 % intervals that respect shared prompts.

`vector_separation` tests any vectors on any activations, held-out ones for choice;
`direction_quality` asks how stable the mean difference of a sample is and what it reaches on what
it was not made from. A mean difference of any subset of cells is a combination of the cells' sums,
so everything about it follows from P [n, C], the inner products of the rows with the sums, and
K [C, C], those of the sums; a thousand draws cost no pass over the activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Float32, Float64, Ints, Labels
from traitlens.errors import ShapeError
from traitlens.stats.bootstrap import N_DRAWS, Cells, cell_labels, make_cells
from traitlens.stats.intervals import Interval, middle_95, stacked_intervals
from traitlens.stats.polarities import Activations, Polarities
from traitlens.stats.separation import (
    Separation,
    auroc_interval,
    effective_sizes,
    separation,
)

N_SPLITS = 100


def vector_separation(
    vectors: Float32,
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    n_bootstrap: int = N_DRAWS,
    seed: int = 0,
) -> Separation:
    """How well projections on vectors [L+1, d_model] separate activations [n, L+1, d_model].

    On the activations that the vectors were made from this flatters them. A zero vector gives AUROC
    one half. Raises ShapeError and NonFiniteError.
    """
    both = Polarities.of(pos, neg)
    if vectors.shape != (both.n_layers, both.d_model):
        raise ShapeError(
            f"vectors are {vectors.shape}, activations want {(both.n_layers, both.d_model)}: "
            "made for another model?"
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    scores = [[rows @ unit for rows in both.layer(i)] for i, unit in enumerate(units)]
    return separation(
        np.stack([layer[0] for layer in scores], axis=1),
        np.stack([layer[1] for layer in scores], axis=1),
        groups=groups,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class DirectionQuality:
    """The mean difference of one sample, per layer; arrays [L+1].

    `angle` (degrees to the true direction) and `angle_upper` (95 % bound); `split_half`;
    `leave_one_out`: by the name of the folds, AUROC on the left-out fold.
    """

    angle: Float64
    angle_upper: Float64
    split_half: Interval
    leave_one_out: Mapping[str, Interval]


def direction_quality(
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    folds: Mapping[str, tuple[Labels, Labels]] | None = None,
    is_group_one_observation: bool = False,
    n_bootstrap: int = N_DRAWS,
    seed: int = 0,
) -> DirectionQuality:
    """Stability and held-out AUROCs of mean(pos) - mean(neg) at every layer.

    `groups` labels each row by its prompt; `folds` names ways to leave out, such as
    {"instruction": (labels of the positives, of the negatives), "question": ...}, each constant
    within a group. `is_group_one_observation` counts a group once in the intervals of the AUROCs,
    however alike its rows are: for few groups, whose likeness cannot be measured. Raises ShapeError
    and NonFiniteError.
    """
    both = Polarities.of(pos, neg)
    cells = make_cells(groups, *both.counts)
    times = cells.draw(n_bootstrap, seed=seed)
    halves = _random_halves(cells, seed=seed)
    fold_of_cell = {name: cell_labels(cells, labels) for name, labels in (folds or {}).items()}
    angles, split_half = [], []
    left_out: dict[str, list[Interval]] = {name: [] for name in fold_of_cell}
    for layer in range(both.n_layers):
        rows, sums = _centered(both, layer, cells)
        row_products = (rows @ sums.T).astype(np.float64)
        products = cells.sums(row_products)
        angles.append(_angle(products, cells, times))
        split_half.append(_split_half_cosine(products, halves, cells))
        for name, found in left_out.items():
            scores = _held_out_scores(row_products, products, cells, *fold_of_cell[name])
            found.append(_held_out_auroc(scores, cells, by_group=is_group_one_observation))
    return DirectionQuality(
        angle=np.array([angle.degrees for angle in angles]),
        angle_upper=np.array([angle.upper for angle in angles]),
        split_half=stacked_intervals(split_half),
        leave_one_out={name: stacked_intervals(found) for name, found in left_out.items()},
    )


@dataclass(frozen=True)
class Angle:
    """Degrees between the estimated direction and the true one: the likely angle, and the one
    that it stays under in 95 % of cases (90 when the difference is no longer than its noise)."""

    degrees: float
    upper: float


def direction_angles(
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    n_bootstrap: int = N_DRAWS,
    seed: int = 0,
) -> list[Angle]:
    """Only the angles of `direction_quality`, one per layer: the test of "enough is enough"."""
    both = Polarities.of(pos, neg)
    cells = make_cells(groups, *both.counts)
    times = cells.draw(n_bootstrap, seed=seed)
    every_sums = (_centered(both, layer, cells)[1] for layer in range(both.n_layers))
    return [_angle((sums @ sums.T).astype(np.float64), cells, times) for sums in every_sums]


def _centered(both: Polarities, layer: int, cells: Cells) -> tuple[Float32, Float32]:
    """Rows [n, d_model] from their mean, and their sums by cell [C, d_model]."""
    rows = both.centered_layer(layer)
    return rows, cells.sums(rows)


def _angle(products: Float64, cells: Cells, times: Float64) -> Angle:
    """The angle of mean(pos) - mean(neg) at one layer, from K [C, C] and draws [1 + b, C].

    A draw's difference is D_b = D + e_b with D the estimate. The angle between D_b and D is smaller
    than that between D and the truth T, because D carries noise of its own: ||T||^2 is estimated by
    ||D||^2 - mean ||e_b||^2, and the angle by that between T and T + e_b, e_b split into its parts
    along and across D.
    """
    drawn = cells.contrast(times)
    every = drawn[0]
    length2 = float(every @ products @ every)
    if length2 <= 0:
        return Angle(90.0, 90.0)
    shift = drawn[1:] - every
    n_groups = min(cells.by_polarity)
    # Draws of G groups scatter too little by (G-1)/G in variance.
    stretch = np.sqrt(n_groups / (n_groups - 1)) if n_groups > 1 else np.inf
    noise2 = stretch**2 * _quadratic(shift, products, shift)
    along = stretch * (shift @ (products @ every)) / np.sqrt(length2)
    true_length = np.sqrt(max(length2 - float(np.nanmean(noise2)), 0.0))
    if not true_length > 0:
        return Angle(90.0, 90.0)
    across = np.sqrt(np.maximum(noise2 - along**2, 0))
    degrees = np.degrees(np.arctan2(across, true_length + along))
    likely, upper = np.nanquantile(degrees, [0.5, 0.95])
    return Angle(float(likely), float(min(upper, 90.0)))


def _random_halves(cells: Cells, *, seed: int) -> Float64:
    """Random halves of the groups, each polarity halved: [N_SPLITS, C], 1 in the first half."""
    rng = np.random.default_rng(seed)
    halves = np.zeros((N_SPLITS, cells.n_groups))
    for half in halves:
        for stratum in cells.strata():
            half[rng.permutation(stratum)[: len(stratum) // 2]] = 1
    return halves[:, cells.group]


def _split_half_cosine(products: Float64, halves: Float64, cells: Cells) -> Interval:
    """Cosine between the directions of two random halves: mean and middle 95 % over splits.

    Each half has half the data, so the whole's agreement with a fresh sample is better than this.
    """
    first, second = cells.contrast(halves), cells.contrast(1 - halves)
    lengths2 = _quadratic(first, products, first) * _quadratic(second, products, second)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = _quadratic(first, products, second) / np.sqrt(lengths2)
    if not np.isfinite(cosines).any():
        return Interval.unknown()
    return Interval(np.asarray(np.nanmean(cosines)), *middle_95(cosines))


def _quadratic(a: Float64, products: Float64, b: Float64) -> Float64:
    """Inner products of k pairs of directions, given as coefficients [k, C] of the sums: [k]."""
    return np.asarray(np.einsum("kc,cd,kd->k", a, products, b, optimize=True))


def _held_out_scores(
    row_products: Float64, products: Float64, cells: Cells, fold_of_cell: Ints, n_folds: int
) -> Float64:
    """Each row's score on the direction of all other folds: [n].

    Directions of different folds differ in length and offset, so scores are measured from the
    midpoint of the other folds' two means in units of their gap: 0.5 is the positives' mean. NaN
    where the other folds lack a polarity.
    """
    kept = (fold_of_cell[None] != np.arange(n_folds)[:, None]).astype(np.float64)
    contrast = cells.contrast(kept)
    middle = 0.5 * (cells.mean(kept, positive=True) + cells.mean(kept, positive=False))
    gap = _quadratic(contrast, products, contrast)
    offset = _quadratic(middle, products, contrast)
    fold_of_row = fold_of_cell[cells.of_row]
    along = np.einsum("nc,nc->n", row_products, contrast[fold_of_row])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((along - offset[fold_of_row]) / gap[fold_of_row])


def _held_out_auroc(scores: Float64, cells: Cells, *, by_group: bool) -> Interval:
    if not np.isfinite(scores).all():
        return Interval.unknown()
    column = scores[:, None]
    n_pos, n_neg = cells.by_polarity
    groups = np.array([float(n_pos)]), np.array([float(n_neg)])
    sizes = groups if by_group else effective_sizes(column, cells)
    layer = auroc_interval(column, cells.n_pos, sizes)
    return Interval(layer.value[0], layer.low[0], layer.high[0])
