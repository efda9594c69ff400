"""The model: can it be had from here, and does it fit the devices?

Sizes come from safetensors headers and config.json, without torch and without a download.

The model's page on the Hub: is it in the cache, may we have it, is there room for it?

How large a checkpoint is, from safetensors headers and config.json, without torch.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from cli.doctor.machine import GIB, Device, Finding
from domain.errors import ModelError

DEMO_MODEL = "demo"

# A GPU worker loads onto one device when the weights take no more than this share of it.
WEIGHT_SHARE = 0.8

SLOW_ON_CPU = 2_000_000_000


def model_findings(model_id: str, devices: list[Device]) -> Iterator[Finding]:
    """Access first, then a line for each device."""
    folder = local_folder(model_id)
    if folder is None:
        yield from hub_findings(model_id)
        size = hub_size(model_id)
    else:
        size = model_size(folder)
        yield Finding("model", "ok", f"{model_id}: {_billions(size)}, complete in {folder}")
    if size is not None:
        yield from (_fit(size, device) for device in devices)


def local_folder(model_id: str) -> Path | None:
    """Where the model's files are on this machine; None when they are not, or not all.

    Raises ModelError for a path that holds no model.
    """
    if model_id == DEMO_MODEL:
        spec = importlib.util.find_spec("demo")
        assert spec is not None and spec.origin is not None
        return Path(spec.origin).parent / "model"
    given = Path(model_id).expanduser()
    if given.is_dir():
        if not (given / "config.json").is_file():
            raise ModelError(f"{given} has no config.json: give the folder of a saved model")
        return given
    if model_id.startswith(("/", "./", "../", "~")):
        raise ModelError(f"no folder {given} on this machine: check --model")
    return cached_folder(model_id)


def _fit(size: ModelSize, device: Device) -> Finding:
    needed = size.bytes_on(device.name)
    check = f"model on {device.name}"
    text = f"weights {needed / GIB:.2f} GiB, {device.free_bytes / GIB:.1f} GiB free"
    if needed > device.total_bytes:
        advice = "choose a device with more memory, or a smaller model"
        return Finding(check, "fail", f"{text}: they cannot fit", advice)
    if needed > WEIGHT_SHARE * device.free_bytes:
        advice = "free memory there, or take a larger device: responses under way need room too"
        return Finding(check, "warn", f"{text}: little or nothing is left for responses", advice)
    if device.name == "cpu" and size.n_numbers > SLOW_ON_CPU:
        advice = "it will run, slowly: use a machine with a GPU for more than a try"
        return Finding(check, "warn", text, advice)
    return Finding(check, "ok", text)


def _billions(size: ModelSize | None) -> str:
    if size is None:
        return "size unknown (weights are not in safetensors)"
    return f"{size.n_numbers / 1e9:.3g} B parameters in {size.dtype}"


HUB_TIMEOUT_S = 5.0

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "I8": 8, "U8": 8, "I32": 32}

NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def _network_errors() -> tuple[type[Exception], ...]:
    # the Hub's client brings its own HTTP library, whose name changed between its versions
    for name in ("httpx2", "httpx", "requests"):
        try:
            module = __import__(name)
        except ImportError:
            continue
        root: type[Exception] = getattr(module, "RequestError", None) or module.RequestException
        return (root, OSError)
    return (OSError,)


UNREACHABLE: tuple[type[Exception], ...] = (HfHubHTTPError, *_network_errors())


def cached_folder(model_id: str) -> Path | None:
    """The newest snapshot in this machine's cache; None when there is none."""
    try:
        folder = Path(snapshot_download(model_id, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelError(f"{model_id!r} is no name of the Hub: check --model") from error
    # a download that was cut off before the weights leaves the small files
    has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    return folder if has_weights and (folder / "config.json").is_file() else None


def hub_findings(model_id: str) -> Iterator[Finding]:
    """What stands between this machine and a model that is not in its cache."""
    token = "with a token" if get_token() else "without a token"
    cache = constants.HF_HUB_CACHE
    page = f"{constants.ENDPOINT}/{model_id}"
    try:
        HfApi().auth_check(model_id)
    except OfflineModeIsEnabled:
        found = f"{model_id} is not in {cache} and HF_HUB_OFFLINE forbids to get it"
        yield Finding("model", "fail", found, "unset it, or copy the model's folder: --model PATH")
    except GatedRepoError:
        advice = f"accept its license at {page}, then set HF_TOKEN or run `hf auth login` here"
        yield Finding("model", "fail", f"{model_id} is gated and we ask {token}", advice)
    except RepositoryNotFoundError:
        advice = "check its spelling; a private one needs HF_TOKEN here"
        yield Finding("model", "fail", f"the Hub shows no {model_id} ({token})", advice)
    except UNREACHABLE as error:
        found = f"{model_id} is not in {cache} and the Hub does not answer: {error}"
        advice = "check network and proxy, or copy the model's folder here: --model PATH"
        yield Finding("model", "fail", found.splitlines()[0], advice)
    else:
        yield from _download(model_id, token)


def hub_size(model_id: str) -> ModelSize | None:
    """The size that the Hub states; None when it does not answer or states none."""
    try:
        info = HfApi().model_info(model_id, timeout=HUB_TIMEOUT_S)
    except UNREACHABLE:
        return None
    if info.safetensors is None:
        return None
    counts = info.safetensors.parameters
    stored = sum(n * BITS.get(kind, 16) // 8 for kind, n in counts.items())
    main = max(counts, key=lambda kind: counts[kind])
    config = info.config or {}
    return ModelSize(
        n_numbers=sum(counts.values()),
        stored_bytes=stored,
        dtype=NAMES.get(main, "float32"),
        quantized="quantization_config" in config,
    )


def _download(model_id: str, token: str) -> Iterator[Finding]:
    size = hub_size(model_id)
    if size is None:
        yield Finding("model", "ok", f"{model_id} can be had from the Hub {token}; size unknown")
        return
    needed, free = size.stored_bytes, _free_disk(Path(constants.HF_HUB_CACHE))
    found = f"{model_id} can be had from the Hub {token}: {needed / GIB:.1f} GiB to download"
    if needed > free:
        advice = "set HF_HOME to a larger disk"
        text = f"{found}, {free / GIB:.1f} GiB free in {constants.HF_HUB_CACHE}"
        yield Finding("model", "fail", text, advice)
        return
    yield Finding("model", "ok", found)


def _free_disk(folder: Path) -> int:
    """Free bytes where a folder is or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


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
