"""How good a trait vector is, layer by layer, with 95 % intervals that respect shared prompts.

`vector_separation` tests any vectors on any activations, held-out ones for choice;
`direction_quality` asks how stable the mean difference of a sample is and what it reaches on
what it was not made from. Pure numpy. Knows nothing about judges, runs or verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from traitlens.cells import Cells, Float64, cell_labels, make_cells
from traitlens.errors import ShapeError
from traitlens.folds import IntArray
from traitlens.held_out import held_out_scores, shuffled_aurocs
from traitlens.intervals import Interval, stacked
from traitlens.separation import N_BOOTSTRAP, Separation, auroc, auroc_interval, separation
from traitlens.sides import Activations, FloatArray, Labels, Sides, make_sides
from traitlens.stability import Angle, direction_angle, random_halves, split_half_cosine

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
