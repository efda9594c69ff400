"""The model: can it be had from here, and does it fit the devices?

huggingface_hub reads headers and asks the Hub: nothing is downloaded and torch is not loaded.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_local_safetensors_metadata,
    get_token,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    NotASafetensorsRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    SafetensorsParsingError,
)
from safetensors import SafetensorError, safe_open

from cli.doctor.machine import GIB, Checked, Device
from domain.errors import ModelError
from domain.plan.spec import DEMO_MODEL
from domain.traits.room import positions_of
from workers.models.files import adapter_here, dequantised_folder, gguf_cache, gguf_file

HUB_TIMEOUT_S = 5.0

# The Hub's client brings its own HTTP library, whose name changed between its versions.
UNREACHABLE: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], OSError)

# A GPU worker loads onto one device when the weights take no more than this share of it.
WEIGHT_SHARE = 0.8

SLOW_ON_CPU = 2_000_000_000
BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "F8_E4M3": 8, "I8": 8, "U8": 8}
"""Of a number as stored; 16 where nothing else is said."""

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
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


def check_model_fits(model_id: str, devices: list[Device]) -> Iterator[Checked]:
    """Access first, then a line for each device."""
    adapter = None if model_id == DEMO_MODEL else adapter_here(model_id)
    if adapter is not None:
        yield Checked("adapter", "ok", f"{model_id}: a LoRA adapter of {adapter.base}")
        yield from check_model_fits(adapter.base, devices)
        return
    file, folder = gguf_file(model_id), _local_folder(model_id)
    if file is not None and folder is None:
        size = None
        text = f"{file.stat().st_size / GIB:.2f} GiB of GGUF, dequantised when it is first loaded"
        yield Checked("model", "ok", f"{model_id}: {text}, into {gguf_cache()}")
    elif folder is None:
        size = _hub_size(model_id)
        yield from _hub_findings(model_id, size)
    else:
        size = model_size(folder)
        text = "size unknown (weights are not in safetensors)"
        if size is not None:
            text = f"{size.n_numbers / 1e9:.3g} B parameters in {size.dtype}"
        yield Checked("model", "ok", f"{model_id}: {text}, complete in {folder}")
    if size is not None:
        yield from (_fit(size, device) for device in devices)


def model_positions(model_id: str) -> int | None:
    """How many tokens a model was made for; None where its configuration is not on this machine."""
    try:
        folder = local_model_folder(model_id)
        if folder is None:
            return None
        return positions_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (ModelError, OSError, ValueError, AttributeError, TypeError):
        return None


def local_model_folder(model_id: str) -> Path | None:
    """Where the model's files, or those of an adapter's base, are on this machine; None when they
    are not. Raises ModelError for a path that holds no model."""
    adapter = None if model_id == DEMO_MODEL else adapter_here(model_id)
    return _local_folder(adapter.base if adapter else model_id)


def model_size(folder: Path) -> ModelSize | None:
    """The size of a model on disk; None for weights in another format than safetensors.

    Raises ModelError for a file that is missing, cut off or damaged.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        wrong = f"{folder}/config.json cannot be read ({error})"
        raise ModelError(wrong, advice="get it again") from error
    if not isinstance(config, dict) or not isinstance(config.get("text_config") or {}, dict):
        wrong = f"{folder}/config.json is not the configuration of a model"
        raise ModelError(wrong, advice="get it again")
    try:
        found = get_local_safetensors_metadata(folder)
        for name in found.files_metadata:
            # the header may be whole where what it speaks of is not
            with safe_open(folder / name, framework="np"):
                pass
    except NotASafetensorsRepoError:
        return None
    except FileNotFoundError as error:
        raise ModelError(
            f"{_missing(folder)} weight files are not in {folder}",
            advice="download the model again, the one before was cut off",
        ) from error
    except (SafetensorsParsingError, SafetensorError, OSError, ValueError) as error:
        wrong = f"a weight file in {folder} is cut off or damaged ({error})"
        raise ModelError(wrong, advice="download it again") from error
    return _size({str(kind): n for kind, n in found.parameter_count.items()}, config)


def bytes_on_cpu(model_id: str) -> int | None:
    """Memory of a model's weights loaded on a CPU, at most; None where nothing here tells."""
    try:
        file, folder = gguf_file(model_id), local_model_folder(model_id)
        if folder is not None:
            size = model_size(folder)
            return None if size is None else size.bytes_on("cpu")
        # not dequantised yet: its numbers have two bits or more
        return None if file is None else 16 * file.stat().st_size
    except (ModelError, OSError):
        return None


def _missing(folder: Path) -> str:
    index = json.loads((folder / constants.SAFETENSORS_INDEX_FILE).read_text(encoding="utf-8"))
    names = set(index["weight_map"].values())
    return f"{sum(not (folder / name).is_file() for name in names)} of {len(names)}"


