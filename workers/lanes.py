"""Rows of like length side by side: each lane is twice as wide as the one before.

A step reads every row of a lane as wide as its longest, so long rows must not lie among short ones.
A row that fills its lane moves to the next. Knows nothing about what rows are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from workers.kv_cache import SlotCache

# Fewer, wider lanes on a GPU, where each one costs a launch of every kernel.
FIRST_WIDTH_CPU = 64
FIRST_WIDTH_GPU = 256


class Member(Protocol):
    """A row: the lane and slot it lies in, and how many columns of it are in use."""

    lane: int
    slot: int

    @property
    def columns(self) -> int:
        """Columns in use."""
        ...


M = TypeVar("M", bound=Member)


class Lane(Generic[M]):
    """Rows in dense slots 0..n-1 of a cache of this width."""

    def __init__(self, n_layers: int, width: int) -> None:
        self.width = width
        self.cache = SlotCache(n_layers)
        self.rows: list[M] = []

    def push(self, row: M) -> None:
        """Give the row the next slot; its memory is there when this returns."""
        self.cache.reserve(len(self.rows) + 1, self.width, live=len(self.rows))
        row.slot = len(self.rows)
        self.rows.append(row)

    def remove(self, row: M) -> None:
        """Take a row out; the last one moves into its slot."""
        last = self.rows.pop()
        if last is not row:
            self.cache.move(last.slot, row.slot, last.columns)
            last.slot = row.slot
            self.rows[row.slot] = last


class Lanes(Generic[M]):
    """Lanes from narrow to wide; rows are ordered lane by lane."""

    def __init__(self, n_layers: int, first_width: int) -> None:
        self._n_layers = n_layers
        self._first_width = first_width
        self.lanes: list[Lane[M]] = []

    def __iter__(self) -> Iterator[M]:
        return (row for lane in self.lanes for row in lane.rows)

    def __len__(self) -> int:
        return sum(len(lane.rows) for lane in self.lanes)

    def push(self, row: M) -> None:
        """Start a row, which uses no columns yet."""
        row.lane = 0
        self._lane(0).push(row)

    def remove(self, row: M) -> None:
        """End a row."""
        self.lanes[row.lane].remove(row)

    def make_room(self) -> None:
        """Move every row that fills its lane, so that each can write one more column."""
        for number, lane in enumerate(list(self.lanes)):
            for row in [row for row in lane.rows if row.columns == lane.width]:
                self._promote(row, number)

    def shrink(self) -> None:
        """Give back the memory of slots that no row uses."""
        for lane in self.lanes:
            lane.cache.shrink(len(lane.rows))

    def _promote(self, row: M, number: int) -> None:
        narrow, wide = self._lane(number), self._lane(number + 1)
        source = row.slot
        wide.push(row)
        wide.cache.copy_from(narrow.cache, source, row.slot, row.columns)
        target, row.slot = row.slot, source
        narrow.remove(row)
        row.lane, row.slot = number + 1, target

    def _lane(self, number: int) -> Lane[M]:
        while number >= len(self.lanes):
            self.lanes.append(Lane(self._n_layers, self._first_width << len(self.lanes)))
        return self.lanes[number]
