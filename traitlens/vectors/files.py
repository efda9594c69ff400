"""Reading and writing trait vectors: safetensors with provenance, and persona_vectors' .pt."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from traitlens.errors import MissingVectorError, VectorFileError
from traitlens.vectors.trait_vector import DEFAULT_POSITION, Provenance, TraitVector

FORMAT = "traitlens/1"
PACK = "pack:"
PUBLISHED = "published.json"
"""Lists a pack's files, each with its SHA-256."""
POSITIONS = ("response_avg", "prompt_avg", "prompt_last")


def to_safetensors_bytes(vector: TraitVector) -> bytes:
    """One tensor per position, float32 [L+1, d_model]; provenance as JSON strings in the metadata.

    The metadata also holds `format`, `norms`: position -> L2 norm per layer, and `sha256` over
    tensors and metadata, which is checked on reading.
    """
    norms = {position: t.norm(dim=1).tolist() for position, t in vector.vectors.items()}
    metadata = {"format": FORMAT, "norms": json.dumps(norms)} | vector.provenance.to_metadata()
    metadata["sha256"] = _checksum(vector.vectors, metadata)
    return save_safetensors(dict(vector.vectors), metadata=metadata)


def from_safetensors_bytes(data: bytes) -> TraitVector:
    """Read what `to_safetensors_bytes` wrote; raises VectorFileError for anything else."""
    try:
        tensors = load_safetensors(data)
    except SafetensorError as error:
        raise VectorFileError(f"not a safetensors file ({error}): was it cut short?") from error
    if not tensors:
        raise VectorFileError("the file holds no tensors: extract the trait again")
    # Eight bytes of little-endian length, then JSON; the library reads it only from named files.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    # files of other programs have no checksum of ours
    is_ours = metadata.get("format") == FORMAT
    noted = metadata.pop("sha256", "" if is_ours else None)
    if noted not in (None, _checksum(tensors, metadata)):
        raise VectorFileError("the file is not what was written: extract the trait again")
    position = DEFAULT_POSITION if DEFAULT_POSITION in tensors else min(tensors)
    # what others note under the same names need not be JSON
    facts = Provenance.from_metadata(metadata if is_ours else {})
    return TraitVector(tensors, facts, position)


def to_persona_vectors_pt_bytes(tensor: Tensor) -> bytes:
    """A plain float32 CPU tensor [L+1, d_model] as torch.save writes it, for persona_vectors."""
    buffer = io.BytesIO()
    torch.save(tensor.detach().to("cpu", torch.float32).contiguous().clone(), buffer)
    return buffer.getvalue()


def vector_files(
    by_method: Mapping[str, Mapping[str, NDArray[np.float32]]], provenance: Provenance
) -> dict[str, bytes]:
    """File name -> bytes, from method -> position -> vectors [L+1, d_model]: one safetensors per
    method, and persona_vectors' files of mean_diff."""
    files = {}
    for method, by_position in by_method.items():
        tensors = {position: torch.from_numpy(v) for position, v in by_position.items()}
        vector = TraitVector(vectors=tensors, provenance=replace(provenance, method=method))
        files[f"{method}.safetensors"] = to_safetensors_bytes(vector)
        if method == "mean_diff":
            for position, tensor in tensors.items():
                name = f"{provenance.trait}_{position}_diff.pt"
                files[name] = to_persona_vectors_pt_bytes(tensor)
    return files


def save_vectors(vector: TraitVector, path: str | Path) -> Path:
    """Write a .safetensors file, or for a name ending in .pt the current position's tensor."""
    target = Path(path)
    is_pt = target.suffix == ".pt"
    data = to_persona_vectors_pt_bytes(vector.tensor) if is_pt else to_safetensors_bytes(vector)
    target.write_bytes(data)
    return target


