"""Shapes of further families of causal language models, so that transformers can build them small;
beside those of `tiny_models` they are all that are compared with a plain pass.
"""

from __future__ import annotations

from tests.tiny_models import (
    DELTA_RULE,
    EXPERTS,
    FAMILIES,
    HYBRID_FAMILIES,
    MAMBA_2,
    PADDING_FAMILIES,
    WINDOW,
)

MIXTURE: dict[str, object] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    **EXPERTS,
}
# One dense block, and experts chosen within one of two groups.
GROUPED: dict[str, object] = {
    **MIXTURE,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
GPT: dict[str, object] = {"n_embd": 48, "n_layer": 4, "n_head": 4, "rotary_dim": 8}
HEAD: dict[str, object] = {"head_dim": 12}
# Attention of few keys, from which each head's own are made.
LATENT: dict[str, object] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
SLIDING: dict[str, object] = {"sliding_window": WINDOW}
GEMMA: dict[str, object] = {**HEAD, **SLIDING, "query_pre_attn_scalar": 12}

OTHER_FAMILIES: dict[str, dict[str, object]] = {
    "apertus": {},
    "arcee": {},
    "bamba": {
        "attn_layer_indices": [1, 3],
        "mamba_expand": 2,
        "mamba_chunk_size": 16,
        **MAMBA_2,
    },
    "biogpt": {},
    "bitnet": {},
    "bloom": {},
    "codegen": GPT,
    "cohere": {},
    "cohere2": SLIDING,
    "cohere2_moe": {**SLIDING, **MIXTURE},
    "cwm": {**HEAD, **SLIDING},
    "deepseek_v2": {**LATENT, **GROUPED, "topk_method": "greedy"},
    "deepseek_v3": {**LATENT, **GROUPED},
    "diffllama": {},
    "dots1": {**HEAD, **GROUPED, "n_shared_experts": 1},
    "ernie4_5": HEAD,
    "ernie4_5_moe": {
        **HEAD,
        **MIXTURE,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
    },
    "exaone4": SLIDING,
    "exaone_moe": {**SLIDING, **GROUPED},
    "falcon": {},
    "falcon_mamba": {"state_size": 8},
    "flex_olmo": MIXTURE,
    "gemma": HEAD,
    "gemma4_text": {
        **GEMMA,
        "global_head_dim": 12,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
    },
    "glm": HEAD,
    "glm4": HEAD,
    "glm4_moe": {**HEAD, **GROUPED},
    "glm4_moe_lite": {**LATENT, **GROUPED},
    "gpt2": {},
    "gpt_bigcode": {"n_embd": 48, "n_layer": 4, "n_head": 4},
    "gpt_neo": {
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": WINDOW,
    },
    "gpt_neox": {},
    "gptj": GPT,
    "granite": {},
    "granitemoe": MIXTURE,
    "granitemoehybrid": {
        "mamba_expand": 2,
        "mamba_chunk_size": 16,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "shared_intermediate_size": 32,
        **MAMBA_2,
        **MIXTURE,
    },
    "granitemoeshared": {**MIXTURE, "shared_intermediate_size": 32},
    "helium": HEAD,
    "hunyuan_v1_dense": HEAD,
    "hunyuan_v1_moe": {**HEAD, **MIXTURE, "moe_topk": 2},
    "hy_v3": {**HEAD, **GROUPED},
    "jais2": {},
    "lfm2_moe": {
        "layer_types": ["conv", "full_attention"] * 2,
        "num_dense_layers": 1,
        **MIXTURE,
    },
    "mamba": {"state_size": 8},
    "mamba2": {
        **HEAD,
        "num_heads": 8,
        "n_groups": 2,
        "expand": 2,
        "state_size": 16,
        "chunk_size": 16,
    },
    "mimo_v2_flash": {**SLIDING, **GROUPED},
    "minicpm3": LATENT,
    "minimax_m2": {**HEAD, **MIXTURE},
    "ministral": {**HEAD, **SLIDING},
    "ministral3": HEAD,
    "mixtral": MIXTURE,
    "mpt": {"d_model": 48, "n_layers": 4, "n_heads": 4, "max_seq_len": 512},
    "nanochat": HEAD,
    "nemotron": {},
    # what it makes of a prompt alone is 1e-4 from what it makes of it before a response
    "nemotron_h": {
        **HEAD,
        "layers_block_type": ["mamba", "attention"] * 2,
        "mamba_num_heads": 8,
        "mamba_head_dim": 12,
        "ssm_state_size": 16,
        "n_groups": 2,
        "chunk_size": 16,
    },
    "olmo": {},
    "olmo3": SLIDING,
    "olmo_hybrid": {**DELTA_RULE, "layer_types": ["linear_attention", "full_attention"] * 2},
    "olmoe": MIXTURE,
    "opt": {"ffn_dim": 80, "word_embed_proj_dim": 48},
    "persimmon": {},
    "phi": {},
    "phimoe": MIXTURE,
    "qwen2_moe": MIXTURE,
    "qwen3_5_moe_text": {**MIXTURE, **DELTA_RULE},
    "seed_oss": HEAD,
    "smollm3": {},
    "solar_open": {**HEAD, **GROUPED},
    "stablelm": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
    },
    "starcoder2": {},
    "vaultgemma": GEMMA,
    "xglm": {"d_model": 48, "num_layers": 4, "attention_heads": 4, "ffn_dim": 80},
    "youtu": LATENT,
}
EVERY_FAMILY = {**FAMILIES, **HYBRID_FAMILIES, **PADDING_FAMILIES, **OTHER_FAMILIES}
