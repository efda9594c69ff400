"""Keys and values in slots, one a sequence, columns from the left, so that nothing ever shifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Each growth copies what is there into new memory. On a GPU that also ends recordings of it; on a
# CPU the memory matters more. Spare is the share of slots in reserve.
SLOT_STEP = 8
COLUMN_STEP_CPU, COLUMN_STEP_GPU = 16, 32
SPARE_CPU, SPARE_GPU = 0.0625, 0.5


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

    def __init__(self, n_layers: int, *, on_cpu: bool) -> None:
        self._layers: list[LayerSlots | None] = [None] * n_layers
        self._on_cpu = on_cpu
        self._spare = SPARE_CPU if on_cpu else SPARE_GPU
        self._column_step = COLUMN_STEP_CPU if on_cpu else COLUMN_STEP_GPU
        self._slots = 0
        self._columns = 0
        # Counts the times that the memory became another.
        self.version = 0

    def reserve(self, slots: int, columns: int, *, kept: int) -> None:
        """Make room for slots x columns; the first `kept` slots keep what they hold. On a CPU more
        columns also give slots back, since all is moved then."""
        had = self._columns
        self._widen(columns)
        widens = self._on_cpu and self._columns > had
        if slots > self._slots or widens:
            self._slots = self._with_spare(slots)
        self._fit_all(kept)

    def shrink(self, slots: int, columns: int) -> None:
        """Keep only the first columns of the first slots and give the memory of the others back;
        none at all needs no memory for it."""
        self._slots, self._columns = slots, 0
        if slots:
            self._widen(columns)
        self._fit_all(slots)

    def give_back(self, slots: int) -> None:
        """Give back what is far more than the first `slots` slots and those in reserve; nothing on
        a GPU, where it would end recordings."""
        if self._lower_to(slots):
            self._fit_all(slots)

    def take_over(
        self,
        narrow: SlotCache,
        sources: Sequence[int],
        *,
        behind: int,
        left: int,
        columns: int,
        width: int,
    ) -> dict[int, int]:
        """Move slots of a narrower cache, that hold so many columns, behind the first `behind` of
        this one, which becomes `width` wide. Of the other `left` stay, in its first slots: where
        those that had to move went.

        It goes layer by layer, so that what moves is never there twice as a whole; where memory
        ends in between neither cache is of use any more.
        """
        narrow._lower_to(left)
        self._widen(width)
        gone = set(sources)
        holes = [slot for slot in sources if slot < left]
        fillers = [slot for slot in range(left, left + len(gone)) if slot not in gone]
        n = behind + len(sources)
        if n > self._slots:
            self._slots = self._with_spare(n)
        for index, theirs in enumerate(narrow._layers):
            if theirs is None:
                continue
            if self._layers[index] is None:
                self.layer(index, theirs.keys.transpose(2, 3), theirs.values)
            self._fit(index, behind)
            held = self.layer(index, theirs.keys, theirs.values)
            held.keys[behind:n, ..., :columns] = theirs.keys[sources, ..., :columns]
            held.values[behind:n, :, :columns] = theirs.values[sources, :, :columns]
            theirs.keys[holes] = theirs.keys[fillers]
            theirs.values[holes] = theirs.values[fillers]
            narrow._fit(index, left)
        return dict(zip(fillers, holes, strict=True))

    def load(self, slot: int, keys: Mapping[int, Tensor], values: Mapping[int, Tensor]) -> None:
        """Copy a prompt's keys and values, by layer [kv_heads, tokens, head_dim], into a slot."""
        for layer, k in keys.items():
            v = values[layer]
            held = self.layer(layer, k, v)
            held.keys[slot, :, :, : k.shape[1]] = k.transpose(1, 2)
            held.values[slot, :, : v.shape[1]] = v

    def read(self, slot: int, columns: int) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """A copy of a slot's first columns, keys and values, as `load` takes them."""
        held = {index: layer for index, layer in enumerate(self._layers) if layer}
        keys = {i: layer.keys[slot, ..., :columns].transpose(1, 2) for i, layer in held.items()}
        values = {i: layer.values[slot, :, :columns] for i, layer in held.items()}
        return _copies(keys), _copies(values)

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

    def _widen(self, columns: int) -> None:
        step = self._column_step
        self._columns = max(self._columns, -(-columns // step) * step)

    def _with_spare(self, slots: int) -> int:
        return -(-int(slots * (1 + self._spare)) // SLOT_STEP) * SLOT_STEP

    def _lower_to(self, slots: int) -> bool:
        enough = self._with_spare(slots)
        if not self._on_cpu or enough > (1 - self._spare) * self._slots:
            return False
        self._slots = enough
        if not slots:
            self._columns = 0
        return True

    def _fit_all(self, kept: int) -> None:
        for index in range(len(self._layers)):
            self._fit(index, kept)

    def _fit(self, index: int, kept: int) -> None:
        held = self._layers[index]
        if held and (held.slots, held.columns) != (self._slots, self._columns):
            self._layers[index] = self._resized(held, kept)
            self.version += 1

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


def _copies(tensors: dict[int, Tensor]) -> dict[int, Tensor]:
    return {
        index: tensor.clone(memory_format=torch.contiguous_format)
        for index, tensor in tensors.items()
    }
