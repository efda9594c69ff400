"""The one layer convention: what people may write for a layer, and what they are shown.

Layer l runs from 0 to L, the number of blocks: 0 is the embedding output, l is the raw output of
block l-1 (`model.layers[l-1]`), so L is the last block's output before the final norm.
"""

from __future__ import annotations

import re

from traitlens.errors import LayerError

LAYER_CONVENTION = (
    "row 0 = embedding output; row l = output of block l-1 (model.layers[l-1]); "
    "last row = last block's output before the final norm"
)

_BLOCK = re.compile(r"(block|post|pre):(-?\d+)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


def parse_layer(layer: int | str, n_blocks: int) -> int:
    """Turn what a person wrote into a layer index 0..n_blocks.

    Accepts 16 or "16"; -1 (the last layer); "block:15" or "post:15" (output of block 15, which is
    layer 16); "pre:16" (input of block 16, layer 16 as well); "50%" (0 % is the embeddings, 100 %
    the last block). Raises LayerError when there is no such layer.
    """
    index = None if isinstance(layer, bool) else _layer_index(str(layer).strip(), n_blocks)
    if index is None:
        raise LayerError(
            f"no layer {layer!r} in a model of {n_blocks} blocks: use 0..{n_blocks}, "
            f'-1, "block:0".."block:{n_blocks - 1}" or "50%"'
        )
    return index


def layer_label(layer: int) -> str:
    """Name a layer for people: "layer 16 (after block 15)"."""
    return "layer 0 (embeddings)" if layer == 0 else f"layer {layer} (after block {layer - 1})"


def candidate_layers(n_rows: int) -> range:
    """Layers of n_rows = L+1 that may be chosen: not the embedding, nor the last where avoidable.

    Row L is before the final norm and no later block reads it.
    """
    return range(1, n_rows - 1) if n_rows > 2 else range(n_rows - 1, n_rows)


def _layer_index(text: str, n_blocks: int) -> int | None:
    if block := _BLOCK.fullmatch(text):
        index = _counted(int(block[2]), n_blocks)
        return index if index is None or block[1] == "pre" else index + 1
    if percent := _PERCENT.fullmatch(text):
        share = float(percent[1]) / 100
        return round(share * n_blocks) if share <= 1 else None
    return _counted(int(text), n_blocks + 1) if re.fullmatch(r"-?\d+", text) else None


def _counted(index: int, n: int) -> int | None:
    """The index from the front, of n; None beyond either end."""
    return index % n if -n <= index < n else None
