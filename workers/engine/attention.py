"""Attention over slots, which transformers calls in place of its own, and the pass over prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig

from workers.engine.states import PassStates, PrefillStates

IMPLEMENTATION = "orchestrate_slots"

# Queries of a prompt attended at once where scores are built in full: bounds their memory.
QUERY_CHUNK = 512


@dataclass(frozen=True)
class AttentionRule:
    """What a layer asks of its attention.

    A window of w sees w tokens, itself included; a chunk of c sees those from the latest position
    on that c divides.
    """

    scale: float
    softcap: float | None
    window: int | None
    chunk: int | None
    sinks: Tensor | None

    @property
    def reach(self) -> tuple[int | None, int | None]:
        """Its window and chunk: what decides which tokens are seen."""
        return self.window, self.chunk

    @property
    def plain(self) -> bool:
        """True when torch's own kernels can compute it."""
        return self.softcap is None and self.sinks is None

    def out_of_reach(self, columns: Tensor, positions: Tensor) -> Tensor | None:
        """Where a column's position is too far back for a row's; None where nothing is."""
        hidden = None
        if self.window is not None:
            hidden = columns <= positions - self.window
        if self.chunk is not None:
            before = columns < positions // self.chunk * self.chunk
            hidden = before if hidden is None else hidden | before
        return hidden


class AttentionPass(Protocol):
    """Stores a layer's new keys and values and attends with its queries.

    `positions` [rows] of the tokens where each row has one, None where they count from 0; `states`
    are those of layers that keep no keys, None in a model without.
    """

    @property
    def positions(self) -> Tensor | None: ...

    @property
    def states(self) -> PassStates | None: ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """The attended values, [batch, heads, tokens, head_dim]."""
        ...


class PrefillPass:
    """Causal attention over right-padded prompts from position 0; keeps their keys and values."""

    def __init__(self, *, stateful: bool) -> None:
        self.positions: Tensor | None = None
        self.states = PrefillStates() if stateful else None
        # by layer
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.reaches: dict[int, tuple[int | None, int | None]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """Attend within the prompts. Padding stands to the right, where no real token looks."""
        assert layer not in self.keys, "a layer attends once"
        self.keys[layer], self.values[layer] = k, v
        self.reaches[layer] = rule.reach
        tokens = q.shape[2]
        if rule.plain and all(size is None or tokens <= size for size in rule.reach):
            return scaled_dot_product_attention(
                q, k, v, is_causal=tokens > 1, scale=rule.scale, enable_gqa=q.shape[1] != k.shape[1]
            )
        columns = torch.arange(tokens, device=q.device)
        chunks = []
        for rows in torch.split(columns, QUERY_CHUNK):
            hidden = columns > rows.unsqueeze(1)
            too_far = rule.out_of_reach(columns, rows.unsqueeze(1))
            if too_far is not None:
                hidden |= too_far
            mask = hidden_where(hidden, q.dtype)
            chunks.append(grouped_attention(q[:, :, rows], k, v, mask, rule))
        return torch.cat(chunks, dim=2)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, rule: AttentionRule) -> Tensor:
    """Attention without repeating keys and values for the heads that share them.

    q [batch, heads, tokens, head_dim], k and v [batch, kv_heads, columns, head_dim]; the mask is
    added to the scores and broadcasts to [batch, heads, tokens, columns].
    """
    batch, heads, tokens, size = q.shape
    shared = k.shape[1]
    grouped = (q * rule.scale).reshape(batch, shared, -1, size)
    scores = torch.matmul(grouped, k.transpose(2, 3)).view(batch, heads, tokens, -1)
    weights = attention_weights(scores, mask, rule).to(v.dtype)
    mixed = torch.matmul(weights.reshape(batch, shared, -1, weights.shape[-1]), v)
    return mixed.view(batch, heads, tokens, -1)


def attention_weights(scores: Tensor, mask: Tensor, rule: AttentionRule) -> Tensor:
    """Softmax in float32 over scaled scores [batch, heads, tokens, columns], may change them."""
    if rule.softcap is not None:
        scores = scores.div_(rule.softcap).tanh_().mul_(rule.softcap)
    scores += mask
    if rule.sinks is None:
        return torch.softmax(scores, -1, dtype=torch.float32)
    # A sink is one more score per head, whose share of the mass goes nowhere.
    sinks = rule.sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.softmax(torch.cat([scores.float(), sinks.float()], -1), -1)[..., :-1]


def hidden_where(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to scores: -inf where `hidden` is true, 0 elsewhere."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(
        hidden, float("-inf")
    )


def slot_attention(
    module: Any,  # an attention layer of a family: all have a layer_idx
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
    """The function transformers calls; returns [batch, tokens, heads, dim].

    The mask that it brings is left aside: the pass makes its own from positions.
    """
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    rule = AttentionRule(scale, softcap, sliding_window, chunk_of(module), s_aux)
    attended = slots.attend(module.layer_idx, tempered(module, query, slots), key, value, rule)
    return attended.transpose(1, 2), None


def chunk_of(module: Any) -> int | None:
    """The chunk of an attention layer, which families say nowhere but in their masks."""
    types = getattr(module.config, "layer_types", None)
    if types is None or types[module.layer_idx] != "chunked_attention":
        return None
    return int(module.config.attention_chunk_size)


def tempered(module: Any, query: Tensor, slots: AttentionPass) -> Tensor:
    """Queries [rows, heads, 1, head_dim] scaled by their positions, where a layer of Llama 4 does
    so by the length of a cache, which it does not have here."""
    if (
        slots.positions is None
        or not getattr(module, "attn_temperature_tuning", False)
        or module.use_rope
    ):
        return query
    positions = torch.stack([slots.positions, torch.zeros_like(slots.positions)]).to(query.device)
    steps = torch.floor((positions.float() + 1) / module.floor_scale)
    due, done = torch.log1p(steps) * module.attn_scale + 1
    scale: Tensor = (due / done).to(query.dtype)
    return query * scale.view(-1, 1, 1, 1)


AttentionInterface.register(IMPLEMENTATION, slot_attention)


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
