"""How good a trait vector is, layer by layer, with 95 % intervals that respect shared prompts.

`vector_separation` tests any vectors on any activations, held-out ones for choice;
`direction_quality` asks how stable the mean difference of a sample is and what it reaches on
what it was not made from. Pure numpy.

Directions tested on rows that they were not made from, at one layer.

All from P [n, C], the inner products of the rows with the cells' sums, and K [C, C], those of
the sums: a mean difference of any subset of cells is a combination of sums, so its projections
are P times coefficients.

How sure the mean-difference direction is: bootstrap angle to the truth, split-half cosine.

Everything follows from the inner products of the cells' sums, K [C, C], so a thousand draws cost
no pass over the activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traitlens.errors import ShapeError
from traitlens.stats.cells import Cells, Float64, cell_labels, make_cells
from traitlens.stats.intervals import HIGH, LOW, Interval, stacked
from traitlens.stats.separation import N_BOOTSTRAP, Separation, auroc, auroc_interval, separation
from traitlens.stats.sides import Activations, FloatArray, IntArray, Labels, Sides, make_sides

N_SPLITS = 100

N_RANDOM = 100

N_SHUFFLES = 50


@dataclass(frozen=True, eq=False)
class DirectionQuality:
    """The mean difference of one sample, per layer; arrays [L+1].

    `angle` (degrees to the true direction) and `angle_upper` (95 % bound); `split_half`;
    `leave_one_out`: by the name of the folds, AUROC on the left-out fold; `random_auroc` and
    `shuffled_auroc`: what 95 % of random directions and of shuffled labels stay under.
    """

    angle: Float64
    angle_upper: Float64
    split_half: Interval
    leave_one_out: Mapping[str, Interval]
    random_auroc: Float64
    shuffled_auroc: Float64


def vector_separation(
    vectors: FloatArray,
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Separation:
    """How well projections on vectors [L+1, d_model] separate activations [n, L+1, d_model].

    On the activations that the vectors were made from this flatters them. A zero vector gives AUROC
    one half. Raises ShapeError and NonFiniteError.
    """
    sides = make_sides(pos, neg)
    if vectors.shape != (sides.n_layers, sides.d_model):
        raise ShapeError(
            f"vectors are {vectors.shape}, activations want {(sides.n_layers, sides.d_model)}: "
            "made for another model?"
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    scores = [[rows @ unit for rows in sides.layer(i)] for i, unit in enumerate(units)]
    return separation(
        np.stack([layer[0] for layer in scores], axis=1),
        np.stack([layer[1] for layer in scores], axis=1),
        groups=groups,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def direction_quality(
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    folds: Mapping[str, tuple[Labels, Labels]] | None = None,
    is_group_one_observation: bool = False,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> DirectionQuality:
    """Stability, held-out AUROCs and baselines of mean(pos) - mean(neg) at every layer.

    `groups` labels each row by its prompt; `folds` names ways to leave out, such as
    {"instruction": (labels of the positives, of the negatives), "question": ...}, each constant
    within a group. `is_group_one_observation` counts a group once in the intervals of the AUROCs,
    however alike its rows are: for few groups, whose likeness cannot be measured.
    """
    sides = make_sides(pos, neg)
    cells = make_cells(groups, int(pos.shape[0]), int(neg.shape[0]))
    draws = _Draws(
        times=cells.bootstrap(n_bootstrap, seed=seed),
        halves=random_halves(cells, N_SPLITS, seed=seed),
        folds={name: cell_labels(cells, labels) for name, labels in (folds or {}).items()},
        is_group_one_observation=is_group_one_observation,
        seed=seed,
    )
    layers = [_layer_quality(sides, i, cells, draws) for i in range(sides.n_layers)]
    return DirectionQuality(
        angle=np.array([layer.angle.degrees for layer in layers]),
        angle_upper=np.array([layer.angle.upper for layer in layers]),
        split_half=stacked([layer.split_half for layer in layers]),
        leave_one_out={
            name: stacked([layer.leave_one_out[name] for layer in layers]) for name in draws.folds
        },
        random_auroc=np.array([layer.random_auroc for layer in layers]),
        shuffled_auroc=np.array([layer.shuffled_auroc for layer in layers]),
    )


def direction_angles(
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> list[Angle]:
    """Only the angles of `direction_quality`, one per layer: the test of "enough is enough"."""
    sides = make_sides(pos, neg)
    cells = make_cells(groups, int(pos.shape[0]), int(neg.shape[0]))
    times = cells.bootstrap(n_bootstrap, seed=seed)
    angles = []
    for layer in range(sides.n_layers):
        _, sums = _centered(sides, layer, cells)
        angles.append(direction_angle((sums @ sums.T).astype(np.float64), cells, times))
    return angles


@dataclass(frozen=True, eq=False)
class _Draws:
    """What is drawn once and used at every layer."""

    times: Float64
    halves: Float64
    folds: Mapping[str, tuple[IntArray, int]]
    is_group_one_observation: bool
    seed: int


@dataclass(frozen=True)
class Angle:
    """Degrees between the estimated direction and the true one: the likely angle, and the one
    that it stays under in 95 % of cases (90 when the difference is no longer than its noise)."""

    degrees: float
    upper: float


@dataclass(frozen=True, eq=False)
class _LayerQuality:
    angle: Angle
    split_half: Interval
    leave_one_out: Mapping[str, Interval]
    random_auroc: float
    shuffled_auroc: float


def _layer_quality(sides: Sides, layer: int, cells: Cells, draws: _Draws) -> _LayerQuality:
    rows, sums = _centered(sides, layer, cells)
    row_products = (rows @ sums.T).astype(np.float64)
    products = np.asarray(cells.sums(row_products), dtype=np.float64)
    shuffled = shuffled_aurocs(row_products, cells, N_SHUFFLES, seed=draws.seed)
    return _LayerQuality(
        angle=direction_angle(products, cells, draws.times),
        split_half=split_half_cosine(products, draws.halves, cells),
        leave_one_out={
            name: _held_out_auroc(row_products, products, cells, folds, draws)
            for name, folds in draws.folds.items()
        },
        random_auroc=_random_auroc(rows, cells.n_pos, draws.seed),
        shuffled_auroc=float(np.quantile(shuffled, 0.95)),
    )


def _held_out_auroc(
    row_products: Float64,
    products: Float64,
    cells: Cells,
    folds: tuple[IntArray, int],
    draws: _Draws,
) -> Interval:
    scores = held_out_scores(row_products, products, cells, *folds)
    if not np.isfinite(scores).all():
        nothing = np.array(np.nan)
        return Interval(nothing, nothing, nothing)
    once = draws.is_group_one_observation
    layer = auroc_interval(scores[:, None], cells, is_group_one_observation=once)
    return Interval(layer.value[0], layer.low[0], layer.high[0])


def _random_auroc(rows: FloatArray, n_pos: int, seed: int) -> float:
    """What 95 % of directions drawn at random stay under, whichever way they point."""
    draws = np.random.default_rng(seed).standard_normal((rows.shape[1], N_RANDOM))
    scores = (rows @ draws.astype(np.float32)).astype(np.float64)
    reached = auroc(scores[:n_pos], scores[n_pos:])
    return float(np.quantile(np.maximum(reached, 1 - reached), 0.95))


def _centered(sides: Sides, layer: int, cells: Cells) -> tuple[FloatArray, FloatArray]:
    """Rows [n, d_model] from their mean, and their sums by cell [C, d_model].

    A difference of means ignores a common shift; taking it out first keeps float32 exact enough.
    """
    rows, _ = sides.stacked_layer(layer)
    rows -= rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return rows, np.asarray(cells.sums(rows), dtype=np.float32)


def held_out_scores(
    row_products: Float64, products: Float64, cells: Cells, fold_of_cell: IntArray, n_folds: int
) -> Float64:
    """Each row's score on the direction of all other folds: [n].

    Directions of different folds differ in length and offset, so scores are measured from the
    midpoint of the other folds' two means in units of their gap: 0.5 is the positives' mean. NaN
    where the other folds lack a side.
    """
    kept = (fold_of_cell[None] != np.arange(n_folds)[:, None]).astype(np.float64)
    contrast = cells.contrast(kept)
    middle = 0.5 * (cells.side_mean(kept, positive=True) + cells.side_mean(kept, positive=False))
    gap = np.einsum("fc,cd,fd->f", contrast, products, contrast, optimize=True)
    offset = np.einsum("fc,cd,fd->f", middle, products, contrast, optimize=True)
    fold_of_row = fold_of_cell[cells.of_row]
    along = np.einsum("nc,nc->n", row_products, contrast[fold_of_row])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((along - offset[fold_of_row]) / gap[fold_of_row])


def shuffled_aurocs(row_products: Float64, cells: Cells, n_shuffles: int, *, seed: int) -> Float64:
    """AUROCs that labels dealt at random to whole cells reach on held-out cells: [n_shuffles].

    Each time the cells are given random sides, a direction is made from a random half of them
    and tested on the other half.
    """
    rng = np.random.default_rng(seed)
    # Too few cells to make and test a direction: chance may reach anything.
    reached = np.ones(n_shuffles)
    for i in range(n_shuffles):
        dealt = Cells(
            of_row=cells.of_row,
            group=cells.group,
            is_pos=rng.permutation(cells.is_pos),
            counts=cells.counts,
            n_groups=cells.n_groups,
        )
        in_first = _half_of_each_side(dealt, rng)
        direction = dealt.contrast(in_first[None].astype(np.float64))[0]
        if not np.isfinite(direction).all():
            continue
        tested = ~in_first[cells.of_row]
        positive = dealt.is_pos[cells.of_row]
        scores = row_products @ direction
        pos, neg = scores[tested & positive], scores[tested & ~positive]
        if len(pos) and len(neg):
            reached[i] = auroc(pos[:, None], neg[:, None])[0]
    return reached


def _half_of_each_side(cells: Cells, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    in_first = np.zeros(len(cells.counts), dtype=bool)
    for side in (cells.is_pos, ~cells.is_pos):
        members = rng.permutation(np.flatnonzero(side))
        in_first[members[: (len(members) + 1) // 2]] = True
    return in_first


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
