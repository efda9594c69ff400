"""Activations of both polarities, checked and ready for numpy.

Needs no torch, so that what only compares numbers starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Activations, Bools, Float32, as_float32
from traitlens.errors import NonFiniteError, ShapeError
from traitlens.layers import layer_label


@dataclass(frozen=True, eq=False)
class Polarities:
    """Positive and negative activations, [n, L+1, d_model] each, any float dtype, not copied."""

    pos: Activations
    neg: Activations

    @classmethod
    def of(cls, pos: Activations, neg: Activations) -> Polarities:
        """From activations [n, d_model] or [n, L+1, d_model]; the two may differ in n.

        Raises ShapeError when they do not fit together or one is empty.
        """
        for name, rows in (("positive", pos), ("negative", neg)):
            if rows.ndim not in (2, 3) or rows.shape[0] == 0:
                raise ShapeError(
                    f"{name} activations have shape {tuple(rows.shape)}: "
                    "want [n, d_model] or [n, L+1, d_model] with n at least 1"
                )
        if pos.shape[1:] != neg.shape[1:]:
            raise ShapeError(
                f"positive activations are {tuple(pos.shape)}, negative {tuple(neg.shape)}: "
                "both must come from one model"
            )
        return cls(*(rows[:, None, :] if rows.ndim == 2 else rows for rows in (pos, neg)))

    @property
    def counts(self) -> tuple[int, int]:
        """How many rows are positive, and how many negative."""
        return int(self.pos.shape[0]), int(self.neg.shape[0])

    @property
    def n_layers(self) -> int:
        """L+1, rows of a trait vector."""
        return int(self.pos.shape[1])

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.pos.shape[2])

    def layer(self, layer: int) -> tuple[Float32, Float32]:
        """One layer of both, float32 [n, d_model]; NonFiniteError names polarity, row and layer."""
        return self._finite("positive", self.pos, layer), self._finite("negative", self.neg, layer)

    def stacked_layer(self, layer: int) -> tuple[Float32, Bools]:
        """One layer in one array [n_pos + n_neg, d_model], and which rows are positive."""
        rows = np.concatenate(self.layer(layer))
        return rows, np.arange(len(rows)) < self.counts[0]

    def centered_layer(self, layer: int) -> Float32:
        """One layer in one array [n_pos + n_neg, d_model], from the mean of all rows.

        A difference of means ignores a common shift; without it float32 is exact enough.
        """
        rows, _ = self.stacked_layer(layer)
        rows -= rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        return rows

    def _finite(self, name: str, activations: Activations, layer: int) -> Float32:
        rows = np.ascontiguousarray(as_float32(activations[:, layer]))
        # A NaN or infinity anywhere survives the sum of its row, so one cheap pass finds it.
        with np.errstate(invalid="ignore", over="ignore"):
            bad = np.flatnonzero(~np.isfinite(rows.sum(axis=1, dtype=np.float64)))
        if len(bad):
            where = "" if self.n_layers == 1 else f", {layer_label(layer)}"
            raise NonFiniteError(
                f"{name} row {bad[0]}{where} is NaN or infinite ({len(bad)} such rows): "
                "drop or recompute them"
            )
        return rows