def load_vectors(ref: str | Path, *, method: str = "mean_diff") -> TraitVector:
    """Load a trait vector from a trait's run directory, a pack, a .safetensors or a
    persona_vectors .pt.

    A directory such as "runs/demo/traits/refusal" is read at vectors/<method>.safetensors.
    "pack:PLACE#TRAIT" reads a folder that `orchestrate publish` wrote, or its hub/ folder, and
    checks the file against the checksum that is published beside it. A .pt is read without
    unpickling code; its trait and position come from its name (`refusal_response_avg_diff.pt`).
    Any fsspec URL works too, so "pack:hf://OWNER/NAME#TRAIT" does where huggingface_hub is
    installed. Raises MissingVectorError when there is nothing to read and VectorFileError when the
    file holds something else.
    """
    text = str(ref).rstrip("/")
    if text.startswith(PACK):
        place, _, trait = text.removeprefix(PACK).partition("#")
        return from_safetensors_bytes(_read_packed(place.rstrip("/"), trait, method))
    if text.endswith(".pt"):
        return from_persona_vectors_pt_bytes(_read(text), name=text.rpartition("/")[2])
    if text.endswith(".safetensors"):
        return from_safetensors_bytes(_read(text))
    if Path(text).is_file():
        raise VectorFileError(
            f"{text} is no .safetensors and no .pt: `orchestrate export {text} --format "
            "safetensors` converts what it can read"
        )
    hint = "has the trait been extracted?"
    if (Path(text) / "traits").is_dir():
        hint = f"{text} is a run, whose vectors are in {text}/traits/TRAIT"
    return from_safetensors_bytes(_read(f"{text}/vectors/{method}.safetensors", hint=hint))


def _read_packed(place: str, trait: str, method: str) -> bytes:
    """The file of a trait's method in a pack; raises VectorFileError for another than was
    published."""
    try:
        published = _read(f"{place}/{PUBLISHED}", hint="is it a pack, and there?")
        listed = json.loads(published)["files"]
        files = {str(name): str(checksum) for name, checksum in listed.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VectorFileError(f"{place}/{PUBLISHED} lists no files of a pack: {error}") from error
    below = f"traits/{trait}/vectors/{method}.safetensors"
    # the hub's folder holds each trait's best method alone
    name = below if below in files else f"{trait}.safetensors"
    if name not in files:
        held = sorted(n for n in files if n.endswith(".safetensors"))
        raise MissingVectorError(
            f"pack:{place} has no {method} vector of {trait or 'no trait'}: write "
            f"pack:{place}#TRAIT; it holds {', '.join(held) or 'no vectors'}"
        )
    data = _read(f"{place}/{name}")
    if hashlib.sha256(data).hexdigest() != files[name]:
        raise VectorFileError(f"{place}/{name} is not what was published: fetch the pack again")
    return data


def _read(ref: str, *, hint: str = "is the path right?") -> bytes:
    try:
        if "://" not in ref:
            return Path(ref).read_bytes()
        import fsspec

        with fsspec.open(ref, "rb") as file:
            data: bytes = file.read()
            return data
    except FileNotFoundError as error:
        folder = Path(ref).parent
        found = ", ".join(sorted(path.name for path in folder.glob("*.safetensors")))
        hint = f"{folder} holds {found}" if found else hint
        raise MissingVectorError(f"no file {ref}: {hint}") from error


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def from_persona_vectors_pt_bytes(data: bytes, *, name: str) -> TraitVector:
    """The tensor [L+1, d_model] of a .pt file, read without unpickling code; trait and position are
    from the file's name. Raises VectorFileError for anything else."""
    try:
        tensor = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # a file that was made to do harm raises whatever it likes
    except Exception as error:
        raise VectorFileError(f"{name} cannot be read as a plain tensor: {error}") from error
    if not isinstance(tensor, Tensor) or tensor.ndim != 2:
        raise VectorFileError(f"{name} holds no [L+1, d_model] tensor: convert it first")
    stem = name.removesuffix(".pt").removesuffix("_diff")
    position = next((p for p in POSITIONS if stem.endswith(p)), DEFAULT_POSITION)
    trait = stem.removesuffix(position).rstrip("_")
    provenance = Provenance(trait=trait, method="mean_diff", extra={"file": name})
    return TraitVector(vectors={position: tensor}, provenance=provenance, position=position)
