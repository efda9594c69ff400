"""Attention of one decode step: each row sees its shared prefix, then its own tokens.

A prefix's keys and values are kept once for all the rollouts that are decoded at the moment. They
are read once a step for all their rows, by one product over the padded grouping of the rows; own
tokens are read bucket by bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from traitlens.arrays import Ints
from workers.engine.attention import AttentionRule, attention_weights, hidden_where
from workers.engine.slot_cache import SlotCache
from workers.engine.states import DecodeStates, StateStore


@dataclass(frozen=True)
class StepShape:
    """The sizes of a decode step, of which its kernels are made.

    `rows` and `widths`, an entry a bucket in use: its rows, and the columns that they see of their
    own tokens. `places` prefixes of up to `columns` tokens, on each `sharers` rows at most.
    """

    rows: tuple[int, ...]
    widths: tuple[int, ...]
    places: int
    sharers: int
    columns: int

    @property
    def n_rows(self) -> int:
        """Rows of all buckets."""
        return sum(self.rows)

    def slices(self) -> list[slice]:
        """Where each bucket's rows stand among the rows."""
        stops = np.cumsum(self.rows).tolist()
        return [slice(stop - rows, stop) for rows, stop in zip(self.rows, stops, strict=True)]

    def covers(self, other: StepShape) -> bool:
        """Whether a step of the other sizes can be padded to these."""
        return (
            len(self.rows) == len(other.rows)
            and all(a >= b for a, b in zip(self.rows, other.rows, strict=True))
            and all(a >= b for a, b in zip(self.widths, other.widths, strict=True))
            and self.places >= other.places
            and self.sharers >= other.sharers
            and self.columns >= other.columns
        )

    def spots_of(self, other: StepShape) -> Ints:
        """Where the rows of a step of other sizes stand among these rows, [rows of the other]."""
        spots = [
            np.arange(where.start, where.start + rows)
            for rows, where in zip(other.rows, self.slices(), strict=True)
        ]
        return np.concatenate(spots)


@dataclass(frozen=True, eq=False)
class StepRows:
    """The rows of a decode step on the host, in bucket order: what is fed to each at which
    position, the cached tokens of its prefix, the column of its states, its place, and its rank
    among those who share it."""

    tokens: Ints
    positions: Ints
    cached: Ints
    columns: Ints
    places: Ints
    ranks: Ints

    def numbers(self, own: StepShape, shape: StepShape) -> Ints:
        """All that a step of `shape` reads, in one array; rows of `own` sizes, padded to it.

        A row of padding feeds token 0 at position 0 into a slot and a column that nobody has, and
        sees no prefix; a spot of padding names row 0.
        """
        where = shape.spots_of(own)
        n, spots = shape.n_rows, self.places * shape.sharers + self.ranks
        by_row = (self.tokens, self.positions, self.cached, self.columns, spots)
        sharers = len(by_row) * n
        numbers = np.zeros(sharers + shape.places * shape.sharers, np.int64)
        for part, values in enumerate(by_row):
            numbers[part * n + where] = values
        numbers[sharers + spots] = where
        return numbers


