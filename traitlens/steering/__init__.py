"""Steering: change the residual stream at one layer while a context is open.

A change adds a vector, removes its direction, or caps the projection on it, in any causal language
model of the transformers library.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from traitlens.capture.blocks import backbone, decoder_blocks
from traitlens.errors import ShapeError
from traitlens.layers import layer_label

Positions = Literal["all", "prompt", "response"]
Mode = Literal["add", "ablate", "cap"]


@contextmanager
def steer(
    model: nn.Module,
    vector: Tensor,
    *,
    layer: int,
    coefficient: float = 1.0,
    positions: Positions = "all",
    mode: Mode = "add",
    prompt_length: int | Tensor | None = None,
) -> Iterator[nn.Module]:
    """Steer with one vector [d_model] at one layer; the model is as before when the block ends.

    `layer` l changes the output of block l-1 (layer 0: what the first block is given), so it is
    the stream that row l of a trait vector was measured in. With unit vector u = v/||v||:

    * "add":    h + coefficient * v
    * "ablate": h - coefficient * (h.u) u; coefficient 1 removes the direction
    * "cap":    h - max(0, h.u - coefficient) u, so that the projection never exceeds coefficient;
      to keep it from falling below t, cap with -v at -t

    `positions` says which tokens: "prompt" is every token up to and including the prompt's last,
    "response" only generated tokens. Padding is never touched. Without `prompt_length` a forward
    pass without a cache is prompt and single tokens on top of a cache are response, which is how
    `model.generate` works. `prompt_length`, an int or a tensor [batch], is the column at which the
    response begins, padding included; it is needed for a plain forward over prompt and response,
    and whenever prompt tokens enter on top of a cache. Contexts nest: each adds its own change.

    Raises ShapeError for a vector of another shape and ValueError for a zero vector, unknown words,
    or when prompt and response cannot be told apart.
    """
    if positions not in get_args(Positions):
        raise ValueError(f"no positions {positions!r}: use one of {get_args(Positions)}")
    change = Change.of(vector, coefficient=coefficient, mode=mode, layer=layer)
    columns = _Columns(positions, prompt_length)
    with ExitStack() as hooks:
        watch = backbone(model).register_forward_pre_hook(columns.note, with_kwargs=True)
        hooks.callback(watch.remove)
        hooks.callback(_hook_layer(model, layer, change, columns).remove)
        yield model


def _hook_layer(model: nn.Module, layer: int, change: Change, columns: _Columns) -> RemovableHandle:
    def changed(hidden: Tensor) -> Tensor:
        return change.applied(hidden, columns.mask(hidden))

    def change_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (changed(args[0]), *args[1:])

    def change_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (changed(output[0]), *output[1:])
        return changed(output)

    blocks = decoder_blocks(model)
    if layer == 0:
        # Not the embedding module's output: Gemma scales that before its first block sees it.
        return blocks[0].register_forward_pre_hook(change_input)
    return blocks[layer - 1].register_forward_hook(change_output)


class _Columns:
    """Remembers, for the forward pass in progress, which of its tokens are to be steered."""

    def __init__(self, positions: Positions, prompt_length: int | Tensor | None) -> None:
        self._positions = positions
        self._prompt_length = prompt_length
        self._cached = self._seen = 0
        self._attention_mask: Tensor | None = None

    def note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the backbone: see the cache's length and the padding."""
        given: Mapping[str, Any] = kwargs
        if args:
            given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        cache = given.get("past_key_values", given.get("cache_params"))
        self._cached = self._length(cache)
        mask = given.get("attention_mask")
        is_padding_mask = isinstance(mask, Tensor) and mask.ndim == 2
        self._attention_mask = mask if is_padding_mask else None

    def _length(self, cache: Any) -> int:
        """How many tokens a cache holds."""
        if cache is None:
            return 0
        try:
            return int(cache.get_seq_length())
        except ValueError:
            # states of a recurrence alone, as Mamba's, do not say of how many tokens they are
            return self._seen if cache.has_previous_state() else 0

    def mask(self, hidden: Tensor) -> Tensor | None:
        """Boolean [batch or 1, seq], or None for every token."""
        seq = hidden.shape[1]
        self._seen = self._cached + seq
        chosen = None
        if self._positions != "all":
            is_response = self._is_response(seq)
            chosen = is_response if self._positions == "response" else ~is_response
        if self._attention_mask is None:
            return chosen
        real = self._attention_mask[:, self._cached : self._cached + seq].bool()
        return real if chosen is None else chosen.to(real.device) & real

    def _is_response(self, seq: int) -> Tensor:
        if self._prompt_length is not None:
            begins = torch.as_tensor(self._prompt_length).cpu().reshape(-1, 1)
            return torch.arange(self._cached, self._cached + seq) >= begins
        if self._cached and seq > 1:
            raise ValueError(
                f"{seq} tokens on top of a cache of {self._cached} may be prompt or response: "
                "pass prompt_length"
            )
        return torch.full((1, seq), self._cached > 0)


@dataclass(frozen=True)
class Change:
    """What happens to a hidden state; `vector` float32 [d_model]."""

    vector: Tensor
    unit: Tensor
    coefficient: float
    mode: Mode

    @staticmethod
    def of(vector: Tensor, *, coefficient: float, mode: Mode, layer: int) -> Change:
        """Raises ValueError for an unknown mode or a zero vector, ShapeError for a wrong shape."""
        if mode not in get_args(Mode):
            raise ValueError(f"no mode {mode!r}: use one of {get_args(Mode)}")
        if vector.ndim != 1:
            raise ShapeError(f"steer with one layer's vector [d_model], not {tuple(vector.shape)}")
        raw = vector.detach().float()
        norm = raw.norm()
        if not torch.isfinite(norm) or norm == 0:
            raise ValueError(
                f"the vector has norm {float(norm):g} at {layer_label(layer)}: "
                "it points nowhere, steer at another layer"
            )
        return Change(raw, raw / norm, float(coefficient), mode)

    def applied(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """The changed hidden state, a new tensor of the same dtype; mask [batch, seq] or all."""
        delta = self._delta(hidden)
        if mask is not None:
            delta = delta * mask.to(hidden.device).unsqueeze(-1)
        return (hidden.float() + delta).to(hidden.dtype)

    def _delta(self, hidden: Tensor) -> Tensor:
        """What to add to hidden [batch, seq, d_model]; float32, computed in float32."""
        if self.mode == "add":
            return (self.coefficient * self.vector.to(hidden.device)).expand(hidden.shape)
        unit = self.unit.to(hidden.device)
        projection = (hidden.float() @ unit).unsqueeze(-1)
        if self.mode == "ablate":
            return -self.coefficient * projection * unit
        return -(projection - self.coefficient).clamp_min(0) * unit
