"""Where a model's files are: a folder, the Hub, a GGUF file, or a LoRA adapter on its base.

Loads no torch: doctor and plan ask here as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

from domain.errors import ModelError, ModelNotHereError

ADAPTER_CONFIG = "adapter_config.json"
SOURCE = "source.json"
"""Beside dequantised weights: which file they are from."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: `path` is its folder or Hub id, `tokenizer` where it brings one of its own.

    `revision` is its commit on the Hub, or the checksum of its weights.
    """

    path: str
    revision: str | None
    base: str
    base_revision: str | None
    tokenizer: str | None


def adapter_of(model_id: str, *, revision: str | None = None) -> Adapter | None:
    """The adapter of that folder or Hub id, downloaded but for its weights; None for what is a
    model itself or cannot be found.

    Raises ModelError for an adapter that names no base, LocalEntryNotFoundError, an OSError, where
    the Hub would have to say and does not answer.
    """
    known = Path(model_id).expanduser().is_dir() or _cached(model_id, "config.json", revision)
    if not known:
        try:
            hf_hub_download(model_id, "config.json", revision=revision)
        except LocalEntryNotFoundError:
            # the Hub does not answer: nobody need wait for it a second time
            raise
        except EntryNotFoundError:
            for name in (ADAPTER_CONFIG, "tokenizer_config.json", "tokenizer.json"):
                with contextlib.suppress(EntryNotFoundError):
                    hf_hub_download(model_id, name, revision=revision)
        except (OSError, ValueError):
            # no such name, or gated: who loads it says so
            return None
    return adapter_here(model_id, revision=revision)


def adapter_here(model_id: str, *, revision: str | None = None) -> Adapter | None:
    """The adapter of that folder, or Hub id in the cache; asks nobody. Raises as `adapter_of`."""
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file() or not (folder / ADAPTER_CONFIG).is_file():
            return None
        weights = sorted(folder.glob("adapter_model.*"))
        known_as = f"sha256:{file_sha256(weights[0])}" if weights else None
        return _adapter(str(folder), folder, known_as)
    place = _cached(model_id, ADAPTER_CONFIG, revision)
    if place is None or _cached(model_id, "config.json", revision):
        return None
    return _adapter(model_id, place, place.name)


def _cached(model_id: str, name: str, revision: str | None) -> Path | None:
    """The folder of a file in the Hub's cache."""
    try:
        found = try_to_load_from_cache(model_id, name, revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _adapter(path: str, place: Path, revision: str | None) -> Adapter:
    try:
        body = json.loads((place / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base, base_revision = body["base_model_name_or_path"], body.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"Adapter {path!r} does not say which model it was trained on: name it as "
            f"base_model_name_or_path in its {ADAPTER_CONFIG}."
        ) from error
    own = str(place) if (place / "tokenizer_config.json").is_file() else None
    return Adapter(path, revision, str(base), base_revision, own)


def gguf_file(model_id: str) -> Path | None:
    """The GGUF file that a model is given as; None for a folder or a Hub id.

    Raises ModelError with one sentence for a file that is not there or is none.
    """
    path = Path(model_id).expanduser()
    if path.suffix.lower() != ".gguf" and not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
    except OSError as error:
        raise ModelNotHereError(f"No model file {path} ({error.strerror}): check it.") from error
    if not is_gguf:
        raise ModelError(f"{path} is no GGUF file: give one, a model's folder or its Hub id.")
    return path


def dequantised_folder(file: Path) -> Path | None:
    """The folder of a GGUF file's weights in the cache; None where none was made yet.

    The file is known by place, size and time, so that nobody reads gigabytes to find it.
    """
    for source in gguf_cache().glob(f"*/{SOURCE}"):
        try:
            if json.loads(source.read_text(encoding="utf-8"))["file"] == file_facts(file):
                return source.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def gguf_cache() -> Path:
    """Where dequantised weights are kept: beside the Hub's own cache, which HF_HOME moves."""
    return Path(constants.HF_HOME) / "orchestrate" / "gguf"


def file_facts(file: Path) -> dict[str, object]:
    """By what a file is known without reading it."""
    stat = file.stat()
    return {"path": str(file.resolve()), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
