"""Cells: the rows of one side that share a prompt, the units of every resampling.

Ten rollouts of one prompt are not ten independent observations, so bootstrap, folds and shuffles
move whole cells. A group that occurs on both sides (a question asked of both polarities) is two
cells that are drawn together.

Means and correlations with 95 % intervals from draws of whole groups.

Rows of a group (the answers to one question) are drawn together, so an effect that differs from
question to question is not taken for noise of single answers. Pure numpy; NaN is no observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from traitlens.errors import ShapeError
from traitlens.stats.intervals import Interval, percentile_interval
from traitlens.stats.sides import IntArray, Labels, group_ids

Float64 = npt.NDArray[np.float64]

AnyFloat = TypeVar("AnyFloat", np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class Cells:
    """Rows (positives first) by cell; C cells of G groups.

    `of_row` [n] is each row's cell; `group`, `is_pos`, `counts` [C] each cell's group, side and
    number of rows.
    """

    of_row: IntArray
    group: IntArray
    is_pos: npt.NDArray[np.bool_]
    counts: Float64
    n_groups: int

    @property
    def n_pos(self) -> int:
        """Rows on the positive side."""
        return int(self.counts[self.is_pos].sum())

    def side_counts(self) -> tuple[int, int]:
        """How many cells each side has."""
        return int(self.is_pos.sum()), int((~self.is_pos).sum())

    def sums(self, rows: npt.NDArray[AnyFloat]) -> npt.NDArray[AnyFloat]:
        """Sum of the rows [n, ...] in each cell: [C, ...]."""
        order = np.argsort(self.of_row, kind="stable")
        starts = np.searchsorted(self.of_row[order], np.arange(len(self.counts)))
        sums: npt.NDArray[AnyFloat] = np.add.reduceat(rows[order], starts, axis=0)
        return sums

    def contrast(self, times: Float64) -> Float64:
        """Coefficients [k, C] that turn cell sums into mean(pos) - mean(neg).

        `times` [k, C] says how often each cell counts. A row whose draw lost a side is NaN.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.side_mean(times, positive=True) - self.side_mean(times, positive=False)

    def side_mean(self, times: Float64, *, positive: bool) -> Float64:
        """Coefficients [k, C] that turn cell sums into the mean of one side."""
        used = np.where(self.is_pos == positive, times, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(used / (used @ self.counts)[:, None])

    def bootstrap(self, n_draws: int, *, seed: int) -> Float64:
        """How often each cell occurs in draws of groups with replacement: [n_draws, C].

        Groups of both sides, of the positives and of the negatives are drawn separately, so the
        sides keep their number of groups.
        """
        rng = np.random.default_rng(seed)
        on_pos = np.bincount(self.group[self.is_pos], minlength=self.n_groups) > 0
        on_neg = np.bincount(self.group[~self.is_pos], minlength=self.n_groups) > 0
        times = np.zeros((n_draws, self.n_groups))
        for stratum in (on_pos & on_neg, on_pos & ~on_neg, on_neg & ~on_pos):
            size = int(stratum.sum())
            if size:
                times[:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=n_draws)
        return times[:, self.group]


def make_cells(groups: tuple[Labels, Labels] | None, n_pos: int, n_neg: int) -> Cells:
    """Number the cells of both sides; without groups every row is a cell."""
    ids, n_groups = group_ids(groups, n_pos, n_neg)
    is_pos = np.arange(n_pos + n_neg) < n_pos
    pairs, of_row, counts = np.unique(
        np.stack([ids, is_pos]), axis=1, return_inverse=True, return_counts=True
    )
    return Cells(
        of_row=of_row.reshape(-1),
        group=pairs[0],
        is_pos=pairs[1].astype(bool),
        counts=counts.astype(np.float64),
        n_groups=n_groups,
    )


def cell_labels(cells: Cells, labels: tuple[Labels, Labels]) -> tuple[IntArray, int]:
    """One number per cell from labels per row: [C], and how many there are.

    Raises ShapeError when a label cuts through a cell.
    """
    n = len(cells.of_row)
    ids, n_labels = group_ids(labels, cells.n_pos, n - cells.n_pos)
    of_cell = np.zeros(len(cells.counts), dtype=np.int64)
    of_cell[cells.of_row] = ids
    if (of_cell[cells.of_row] != ids).any():
        raise ShapeError("a fold's label changes within a group: make groups at least as fine")
    return of_cell, n_labels


N_DRAWS = 1000


def group_draws(groups: Labels, *, n_draws: int = N_DRAWS, seed: int = 0) -> Float64:
    """How often each row counts: [1 + n_draws, n], the first row being the sample itself."""
    ids, n_groups = group_ids((groups, []), len(groups), 0)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_draws)
    return np.concatenate([np.ones((1, len(ids))), times[:, ids]])


def means(values: Float64, times: Float64) -> Float64:
    """The mean of values [n] in each draw of times [b, n]: [b]; NaN where nothing was drawn."""
    known = np.isfinite(values)
    weights = times[:, known]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights @ values[known] / weights.sum(axis=1))


def correlations(scores: Float64, values: Float64, times: Float64) -> Float64:
    """Pearson's correlation of scores [n, k] with values [n] in each draw: [b, k]."""
    known = np.isfinite(values)
    x, y, w = scores[known], values[known][:, None], times[:, known]
    with np.errstate(invalid="ignore", divide="ignore"):
        w = w / w.sum(axis=1, keepdims=True)
        x, y = x - x.mean(axis=0), y - y.mean()
        mean_x, mean_y = w @ x, w @ y
        covariance = w @ (x * y) - mean_x * mean_y
        spread = (w @ x**2 - mean_x**2) * (w @ y**2 - mean_y**2)
        return np.asarray(covariance / np.sqrt(np.maximum(spread, 0)))


def interval_of(draws: Float64, *, n_groups: int) -> Interval:
    """The estimate (the first draw) with the middle 95 % of the others; draws [1 + b, ...]."""
    value = np.asarray(draws[0])
    if not np.isfinite(draws[1:]).any():
        nothing = np.full_like(value, np.nan)
        return Interval(value, nothing, nothing)
    return percentile_interval(value, draws[1:], n_clusters=n_groups)