def _size(counts: Mapping[str, int], config: Mapping[str, Any]) -> ModelSize:
    """From the numbers of each kind; the configuration names the dtype, else most numbers do."""
    bodies = (config.get("text_config") or {}, config)
    named = [body.get("dtype") or body.get("torch_dtype") for body in bodies]
    most = max(counts, key=lambda kind: counts[kind], default="")
    return ModelSize(
        n_numbers=sum(counts.values()),
        stored_bytes=sum(n * BITS.get(kind, 16) // 8 for kind, n in counts.items()),
        dtype=str(next(filter(None, named), DTYPES.get(most, "float32"))),
        quantized="quantization_config" in config,
    )


def _local_folder(model_id: str) -> Path | None:
    """Where the model's files are on this machine; None when they are not, or not all.

    Raises ModelError for a path that holds no model.
    """
    if model_id == DEMO_MODEL:
        spec = importlib.util.find_spec("demo")
        assert spec is not None and spec.origin is not None
        return Path(spec.origin).parent / "model"
    given, file = Path(model_id).expanduser(), gguf_file(model_id)
    if file is not None:
        return dequantised_folder(file)
    if given.is_dir():
        if not (given / "config.json").is_file():
            raise ModelError(
                f"{given} has no config.json", advice="give the folder of a saved model"
            )
        return given
    if model_id.startswith(("/", "./", "../", "~")):
        raise ModelError(f"no folder {given} on this machine", advice="check --model")
    try:
        config = try_to_load_from_cache(model_id, "config.json")
    except HFValidationError as error:
        raise ModelError(f"{model_id!r} is no name of the Hub", advice="check --model") from error
    if not isinstance(config, str):
        return None
    # a download that was cut off before the weights leaves the small files
    folder = Path(config).parent
    return folder if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")) else None


def _hub_size(model_id: str) -> ModelSize | None:
    """The size that the Hub states; None when it does not answer or states none."""
    try:
        info = HfApi().model_info(model_id, timeout=HUB_TIMEOUT_S)
    except UNREACHABLE:
        return None
    return _size(info.safetensors.parameters, info.config or {}) if info.safetensors else None


def hub_template(model_id: str) -> object:
    """The chat template that the Hub states for a model, or for an adapter's base; None where it
    does not answer or states none, and for models on this machine."""
    adapter = adapter_here(model_id)
    name = adapter.base if adapter else model_id
    try:
        if gguf_file(name) is not None or _local_folder(name) is not None:
            return None
        stated = HfApi().model_info(name, timeout=HUB_TIMEOUT_S).config or {}
    except UNREACHABLE:
        return None
    except ModelError:
        return None
    found = stated.get("chat_template_jinja")
    return found or (stated.get("tokenizer_config") or {}).get("chat_template")


def _hub_findings(model_id: str, size: ModelSize | None) -> Iterator[Checked]:
    """What stands between this machine and a model that is not in its cache."""
    token = "with a token" if get_token() else "without a token"
    cache = constants.HF_HUB_CACHE
    try:
        HfApi().auth_check(model_id)
    except OfflineModeIsEnabled:
        found = f"{model_id} is not in {cache} and HF_HUB_OFFLINE forbids to get it"
        yield Checked("model", "fail", found, "unset it, or copy the model's folder: --model PATH")
    except GatedRepoError:
        page = f"{constants.ENDPOINT}/{model_id}"
        advice = f"accept its license at {page}, then set HF_TOKEN or run `hf auth login` here"
        yield Checked("model", "fail", f"{model_id} is gated and we ask {token}", advice)
    except RepositoryNotFoundError:
        advice = "check its spelling; a private one needs HF_TOKEN here"
        yield Checked("model", "fail", f"the Hub shows no {model_id} ({token})", advice)
    except UNREACHABLE as error:
        found = f"{model_id} is not in {cache} and the Hub does not answer: {error}"
        advice = "check network and proxy, or copy the model's folder here: --model PATH"
        yield Checked("model", "fail", found.splitlines()[0], advice)
    else:
        found = f"{model_id} can be had from the Hub {token}"
        if size is None:
            yield Checked("model", "ok", f"{found}; size unknown")
            return
        found += f": {size.stored_bytes / GIB:.1f} GiB to download"
        free = _free_disk(Path(cache))
        if size.stored_bytes > free:
            found += f", {free / GIB:.1f} GiB free in {cache}"
            yield Checked("model", "fail", found, "set HF_HOME to a larger disk")
        else:
            yield Checked("model", "ok", found)


def _free_disk(folder: Path) -> int:
    """Free bytes where a folder is or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _fit(size: ModelSize, device: Device) -> Checked:
    needed = size.bytes_on(device.name)
    check = f"model on {device.name}"
    text = f"weights {needed / GIB:.2f} GiB, {device.free_bytes / GIB:.1f} GiB free"
    if needed > device.total_bytes:
        advice = "choose a device with more memory, or a smaller model"
        return Checked(check, "fail", f"{text}: they cannot fit", advice)
    if needed > WEIGHT_SHARE * device.free_bytes:
        advice = "free memory there, or take a larger device: responses under way need room too"
        return Checked(check, "warn", f"{text}: little or nothing is left for responses", advice)
    if device.name == "cpu" and size.n_numbers > SLOW_ON_CPU:
        advice = "it will run, slowly: use a machine with a GPU for more than a try"
        return Checked(check, "warn", text, advice)
    return Checked(check, "ok", text)
