"""How good a trait vector is, layer by layer, with 95 % intervals that respect shared prompts.

`vector_separation` tests any vectors on any activations, held-out ones for choice;
`direction_quality` asks how stable the mean difference of a sample is and what it reaches on what
it was not made from. A mean difference of any subset of cells is a combination of the cells' sums,
so everything about it follows from P [n, C], the inner products of the rows with the sums, and
K [C, C], those of the sums; none of it costs a pass over the activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Activations, Float32, Float64, Ints, Labels
from traitlens.errors import ShapeError
from traitlens.stats.cells import Cells, cell_labels, make_cells, prompt_cells
from traitlens.stats.intervals import Interval, middle_95, stacked_intervals
from traitlens.stats.polarities import Polarities
from traitlens.stats.separation import (
    Prompts,
    Separation,
    auroc_over_prompts,
    separation,
    separation_labels,
)

N_SPLITS = 100


def vector_separation(
    vectors: Float32,
    pos: Activations,
    neg: Activations,
    *,
    prompts: tuple[Prompts, Prompts] | None = None,
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
        prompts=prompts,
    )


@dataclass(frozen=True, eq=False)
class DirectionQuality:
    """The mean difference of one sample, per layer; arrays [L+1].

    `split_half`; `leave_one_out`: by the name of the folds, AUROC on the left-out fold.
    """

    split_half: Interval
    leave_one_out: Mapping[str, Interval]


def direction_quality(
    pos: Activations,
    neg: Activations,
    *,
    prompts: tuple[Prompts, Prompts] | None = None,
    folds: Mapping[str, tuple[Labels, Labels]] | None = None,
    seed: int = 0,
) -> DirectionQuality:
    """Stability and held-out AUROCs of mean(pos) - mean(neg) at every layer.

    `prompts` gives of each row its instruction pair and its question (without them every row is a
    question of its own); `folds` names ways to leave out, such as {"instruction": (labels of the
    positives, of the negatives), "question": ...}, each constant within a prompt. Raises ShapeError
    and NonFiniteError.
    """
    both = Polarities.of(pos, neg)
    instruction, question = separation_labels(prompts, *both.counts)
    n_pos = both.counts[0]
    cells = prompt_cells(instruction, question, n_pos)
    halves = _random_halves(cells, question, seed=seed)
    fold_of_cell = {name: cell_labels(cells, labels) for name, labels in (folds or {}).items()}
    split_half = []
    left_out: dict[str, list[Interval]] = {name: [] for name in fold_of_cell}
    for layer in range(both.n_layers):
        rows, sums = _centered(both, layer, cells)
        row_products = (rows @ sums.T).astype(np.float64)
        products = cells.sums(row_products)
        split_half.append(_split_half_cosine(products, halves, cells))
        for name, found in left_out.items():
            scores = _held_out_scores(row_products, products, cells, *fold_of_cell[name])
            found.append(_held_out_auroc(scores, n_pos, instruction, question))
    return DirectionQuality(
        split_half=stacked_intervals(split_half),
        leave_one_out={name: stacked_intervals(found) for name, found in left_out.items()},
    )


def _centered(both: Polarities, layer: int, cells: Cells) -> tuple[Float32, Float32]:
    """Rows [n, d_model] from their mean, and their sums by cell [C, d_model]."""
    rows = both.centered_layer(layer)
    return rows, cells.sums(rows)


def _random_halves(cells: Cells, question: Ints, *, seed: int) -> Float64:
    """Random halves of the questions, each polarity halved: [N_SPLITS, C], 1 in the first half."""
    n_pos = cells.n_pos
    by_question = make_cells((question[:n_pos], question[n_pos:]), n_pos, len(question) - n_pos)
    rng = np.random.default_rng(seed)
    halves = np.zeros((N_SPLITS, by_question.n_groups))
    for half in halves:
        for stratum in by_question.strata():
            half[rng.permutation(stratum)[: len(stratum) // 2]] = 1
    of_cell = np.zeros(len(cells.counts), dtype=np.int64)
    of_cell[cells.of_row] = by_question.group[by_question.of_row]
    return halves[:, of_cell]


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


def _held_out_auroc(scores: Float64, n_pos: int, instruction: Ints, question: Ints) -> Interval:
    if not np.isfinite(scores).all():
        return Interval.unknown()
    is_pos = np.arange(len(scores)) < n_pos
    layer = auroc_over_prompts(scores[:, None], is_pos, instruction, question)
    return Interval(layer.value[0], layer.low[0], layer.high[0])
