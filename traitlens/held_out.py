"""Directions tested on rows that they were not made from, at one layer.

All from P [n, C], the inner products of the rows with the cells' sums, and K [C, C], those of the
sums: a mean difference of any subset of cells is a combination of sums, so its projections are P
times coefficients. Knows nothing about vectors made by other methods.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from traitlens.cells import Cells, Float64
from traitlens.folds import IntArray
from traitlens.separation import auroc


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
