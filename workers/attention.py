"""Attention over slots: transformers calls it in place of its own, with the pass that knows where keys live.

One prefill pass (whole prompts) and one decode pass (one token a row). Knows nothing about requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from workers.capture import text_decoder
from workers.kv_cache import SlotCache

IMPLEMENTATION = "orchestrate_slots"
# Queries of a prompt attended at once where scores are built in full: bounds their memory.
QUERY_CHUNK = 512


@dataclass(frozen=True)
class AttentionRule:
    """What a layer asks of its attention: scale, soft cap, sliding window (tokens seen, itself included), sinks."""

    scale: float
    softcap: float | None
    window: int | None
    sinks: Tensor | None

    @property
    def plain(self) -> bool:
        """True when torch's own kernels can compute it."""
        return self.softcap is None and self.sinks is None


class AttentionPass(Protocol):
    """Stores a layer's new keys and values and attends with its queries [batch, heads, tokens, head_dim]."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """The attended values, [batch, heads, tokens, head_dim]."""
        ...


class PrefillPass:
    """Causal attention over right-padded prompts that start at position 0; keeps their keys and values."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.windows: list[int | None] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """Attend within the prompts. Padding stands to the right, where no real token looks."""
        assert layer == len(self.keys), "layers must run in order"
        self.keys.append(k)
        self.values.append(v)
        self.windows.append(rule.window)
        tokens = q.shape[2]
        if rule.plain and (rule.window is None or tokens <= rule.window):
            return scaled_dot_product_attention(
                q, k, v, is_causal=tokens > 1, scale=rule.scale, enable_gqa=q.shape[1] != k.shape[1]
            )
        columns = torch.arange(tokens, device=q.device)
        chunks = [
            grouped_attention(q[:, :, rows], k, v, _visible(rows, columns, rule.window, q), rule)
            for rows in columns.split(QUERY_CHUNK)
        ]
        return torch.cat(chunks, dim=2)


class DecodePass:
    """One new token a row: writes its key at the row's position and attends to the columns up to it."""

    def __init__(self, cache: SlotCache, positions: Sequence[int], on_device: Tensor) -> None:
        """`on_device` is the same positions as a tensor [rows]."""
        self._cache = cache
        self._positions = on_device
        self._low, self._high = min(positions), max(positions)
        self._masks: dict[tuple[int | None, torch.device], tuple[int, Tensor | None]] = {}
        self._targets: dict[tuple[int, int, torch.device], Tensor] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """Attend to each row's own columns, read in place."""
        slots = self._cache.layer(layer, k, v)
        self._write(slots.keys, k)
        self._write(slots.values, v)
        first, mask = self._mask(rule.window, q)
        rows = slice(0, q.shape[0])
        keys = slots.keys[rows, :, first : self._high + 1]
        values = slots.values[rows, :, first : self._high + 1]
        return grouped_attention(q, keys, values, mask, rule)

    def _write(self, stored: Tensor, new: Tensor) -> None:
        flat = stored.view(-1, stored.shape[-1])
        flat.index_copy_(0, self._target(stored), new.reshape(-1, new.shape[-1]))

    def _target(self, stored: Tensor) -> Tensor:
        heads, columns = stored.shape[1], stored.shape[2]
        key = (heads, columns, stored.device)
        if key not in self._targets:
            positions = self._positions.to(stored.device)
            line = torch.arange(len(positions) * heads, device=stored.device).view(-1, heads)
            self._targets[key] = (line * columns + positions.unsqueeze(1)).flatten()
        return self._targets[key]

    def _mask(self, window: int | None, q: Tensor) -> tuple[int, Tensor | None]:
        key = (window, q.device)
        if key not in self._masks:
            first = 0 if window is None else max(0, self._low - window + 1)
            mask = None
            if self._low != self._high:
                columns = torch.arange(first, self._high + 1, device=q.device)
                rows = self._positions.to(q.device)
                # [rows, 1, 1, columns]
                mask = _visible(rows, columns, window, q)[:, None, None]
            self._masks[key] = (first, mask)
        return self._masks[key]


def grouped_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: AttentionRule
) -> Tensor:
    """Attention without repeating keys and values for the heads that share them.

    q [batch, heads, tokens, head_dim], k and v [batch, kv_heads, columns, head_dim]; the mask is added to the
    scores and broadcasts to [batch, 1, tokens, columns]. Softmax is float32.
    """
    batch, heads, tokens, size = q.shape
    shared = k.shape[1]
    grouped = (q * rule.scale).reshape(batch, shared, -1, size)
    scores = torch.matmul(grouped, k.transpose(2, 3)).view(batch, heads, tokens, -1)
    if rule.softcap is not None:
        scores = scores.div_(rule.softcap).tanh_().mul_(rule.softcap)
    if mask is not None:
        scores += mask
    weights = _softmax(scores, rule.sinks).to(v.dtype)
    mixed = torch.matmul(weights.reshape(batch, shared, -1, weights.shape[-1]), v)
    return mixed.view(batch, heads, tokens, -1)


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    *,
    slots: AttentionPass,
    **_ignored: Any,  # the interface passes every family's extras to every implementation
) -> tuple[Tensor, None]:
    """The function transformers calls; the mask is ours, made from positions. Output [batch, tokens, heads, dim]."""
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    rule = AttentionRule(scale, softcap, sliding_window, s_aux)
    attended = slots.attend(int(module.layer_idx), query, key, value, rule)
    return attended.transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, slot_attention)


def attention_configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """The settings objects that the text decoder's modules ask for their attention, each once."""
    parts = text_decoder(model).modules()
    return list({id(part.config): part.config for part in parts if hasattr(part, "config")}.values())


@contextmanager
def slots_in_charge(configs: Sequence[PreTrainedConfig]) -> Iterator[None]:
    """Let the model attend through slots inside the context, and in its own way after it."""
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = IMPLEMENTATION
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    if sinks is None:
        return torch.softmax(scores, -1, dtype=torch.float32)
    # A sink is one more score per head, whose share of the mass goes nowhere.
    sink = sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    widened = torch.cat([scores.float(), sink.float()], -1)
    return torch.softmax(widened, -1)[..., :-1]


def _visible(rows: Tensor, columns: Tensor, window: int | None, like: Tensor) -> Tensor:
    # Added to scores: 0 where a row may look, -inf elsewhere. [rows, columns]
    seen = columns <= rows.unsqueeze(1)
    if window is not None:
        seen &= columns > rows.unsqueeze(1) - window
    hidden = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return hidden.masked_fill_(~seen, float("-inf"))
