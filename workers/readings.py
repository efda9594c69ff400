"""Projects the states of tokens on the directions that their requests ask for.

A reading is h.u, the state's projection on a unit vector, beside the norm of h at the same layer,
so that projection, cosine and z-score all follow from it. Knows nothing about traits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.generation import Directions

Readings = NDArray[np.float32]


class Reader:
    """Keeps each Directions object's vectors on the device, as long as somebody holds it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._placed: WeakKeyDictionary[Directions, tuple[Tensor, Tensor]] = WeakKeyDictionary()

    def read(self, states: Mapping[int, Tensor], directions: Directions) -> Tensor:
        """Readings [..., 2, k], float32 on the device, of states [..., d_model] by layer.

        One matrix product projects every needed layer on all directions; each direction then keeps
        its own layer's column.
        """
        units, places = self._place(directions)
        needed = [states[layer] for layer in sorted(set(directions.layers))]
        stacked = torch.stack([layer.to(self._device) for layer in needed]).float()
        along = stacked @ units.T  # [layers, ..., k]
        own = along.movedim(0, -2)[..., places, torch.arange(len(places), device=self._device)]
        norms = torch.linalg.vector_norm(stacked, dim=-1).movedim(0, -1)[..., places]
        return torch.stack([own, norms], dim=-2)

    def read_rows(
        self, states: Sequence[Tensor], directions: Sequence[Directions | None]
    ) -> list[Readings | None]:
        """Readings [2, k] of each row that asks for some; states [rows, d_model] by layer."""
        found: list[Readings | None] = [None] * len(directions)
        for one in dict.fromkeys(d for d in directions if d is not None):
            rows = [row for row, asked in enumerate(directions) if asked is one]
            whole = len(rows) == len(directions)
            chosen = {k: states[k] if whole else states[k][rows] for k in one.layers}
            for row, reading in zip(rows, self.read(chosen, one).cpu().numpy(), strict=True):
                found[row] = reading
        return found

    def _place(self, directions: Directions) -> tuple[Tensor, Tensor]:
        placed = self._placed.get(directions)
        if placed is None:
            units = torch.from_numpy(np.ascontiguousarray(directions.units, np.float32))
            needed = sorted(set(directions.layers))
            places = torch.tensor([needed.index(layer) for layer in directions.layers])
            placed = units.to(self._device), places.to(self._device)
            self._placed[directions] = placed
        return placed
