"""States of fixed size beside keys and values: of linear attention, convolutions and state-space
layers, kept for prompts and for running rows, and handed to the model as transformers' cache.

Such a state has seen every token in order, so padding must never pass through it: prompts that are
run together have one length, and a decode step feeds each row one token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig

# Layer types whose states transformers keeps in its cache, with or without keys and values.
STATEFUL_LAYERS = {"linear_attention", "conv", "hybrid", "hybrid_sliding"}

# Columns are added so many at a time: a row's states are as large as hundreds of its tokens.
COLUMN_STEP = 16

# The column of rows that are padding, which nobody reads.
SCRATCH = 0


class StateKey(NamedTuple):
    """Which state: a layer may have several of each kind."""

    layer: int
    number: int
    is_conv: bool


States = dict[StateKey, Tensor]


def is_stateful(text: PreTrainedConfig) -> bool:
    """Whether a text configuration has layers with such states."""
    return not STATEFUL_LAYERS.isdisjoint(getattr(text, "layer_types", None) or ())


class StateStore:
    """Every running row's states, each [columns, ...]; a row keeps its column while it runs."""

    def __init__(self) -> None:
        self._held: States = {}
        self._columns = 0
        # Counts the times that the memory became another.
        self.version = 0

    @property
    def columns(self) -> int:
        """Columns that have memory, `SCRATCH` among them."""
        return self._columns

    def reserve(self, columns: int) -> None:
        """Make room for so many columns; those there are keep what they hold."""
        if columns <= self._columns:
            return
        self._columns = -(-columns // COLUMN_STEP) * COLUMN_STEP
        for key, held in self._held.items():
            new = held.new_zeros(self._columns, *held.shape[1:])
            new[: len(held)] = held
            self._held[key] = new
            self.version += 1

    def begin(self, column: int, states: Mapping[StateKey, Tensor]) -> None:
        """Give a column the states of a prompt, each [...]; those it has none of become zeros."""
        for key, state in states.items():
            self._memory(key, state)[column] = state
        for key in self._held.keys() - states.keys():
            self._held[key][column] = 0

    def read(self, key: StateKey, columns: Tensor) -> Tensor | None:
        """Copies of the rows in these columns; None before any row has had such a state."""
        held = self._held.get(key)
        return None if held is None else held.index_select(0, columns.to(held.device))

    def write(self, key: StateKey, columns: Tensor, states: Tensor) -> None:
        """Put the states [rows, ...] into their columns."""
        held = self._memory(key, states[0])
        held.index_copy_(0, columns.to(held.device), states)

    def _memory(self, key: StateKey, like: Tensor) -> Tensor:
        # zeros are what a layer starts from
        if key not in self._held:
            self._held[key] = like.new_zeros(self._columns, *like.shape)
            self.version += 1
        return self._held[key]


class PassStates(Cache):  # type: ignore[misc]  # transformers is untyped
    """What a model asks of its cache in one pass; keys and values pass through untouched, since
    attention itself stores them."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The new keys and values alone."""
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """None before this pass; positions are given with the ids."""
        return 0

    def is_recording_past(self, layer_idx: int) -> bool:
        """Nothing is ever taken back."""
        return False

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The last inputs of a convolution, [rows, width, tokens]."""
        return self._get(StateKey(layer_idx, state_idx, True))

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The state of a recurrence, [rows, ...]."""
        return self._get(StateKey(layer_idx, state_idx, False))

    def update_conv_state(
        self,
        conv_states: Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **_: Any,
    ) -> Tensor:
        """Keep the last inputs, zeros before the first; what there was and the new ones."""
        key = StateKey(layer_idx, state_idx, True)
        before = self._get(key)
        size = conv_kernel_size or (conv_states if before is None else before).shape[-1]
        seen = conv_states if before is None else torch.cat([before, conv_states], -1)
        seen = torch.nn.functional.pad(seen, (max(0, size - seen.shape[-1]), 0))
        self._put(key, seen[..., -size:])
        return seen

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> Tensor:
        """Keep the state of a recurrence."""
        self._put(StateKey(layer_idx, state_idx, False), recurrent_states)
        return recurrent_states

    def _get(self, key: StateKey) -> Tensor | None:
        raise NotImplementedError

    def _put(self, key: StateKey, states: Tensor) -> None:
        raise NotImplementedError


class PrefillStates(PassStates):
    """Those of prompts, which start from nothing; `kept` [prompts, ...] after the pass."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: States = {}

    def _get(self, key: StateKey) -> Tensor | None:
        return None

    def _put(self, key: StateKey, states: Tensor) -> None:
        self.kept[key] = states


class DecodeStates(PassStates):
    """Those of a decode step's rows, which lie in `columns` [rows] of a store.

    A model may change in place what it is handed, so a layer's states go back as a whole: when
    another layer asks for its own, and the last one's with `write_back`.
    """

    def __init__(self, store: StateStore, columns: Tensor) -> None:
        super().__init__()
        self._store, self._columns = store, columns
        self._handed: States = {}

    def write_back(self) -> None:
        """Store what the latest layer left."""
        for key, states in self._handed.items():
            self._store.write(key, self._columns, states)
        self._handed.clear()

    def _get(self, key: StateKey) -> Tensor | None:
        if key not in self._handed:
            if any(other.layer != key.layer for other in self._handed):
                self.write_back()
            states = self._store.read(key, self._columns)
            if states is None:
                return None
            self._handed[key] = states
        return self._handed[key]

    def _put(self, key: StateKey, states: Tensor) -> None:
        self._handed[key] = states
