"""Watches a model's residual stream: finds the blocks and hands every layer's states to a tap.

Layer 0 is the input of block 0, layer l the output of block l-1, before the final norm. Knows
nothing about generation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from orchestrator.errors import ModelError

# Receives a layer and its states [batch, tokens, d_model]; what it returns takes the states' place.
LayerTap = Callable[[int, Tensor], Tensor | None]


def text_decoder(model: PreTrainedModel) -> nn.Module:
    """The part of a model that runs its decoder blocks, also behind a multimodal wrapper.

    Raises ModelError when the family hides it.
    """
    count = model.config.get_text_config().num_hidden_layers
    # The first is what transformers answers; some families answer with the whole model.
    for part in (model.get_decoder(), model.base_model, getattr(model, "model", None)):
        if part is not None and len(_block_list(part)) == count:
            return part
    raise ModelError(
        f"No list of {count} decoder blocks was found in {type(model).__name__}: "
        "this family cannot be measured yet."
    )


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The text decoder's blocks, in order. Raises ModelError when the family hides them."""
    return _block_list(text_decoder(model))


def _block_list(part: nn.Module) -> nn.ModuleList:
    blocks = getattr(part, "layers", getattr(part, "h", None))
    return blocks if isinstance(blocks, nn.ModuleList) else nn.ModuleList()


@contextmanager
def tapped(blocks: nn.ModuleList, tap: LayerTap) -> Iterator[None]:
    """Call `tap` with every layer's states in each forward pass inside the context."""
    handles: list[RemovableHandle] = []
    try:
        handles.append(blocks[0].register_forward_pre_hook(_on_input(tap), with_kwargs=True))
        for layer, block in enumerate(blocks, start=1):
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
