"""Keys and values in slots, one a sequence, columns from the left, so that nothing ever shifts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

# Slots are added generously, because each growth copies what is there into new memory.
SLOT_STEP = 8
SLOT_GROWTH = 1.5
COLUMN_STEP = 64


@dataclass
class LayerSlots:
    """One layer's storage; keys lie transposed, as their product with queries reads them.

    keys [slots, kv_heads, head_dim, columns], values [slots, kv_heads, columns, head_dim].
    """

    keys: Tensor
    values: Tensor

    @property
    def slots(self) -> int:
        """Sequences that fit."""
        return self.values.shape[0]

    @property
    def columns(self) -> int:
        """Tokens that fit into a slot."""
        return self.values.shape[2]


class SlotCache:
    """Storage for every layer, allocated in the shape and place of the first keys it gets."""

    def __init__(self, n_layers: int) -> None:
        self._layers: list[LayerSlots | None] = [None] * n_layers
        self._slots = 0
        self._columns = 0
        # Counts the times that the memory became another.
        self.version = 0

    def reserve(self, slots: int, columns: int, *, kept: int) -> None:
        """Make room for slots x columns; the first `kept` slots keep what they hold."""
        if columns > self._columns:
            self._columns = -(-columns // COLUMN_STEP) * COLUMN_STEP
        if slots > self._slots:
            self._slots = -(-int(slots * SLOT_GROWTH) // SLOT_STEP) * SLOT_STEP
        for index, held in enumerate(self._layers):
            if held and (held.slots < self._slots or held.columns < self._columns):
                self._layers[index] = self._resized(held, kept)
                self.version += 1

    def shrink(self, slots: int) -> None:
        """Keep only the first `slots` slots and give the memory of the others back."""
        self._slots = slots
        for index, held in enumerate(self._layers):
            if held:
                self._layers[index] = self._resized(held, slots)
                self.version += 1

    def load(self, slot: int, keys: Mapping[int, Tensor], values: Mapping[int, Tensor]) -> None:
        """Copy a prompt's keys and values, by layer [kv_heads, tokens, head_dim], into a slot."""
        for layer, k in keys.items():
            v = values[layer]
            held = self.layer(layer, k, v)
            held.keys[slot, :, :, : k.shape[1]] = k.transpose(1, 2)
            held.values[slot, :, : v.shape[1]] = v

    def copy_from(self, other: SlotCache, source: int, target: int, columns: int) -> None:
        """Copy the first `columns` columns of a cache's slot into one of this."""
        for index, theirs in enumerate(other._layers):
            if theirs is None or not columns:
                continue
            held = self._layers[index]
            if held is None:
                like = theirs.keys.transpose(2, 3)
                held = self.layer(index, like, theirs.values)
            held.keys[target, ..., :columns] = theirs.keys[source, ..., :columns]
            held.values[target, :, :columns] = theirs.values[source, :, :columns]

    def layer(self, index: int, keys: Tensor, values: Tensor) -> LayerSlots:
        """One layer's storage, made like these keys and values [..., heads, tokens, head_dim]."""
        held = self._layers[index]
        if held is None:
            held = self._empty(keys, keys.shape[-1], values, values.shape[-1])
            self._layers[index] = held
            self.version += 1
        return held

    def _empty(self, keys: Tensor, key_size: int, values: Tensor, value_size: int) -> LayerSlots:
        heads = values.shape[-3]
        # Zeros, because a hidden column still enters the sum over values, times zero.
        return LayerSlots(
            keys.new_zeros(self._slots, heads, key_size, self._columns),
            values.new_zeros(self._slots, heads, self._columns, value_size),
        )

    def _resized(self, held: LayerSlots, kept: int) -> LayerSlots:
        slots = slice(0, min(kept, held.slots, self._slots))
        columns = slice(0, min(held.columns, self._columns))
        new = self._empty(held.keys, held.keys.shape[2], held.values, held.values.shape[3])
        new.keys[slots, ..., columns] = held.keys[slots, ..., columns]
        new.values[slots, :, columns] = held.values[slots, :, columns]
        return new
