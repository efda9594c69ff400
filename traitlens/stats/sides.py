"""The two sides of a contrast, positive and negative activations, checked and ready for numpy.

Dealing rows into folds so that what belongs together is held out together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from traitlens.errors import NonFiniteError, ShapeError
from traitlens.layers import layer_label

Activations = Tensor | npt.NDArray[np.floating]

FloatArray = npt.NDArray[np.float32]

Labels = Sequence[object] | npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Sides:
    """Positive and negative activations, [n, L+1, d_model] each, any float dtype, not copied."""

    pos: Activations
    neg: Activations

    @property
    def n_layers(self) -> int:
        """L+1, rows of a trait vector."""
        return int(self.pos.shape[1])

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.pos.shape[2])

    def layer(self, layer: int) -> tuple[FloatArray, FloatArray]:
        """One layer of both sides as float32 [n, d_model]; raises NonFiniteError by name."""
        return (
            _finite_layer(self.pos, layer, "positive", self.n_layers),
            _finite_layer(self.neg, layer, "negative", self.n_layers),
        )

    def stacked_layer(self, layer: int) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """One layer of both sides in one array, positives first, with their labels."""
        pos, neg = self.layer(layer)
        labels = np.arange(len(pos) + len(neg)) < len(pos)
        return np.concatenate([pos, neg]), labels


def make_sides(pos: Activations, neg: Activations) -> Sides:
    """Check two sides of shape [n, d_model] or [n, L+1, d_model]; sides may differ in n.

    Raises ShapeError when they do not fit together or one is empty.
    """
    for name, side in (("positive", pos), ("negative", neg)):
        if side.ndim not in (2, 3) or side.shape[0] == 0:
            raise ShapeError(
                f"{name} activations have shape {tuple(side.shape)}: "
                "want [n, d_model] or [n, L+1, d_model] with n at least 1"
            )
    if pos.shape[1:] != neg.shape[1:]:
        raise ShapeError(
            f"positive activations are {tuple(pos.shape)}, negative {tuple(neg.shape)}: "
            "both must come from one model"
        )
    return Sides(_with_layers(pos), _with_layers(neg))


def as_float32(rows: Activations) -> FloatArray:
    """Numpy float32; shares memory with float32 CPU input."""
    if isinstance(rows, Tensor):
        return np.asarray(rows.detach().to("cpu", torch.float32).numpy())
    return np.asarray(rows, dtype=np.float32)


def _with_layers(side: Activations) -> Activations:
    return side[:, None, :] if side.ndim == 2 else side


def _finite_layer(side: Activations, layer: int, name: str, n_layers: int) -> FloatArray:
    rows = np.ascontiguousarray(as_float32(side[:, layer]))
    # A NaN or infinity anywhere survives the sum of its row, so one cheap pass finds it.
    with np.errstate(invalid="ignore", over="ignore"):
        bad = np.flatnonzero(~np.isfinite(rows.sum(axis=1, dtype=np.float64)))
    if len(bad):
        where = "" if n_layers == 1 else f", {layer_label(layer)}"
        raise NonFiniteError(
            f"{name} row {bad[0]}{where} is NaN or infinite ({len(bad)} such rows): "
            "drop or recompute them"
        )
    return rows


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
