"""Small random models of the families people run, with a byte tokenizer: made in code, saved to a
folder.

Knows nothing about the engine; a model is loaded from its folder like any other.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SPECIALS = ["<pad>", "<bos>", "<end>", "<system>", "<user>", "<assistant>"]
TEMPLATE = (
    "<bos>{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Gemma's templates refuse a system turn like this.
NO_SYSTEM_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + TEMPLATE
)
SHAPE = {
    "vocab_size": 272,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    # Larger than usual, so that the next token is neither certain nor uniform.
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 12
EXPERTS = {"num_experts_per_tok": 2}
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {"head_dim": 12},
    "gemma2": {
        "head_dim": 12,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 12,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 8.0,
    },
    "gemma3_text": {
        "head_dim": 12,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 12,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        "num_hidden_layers": 6,
    },
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {
        "head_dim": 16,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
        **EXPERTS,
    },
    "mistral": {"head_dim": 12, "sliding_window": WINDOW},
    "olmo2": {},
    "phi3": {"sliding_window": WINDOW},
    "gpt_oss": {
        "head_dim": 12,
        "sliding_window": WINDOW,
        "num_local_experts": 4,
        **EXPERTS,
    },
}
# Layers that keep a state of fixed size beside those that attend, and chunked attention.
DELTA_RULE: dict[str, object] = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    # A norm behind this rule divides by what may be almost nothing in a random model: at 0.2 a
    # plain pass is itself 2e-5 away from one in float64.
    "initializer_range": 0.1,
}
MAMBA_2: dict[str, object] = {"mamba_n_heads": 8, "mamba_d_head": 12, "mamba_d_state": 16}
HYBRID_FAMILIES: dict[str, dict[str, object]] = {
    "qwen3_5_text": DELTA_RULE,
    "qwen3_next": {
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        **EXPERTS,
        **DELTA_RULE,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "falcon_h1": {
        "head_dim": 12,
        "mamba_d_ssm": 96,
        "mamba_expand": 2,
        "mamba_chunk_size": 16,
        **MAMBA_2,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 4, **EXPERTS},
    "llama4_text": {
        "head_dim": 12,
        "attention_chunk_size": 8,
        "num_local_experts": 4,
        "interleave_moe_layer_step": 2,
        "intermediate_size_mlp": 80,
        "no_rope_layers": [1, 0, 1, 0],
        # Its queries grow with every fourth position.
        "floor_scale": 4,
    },
}
# Families of the slow core that padding changes. Token 0 pads, and has an embedding of its own as
# in real checkpoints.
PADDING_FAMILIES: dict[str, dict[str, object]] = {
    "recurrent_gemma": {
        "head_dim": 12,
        "num_key_value_heads": 1,
        "lru_width": 48,
        "attention_window_size": WINDOW,
        "num_hidden_layers": 6,
        "block_types": ["recurrent", "recurrent", "attention"],
        "pad_token_id": 3,
    },
    "minimax": {
        "head_dim": 12,
        "num_local_experts": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "block_size": 16,
        **EXPERTS,
    },
    "rwkv": {"attention_hidden_size": 48, "context_length": 4096},
}


def byte_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token per byte, after the special tokens; with a chat template unless it is None."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<end>"
    )
    fast.chat_template = template
    return fast


def save_tiny_model(
    folder: Path,
    family: str,
    *,
    dtype: torch.dtype = torch.float32,
    template: str | None = TEMPLATE,
    changes: dict[str, object] | None = None,
) -> str:
    """Build a random model of the family in the folder and return its path; `changes` override its
    shape.
    """
    known = FAMILIES | HYBRID_FAMILIES | PADDING_FAMILIES
    settings = {**SHAPE, **known.get(family, {}), **(changes or {})}
    torch.manual_seed(sum(family.encode()))
    config = AutoConfig.for_model(family, **settings)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    model.save_pretrained(folder)
    byte_tokenizer(template).save_pretrained(folder)
    return str(folder)


def byte_ids(text: str) -> tuple[int, ...]:
    """Token ids of a text, without special tokens."""
    return tuple(byte_tokenizer().encode(text, add_special_tokens=False))
