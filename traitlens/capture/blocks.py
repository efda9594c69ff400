"""Finds the decoder blocks of a causal language model, whatever its family."""

from __future__ import annotations

from typing import Any

from torch import nn

from traitlens.errors import MissingModuleError

# Towers that also hold a list of layers but are not the language model.
_OTHER_TOWERS = ("vision", "visual", "audio")


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
