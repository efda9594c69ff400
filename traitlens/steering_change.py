"""What steering does to a hidden state: add a vector, remove its direction, or cap the projection.

Knows nothing about models, layers' modules or which tokens are steered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from traitlens.errors import MissingVectorError, ShapeError
from traitlens.layers import layer_label

Mode = Literal["add", "ablate", "cap"]
Unit = Literal["raw", "residual"]


@dataclass(frozen=True)
class Change:
    """What happens to a hidden state; `vector` float32 [d_model]."""

    vector: Tensor
    unit: Tensor
    coefficient: float
    mode: Mode

    @staticmethod
    def of(vector: Tensor, *, coefficient: float, mode: Mode, layer: int) -> Change:
        """Raises ValueError for an unknown mode or a zero vector, ShapeError for a wrong shape."""
        if mode not in get_args(Mode):
            raise ValueError(f"no mode {mode!r}: use one of {get_args(Mode)}")
        if vector.ndim != 1:
            raise ShapeError(f"steer with one layer's vector [d_model], not {tuple(vector.shape)}")
        raw = vector.detach().float()
        norm = raw.norm()
        if not torch.isfinite(norm) or norm == 0:
            raise ValueError(
                f"the vector has norm {float(norm):g} at {layer_label(layer)}: "
                "it points nowhere, steer at another layer"
            )
        return Change(raw, raw / norm, float(coefficient), mode)

    def delta(self, hidden: Tensor) -> Tensor:
        """What to add to hidden [batch, seq, d_model]; float32, computed in float32."""
        if self.mode == "add":
            return (self.coefficient * self.vector.to(hidden.device)).expand(hidden.shape)
        unit = self.unit.to(hidden.device)
        projection = (hidden.float() @ unit).unsqueeze(-1)
        if self.mode == "ablate":
            return -self.coefficient * projection * unit
        return -(projection - self.coefficient).clamp_min(0) * unit

    def applied(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """The changed hidden state, a new tensor of the same dtype; mask [batch, seq] or all."""
        delta = self.delta(hidden)
        if mask is not None:
            delta = delta * mask.to(hidden.device).unsqueeze(-1)
        return (hidden.float() + delta).to(hidden.dtype)


def coefficient_unit(
    unit: Unit, *, mode: Mode, vector_norm: float, residual_norm: float | None
) -> float:
    """What a coefficient of 1 is, in multiples of the raw vector (of the projection, to cap).

    "raw" is the vector as stored; "residual" is the vector's `residual_norms` at the layer, so that
    0.1 pushes by a tenth of an averaged response's length in any model. Ablation
    removes a share and has no unit.
    """
    if unit not in get_args(Unit):
        raise ValueError(f"no unit {unit!r}: use one of {get_args(Unit)}")
    if unit == "raw" or mode == "ablate":
        return 1.0
    if residual_norm is None:
        raise MissingVectorError(
            'this vector records no residual norms: use unit="raw", or extract it again'
        )
    if mode == "cap" or vector_norm == 0:
        return residual_norm
    return residual_norm / vector_norm
