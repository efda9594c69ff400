"""Turns a GGUF file into a folder of safetensors, once, in the cache."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from domain.errors import ModelNotHereError
from workers.models.files import SOURCE, dequantised_folder, file_facts, file_sha256, gguf_cache
from workers.models.template import stop_ids
from workers.models.weights import load_weights

log = logging.getLogger(__name__)


def dequantised(file: Path) -> Path:
    """The folder of the file's weights in float32 with tokenizer and configuration.

    Its name is the file's checksum, its source.json says which file it is from. Raises
    ModelNotHereError for a file that transformers cannot read and a cache that cannot be written.
    """
    made = dequantised_folder(file)
    if made is not None:
        return made
    checksum = file_sha256(file)
    folder = gguf_cache() / checksum
    source = {"file": file_facts(file), "sha256": checksum}
    if not folder.is_dir():
        log.info("Dequantises %s into %s, once: that takes a minute.", file, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            if not folder.is_dir():
                made = Path(place) / "model"
                try:
                    _convert(file, made)
                # each part that reads it raises what it likes at a file that is cut off
                except Exception as error:
                    words = (str(error) or repr(error)).splitlines()[0]
                    wrong = f"{file} cannot be dequantised ({words}): get it again, or a model"
                    raise ModelNotHereError(f"{wrong} that transformers reads.") from error
                # another worker may have been quicker
                if not folder.is_dir():
                    made.rename(folder)
            note = Path(place) / SOURCE
            note.write_text(json.dumps(source, indent=1), encoding="utf-8")
            note.rename(folder / SOURCE)
    except OSError as error:
        raise ModelNotHereError(
            f"{file} cannot be kept as safetensors in {folder.parent} ({error.strerror}): set "
            "HF_HOME to a folder with room."
        ) from error
    return folder


def _convert(file: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    loaded = load_weights(
        AutoModelForCausalLM, file.parent, gguf_file=file.name, dtype=torch.float32
    )
    config = loaded.config
    # what was loaded says that it is quantized, and then refuses to be saved
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config.eos_token_id = sorted(stop_ids(loaded, tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
