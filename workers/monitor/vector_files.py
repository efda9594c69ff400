"""Trait vectors as the files of other tools, and back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig

import demo
from domain.errors import OrchestrateError, UsageError
from traitlens.errors import LayerError, MissingPackageError, MissingVectorError, VectorFileError
from traitlens.vectors import formats
from traitlens.vectors.files import load_vectors, to_persona_vectors_pt_bytes, to_safetensors_bytes
from traitlens.vectors.trait_vector import TraitVector

FORMATS = ("safetensors", "pt", "gguf", "repeng", "steering-vectors", "neuronpedia")

READABLE = (".safetensors", ".pt", ".gguf", ".json")


def encode(
    vector: TraitVector,
    kind: str,
    *,
    layers: Sequence[int | str],
    family: str | None = None,
) -> dict[str, bytes]:
    """File name -> bytes of one trait in one of FORMATS, at the vector's current position.

    `layers` matter to the formats that hold some of them: gguf, steering-vectors and neuronpedia (a
    file each); `family` is the model's type, which gguf and repeng want. Raises UsageError for what
    a format cannot hold and OrchestrateError for a package that is missing.
    """
    trait = vector.provenance.trait.replace(" ", "_") or "vector"
    try:
        if kind == "safetensors":
            return {f"{trait}.safetensors": to_safetensors_bytes(vector)}
        if kind == "pt":
            name = f"{trait}_{vector.position}_diff.pt"
            return {name: to_persona_vectors_pt_bytes(vector.tensor)}
        if kind in ("gguf", "repeng"):
            chosen = layers if kind == "gguf" else None
            data = formats.to_gguf_bytes(vector, model_type=family or "", layers=chosen)
            return {f"{trait}.gguf": data}
        if kind == "steering-vectors":
            directions = formats.block_directions(vector, layers=layers)
            buffer = io.BytesIO()
            torch.save(directions, buffer)
            return {f"{trait}.blocks.pt": buffer.getvalue()}
        model_id = vector.provenance.model_id.rpartition("/")[2]
        return {
            f"{trait}.layer{vector.layer(layer)}.json": formats.to_neuronpedia_json(
                vector, layer=layer, model_id=model_id
            ).encode()
            for layer in layers
        }
    except (LayerError, ValueError) as error:
        raise UsageError(f"{trait}: {error}") from error
    except MissingPackageError as error:
        raise OrchestrateError(str(error)) from error


def load_file(path: Path, *, n_blocks: int | None = None) -> TraitVector:
    """The vector in a .safetensors, persona_vectors' .pt, .gguf, or Neuronpedia's .json.

    `n_blocks` is the model's number of blocks, which a .gguf may not know and a .json does not.
    Raises UsageError for anything else.
    """
    try:
        if path.suffix == ".gguf":
            return formats.from_gguf(path, n_blocks=n_blocks)
        if path.suffix == ".json":
            if n_blocks is None:
                raise UsageError(f"{path} does not say how deep the model is: give --n-blocks")
            text = path.read_text(encoding="utf-8")
            return formats.from_neuronpedia_json(text, n_blocks=n_blocks)
        if path.suffix in READABLE:
            return load_vectors(path)
    except (VectorFileError, MissingVectorError, LayerError, OSError) as error:
        raise UsageError(f"{path}: {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a vector: {error}") from error
    except MissingPackageError as error:
        raise OrchestrateError(str(error)) from error
    raise UsageError(f"{path} is of no known kind: use {', '.join(READABLE)}")


def model_type(model_id: str) -> str:
    """The family that llama.cpp's and repeng's files name, from the model's configuration."""
    path = str(Path(demo.__file__).parent / "model") if model_id == "demo" else model_id
    try:
        return str(AutoConfig.from_pretrained(path).model_type)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the configuration of {model_id!r} cannot be read here: give --model-type, for "
            "example llama or gemma2"
        ) from error
