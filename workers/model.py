"""Loads the resident model: a causal language model of Hugging Face, its tokenizer and what generation must know.

Knows nothing about requests, queues or traits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2.exceptions import TemplateError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

import demo
from orchestrator.errors import ModelError
from workers.out_of_memory import is_out_of_memory

SystemMode = Literal["native", "prefix_user"]
Thinking = Literal["off", "none"]
DEMO_MODEL = "demo"
# Weights may take this share of a device; the rest is for keys, values and logits.
WEIGHT_SHARE = 0.8
# Their hidden state carries several planes per token, so "the" state of a layer is not defined.
UNMEASURABLE = ("gemma3n",)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate: L = n_layers blocks, states of d_model numbers, stop ids that end a response."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    model_id: str
    revision: str | None
    device: torch.device
    dtype: torch.dtype
    n_layers: int
    d_model: int
    stop_ids: frozenset[int]
    system_mode: SystemMode
    thinking: Thinking


def load_model(
    model_id: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a Hub id, a local folder, or "demo" (the bundled model) for measuring.

    `dtype` "auto" is float32 on a CPU and the checkpoint's own on an accelerator, except float16 Gemma
    checkpoints, which overflow and run in bfloat16. Weights larger than the device are spread by accelerate.
    Raises ModelError with one sentence that says what to do.
    """
    source = str(Path(demo.__file__).parent / "model") if model_id == DEMO_MODEL else model_id
    place = _device(device)
    hub = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **hub)
        number = _dtype(dtype, config, place)
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
        model = _weights(source, config, number, place, hub)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(_what_went_wrong(model_id, error)) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        message = f"Model {model_id!r} does not fit in the memory of {place}: free memory or use a smaller model."
        raise ModelError(message) from error
    text = config.get_text_config()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        model_id=model_id,
        revision=getattr(config, "_commit_hash", None) or revision,
        device=model.get_input_embeddings().weight.device,
        dtype=number,
        n_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        stop_ids=stop_ids(model, tokenizer),
        system_mode=_system_mode(tokenizer),
        thinking="off" if "enable_thinking" in _template(tokenizer) else "none",
    )


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a response: the checkpoint's list, the tokenizer's, and the template's end of turn."""
    listed = model.generation_config.eos_token_id if model.generation_config else None
    ids = set(listed if isinstance(listed, list) else [listed])
    ids |= {tokenizer.eos_token_id, _end_of_turn(tokenizer)}
    return frozenset(int(token) for token in ids if token is not None)


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(name: str, config: PreTrainedConfig, device: torch.device) -> torch.dtype:
    if name != "auto":
        number = getattr(torch, name, None)
        if number not in (torch.float32, torch.float16, torch.bfloat16):
            raise ModelError(f"Unknown dtype {name!r}: use auto, float32, float16 or bfloat16.")
        return number
    if device.type == "cpu":
        return torch.float32
    number = config.get_text_config().dtype or config.dtype or torch.float32
    # Gemma's states exceed float16's largest number.
    return torch.bfloat16 if number == torch.float16 and "gemma" in config.model_type else number


def _weights(
    source: str,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    hub: Mapping[str, Any],
) -> PreTrainedModel:
    if config.model_type.startswith(UNMEASURABLE):
        raise ModelError(
            f"{config.model_type} models keep several hidden states per token, so layers cannot be "
            "measured: choose another family, gemma3 for example."
        )
    loader = _loader(config)
    spread = device.type == "cuda" and _weight_bytes(loader, config, dtype, hub) > _room(device)
    if spread:
        log.info("The weights exceed %s: accelerate spreads them over the devices.", device)
        model = loader.from_pretrained(source, dtype=dtype, device_map="auto", **hub)
    else:
        model = loader.from_pretrained(source, dtype=dtype, **hub).to(device)
    return model.eval().requires_grad_(False)


def _loader(config: PreTrainedConfig) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    encoder_only = getattr(config, "is_decoder", None) is False and any(
        "Masked" in name or "Classification" in name for name in config.architectures or ()
    )
    remote = getattr(config, "auto_map", None) or {}
    if not encoder_only and not config.is_encoder_decoder:
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in remote:
            return AutoModelForCausalLM
        if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return AutoModelForImageTextToText
    raise ModelError(
        f"A {config.model_type} model is not a causal language model: choose one that generates text."
    )


def _weight_bytes(
    loader: Any, config: PreTrainedConfig, dtype: torch.dtype, hub: Mapping[str, Any]
) -> int:
    trusted = {"trust_remote_code": hub["trust_remote_code"]}
    with torch.device("meta"):
        empty = loader.from_config(config, **trusted)
    return sum(weight.numel() for weight in empty.parameters()) * dtype.itemsize


def _room(device: torch.device) -> float:
    return WEIGHT_SHARE * torch.cuda.mem_get_info(device)[0]


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    template = tokenizer.chat_template
    return "".join(template.values()) if isinstance(template, dict) else template or ""


def _system_mode(tokenizer: PreTrainedTokenizerBase) -> SystemMode:
    chat = [{"role": "system", "content": "SYSTEM-MARK"}, {"role": "user", "content": "USER-MARK"}]
    if not _template(tokenizer):
        return "prefix_user"
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    except TemplateError:
        return "prefix_user"
    return "native" if "SYSTEM-MARK" in text else "prefix_user"


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    if not _template(tokenizer):
        return None
    chat = [{"role": "user", "content": "USER-MARK"}, {"role": "assistant", "content": "REPLY-MARK"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    ids = tokenizer.encode(text.rpartition("REPLY-MARK")[2], add_special_tokens=False)
    return ids[0] if ids and ids[0] in tokenizer.all_special_ids else None


def _what_went_wrong(model_id: str, error: Exception) -> str:
    said = str(error)
    if "gated repo" in said or "401" in said or "403" in said:
        return f"Model {model_id!r} is gated: accept its license on its page, then run `hf auth login`."
    if "couldn't connect" in said or "offline" in said.lower() or "resolve host" in said:
        return f"Model {model_id!r} is not on this machine and the Hub does not answer: check the network."
    if isinstance(error, OSError):
        return f"No model {model_id!r} on the Hub or in a folder of that name: check its spelling."
    return f"Model {model_id!r} cannot be loaded: {said.splitlines()[0] if said else type(error).__name__}"