class DecodePass:
    """One new token a row; with s cached prompt tokens, position p is in column p - s."""

    def __init__(
        self,
        shape: StepShape,
        numbers: Tensor,
        buckets: Sequence[SlotCache],
        prefixes: SlotCache,
        states: StateStore | None,
    ) -> None:
        """`numbers` as StepRows.numbers makes them, on the device; a bucket's rows lie in slots
        0.. of its cache. `states` is None in a model without."""
        rows = shape.n_rows
        self._shape = shape
        self._buckets = list(zip(shape.slices(), shape.widths, buckets, strict=True))
        self._prefixes = prefixes
        # [rows] each, and [places * sharers]
        by_row, self._sharers = numbers[: 5 * rows].view(5, rows), numbers[5 * rows :]
        self.tokens, self.positions, self._cached, columns, self._spots = by_row
        self.states = DecodeStates(states, columns) if states else None
        self._masks: dict[tuple[object, ...], Tensor] = {}
        self._targets: dict[tuple[int, int, int, torch.device], Tensor] = {}
        self._groups: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """The attended values [rows, heads, 1, head_dim] of queries [rows, heads, 1, head_dim]."""
        rows, heads, _, size = q.shape
        columns = self._shape.columns
        grouped = (q * rule.scale).reshape(rows, k.shape[1], -1, size)
        from_prefix = self._prefix_scores(layer, grouped, k, v) if columns else None
        mixed, weights = [], []
        for number, (where, width, cache) in enumerate(self._buckets):
            scores = self._own_scores(number, layer, grouped, k, v)
            if from_prefix is not None:
                scores = torch.cat([from_prefix[where], scores], -1)
            shape = scores.shape
            scores = scores.view(shape[0], heads, 1, -1)
            paid = attention_weights(scores, self._mask(number, rule, q), rule)
            paid = paid.to(v.dtype).reshape(shape)
            values = cache.layer(layer, k, v).values[: shape[0], :, :width]
            mixed.append(torch.matmul(paid[..., columns:], values))
            weights.append(paid[..., :columns])
        total = torch.cat(mixed) if len(mixed) > 1 else mixed[0]
        if from_prefix is not None:
            by_prefix = torch.cat(weights) if len(weights) > 1 else weights[0]
            total += self._prefix_values(layer, by_prefix, k, v)
        return total.view(rows, heads, 1, -1)

    def _own_scores(self, number: int, layer: int, grouped: Tensor, k: Tensor, v: Tensor) -> Tensor:
        where, width, cache = self._buckets[number]
        own = cache.layer(layer, k, v)
        keys, values = k[where], v[where]
        lines = own.keys.view(-1)
        lines.scatter_(0, self._target(number, k[0].numel(), own.columns, k), keys.reshape(-1))
        lines = own.values.view(-1, v.shape[-1])
        target = self._target(number, v.shape[1], own.columns, v)
        lines.index_copy_(0, target, values.reshape(-1, v.shape[-1]))
        return torch.matmul(grouped[where], own.keys[: len(keys), ..., :width])

    def _prefix_scores(self, layer: int, grouped: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys = self._prefixes.layer(layer, k, v).keys
        spread = self._spread(grouped)
        scores = torch.matmul(spread, keys[: self._shape.places, ..., : self._shape.columns])
        return self._gathered(scores, grouped)

    def _prefix_values(self, layer: int, weights: Tensor, k: Tensor, v: Tensor) -> Tensor:
        values = self._prefixes.layer(layer, k, v).values
        spread = self._spread(weights)
        mixed = torch.matmul(spread, values[: self._shape.places, :, : self._shape.columns])
        return self._gathered(mixed, weights)

    def _spread(self, by_row: Tensor) -> Tensor:
        # [rows, kv_heads, group, n] to [places, kv_heads, sharers * group, n]
        _, shared, _, last = by_row.shape
        spread, _ = self._group(shared, by_row.device)
        taken = by_row.flatten(0, 1).index_select(0, spread)
        return taken.view(self._shape.places, shared, -1, last)

    def _gathered(self, by_place: Tensor, like: Tensor) -> Tensor:
        # The way back: [places, kv_heads, sharers * group, n] to [rows, kv_heads, group, n]
        rows, shared, group, _ = like.shape
        _, back = self._group(shared, like.device)
        lines = by_place.view(-1, group, by_place.shape[-1])
        return lines.index_select(0, back).view(rows, shared, group, -1)

    def _group(self, shared: int, device: torch.device) -> tuple[Tensor, Tensor]:
        # The sharing layout with the heads inside the places, where a batched product wants them.
        if (shared, device) not in self._groups:
            width, heads = self._shape.sharers, torch.arange(shared, device=device)
            rows = self._sharers.to(device).view(-1, 1, width)
            spread = rows * shared + heads.view(1, -1, 1)
            spots = self._spots.to(device).unsqueeze(1)
            place, rank = spots // width, spots % width
            back = (place * shared + heads) * width + rank
            self._groups[shared, device] = (spread.flatten(), back.flatten())
        return self._groups[shared, device]

    def _target(self, number: int, lines: int, capacity: int, like: Tensor) -> Tensor:
        # Where each row's column lies in storage of so many lines a row, `capacity` columns long.
        key = (number, lines, capacity, like.device)
        if key not in self._targets:
            where = self._buckets[number][0]
            columns = (self.positions - self._cached)[where].to(like.device)
            line = torch.arange(len(columns) * lines, device=like.device).view(-1, lines)
            self._targets[key] = (line * capacity + columns.unsqueeze(1)).flatten()
        return self._targets[key]

    def _mask(self, number: int, rule: AttentionRule, q: Tensor) -> Tensor:
        # [rows, 1, 1, prefix columns + own columns]
        key = (number, rule.reach, q.device)
        if key not in self._masks:
            where, width, _ = self._buckets[number]
            position = self.positions[where].unsqueeze(1)
            cached = self._cached[where].unsqueeze(1)
            prefix = torch.arange(self._shape.columns, device=cached.device)
            prefix = prefix.expand(len(cached), -1)
            own = cached + torch.arange(width, device=cached.device)
            hidden = torch.cat([prefix >= cached, own > position], dim=1)
            too_far = rule.out_of_reach(torch.cat([prefix, own], dim=1), position)
            if too_far is not None:
                hidden |= too_far
            self._masks[key] = hidden_where(hidden, q.dtype).to(q.device)[:, None, None]
        return self._masks[key]
