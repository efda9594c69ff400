"""The model's page on the Hub: is it in the cache, may we have it, is there room for it?

Knows nothing of devices.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from cli.doctor_finding import GIB, Finding
from cli.doctor_weights import ModelSize
from orchestrator.errors import ModelError

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
