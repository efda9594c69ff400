"""Keys and values in slots, one a sequence, columns from the left, so that nothing ever shifts.

Knows nothing about attention or requests; grows on demand and can be cut back.

Rows of like length side by side: each bucket is twice as wide as the one before.

A step reads every row of a bucket as wide as its longest, so long rows must not lie among short
ones. A row that fills its bucket moves to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

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

    def reserve(self, slots: int, columns: int, *, live: int) -> None:
        """Make room for slots x columns; the first `live` slots keep what they hold."""
        if columns > self._columns:
            self._columns = -(-columns // COLUMN_STEP) * COLUMN_STEP
        if slots > self._slots:
            self._slots = -(-int(slots * SLOT_GROWTH) // SLOT_STEP) * SLOT_STEP
        for index, held in enumerate(self._layers):
            if held and (held.slots < self._slots or held.columns < self._columns):
                self._layers[index] = self._resized(held, live)

    def shrink(self, slots: int) -> None:
        """Keep only the first `slots` slots and give the memory of the others back."""
        self._slots = slots
        for index, held in enumerate(self._layers):
            if held:
                self._layers[index] = self._resized(held, slots)

    def load(self, slot: int, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Copy a prompt's keys and values, per layer [kv_heads, tokens, head_dim], into a slot."""
        for layer, (k, v) in enumerate(zip(keys, values, strict=True)):
            held = self.layer(layer, k, v)
            held.keys[slot, :, :, : k.shape[1]] = k.transpose(1, 2)
            held.values[slot, :, : v.shape[1]] = v

    def move(self, source: int, target: int, columns: int) -> None:
        """Copy a slot's first `columns` columns into another slot."""
        self.copy_from(self, source, target, columns)

    def copy_from(self, other: SlotCache, source: int, target: int, columns: int) -> None:
        """Copy the first `columns` columns of another cache's slot into one of this."""
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
        return held

    def _empty(self, keys: Tensor, key_size: int, values: Tensor, value_size: int) -> LayerSlots:
        heads = values.shape[-3]
        # Zeros, because a hidden column still enters the sum over values, times zero.
        return LayerSlots(
            keys.new_zeros(self._slots, heads, key_size, self._columns),
            values.new_zeros(self._slots, heads, self._columns, value_size),
        )

    def _resized(self, held: LayerSlots, live: int) -> LayerSlots:
        kept = slice(0, min(live, held.slots, self._slots))
        columns = slice(0, min(held.columns, self._columns))
        new = self._empty(held.keys, held.keys.shape[2], held.values, held.values.shape[3])
        new.keys[kept, ..., columns] = held.keys[kept, ..., columns]
        new.values[kept, :, columns] = held.values[kept, :, columns]
        return new


# Fewer, wider buckets on a GPU, where each one costs a launch of every kernel.
FIRST_WIDTH_CPU = 64

FIRST_WIDTH_GPU = 256


class Member(Protocol):
    """A row: the bucket and slot it lies in, and how many columns of it are in use."""

    bucket: int
    slot: int

    @property
    def columns(self) -> int:
        """Columns in use."""
        ...


M = TypeVar("M", bound=Member)


class LengthBucket(Generic[M]):
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


class LengthBuckets(Generic[M]):
    """LengthBuckets from narrow to wide; rows are ordered bucket by bucket."""

    def __init__(self, n_layers: int, first_width: int) -> None:
        self._n_layers = n_layers
        self._first_width = first_width
        self.buckets: list[LengthBucket[M]] = []

    def __iter__(self) -> Iterator[M]:
        return (row for bucket in self.buckets for row in bucket.rows)

    def __len__(self) -> int:
        return sum(len(bucket.rows) for bucket in self.buckets)

    def push(self, row: M) -> None:
        """Start a row, which uses no columns yet."""
        row.bucket = 0
        self._bucket(0).push(row)

    def remove(self, row: M) -> None:
        """End a row."""
        self.buckets[row.bucket].remove(row)

    def make_room(self) -> None:
        """Move every row that fills its bucket, so that each can write one more column."""
        for number, bucket in enumerate(list(self.buckets)):
            for row in [row for row in bucket.rows if row.columns == bucket.width]:
                self._promote(row, number)

    def shrink(self) -> None:
        """Give back the memory of slots that no row uses."""
        for bucket in self.buckets:
            bucket.cache.shrink(len(bucket.rows))

    def _promote(self, row: M, number: int) -> None:
        narrow, wide = self._bucket(number), self._bucket(number + 1)
        source = row.slot
        wide.push(row)
        wide.cache.copy_from(narrow.cache, source, row.slot, row.columns)
        target, row.slot = row.slot, source
        narrow.remove(row)
        row.bucket, row.slot = number + 1, target

    def _bucket(self, number: int) -> LengthBucket[M]:
        while number >= len(self.buckets):
            self.buckets.append(
                LengthBucket(self._n_layers, self._first_width << len(self.buckets))
            )
        return self.buckets[number]
