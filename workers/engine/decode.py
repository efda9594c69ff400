"""Attention of one decode step: each row sees its shared prefix, then its own tokens.

Shared prefixes are read once a step for all their rows, by one product over the padded grouping
of the rows; own tokens are read bucket by bucket.

Keeps each prompt's keys and values once for all the rollouts that are decoded at the moment.

Attention then reads a shared prefix once a step, not once a rollout, and rows only store their
own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.attention import AttentionRule, attention_weights, hidden_where
from workers.engine.cache import SlotCache
from workers.engine.prefix_cache import Prefix


@dataclass(frozen=True)
class BucketRows:
    """Rows start..stop of a step lie in slots 0.. of this cache, used up to `width` columns."""

    cache: SlotCache
    start: int
    stop: int
    width: int

    @property
    def rows(self) -> slice:
        """Where the bucket's rows are among all rows of the step."""
        return slice(self.start, self.stop)


class DecodePass:
    """One new token a row; with s cached prompt tokens, position p is in column p - s."""

    def __init__(
        self,
        buckets: Sequence[BucketRows],
        prompts: SharedPrefixes,
        places: Sequence[Place],
        positions: Sequence[int],
        device: torch.device,
    ) -> None:
        """`places` and `positions`, one entry a row: what it shares and where its token stands."""
        cached = [place.prompt.tokens - 1 for place in places]
        self._buckets = buckets
        self._prompts = prompts
        self._sharing = prompts.layout(places, device)
        self._prompt_width = prompts.columns
        # [rows] each
        self._positions, self._cached = torch.tensor([positions, cached]).to(device)
        self._masks: dict[tuple[BucketRows, int | None, torch.device], Tensor] = {}
        self._targets: dict[tuple[BucketRows, int, int, torch.device], Tensor] = {}
        self._groups: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def columns_read(self) -> int:
        """Columns of keys that a layer reads in this step."""
        own = sum((bucket.stop - bucket.start) * bucket.width for bucket in self._buckets)
        return own + self._sharing.places * self._prompt_width

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """The attended values [rows, heads, 1, head_dim] of queries [rows, heads, 1, head_dim]."""
        rows, heads, _, size = q.shape
        grouped = (q * rule.scale).reshape(rows, k.shape[1], -1, size)
        from_prompt = self._prompt_scores(layer, grouped, k, v) if self._prompt_width else None
        mixed, weights = [], []
        for bucket in self._buckets:
            scores = self._own_scores(bucket, layer, grouped, k, v)
            if from_prompt is not None:
                scores = torch.cat([from_prompt[bucket.rows], scores], -1)
            shape = scores.shape
            scores = scores.view(shape[0], heads, 1, -1)
            paid = attention_weights(scores, self._mask(bucket, rule.window, q), rule)
            paid = paid.to(v.dtype).reshape(shape)
            values = bucket.cache.layer(layer, k, v).values[: shape[0], :, : bucket.width]
            mixed.append(torch.matmul(paid[..., self._prompt_width :], values))
            weights.append(paid[..., : self._prompt_width])
        total = torch.cat(mixed) if len(mixed) > 1 else mixed[0]
        if from_prompt is not None:
            by_prompt = torch.cat(weights) if len(weights) > 1 else weights[0]
            total += self._prompt_values(layer, by_prompt, k, v)
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

    def _prompt_scores(self, layer: int, grouped: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys = self._prompts.cache.layer(layer, k, v).keys
        spread = self._spread(grouped)
        scores = torch.matmul(spread, keys[: self._sharing.places, ..., : self._prompt_width])
        return self._gathered(scores, grouped)

    def _prompt_values(self, layer: int, weights: Tensor, k: Tensor, v: Tensor) -> Tensor:
        values = self._prompts.cache.layer(layer, k, v).values
        spread = self._spread(weights)
        mixed = torch.matmul(spread, values[: self._sharing.places, :, : self._prompt_width])
        return self._gathered(mixed, weights)

    def _spread(self, by_row: Tensor) -> Tensor:
        # [rows, kv_heads, group, n] to [places, kv_heads, width * group, n]
        _, shared, _, last = by_row.shape
        spread, _ = self._group(shared, by_row.device)
        taken = by_row.flatten(0, 1).index_select(0, spread)
        return taken.view(self._sharing.places, shared, -1, last)

    def _gathered(self, by_place: Tensor, like: Tensor) -> Tensor:
        # The way back: [places, kv_heads, width * group, n] to [rows, kv_heads, group, n]
        rows, shared, group, _ = like.shape
        _, back = self._group(shared, like.device)
        lines = by_place.view(-1, group, by_place.shape[-1])
        return lines.index_select(0, back).view(rows, shared, group, -1)

    def _group(self, shared: int, device: torch.device) -> tuple[Tensor, Tensor]:
        # The sharing layout with the heads inside the places, where a batched product wants them.
        if (shared, device) not in self._groups:
            layout = self._sharing
            heads = torch.arange(shared, device=device)
            rows = layout.rows.to(device).view(layout.places, 1, layout.width)
            spread = rows * shared + heads.view(1, -1, 1)
            spot = layout.spot.to(device).unsqueeze(1)
            place, rank = spot // layout.width, spot % layout.width
            back = (place * shared + heads) * layout.width + rank
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
        # [rows, 1, 1, prompt columns + own columns]
        key = (bucket, window, q.device)
        if key not in self._masks:
            position = self._positions[bucket.rows].unsqueeze(1)
            cached = self._cached[bucket.rows].unsqueeze(1)
            prompt = torch.arange(self._prompt_width, device=cached.device).expand(len(cached), -1)
            own = cached + torch.arange(bucket.width, device=cached.device)
            hidden = torch.cat([prompt >= cached, own > position], dim=1)
            if window is not None:
                hidden |= torch.cat([prompt, own], dim=1) <= position - window
            self._masks[key] = hidden_where(hidden, q.dtype).to(q.device)[:, None, None]
        return self._masks[key]


# More rows on one place would widen the padded layout for every other prompt.
MOST_SHARERS = 16


@dataclass(eq=False)
class Place:
    """Where a prefix in use lies in the cache, and how many rows share it."""

    index: int
    prompt: Prefix
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


class SharedPrefixes:
    """The prefixes in use, in dense places 0..n-1 of a cache of their own."""

    def __init__(self, n_layers: int) -> None:
        self.cache = SlotCache(n_layers)
        self._places: list[Place] = []

    @property
    def columns(self) -> int:
        """Cached tokens of the longest prefix in use."""
        return max((place.prompt.tokens - 1 for place in self._places), default=0)

    def join(self, prompt: Prefix) -> Place:
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
