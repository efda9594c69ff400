"""Attention of one decode step: each row sees its shared prefix, then its own tokens.

A prefix's keys and values are kept once for all the rollouts that are decoded at the moment. They
are read once a step for all their rows, by one product over the padded grouping of the rows; own
tokens are read bucket by bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.attention import AttentionRule, attention_weights, hidden_where
from workers.engine.cache import SlotCache
from workers.engine.prefix_cache import Place, SharedPrefixes


@dataclass(frozen=True, eq=False)
class BucketRows:
    """These rows of a step lie in slots 0.. of this cache, used up to `width` columns."""

    cache: SlotCache
    rows: slice
    width: int


class DecodePass:
    """One new token a row; with s cached prompt tokens, position p is in column p - s."""

    def __init__(
        self,
        buckets: Sequence[BucketRows],
        prefixes: SharedPrefixes,
        places: Sequence[Place],
        positions: Sequence[int],
        device: torch.device,
    ) -> None:
        """`places` and `positions`, one entry a row: what it shares and where its token stands."""
        cached = [place.prefix.tokens - 1 for place in places]
        self._buckets = buckets
        self._prefixes = prefixes
        self._width, self._sharers, self._spots = prefixes.layout(places, device)
        self._prefix_columns = prefixes.columns
        # [rows] each
        self._positions, self._cached = torch.tensor([positions, cached]).to(device)
        self._masks: dict[tuple[BucketRows, int | None, torch.device], Tensor] = {}
        self._targets: dict[tuple[BucketRows, int, int, torch.device], Tensor] = {}
        self._groups: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """The attended values [rows, heads, 1, head_dim] of queries [rows, heads, 1, head_dim]."""
        rows, heads, _, size = q.shape
        grouped = (q * rule.scale).reshape(rows, k.shape[1], -1, size)
        from_prefix = self._prefix_scores(layer, grouped, k, v) if self._prefix_columns else None
        mixed, weights = [], []
        for bucket in self._buckets:
            scores = self._own_scores(bucket, layer, grouped, k, v)
            if from_prefix is not None:
                scores = torch.cat([from_prefix[bucket.rows], scores], -1)
            shape = scores.shape
            scores = scores.view(shape[0], heads, 1, -1)
            paid = attention_weights(scores, self._mask(bucket, rule.window, q), rule)
            paid = paid.to(v.dtype).reshape(shape)
            values = bucket.cache.layer(layer, k, v).values[: shape[0], :, : bucket.width]
            mixed.append(torch.matmul(paid[..., self._prefix_columns :], values))
            weights.append(paid[..., : self._prefix_columns])
        total = torch.cat(mixed) if len(mixed) > 1 else mixed[0]
        if from_prefix is not None:
            by_prefix = torch.cat(weights) if len(weights) > 1 else weights[0]
            total += self._prefix_values(layer, by_prefix, k, v)
        return total.view(rows, heads, 1, -1)

    def _own_scores(
        self, bucket: BucketRows, layer: int, grouped: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        own = bucket.cache.layer(layer, k, v)
        keys, values = k[bucket.rows], v[bucket.rows]
        lines = own.keys.view(-1)
        lines.scatter_(0, self._target(bucket, k[0].numel(), own.columns, k), keys.reshape(-1))
        lines = own.values.view(-1, v.shape[-1])
        target = self._target(bucket, v.shape[1], own.columns, v)
        lines.index_copy_(0, target, values.reshape(-1, v.shape[-1]))
        return torch.matmul(grouped[bucket.rows], own.keys[: len(keys), ..., : bucket.width])

    def _prefix_scores(self, layer: int, grouped: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys = self._prefixes.cache.layer(layer, k, v).keys
        spread = self._spread(grouped)
        scores = torch.matmul(spread, keys[: len(self._prefixes), ..., : self._prefix_columns])
        return self._gathered(scores, grouped)

    def _prefix_values(self, layer: int, weights: Tensor, k: Tensor, v: Tensor) -> Tensor:
        values = self._prefixes.cache.layer(layer, k, v).values
        spread = self._spread(weights)
        mixed = torch.matmul(spread, values[: len(self._prefixes), :, : self._prefix_columns])
        return self._gathered(mixed, weights)

    def _spread(self, by_row: Tensor) -> Tensor:
        # [rows, kv_heads, group, n] to [places, kv_heads, width * group, n]
        _, shared, _, last = by_row.shape
        spread, _ = self._group(shared, by_row.device)
        taken = by_row.flatten(0, 1).index_select(0, spread)
        return taken.view(len(self._prefixes), shared, -1, last)

    def _gathered(self, by_place: Tensor, like: Tensor) -> Tensor:
        # The way back: [places, kv_heads, width * group, n] to [rows, kv_heads, group, n]
        rows, shared, group, _ = like.shape
        _, back = self._group(shared, like.device)
        lines = by_place.view(-1, group, by_place.shape[-1])
        return lines.index_select(0, back).view(rows, shared, group, -1)

    def _group(self, shared: int, device: torch.device) -> tuple[Tensor, Tensor]:
        # The sharing layout with the heads inside the places, where a batched product wants them.
        if (shared, device) not in self._groups:
            width, heads = self._width, torch.arange(shared, device=device)
            rows = self._sharers.to(device).view(-1, 1, width)
            spread = rows * shared + heads.view(1, -1, 1)
            spots = self._spots.to(device).unsqueeze(1)
            place, rank = spots // width, spots % width
            back = (place * shared + heads) * width + rank
            self._groups[shared, device] = (spread.flatten(), back.flatten())
        return self._groups[shared, device]

    def _target(self, bucket: BucketRows, lines: int, capacity: int, like: Tensor) -> Tensor:
        # Where each row's column lies in storage of so many lines a row, `capacity` columns long.
        key = (bucket, lines, capacity, like.device)
        if key not in self._targets:
            columns = (self._positions - self._cached)[bucket.rows].to(like.device)
            line = torch.arange(len(columns) * lines, device=like.device).view(-1, lines)
            self._targets[key] = (line * capacity + columns.unsqueeze(1)).flatten()
        return self._targets[key]

    def _mask(self, bucket: BucketRows, window: int | None, q: Tensor) -> Tensor:
        # [rows, 1, 1, prefix columns + own columns]
        key = (bucket, window, q.device)
        if key not in self._masks:
            position = self._positions[bucket.rows].unsqueeze(1)
            cached = self._cached[bucket.rows].unsqueeze(1)
            prefix = torch.arange(self._prefix_columns, device=cached.device).expand(
                len(cached), -1
            )
            own = cached + torch.arange(bucket.width, device=cached.device)
            hidden = torch.cat([prefix >= cached, own > position], dim=1)
            if window is not None:
                hidden |= torch.cat([prefix, own], dim=1) <= position - window
            self._masks[key] = hidden_where(hidden, q.dtype).to(q.device)[:, None, None]
        return self._masks[key]
