"""The one bootstrap: draws of whole groups of rows, and what rows amount to in each draw.

Ten rollouts of one prompt are not ten independent observations, so intervals, folds and shuffles
move whole groups; an effect that differs from question to question is then not taken for noise of
single answers. A cell is the rows of one group and one polarity: a group that occurs on both (a
question asked of both polarities) is two cells that are drawn together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from traitlens.arrays import Bools, Float64, Ints, Labels
from traitlens.errors import ShapeError

N_DRAWS = 1000
AnyFloat = TypeVar("AnyFloat", np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class Cells:
    """Rows (positives first) by cell; C cells of G groups.

    `of_row` [n] is each row's cell; `group`, `is_pos`, `counts` [C] each cell's group, polarity and
    number of rows.
    """

    of_row: Ints
    group: Ints
    is_pos: Bools
    counts: Float64
    n_groups: int

    @property
    def n_pos(self) -> int:
        """How many rows are positive."""
        return int(self.counts[self.is_pos].sum())

    @property
    def by_polarity(self) -> tuple[int, int]:
        """How many cells, and so groups, are positive and negative."""
        return int(self.is_pos.sum()), int((~self.is_pos).sum())

    def strata(self) -> list[Ints]:
        """Groups of both polarities, of positives alone and of negatives alone.

        Each is dealt by itself, so that either polarity keeps its share of groups.
        """
        on_pos = np.bincount(self.group[self.is_pos], minlength=self.n_groups) > 0
        on_neg = np.bincount(self.group[~self.is_pos], minlength=self.n_groups) > 0
        every = (on_pos & on_neg, on_pos & ~on_neg, on_neg & ~on_pos)
        return [np.flatnonzero(stratum) for stratum in every]

    def draw(self, n_draws: int = N_DRAWS, *, seed: int = 0) -> Float64:
        """How often each cell counts: [1 + n_draws, C], the first row being the sample itself.

        The others draw groups with replacement, each stratum by itself.
        """
        rng = np.random.default_rng(seed)
        times = np.ones((1 + n_draws, self.n_groups))
        for stratum in self.strata():
            size = len(stratum)
            if size:
                times[1:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=n_draws)
        return times[:, self.group]

    def sums(self, rows: npt.NDArray[AnyFloat]) -> npt.NDArray[AnyFloat]:
        """Sum of the rows [n, ...] in each cell: [C, ...]."""
        order = np.argsort(self.of_row, kind="stable")
        starts = np.searchsorted(self.of_row[order], np.arange(len(self.counts)))
        sums: npt.NDArray[AnyFloat] = np.add.reduceat(rows[order], starts, axis=0)
        return sums

    def mean(self, times: Float64, *, positive: bool) -> Float64:
        """Coefficients [k, C] that turn cell sums into the mean of one polarity.

        `times` [k, C] says how often each cell counts. NaN in a row that draws none of it.
        """
        used = np.where(self.is_pos == positive, times, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(used / (used @ self.counts)[:, None])

    def contrast(self, times: Float64) -> Float64:
        """Coefficients [k, C] that turn cell sums into mean(pos) - mean(neg); see `mean`."""
        return self.mean(times, positive=True) - self.mean(times, positive=False)


def make_cells(groups: tuple[Labels, Labels] | None, n_pos: int, n_neg: int) -> Cells:
    """Number the cells of both polarities; a label on both is one group.

    Without groups every row is a cell. Raises ShapeError when labels do not match the rows.
    """
    ids, n_groups = _numbered(groups, n_pos, n_neg)
    pairs, of_row, counts = np.unique(
        np.stack([ids, np.arange(n_pos + n_neg) < n_pos]),
        axis=1,
        return_inverse=True,
        return_counts=True,
    )
    return Cells(
        of_row=of_row.reshape(-1),
        group=pairs[0],
        is_pos=pairs[1].astype(bool),
        counts=counts.astype(np.float64),
        n_groups=n_groups,
    )


def cell_labels(cells: Cells, labels: tuple[Labels, Labels]) -> tuple[Ints, int]:
    """One number per cell from labels per row: [C], and how many there are.

    Raises ShapeError when a label cuts through a cell.
    """
    ids, n_labels = _numbered(labels, cells.n_pos, len(cells.of_row) - cells.n_pos)
    of_cell = np.zeros(len(cells.counts), dtype=np.int64)
    of_cell[cells.of_row] = ids
    if (of_cell[cells.of_row] != ids).any():
        raise ShapeError("a fold's label changes within a group: make groups at least as fine")
    return of_cell, n_labels


def group_draws(groups: Labels, *, n_draws: int = N_DRAWS, seed: int = 0) -> Float64:
    """`Cells.draw` where there is one polarity, by row: [1 + n_draws, n]."""
    cells = make_cells((groups, []), len(groups), 0)
    return cells.draw(n_draws, seed=seed)[:, cells.of_row]


def bootstrap_means(values: Float64, times: Float64) -> Float64:
    """The mean of values [n, ...] in each draw of times [b, n]: [b, ...].

    NaN is no observation; the mean is NaN where nothing was drawn.
    """
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(times @ np.where(known, values, 0.0) / (times @ known))


def bootstrap_correlations(scores: Float64, values: Float64, times: Float64) -> Float64:
    """Pearson's correlation of scores [n, k] with values [n] in each draw: [b, k].

    NaN among the values is no observation.
    """
    known = np.isfinite(values)
    x, y, w = scores[known], values[known][:, None], times[:, known]
    with np.errstate(invalid="ignore", divide="ignore"):
        w = w / w.sum(axis=1, keepdims=True)
        x, y = x - x.mean(axis=0), y - y.mean()
        mean_x, mean_y = w @ x, w @ y
        covariance = w @ (x * y) - mean_x * mean_y
        spread = (w @ x**2 - mean_x**2) * (w @ y**2 - mean_y**2)
        return np.asarray(covariance / np.sqrt(np.maximum(spread, 0)))


def _numbered(groups: tuple[Labels, Labels] | None, n_pos: int, n_neg: int) -> tuple[Ints, int]:
    """Numbers [n_pos + n_neg] for the labels of both polarities, and how many there are."""
    if groups is None:
        return np.arange(n_pos + n_neg), n_pos + n_neg
    found = (len(groups[0]), len(groups[1]))
    if found != (n_pos, n_neg):
        raise ShapeError(f"{found} group labels for {(n_pos, n_neg)} rows: give one per row")
    numbers: dict[object, int] = {}
    ids = [numbers.setdefault(label, len(numbers)) for one in groups for label in one]
    return np.array(ids, dtype=np.int64), len(numbers)
