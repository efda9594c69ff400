"""What directions that mean nothing reach, and where a trait vector ranks among them.

Two kinds of nothing: directions drawn with the spread of the responses, and mean differences made
of shuffled labels, tested in the same way as the vector. A p-value is the share of them that
reach the vector's AUROC, itself counted among them. An AUROC ends at 1, which says nothing of two
that reach it: Cohen's d orders those that are equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from traitlens.arrays import Activations, Bools, Float32, Float64, Labels
from traitlens.assess.random_directions import N_DIRECTIONS, draw_weights
from traitlens.stats.cells import Cells, cell_labels, make_cells
from traitlens.stats.polarities import Polarities
from traitlens.stats.separation import auroc_of_labels

N_SHUFFLES = 200

# With fewer ways to deal the labels no vector could be told from shuffled ones at 5 %: labels
# that are all turned round give the same AUROC, so a way and its reverse are one.
FEWEST_DEALS = 40


@dataclass(frozen=True, eq=False)
class Chance:
    """Of the mean difference, per layer [L+1]: the AUROC that 95 % of random directions and of
    shuffled labels stay under, and the vector's p-value among them; NaN where it is unknown."""

    random_auroc: Float64
    random_p: Float64
    shuffled_auroc: Float64
    shuffled_p: Float64


def chance_of_difference(
    pos: Activations,
    neg: Activations,
    *,
    prompts: tuple[Labels, Labels],
    questions: tuple[Labels, Labels],
    seed: int = 0,
) -> Chance:
    """Rank mean(pos) - mean(neg) by its AUROC on questions that it was not made from.

    `prompts` labels each row by instruction pair and question, alike on both sides. Labels are
    shuffled for whole prompts: the two sides of one instruction and question change places or do
    not, and prompts without their other side are dealt anew among each other.
    """
    both = Polarities.of(pos, neg)
    cells = make_cells(prompts, *both.counts)
    is_pos = np.concatenate([cells.is_pos[None], _shuffled(cells, seed)])
    fold, n_folds = cell_labels(cells, questions)
    contrasts = _contrasts_without(cells, is_pos, np.arange(n_folds)[:, None] != fold)
    found = []
    for layer in range(both.n_layers):
        rows = both.centered_layer(layer)
        random = _random(rows, cells.n_pos, seed)
        own, others = _left_out(rows, cells, is_pos, fold, contrasts)
        is_ranked = _n_deals(cells) >= FEWEST_DEALS
        found.append(
            (
                np.quantile(random.auroc, 0.95),
                chance_p(own, random),
                np.quantile(others.auroc, 0.95),
                chance_p(own, others) if is_ranked else np.nan,
            )
        )
    return Chance(*np.array(found).T)


