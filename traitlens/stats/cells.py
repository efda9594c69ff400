"""Rows by cell: what makes mean differences of whole groups combinations of the cells' sums.

Ten rollouts of one prompt are not ten independent observations, so folds, halves and shuffles move
whole groups. A cell is the rows of one group and one polarity: a group that occurs on both (a
question asked of both polarities) is two cells that move together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from traitlens.arrays import Bools, Float64, Ints, Labels
from traitlens.errors import ShapeError

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


def prompt_cells(instruction: Ints, question: Ints, n_pos: int) -> Cells:
    """The cells of both polarities where a group is an instruction pair with a question: rows [n],
    the n_pos positives first."""
    prompts = list(zip(instruction.tolist(), question.tolist(), strict=True))
    return make_cells((prompts[:n_pos], prompts[n_pos:]), n_pos, len(prompts) - n_pos)


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
