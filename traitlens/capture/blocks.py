"""The decoder blocks of a causal language model, whatever its family: found, and watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from traitlens.errors import MissingModuleError

# Towers that also hold a list of layers but are not the language model.
_OTHER_TOWERS = ("vision", "visual", "audio")

# Receives a layer and its states [batch, tokens, d_model]; what it returns takes the states' place.
LayerTap = Callable[[int, Tensor], Tensor | None]


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of decoder blocks: block k is the module whose output is layer k+1."""
    return _find_blocks(model)[1]


def backbone(model: nn.Module) -> nn.Module:
    """The module that owns the blocks and is called with input ids, mask and cache."""
    path = _find_blocks(model)[0]
    return model.get_submodule(path.rpartition(".")[0])


def d_model(model: nn.Module) -> int:
    """Width of the residual stream."""
    return int(_text_config(model).hidden_size)


@contextmanager
def tapped(decoder: nn.ModuleList, tap: LayerTap) -> Iterator[None]:
    """Call `tap` with every layer's states in each forward pass inside the context.

    Layer 0 is the input of block 0, layer l the output of block l-1, before the final norm.
    """
    with ExitStack() as hooks:
        before = decoder[0].register_forward_pre_hook(_on_input(tap), with_kwargs=True)
        hooks.callback(before.remove)
        for layer, block in enumerate(decoder, start=1):
            hooks.callback(block.register_forward_hook(_on_output(tap, layer)).remove)
        yield


def _find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    n_blocks = _text_config(model).num_hidden_layers
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == n_blocks
        and not any(tower in path for tower in _OTHER_TOWERS)
    ]
    if not found:
        raise MissingModuleError(
            f"{type(model).__name__} has no list of {n_blocks} blocks: "
            "pass a causal language model of the transformers library"
        )
    return min(found, key=lambda item: item[0].count("."))


def _text_config(model: nn.Module) -> Any:
    config = getattr(model, "config", None)
    if config is None:
        raise MissingModuleError(
            f"{type(model).__name__} has no config: pass a model of the transformers library"
        )
    return config.get_text_config() if hasattr(config, "get_text_config") else config


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