@dataclass(frozen=True, eq=False)
class Reached:
    """AUROC and Cohen's d of k directions at one layer, [k] each."""

    auroc: Float64
    cohens_d: Float64

    @classmethod
    def by(cls, scores: Float64, is_pos: Bools) -> Reached:
        """From scores [n, k] and each column's labels [n, k], or one [n, 1] for all."""
        centered = scores - scores.mean(axis=0)
        means, within = [], np.zeros(scores.shape[1])
        for side in (is_pos, ~is_pos):
            n = side.sum(axis=0)
            means.append((centered * side).sum(axis=0) / n)
            within += ((centered - means[-1]) ** 2 * side).sum(axis=0)
        spread = np.sqrt(within / max(len(scores) - 2, 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            d = np.nan_to_num((means[0] - means[1]) / spread)
        return cls(auroc_of_labels(scores, is_pos), d)


def chance_p(own: Reached, others: Reached) -> float:
    """Share that reaches `own`, one direction, itself among them; NaN where it reached NaN."""
    if not np.isfinite(own.auroc[0]):
        return math.nan
    as_far = (others.auroc == own.auroc) & (others.cohens_d >= own.cohens_d)
    return float((1 + ((others.auroc > own.auroc) | as_far).sum()) / (1 + len(others.auroc)))


def random_by_layer(pos: Activations, neg: Activations, *, seed: int = 0) -> list[Reached]:
    """What random directions with the covariance within the sides reach, whichever way they
    point, so that each AUROC is 0.5 or more; one for each layer."""
    both = Polarities.of(pos, neg)
    layers = map(both.centered_layer, range(both.n_layers))
    return [_random(rows, both.counts[0], seed) for rows in layers]


def _random(rows: Float32, n_pos: int, seed: int) -> Reached:
    """At one layer, of rows [n, d_model] with the n_pos positives first.

    No row has a part in the direction that it is scored by: with more dimensions than rows its
    own part would drown the others, and directions would separate less than fresh ones do.
    """
    within = rows.copy()
    for side in (within[:n_pos], within[n_pos:]):
        side -= side.mean(axis=0, dtype=np.float64).astype(np.float32)
    weights = draw_weights(len(rows), N_DIRECTIONS, seed)
    own_part = np.einsum("nd,nd->n", rows, within)[:, None] * weights.T
    scores = (rows @ (weights @ within).T - own_part).astype(np.float64)
    found = Reached.by(scores, np.arange(len(rows))[:, None] < n_pos)
    return Reached(np.maximum(found.auroc, 1 - found.auroc), np.abs(found.cohens_d))


def _shuffled(cells: Cells, seed: int) -> Bools:
    """Labels dealt anew to the cells: [N_SHUFFLES, C]."""
    rng = np.random.default_rng(seed)
    paired, *singles = cells.strata()
    turns = np.zeros((N_SHUFFLES, cells.n_groups), dtype=bool)
    turns[:, paired] = rng.random((N_SHUFFLES, len(paired))) < 0.5
    dealt = cells.is_pos ^ turns[:, cells.group]
    alone = np.isin(cells.group, np.concatenate(singles))
    dealt[:, alone] = rng.permuted(dealt[:, alone], axis=1)
    return np.asarray(dealt)


def _n_deals(cells: Cells) -> int:
    """How many ways there are to deal the labels as `_shuffled` does."""
    paired, positive, negative = (len(stratum) for stratum in cells.strata())
    return int(2**paired * math.comb(positive + negative, positive))


def _contrasts_without(cells: Cells, is_pos: Bools, kept: Bools) -> tuple[Float64, Float64]:
    """Coefficients of cell sums, [F, k, C] both: the mean difference of labels is_pos [k, C] over
    the cells kept [F, C], and the midpoint of the two means."""
    times = kept.astype(np.float64)
    dealt = [replace(cells, is_pos=one) for one in is_pos]
    means = [
        np.stack([one.mean(times, positive=positive) for one in dealt], axis=1)
        for positive in (True, False)
    ]
    return means[0] - means[1], 0.5 * (means[0] + means[1])


def _left_out(
    rows: Float32,
    cells: Cells,
    is_pos: Bools,
    fold_of_cell: np.ndarray,
    contrasts: tuple[Float64, Float64],
) -> tuple[Reached, Reached]:
    """What the mean difference of each labelling is_pos [1 + k, C] reaches on left-out folds, the
    first, which is to be ranked, by itself.

    Scores are measured as those of `direction_quality`: from the midpoint of the other folds' means
    in units of their gap.
    """
    row_products = (rows @ cells.sums(rows).T).astype(np.float64)
    products = cells.sums(row_products)
    scores = np.empty((len(rows), len(is_pos)))
    fold_of_row = fold_of_cell[cells.of_row]
    for fold, (contrast, middle) in enumerate(zip(*contrasts, strict=True)):
        left_out, along = fold_of_row == fold, products @ contrast.T
        gap, offset = (np.einsum("kc,ck->k", one, along) for one in (contrast, middle))
        with np.errstate(invalid="ignore", divide="ignore"):
            scores[left_out] = (row_products[left_out] @ contrast.T - offset) / gap
    is_known = np.isfinite(scores).all(axis=0)
    # where both sides' rows are the same, as an embedding is before any instruction is seen
    scores[:, ~is_known] = 0.0
    each = Reached.by(scores, is_pos.T[cells.of_row])
    # labels that no direction could be made from may have reached anything
    reached = np.where(is_known, each.auroc, np.nan)
    others, d = np.nan_to_num(reached[1:], nan=1.0), each.cohens_d
    return Reached(reached[:1], d[:1]), Reached(others, d[1:])
