"""Dealing rows into folds so that what belongs together is held out together.

Knows nothing about activations.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from traitlens.errors import ShapeError
from traitlens.sides import Labels

IntArray = npt.NDArray[np.int64]


def group_ids(groups: tuple[Labels, Labels] | None, n_pos: int, n_neg: int) -> tuple[IntArray, int]:
    """Number the groups of both sides, positives first: ids [n_pos + n_neg] and how many there are.

    A label that occurs on both sides is one group. Without groups every row is its own.
    Raises ShapeError when the labels do not match the rows.
    """
    if groups is None:
        return np.arange(n_pos + n_neg), n_pos + n_neg
    found = (len(groups[0]), len(groups[1]))
    if found != (n_pos, n_neg):
        raise ShapeError(f"{found} group labels for {(n_pos, n_neg)} rows: give one per row")
    numbers: dict[object, int] = {}
    ids = [numbers.setdefault(label, len(numbers)) for side in groups for label in side]
    return np.array(ids, dtype=np.int64), len(numbers)


def fold_ids(
    groups: tuple[Labels, Labels] | None,
    n_pos: int,
    n_neg: int,
    *,
    n_folds: int,
    seed: int,
) -> tuple[IntArray, int]:
    """Deal whole groups into at most `n_folds` folds, evenly on each side: ids [n], fold count.

    The count is 1 (nothing can be held out) when a side has a single group.
    """
    ids, n_groups = group_ids(groups, n_pos, n_neg)
    on_pos = np.bincount(ids[:n_pos], minlength=n_groups) > 0
    on_neg = np.bincount(ids[n_pos:], minlength=n_groups) > 0
    n_folds = int(min(n_folds, on_pos.sum(), on_neg.sum()))
    fold_of_group = np.zeros(n_groups, dtype=np.int64)
    rng = np.random.default_rng(seed)
    # Groups of both sides, of one and of the other are dealt separately, so every fold has both.
    for members in (on_pos & on_neg, on_pos & ~on_neg, on_neg & ~on_pos):
        chosen = rng.permutation(np.flatnonzero(members))
        fold_of_group[chosen] = np.arange(len(chosen)) % n_folds
    return fold_of_group[ids], n_folds
