"""What happens to the residual stream of each row in a batch: interventions, and projections of
its states on the directions that a request asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from traitlens.steering import Change, steer
from workers.engine.generation import Intervention, Steering, UnitVectors


@contextmanager
def steered(
    model: nn.Module, steering: Steering | None, prompt_length: int | Tensor | None = None
) -> Iterator[None]:
    """Steer a whole batch alike in plain forward passes, by the toolkit that notebooks use.

    `prompt_length` as in `traitlens.steer`: where the response begins, None inside generate.
    """
    with ExitStack() as stack:
        for one in steering.interventions if steering else ():
            vector = torch.as_tensor(one.vector, dtype=torch.float32)
            stack.enter_context(
                steer(
                    model,
                    vector,
                    layer=one.layer,
                    coefficient=one.coefficient,
                    positions=steering.positions if steering else "all",
                    mode=one.mode,
                    prompt_length=prompt_length,
                )
            )
        yield


class RowInterventions:
    """What to do to each row of a batch, by layer; nothing at all costs nothing.

    Additions of all rows are one sum; a row that also has another kind at the layer takes all of
    its interventions there one after the other, since their order matters.
    """

    def __init__(self, steerings: Sequence[Steering | None], device: torch.device) -> None:
        """One entry a row: the steering that is active for the tokens being run, or None."""
        self._added: dict[int, Tensor] = {}
        self._in_turn: dict[int, list[tuple[list[int], Change]]] = {}
        rows_of: dict[Steering, list[int]] = {}
        for row, steering in enumerate(steerings):
            if steering:
                rows_of.setdefault(steering, []).append(row)
        for steering, rows in rows_of.items():
            in_turn = {one.layer for one in steering.interventions if one.mode != "add"}
            for one in steering.interventions:
                vector = torch.as_tensor(one.vector, dtype=torch.float32)
                if one.layer in in_turn:
                    change = Change.of(
                        vector, coefficient=one.coefficient, mode=one.mode, layer=one.layer
                    )
                    self._in_turn.setdefault(one.layer, []).append((rows, change))
                else:
                    added = self._layer(one.layer, len(steerings), vector, device)
                    added[rows] += (one.coefficient * vector).to(device)

    def applied(self, layer: int, states: Tensor) -> Tensor | None:
        """The changed states [batch, tokens, d_model], by way of float32; None if unchanged."""
        changed = None
        if layer in self._added:
            added = self._added[layer].to(states.device).unsqueeze(1)
            changed = (states.float() + added).to(states.dtype)
        for rows, change in self._in_turn.get(layer, ()):
            changed = states.clone() if changed is None else changed
            changed[rows] = change.applied(changed[rows], None)
        return changed

    def _layer(self, layer: int, rows: int, vector: Tensor, device: torch.device) -> Tensor:
        if layer not in self._added:
            self._added[layer] = torch.zeros(rows, len(vector), device=device)
        return self._added[layer]


def steering_along(vector: NDArray[np.float32], layer: int) -> Steering:
    """Add the vector [d_model] to every token at the layer."""
    return Steering((Intervention(layer, vector, 1.0),))


def random_like(vector: NDArray[np.float32], *, name: str) -> NDArray[np.float32]:
    """A direction drawn at random, as long as the vector; the same for the same name."""
    digest = hashlib.sha256(name.encode()).digest()
    drawn = np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(len(vector))
    return np.asarray(drawn * (np.linalg.norm(vector) / np.linalg.norm(drawn)), dtype=np.float32)


Projections = NDArray[np.float32]


class Projector:
    """Keeps each UnitVectors object's vectors on the device, as long as somebody holds it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._placed: WeakKeyDictionary[UnitVectors, tuple[Tensor, Tensor]] = WeakKeyDictionary()

    def project(self, states: Mapping[int, Tensor], directions: UnitVectors) -> Tensor:
        """Projections [..., 2, k], float32 on the device, of states [..., d_model] by layer.

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

    def project_rows(
        self, states: Sequence[Tensor], directions: Sequence[UnitVectors | None]
    ) -> list[Projections | None]:
        """Projections [2, k] of each row that asks for some; states [rows, d_model] by layer."""
        found: list[Projections | None] = [None] * len(directions)
        for one in dict.fromkeys(d for d in directions if d is not None):
            rows = [row for row, asked in enumerate(directions) if asked is one]
            whole = len(rows) == len(directions)
            chosen = {k: states[k] if whole else states[k][rows] for k in one.layers}
            for row, projected in zip(rows, self.project(chosen, one).cpu().numpy(), strict=True):
                found[row] = projected
        return found

    def _place(self, directions: UnitVectors) -> tuple[Tensor, Tensor]:
        placed = self._placed.get(directions)
        if placed is None:
            units = torch.from_numpy(np.ascontiguousarray(directions.units, np.float32))
            needed = sorted(set(directions.layers))
            places = torch.tensor([needed.index(layer) for layer in directions.layers])
            placed = units.to(self._device), places.to(self._device)
            self._placed[directions] = placed
        return placed
