"""How large a checkpoint is, from safetensors headers and config.json, without torch.

Knows nothing of devices or of the Hub.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ModelError

ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class ModelSize:
    """A checkpoint: numbers in it, their bytes as stored, and the dtype it asks for."""

    n_numbers: int
    stored_bytes: int
    dtype: str
    quantized: bool

    def bytes_on(self, device: str) -> int:
        """Memory of the loaded weights: float32 on a CPU, the checkpoint's own dtype elsewhere."""
        if self.quantized:
            return self.stored_bytes
        return self.n_numbers * (4 if device == "cpu" else DTYPE_BYTES.get(self.dtype, 4))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files a loader would read; raises ModelError when one is missing."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(name for name in names if not (folder / name).is_file())
        if missing:
            raise ModelError(
                f"{len(missing)} of {len(names)} weight files are not in {folder}: "
                "download the model again, the one before was cut off"
            )
        return [folder / name for name in sorted(names)]
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


def model_size(folder: Path) -> ModelSize | None:
    """The size of a model on disk; None for weights in another format than safetensors."""
    files = weight_files(folder)
    if not files:
        return None
    tensors = [tensor for file in files for tensor in _tensors(file)]
    config = _config(folder)
    return ModelSize(
        n_numbers=sum(math.prod(shape) for _, shape, _ in tensors),
        stored_bytes=sum(n_bytes for _, _, n_bytes in tensors),
        dtype=_dtype(config, tensors),
        quantized="quantization_config" in config,
    )


def _tensors(file: Path) -> list[tuple[str, list[int], int]]:
    """(dtype, shape, bytes) of every tensor, from the file's header alone."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        found = [
            (t["dtype"], t["shape"], t["data_offsets"][1] - t["data_offsets"][0])
            for t in header.values()
        ]
        end = max((t["data_offsets"][1] for t in header.values()), default=0)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise ModelError(f"{file} is not a safetensors file ({error}): download it again") from None
    if file.stat().st_size < 8 + length + end:
        raise ModelError(f"{file} is cut off: download it again")
    return found


def _dtype(config: dict[str, Any], tensors: list[tuple[str, list[int], int]]) -> str:
    text = config.get("text_config") or {}
    for body in (text, config):
        named = body.get("dtype") or body.get("torch_dtype")
        if named:
            return str(named)
    widest = max((ITEM_BYTES.get(kind, 1) for kind, _, _ in tensors), default=4)
    return "float32" if widest >= 4 else "bfloat16"


def _config(folder: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}/config.json cannot be read ({error}): get it again") from error
    return body
