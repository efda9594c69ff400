"""Attention of one decode step: each row sees its shared prompt, then its own tokens.

Shared prompts are read once a step for all their rows, by one product over the padded grouping of
the rows. Knows nothing about requests or sampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.attention import AttentionRule, attention_weights, hidden_where
from workers.kv_cache import SlotCache
from workers.shared_prompts import Place, SharedPrompts


class DecodePass:
    """One new token a row; with s cached prompt tokens, position p is in column p - s."""

    def __init__(
        self,
        responses: SlotCache,
        prompts: SharedPrompts,
        places: Sequence[Place],
        positions: Sequence[int],
        device: torch.device,
    ) -> None:
        """`places` and `positions`, one entry a row: what it shares and where its token stands."""
        cached = [place.prompt.tokens - 1 for place in places]
        columns = [p - s for p, s in zip(positions, cached, strict=True)]
        self._responses = responses
        self._prompts = prompts
        self._sharing = prompts.layout(places, device)
        self._prompt_width, self._own_width = prompts.columns, max(columns) + 1
        # [rows] each
        self._positions, self._cached, self._columns = torch.tensor(
            [positions, cached, columns]
        ).to(device)
        self._masks: dict[tuple[int | None, torch.device], Tensor] = {}
        self._targets: dict[tuple[int, int, torch.device], Tensor] = {}
        self._groups: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def columns_read(self) -> int:
        """Columns of keys that a layer reads in this step."""
        own = len(self._positions) * self._own_width
        return own + self._sharing.places * self._prompt_width

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """The attended values [rows, heads, 1, head_dim] of queries [rows, heads, 1, head_dim]."""
        rows, heads, _, size = q.shape
        shared = k.shape[1]
        own = self._responses.layer(layer, k, v)
        lines = own.keys.view(-1)
        lines.scatter_(0, self._target(k[0].numel(), own.columns, k), k.reshape(-1))
        lines = own.values.view(-1, v.shape[-1])
        lines.index_copy_(0, self._target(shared, own.columns, v), v.reshape(-1, v.shape[-1]))
        grouped = (q * rule.scale).reshape(rows, shared, -1, size)
        scores = torch.matmul(grouped, own.keys[:rows, ..., : self._own_width])
        if self._prompt_width:
            scores = torch.cat([self._prompt_scores(layer, grouped, k, v), scores], -1)
        weights = attention_weights(
            scores.view(rows, heads, 1, -1), self._mask(rule.window, q), rule
        )
        weights = weights.to(v.dtype).reshape(rows, shared, heads // shared, -1)
        by_prompt = weights[..., : self._prompt_width]
        by_own = weights[..., self._prompt_width :]
        mixed = torch.matmul(by_own, own.values[:rows, :, : self._own_width])
        if self._prompt_width:
            mixed += self._prompt_values(layer, by_prompt, k, v)
        return mixed.view(rows, heads, 1, -1)

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

    def _target(self, lines: int, capacity: int, like: Tensor) -> Tensor:
        # Where each row's column lies in storage of so many lines a row, each `capacity` columns
        # long.
        key = (lines, capacity, like.device)
        if key not in self._targets:
            columns = self._columns.to(like.device)
            line = torch.arange(len(columns) * lines, device=like.device).view(-1, lines)
            self._targets[key] = (line * capacity + columns.unsqueeze(1)).flatten()
        return self._targets[key]

    def _mask(self, window: int | None, q: Tensor) -> Tensor:
        # [rows, 1, 1, prompt columns + own columns]
        key = (window, q.device)
        if key not in self._masks:
            device = self._positions.device
            prompt = torch.arange(self._prompt_width, device=device)
            own = torch.arange(self._own_width, device=device)
            cached = self._cached.unsqueeze(1)
            hidden = torch.cat(
                [prompt >= cached, own > self._columns.unsqueeze(1)],
                dim=1,
            )
            if window is not None:
                positions = torch.cat([prompt.expand(len(cached), -1), own + cached], dim=1)
                hidden |= positions <= self._positions.unsqueeze(1) - window
            self._masks[key] = hidden_where(hidden, q.dtype).to(q.device)[:, None, None]
        return self._masks[key]
