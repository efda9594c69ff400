"""Keys and values of the live rows: one slot a row, columns from the left, so that refilling never shifts.

Knows nothing about attention or requests; grows on demand and can be cut back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

# Columns and rows are added in steps, because each step copies what is there.
COLUMN_STEP = 64
GROWTH = 1.25


@dataclass
class LayerSlots:
    """One layer's storage: keys and values, each [rows, kv_heads, columns, head_dim]."""

    keys: Tensor
    values: Tensor

    @property
    def rows(self) -> int:
        """Slots that are allocated."""
        return self.keys.shape[0]

    @property
    def columns(self) -> int:
        """Tokens that fit into a slot."""
        return self.keys.shape[2]


class SlotCache:
    """Storage for every layer, allocated when a layer first sees keys of its shape, dtype and device."""

    def __init__(self, n_layers: int) -> None:
        self._layers: list[LayerSlots | None] = [None] * n_layers
        self._rows = 0
        self._columns = 0

    def reserve(self, rows: int, columns: int, *, live_rows: int) -> None:
        """Make room for rows x columns; the first `live_rows` slots keep what they hold."""
        if columns > self._columns:
            self._columns = _rounded(max(columns, int(self._columns * GROWTH)))
        self._rows = max(rows, self._rows)
        for index, slots in enumerate(self._layers):
            if slots and (slots.rows < self._rows or slots.columns < self._columns):
                self._layers[index] = self._resized(slots, live_rows)

    def shrink(self, rows: int) -> None:
        """Keep only the first `rows` slots and give the memory of the others back."""
        self._rows = rows
        for index, slots in enumerate(self._layers):
            if slots:
                self._layers[index] = self._resized(slots, rows)

    def clear(self) -> None:
        """Drop all storage; the next reserve starts anew."""
        self._layers = [None] * len(self._layers)
        self._rows = self._columns = 0

    def load(self, slot: int, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Copy a prompt's keys and values, per layer [kv_heads, tokens, head_dim], into a slot's first columns."""
        for layer, (k, v) in enumerate(zip(keys, values, strict=True)):
            slots = self.layer(layer, k, v)
            slots.keys[slot, :, : k.shape[1]] = k
            slots.values[slot, :, : v.shape[1]] = v

    def move(self, source: int, target: int, columns: int) -> None:
        """Copy a row's first `columns` columns into another slot."""
        for slots in self._layers:
            if slots:
                slots.keys[target, :, :columns] = slots.keys[source, :, :columns]
                slots.values[target, :, :columns] = slots.values[source, :, :columns]

    def layer(self, index: int, like: Tensor, like_values: Tensor | None = None) -> LayerSlots:
        """One layer's storage; `like` and `like_values` [..., kv_heads, tokens, head_dim] shape it at first use."""
        slots = self._layers[index]
        if slots is None:
            values = like if like_values is None else like_values
            slots = LayerSlots(self._empty(like), self._empty(values))
            self._layers[index] = slots
        return slots

    def _empty(self, like: Tensor) -> Tensor:
        heads, size = like.shape[-3], like.shape[-1]
        # Zeros, because a masked column still enters the sum over values, times zero.
        return like.new_zeros(self._rows, heads, self._columns, size)

    def _resized(self, slots: LayerSlots, live_rows: int) -> LayerSlots:
        kept = min(live_rows, slots.rows, self._rows)
        columns = min(slots.columns, self._columns)
        grown = LayerSlots(self._empty(slots.keys), self._empty(slots.values))
        grown.keys[:kept, :, :columns] = slots.keys[:kept, :, :columns]
        grown.values[:kept, :, :columns] = slots.values[:kept, :, :columns]
        return grown


def _rounded(columns: int) -> int:
    return -(-columns // COLUMN_STEP) * COLUMN_STEP
