"""The one layer convention: what people may write for a layer, and what they are shown.

Layer l runs from 0 to L, the number of blocks: 0 is the embedding output, l is the raw output of
block l-1 (`model.layers[l-1]`), so L is the last block's output before the final norm. Knows
nothing about models or vectors.
"""

from __future__ import annotations

import re

from traitlens.errors import LayerError

LAYER_CONVENTION = (
    "row 0 = embedding output; row l = output of block l-1 (model.layers[l-1]); "
    "last row = last block's output before the final norm"
)

_BLOCK = re.compile(r"^(block|post|pre):(-?\d+)$")

_PERCENT = re.compile(r"^(\d+(?:\.\d+)?)%$")


def parse_layer(layer: int | str, n_blocks: int) -> int:
    """Turn what a person wrote into a layer index 0..n_blocks.

    Accepts 16 or "16"; -1 (the last layer); "block:15" or "post:15" (output of block 15, which is
    layer 16); "pre:16" (input of block 16, layer 16 as well); "50%" (0 % is the embeddings, 100 %
    the last block). Raises LayerError when there is no such layer.
    """
    text = str(layer).strip()
    index = _parse_block(text, n_blocks)
    if index is None:
        index = _parse_percent(text, n_blocks)
    if index is None:
        index = _parse_index(text, n_blocks)
    if isinstance(layer, bool) or index is None or not 0 <= index <= n_blocks:
        raise LayerError(
            f"no layer {layer!r} in a model of {n_blocks} blocks: use 0..{n_blocks}, "
            f'-1, "block:0".."block:{n_blocks - 1}" or "50%"'
        )
    return index


def layer_label(layer: int) -> str:
    """Name a layer for people: "layer 16 (after block 15)"."""
    return "layer 0 (embeddings)" if layer == 0 else f"layer {layer} (after block {layer - 1})"


def _parse_block(text: str, n_blocks: int) -> int | None:
    match = _BLOCK.match(text)
    if match is None:
        return None
    block = int(match.group(2))
    if block < 0:
        block += n_blocks
    if not 0 <= block < n_blocks:
        return -1
    return block if match.group(1) == "pre" else block + 1


def _parse_percent(text: str, n_blocks: int) -> int | None:
    match = _PERCENT.match(text)
    if match is None:
        return None
    share = float(match.group(1)) / 100
    return round(share * n_blocks) if share <= 1 else -1


def _parse_index(text: str, n_blocks: int) -> int | None:
    if re.fullmatch(r"-?\d+", text) is None:
        return None
    index = int(text)
    return index + n_blocks + 1 if index < 0 else index
