"""Watches a model's residual stream: hands every layer's states to a tap.

Layer 0 is the input of block 0, layer l the output of block l-1, before the final norm. Knows
nothing about generation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from domain.errors import ModelError
from traitlens.capture import blocks
from traitlens.errors import MissingModuleError

# Receives a layer and its states [batch, tokens, d_model]; what it returns takes the states' place.
LayerTap = Callable[[int, Tensor], Tensor | None]

M = TypeVar("M", bound=nn.Module)


def text_decoder(model: PreTrainedModel) -> nn.Module:
    """The part of a model that runs its decoder blocks, also behind a multimodal wrapper.

    Raises ModelError when the family hides it.
    """
    return _found(blocks.backbone, model)


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The text decoder's blocks, in order. Raises ModelError when the family hides them."""
    return _found(blocks.decoder_blocks, model)


def _found(find: Callable[[nn.Module], M], model: PreTrainedModel) -> M:
    try:
        return find(model)
    except MissingModuleError as error:
        raise ModelError(f"This family cannot be measured yet: {error}") from error


@contextmanager
def tapped(decoder: nn.ModuleList, tap: LayerTap) -> Iterator[None]:
    """Call `tap` with every layer's states in each forward pass inside the context."""
    handles: list[RemovableHandle] = []
    try:
        handles.append(decoder[0].register_forward_pre_hook(_on_input(tap), with_kwargs=True))
        for layer, block in enumerate(decoder, start=1):
            handles.append(block.register_forward_hook(_on_output(tap, layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def token_sums(states: Tensor, counted: Tensor) -> Tensor:
    """Sum of states [batch, tokens, d_model] where counted [batch, tokens] is 1, in float32."""
    weights = counted.to(states.device, torch.float32).unsqueeze(1)
    return torch.bmm(weights, states.float()).squeeze(1)


def _on_input(tap: LayerTap) -> Callable[..., Any]:
    def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        changed = tap(0, args[0] if args else named["hidden_states"])
        if changed is None:
            return None
        return (
            ((changed, *args[1:]), named) if args else (args, {**named, "hidden_states": changed})
        )

    return hook


def _on_output(tap: LayerTap, layer: int) -> Callable[..., Any]:
    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        # Blocks return a tensor or, in some families, a tuple that starts with it.
        is_tuple = isinstance(output, tuple)
        changed = tap(layer, output[0] if is_tuple else output)
        if changed is None:
            return None
        return (changed, *output[1:]) if is_tuple else changed

    return hook
