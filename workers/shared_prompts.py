"""Keeps each prompt's keys and values once for all the rollouts that are decoded at the moment.

Attention then reads a shared prompt once a step, not once a rollout, and rows only store their own
tokens. Knows nothing about sampling or measuring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.kv_cache import SlotCache
from workers.prefill import Prefilled

# More rows on one place would widen the padded layout for every other prompt.
MOST_SHARERS = 16


@dataclass(eq=False)
class Place:
    """Where a live prompt lies in the cache, and how many rows share it."""

    index: int
    prompt: Prefilled
    sharers: int = 0


@dataclass(frozen=True)
class SharingLayout:
    """Rows grouped by place and padded: place p's i-th row stands at p * width + i.

    rows [places * width] names the row that stands there (padding names row 0); spot [rows] is the
    way back.
    """

    places: int
    width: int
    rows: Tensor
    spot: Tensor


class SharedPrompts:
    """The live prompts in dense places 0..n-1 of a cache of their own."""

    def __init__(self, n_layers: int) -> None:
        self.cache = SlotCache(n_layers)
        self._places: list[Place] = []

    @property
    def columns(self) -> int:
        """Cached tokens of the longest live prompt."""
        return max((place.prompt.tokens - 1 for place in self._places), default=0)

    def join(self, prompt: Prefilled) -> Place:
        """Take a share in a prompt's place, made now if it has none to spare."""
        for place in self._places:
            if place.prompt is prompt and place.sharers < MOST_SHARERS:
                place.sharers += 1
                return place
        place = Place(len(self._places), prompt, 1)
        self.cache.reserve(place.index + 1, prompt.tokens - 1, live=place.index)
        self.cache.load(place.index, prompt.keys, prompt.values)
        self._places.append(place)
        return place

    def leave(self, place: Place) -> None:
        """Give a share back; a place that nobody shares is filled by the last one."""
        place.sharers -= 1
        if place.sharers:
            return
        last = self._places.pop()
        if last is not place:
            self.cache.move(last.index, place.index, last.prompt.tokens - 1)
            last.index = place.index
            self._places[last.index] = last

    def layout(self, row_places: Sequence[Place], device: torch.device) -> SharingLayout:
        """The padded grouping of rows 0..n-1 that share these places."""
        taken = [0] * len(self._places)
        ranks: list[int] = []
        for place in row_places:
            ranks.append(taken[place.index])
            taken[place.index] += 1
        width = max(taken)
        spots = [p.index * width + rank for p, rank in zip(row_places, ranks, strict=True)]
        rows = [0] * (len(taken) * width)
        for row, spot in enumerate(spots):
            rows[spot] = row
        both = torch.tensor(rows + spots).to(device)
        return SharingLayout(len(taken), width, both[: len(rows)], both[len(rows) :])
