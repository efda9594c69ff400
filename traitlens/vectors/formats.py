"""Trait vectors in the formats of other tools, and back, with their layer conventions converted.

The other tools number blocks: their k is the output of block k, our layer k+1; they have no name
for layer 0, the embeddings. The packages gguf and steering-vectors are optional and loaded when
something is to be written with them.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from traitlens.errors import LayerError, MissingPackageError, VectorFileError
from traitlens.layers import layer_label
from traitlens.vectors.gguf_file import read_gguf
from traitlens.vectors.trait_vector import DEFAULT_POSITION, Provenance, TraitVector

GGUF_ARCHITECTURE = "controlvector"
GGUF_FIRST_LAYER = 2
"""The first layer that a file holds: llama.cpp rejects a direction of block 0."""

DIRECTION = re.compile(r"direction\.[0-9]{1,9}")

# Neuronpedia refuses longer vectors.
NEURONPEDIA_LONGEST = 24_576

MOST_BLOCKS, WIDEST = 1024, 2**16


def block_directions(
    vector: TraitVector, *, layers: Iterable[int | str] | None = None
) -> dict[int, Tensor]:
    """Block index k -> float32 [d_model], the vector at layer k+1; layer 0 has no block.

    `layers` are ours; all from 1 on when not given. Raises LayerError for layer 0.
    """
    chosen = range(1, vector.n_blocks + 1) if layers is None else [vector.layer(x) for x in layers]
    if 0 in chosen:
        raise LayerError(f"{layer_label(0)} is no block's output: leave it out of this format")
    return {layer - 1: vector.tensor[layer].clone() for layer in chosen}


def from_block_directions(
    directions: Mapping[int, Tensor], *, n_blocks: int, provenance: Provenance
) -> TraitVector:
    """The inverse of `block_directions`; layers that no direction covers are zero.

    Raises LayerError for a block that the model has not, and for more blocks or wider ones than any
    model has: a file of a few bytes must not fill the memory. Raises VectorFileError for directions
    of different widths.
    """
    widths = {len(direction) for direction in directions.values()}
    if len(widths) > 1:
        raise VectorFileError(f"its directions have different widths, {sorted(widths)}")
    tensor = _zeros(n_blocks, *widths)
    for block, direction in directions.items():
        if not 0 <= block < n_blocks:
            raise LayerError(f"direction of block {block} in a model of {n_blocks} blocks")
        tensor[block + 1] = direction.float()
    return TraitVector({DEFAULT_POSITION: tensor}, provenance)


def _zeros(n_blocks: int, width: int) -> Tensor:
    if n_blocks > MOST_BLOCKS or width > WIDEST:
        raise LayerError(f"{n_blocks} blocks of width {width}: no model is that large")
    return torch.zeros(n_blocks + 1, width)


def to_blocks_pt_bytes(vector: TraitVector, *, layers: Iterable[int | str]) -> bytes:
    """`block_directions` as torch.save writes them, for steering_vectors."""
    buffer = io.BytesIO()
    torch.save(block_directions(vector, layers=layers), buffer)
    return buffer.getvalue()


def to_gguf_bytes(
    vector: TraitVector, *, model_type: str, layers: Iterable[int | str] | None = None
) -> bytes:
    """A control vector for llama.cpp and repeng: `direction.k`, float32, block indices k >= 1.

    llama.cpp rejects direction.0, so layer 1 (after block 0) is left out along with layer 0. It
    adds every direction of the file at every token: export one layer, or scale down. `model_type`
    is the transformers config's ("llama", "gemma2").
    """
    gguf = _package("gguf")
    found = block_directions(vector, layers=layers)
    directions = {k: v for k, v in found.items() if k + 1 >= GGUF_FIRST_LAYER}
    if not directions:
        raise LayerError("a GGUF control vector starts at layer 2 (after block 1): choose others")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.gguf"
        writer = gguf.GGUFWriter(str(path), GGUF_ARCHITECTURE)
        writer.add_string(f"{GGUF_ARCHITECTURE}.model_hint", model_type)
        writer.add_uint32(f"{GGUF_ARCHITECTURE}.layer_count", vector.n_blocks)
        for name, text in vector.provenance.to_metadata().items():
            writer.add_string(f"traitlens.{name}", text)
        for block, direction in directions.items():
            writer.add_tensor(f"direction.{block}", direction.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def from_gguf(data: bytes, *, n_blocks: int | None = None) -> TraitVector:
    """Read a GGUF control vector; layers that it lacks are zero.

    `n_blocks` is the model's; a file of another tool may count only the directions it holds. Raises
    VectorFileError for what is no control vector, LayerError for one beyond `n_blocks`.
    """
    fields, tensors = read_gguf(data)
    directions = {
        int(name.partition(".")[2]): torch.from_numpy(values)
        for name, values in tensors.items()
        if DIRECTION.fullmatch(name) and values.ndim == 1
    }
    if not directions:
        raise VectorFileError("it holds no direction.k tensors: is it a control vector?")
    metadata = {
        name.removeprefix("traitlens."): str(value)
        for name, value in fields.items()
        if name.startswith("traitlens.")
    }
    written = fields.get(f"{GGUF_ARCHITECTURE}.layer_count", 0)
    return from_block_directions(
        directions,
        n_blocks=n_blocks or max(int(written), max(directions) + 1),
        provenance=Provenance.from_metadata(metadata),
    )


def to_steering_vectors(vector: TraitVector, *, layers: Iterable[int | str] | None = None) -> Any:
    """A `steering_vectors.SteeringVector` on decoder blocks."""
    directions = block_directions(vector, layers=layers)
    package = _package("steering_vectors")
    return package.SteeringVector(layer_activations=directions, layer_type="decoder_block")


def to_neuronpedia_json(
    vector: TraitVector, *, layer: int | str, model_id: str, strength: float = 10.0
) -> str:
    """The body of Neuronpedia's vector upload for one layer, as JSON text.

    Layer l >= 1 is `hook_resid_post` of block l-1, layer 0 `hook_resid_pre` of block 0. `model_id`
    is Neuronpedia's ("gemma-2-2b-it"). Uploading publishes; do that yourself if you mean to.
    """
    if vector.d_model > NEURONPEDIA_LONGEST:
        raise ValueError(f"Neuronpedia takes up to {NEURONPEDIA_LONGEST} values")
    index = vector.layer(layer)
    body = {
        "modelId": model_id,
        "layerNumber": max(index - 1, 0),
        "hookType": "hook_resid_post" if index else "hook_resid_pre",
        "vector": vector.tensor[index].tolist(),
        "vectorDefaultSteerStrength": strength,
        "vectorLabel": vector.provenance.trait,
    }
    return json.dumps(body)


def from_neuronpedia_json(text: str, *, n_blocks: int) -> TraitVector:
    """Back from `to_neuronpedia_json`: one layer, the others zero."""
    body = json.loads(text)
    values = torch.tensor(body["vector"], dtype=torch.float32)
    layer = int(body["layerNumber"]) + (body["hookType"] == "hook_resid_post")
    if not 0 <= layer <= n_blocks:
        raise LayerError(f"layer {layer} in a model of {n_blocks} blocks")
    tensor = _zeros(n_blocks, len(values))
    tensor[layer] = values
    provenance = Provenance(trait=str(body["vectorLabel"]), method="", model_id=body["modelId"])
    return TraitVector({DEFAULT_POSITION: tensor}, provenance)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        install = name.replace("_", "-")
        raise MissingPackageError(
            f"this format needs the package {install}: pip install {install}"
        ) from error
