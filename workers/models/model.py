"""Loads the resident model, and tells what its checkpoint and its chat template ask for."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)
from transformers.utils.logging import disable_progress_bar

import demo
from domain.errors import ModelError, ModelNotHereError, UsageError
from domain.plan.spec import DEMO_MODEL
from domain.thoughts import Thinking
from domain.traits.room import positions_of
from workers.models.device import chosen_device, is_out_of_memory
from workers.models.files import SOURCE, Adapter, adapter_of, gguf_file
from workers.models.gguf import dequantised
from workers.models.template import SystemMode, stop_ids, system_mode, template_thinking
from workers.models.weights import load_weights, with_adapter

# Weights may take this share of a device; the rest is for keys, values and logits.
WEIGHT_SHARE = 0.8

# Their hidden state has several planes per token, so "the" state of a layer is not defined.
UNMEASURABLE = ("gemma3n",)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate, with n_layers blocks and states of d_model numbers.

    `stop_ids` end a response; `device` is where tokens go in; `thinking` says what the template
    does with thoughts, and which switch prompts use. `n_positions` is how many tokens the model was
    made for, None where nothing bounds them; `ignored` what the checkpoint recommends for
    generation and no core follows, such as a repetition penalty.
    Of a LoRA adapter, `model` is its base with the adapter merged into the weights.
    """

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
    n_positions: int | None = None
    ignored: Mapping[str, object] = field(default_factory=dict)
    adapter: Adapter | None = None

    def text_of(self, token_ids: Sequence[int]) -> str:
        """Tokens as text, special ones too."""
        return str(
            self.tokenizer.decode(
                list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def load_model(
    model_id: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a Hub id, a folder, a GGUF file, a LoRA adapter of either, or "demo", for measuring.

    `dtype` "auto" is float32 on a CPU and the checkpoint's own on an accelerator, except float16
    Gemma checkpoints, which overflow and run in bfloat16. Weights larger than the device are spread
    by accelerate. Raises ModelError with one sentence that says what to do.
    """
    disable_progress_bar()  # in logs and between a person and the text it is only noise
    place = chosen_device(device)
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with _load_errors(model_id, place):
        adapter = None if model_id == DEMO_MODEL else adapter_of(model_id, revision=revision)
    if adapter is not None:
        source["revision"] = adapter.base_revision
    base = adapter.base if adapter else model_id
    with _load_errors(base, place):
        path = _path(base)
        config = AutoConfig.from_pretrained(path, **source)
        number = _dtype(dtype, config, place)
        tokenizer = AutoTokenizer.from_pretrained(path, **source)
        model = _weights(path, config, number, place, source)
        known_as = _revision(path, config) or source["revision"]
    if adapter is not None:
        with _load_errors(model_id, place):
            adapter = replace(adapter, base_revision=known_as)
            known_as = adapter.revision
            tokenizer = AutoTokenizer.from_pretrained(adapter.tokenizer or path, **source)
            model = with_adapter(model, adapter, n_tokens=len(tokenizer))
    text = config.get_text_config()
    stops, ignored = stop_ids(model, tokenizer), inherited_settings(model)
    if ignored:
        log.warning(
            "Model %s recommends %s: runs follow their own settings alone, and ignore that.",
            model_id,
            ", ".join(f"{name}={value!r:.60}" for name, value in ignored.items()),
        )
    # generate would take up in silence whatever is left in it
    model.generation_config = GenerationConfig()
    return LoadedModel(
        model=model.eval().requires_grad_(False),
        tokenizer=tokenizer,
        model_id=model_id,
        revision=known_as,
        device=model.get_input_embeddings().weight.device,
        dtype=number,
        n_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        stop_ids=stops,
        system_mode=system_mode(tokenizer),
        thinking=template_thinking(tokenizer),
        n_positions=positions_of(config.to_dict()),
        ignored=ignored,
        adapter=adapter,
    )


@contextlib.contextmanager
def _load_errors(model_id: str, place: torch.device) -> Iterator[None]:
    """What a library raises while a model is loaded, as a ModelError that says what to do."""
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        raise ModelNotHereError(_what_went_wrong(model_id, error)) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelNotHereError(
            f"Model {model_id!r} does not fit in the memory of {place}: free some, or use a "
            "smaller model."
        ) from error


# Followed, or without a say in which tokens are drawn.
NOT_SETTINGS = ("eos_token_id", "bos_token_id", "pad_token_id", "transformers_version", "use_cache")


def inherited_settings(model: PreTrainedModel) -> dict[str, object]:
    """What the checkpoint would have `generate` do beyond its defaults, by name."""
    if model.generation_config is None:
        return {}
    # recorded as JSON, and some settings are objects
    text = json.dumps(model.generation_config.to_diff_dict(), default=str)
    found: dict[str, object] = json.loads(text)
    return {
        name: value
        for name, value in found.items()
        if name not in NOT_SETTINGS and not name.startswith(("_", "output_", "return_"))
    }


def model_type(model_id: str) -> str:
    """The family that llama.cpp's and repeng's files name, from the model's configuration."""
    try:
        return str(AutoConfig.from_pretrained(_path(model_id)).model_type)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the configuration of {model_id!r} cannot be read here: give --model-type, for "
            "example llama or gemma2"
        ) from error


def _path(model_id: str) -> str:
    """What transformers loads."""
    if model_id == DEMO_MODEL:
        return str(Path(demo.__file__).parent / "model")
    file = gguf_file(model_id)
    return model_id if file is None else str(dequantised(file))


def _revision(path: str, config: PreTrainedConfig) -> str | None:
    """The commit on the Hub, or the checksum of the file that the weights are from."""
    source = Path(path) / SOURCE
    if source.is_file():
        return f"sha256:{json.loads(source.read_text(encoding='utf-8'))['sha256']}"
    commit: str | None = getattr(config, "_commit_hash", None)
    return commit


def _dtype(name: str, config: PreTrainedConfig, device: torch.device) -> torch.dtype:
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name in known:
        return known[name]
    if name != "auto":
        raise ModelError(f"Unknown dtype {name!r}: use auto, float32, float16 or bfloat16.")
    if device.type == "cpu":
        return torch.float32
    own: torch.dtype = config.get_text_config().dtype or config.dtype or torch.float32
    # Gemma's states exceed float16's largest number.
    return torch.bfloat16 if own == torch.float16 and "gemma" in config.model_type else own


def _weights(
    path: str,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    source: dict[str, Any],
) -> PreTrainedModel:
    kind = _kind(config)
    if device.type == "cuda":
        with torch.device("meta"):
            empty = kind.from_config(config, trust_remote_code=source["trust_remote_code"])
        size = sum(weight.numel() for weight in empty.parameters()) * dtype.itemsize
        if size > WEIGHT_SHARE * torch.cuda.mem_get_info(device)[0]:
            log.info("The weights exceed %s: accelerate spreads them over the devices.", device)
            return load_weights(kind, path, dtype=dtype, device_map="auto", **source)
    model: PreTrainedModel = load_weights(kind, path, dtype=dtype, **source).to(device)
    return model


def _kind(config: PreTrainedConfig) -> Any:
    """The class that loads it. Raises ModelError for what cannot generate or be measured."""
    family = config.model_type
    if family.startswith(UNMEASURABLE):
        raise ModelError(
            f"{family} models keep several hidden states per token, so layers cannot be measured: "
            "choose another family, gemma3 for example."
        )
    encoder = getattr(config, "is_decoder", None) is False and any(
        "Masked" in name or "Classification" in name for name in config.architectures or ()
    )
    remote = getattr(config, "auto_map", None) or {}
    if not encoder and not config.is_encoder_decoder:
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in remote:
            return AutoModelForCausalLM
        if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return AutoModelForImageTextToText
    raise ModelError(f"A {family} model is not a causal language model: choose one that writes.")


def _what_went_wrong(model_id: str, error: Exception) -> str:
    said = str(error)
    if isinstance(error, ImportError) and "peft" in said:
        return "A LoRA adapter is loaded with peft: pip install 'trait-vector-orchestrator[lora]'."
    if "gated repo" in said or "401" in said or "403" in said:
        return f"Model {model_id!r} is gated: accept its license on its page, then `hf auth login`."
    if "couldn't connect" in said or "offline" in said.lower() or "resolve host" in said:
        return f"Model {model_id!r} is not on this machine and the Hub does not answer: check it."
    if isinstance(error, OSError):
        return f"No model {model_id!r} on the Hub or in a folder of that name: check its spelling."
    if isinstance(error, SafetensorError):
        return f"The weights of {model_id!r} are damaged or in part here ({said}): get them again."
    first = said.splitlines()[0] if said else type(error).__name__
    return f"Model {model_id!r} cannot be loaded: {first}"
