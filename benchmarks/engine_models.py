"""The models of the engine benchmark: random weights in true shapes, nothing is downloaded."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3_5TextConfig,
)

from demo.real_model import real_model
from domain.thoughts import NO_THINKING
from workers.models.model import LoadedModel, load_model

SMALL = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 2048,
}

TINY = {**SMALL, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4}


def model_names() -> list[str]:
    """What `--model` takes, beside a folder with a configuration."""
    return ["demo", "real", *_configs()]


def build_model(name: str, device: str) -> LoadedModel:
    """A model to measure: the bundled one and the real small one with their weights, any other with
    random ones.

    float32 on a CPU, bfloat16 elsewhere. Never stops by itself: the benchmark forces the lengths.
    """
    place = torch.device(device)
    if name in ("demo", "real"):
        made = load_model(name if name == "demo" else str(real_model()), device=device)
        model, dtype = made.model, made.dtype
    else:
        config = _configs()[name]
        dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
        torch.manual_seed(0)
        with place:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model = model.eval().requires_grad_(False)
    return LoadedModel(
        model=model,
        tokenizer=_no_tokenizer(),
        model_id=name,
        revision=None,
        device=place,
        dtype=dtype,
        n_layers=model.config.num_hidden_layers,
        d_model=model.config.hidden_size,
        stop_ids=frozenset(),
        system_mode="native",
        thinking=NO_THINKING,
    )


def _configs() -> dict[str, PreTrainedConfig]:
    return {
        "llama32m": LlamaConfig(vocab_size=8192, **SMALL),
        "gemma2-32m": Gemma2Config(
            vocab_size=16384, query_pre_attn_scalar=64, sliding_window=128, **SMALL
        ),
        "llama8b": LlamaConfig(
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=8192,
        ),
        "gemma2-2b": Gemma2Config(
            vocab_size=256000,
            hidden_size=2304,
            intermediate_size=9216,
            num_hidden_layers=26,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
        ),
        # three layers of linear attention to one of full attention
        "hybrid2b": Qwen3_5TextConfig(
            vocab_size=151936,
            hidden_size=2048,
            intermediate_size=6144,
            num_hidden_layers=24,
            num_attention_heads=8,
            num_key_value_heads=2,
        ),
        "llama3m": LlamaConfig(vocab_size=8192, **TINY),
        "gemma2-3m": Gemma2Config(vocab_size=8192, query_pre_attn_scalar=64, **TINY),
        "hybrid3m": Qwen3_5TextConfig(
            vocab_size=8192,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=32,
            linear_value_head_dim=32,
            **TINY,
        ),
    }


def _no_tokenizer() -> PreTrainedTokenizerFast:
    # Prompts are made as token ids; only the type asks for a tokenizer.
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))


def parameters(model: LoadedModel) -> int:
    """Weights that a token is multiplied with: all but an embedding that is only looked up."""
    total: int = sum(weight.numel() for weight in model.model.parameters())
    embedding = model.model.get_input_embeddings().weight
    tied = model.model.get_output_embeddings().weight is embedding
    return total if tied else total - int(embedding.numel())
