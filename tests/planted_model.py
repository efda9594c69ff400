"""A Llama, or a Gemma 2, written by hand in which one known direction decides what is said.

It is the truth that tests recover.

An instruction holds a mark, "^" or "_". One head of one block finds the mark and adds plus or minus
`STRENGTH` times the direction to the residual stream of every token after it. The head of the model
reads the direction: plus gives capital letters, minus small ones. Capital and small letter share
their input embedding, so nothing about the trait enters through the words themselves.

Gemma 2 scales its embeddings and norms what a block adds; its numbers are chosen so that the final
norm sees the same as Llama's.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.gemma2.modeling_gemma2 import Gemma2Attention
from transformers.models.llama.modeling_llama import LlamaAttention

from tests.tiny_models import byte_tokenizer

N_LAYERS, D_MODEL, HEAD_DIM = 4, 64, 16
# Residual coordinates with a meaning; tokens' own patterns live in the others.
CONSTANT, SIGN, IS_MARK, FIRST_FREE = 0, 1, 2, 3
STRENGTH = 2.0
# How firmly the letters follow the direction: about nine of ten are of the asked case.
READING = 1.5
MEAN_LENGTH = 25
Shape = Literal["llama", "gemma2"]


@dataclass(frozen=True)
class PlantedModel:
    """Where the model is saved and what is true of it.

    direction [d_model], unit length, appears at `layer` (the output of block layer - 1) and above.
    instructions are (positive, negative) pairs.
    """

    folder: str
    direction: NDArray[np.float32]
    layer: int
    instructions: tuple[tuple[str, str], ...] = (
        ("Write with ^ please.", "Write with _ please."),
        ("Always use ^ letters.", "Always use _ letters."),
        ("^ is what I like.", "_ is what I like."),
    )
    questions: tuple[str, ...] = ("How are you?", "What is rain?", "Tell me 3 things.", "Why?")

    @staticmethod
    def positive_share(text: str) -> float:
        """Share of capital letters in a response: the score an ideal judge gives, 0 to 1."""
        letters = [letter for letter in text if letter.isalpha()]
        return sum(map(str.isupper, letters)) / max(1, len(letters))


def save_planted_model(
    folder: Path,
    *,
    block: int = 1,
    seed: int = 0,
    shape: Shape = "llama",
    length_confound: float = 0.0,
) -> PlantedModel:
    """Write the model, whose block `block` (from 0) plants the direction, into the folder.

    `length_confound` is by how much the direction takes from the stop's log-odds, and its opposite
    adds: positives then run on, negatives stop early.
    """
    random = torch.Generator().manual_seed(seed)
    direction = torch.zeros(D_MODEL)
    direction[FIRST_FREE:] = torch.randn(D_MODEL - FIRST_FREE, generator=random)
    direction /= direction.norm()
    tokenizer = byte_tokenizer()
    model = MODELS[shape][1](_config(len(tokenizer), shape))
    ids = {letter: tokenizer.convert_tokens_to_ids(letter) for letter in string.printable[:94]}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Norms keep their ones; everything else starts silent.
            if "norm" not in name:
                weight.zero_()
        patterns = _embeddings(ids, len(tokenizer), direction, random)
        model.model.embed_tokens.weight.copy_(patterns)
        _plant(model.model.layers[block].self_attn, direction)
        if shape == "gemma2":
            # what attention adds is normed to sqrt(d), then scaled by one plus this
            model.model.layers[block].post_attention_layernorm.weight.fill_(STRENGTH - 1)
        head = _head(ids, len(tokenizer), direction, stop=tokenizer.eos_token_id)
        head[tokenizer.eos_token_id] -= length_confound * direction / (STRENGTH * _unit())
        model.lm_head.weight.copy_(head)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return PlantedModel(str(folder), direction.numpy(), block + 1)


MODELS = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
}


def _config(vocab_size: int, shape: Shape) -> LlamaConfig | Gemma2Config:
    return MODELS[shape][0](
        vocab_size=vocab_size,
        hidden_size=D_MODEL,
        intermediate_size=32,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=D_MODEL // HEAD_DIM,
        num_key_value_heads=D_MODEL // HEAD_DIM,
        head_dim=HEAD_DIM,
        # So slow a rotation that the last pair of a head does not see positions at all.
        rope_parameters={"rope_type": "default", "rope_theta": 1e9},
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def _embeddings(
    ids: dict[str, int], vocabulary: int, direction: torch.Tensor, random: torch.Generator
) -> torch.Tensor:
    free = torch.zeros(vocabulary, D_MODEL)
    free[:, FIRST_FREE:] = torch.randn(vocabulary, D_MODEL - FIRST_FREE, generator=random)
    free -= (free @ direction).unsqueeze(1) * direction
    free /= free.norm(dim=1, keepdim=True)
    for letter in string.ascii_lowercase:
        free[ids[letter.upper()]] = free[ids[letter]]
    for mark, sign in (("^", 1.0), ("_", -1.0)):
        free[ids[mark]] = 0
        # As long as a pattern, so that the norm scales every token alike.
        free[ids[mark], SIGN] = sign * 0.5**0.5
        free[ids[mark], IS_MARK] = 0.5**0.5
    free[:, CONSTANT] = 1.0
    return free


def _plant(attention: LlamaAttention | Gemma2Attention, direction: torch.Tensor) -> None:
    # After the norm an embedding of length sqrt(2) has the constant at sqrt(d / 2).
    unit = (D_MODEL / 2) ** 0.5
    slow = HEAD_DIM // 2 - 1
    attention.q_proj.weight[slow, CONSTANT] = 10 / unit
    attention.k_proj.weight[slow, IS_MARK] = 20 / unit
    attention.v_proj.weight[0, SIGN] = 2**0.5 / unit
    attention.o_proj.weight[:, 0] = STRENGTH * direction


def _head(
    ids: dict[str, int], vocabulary: int, direction: torch.Tensor, *, stop: int
) -> torch.Tensor:
    # The final norm sees the constant 1, a pattern of length 1 and the direction at +-STRENGTH.
    unit = _unit()
    head = torch.zeros(vocabulary, D_MODEL)
    head[:, CONSTANT] = -20 / unit
    for letter in string.ascii_lowercase:
        for token, sign in ((letter.upper(), 1.0), (letter, -1.0)):
            head[ids[token]] = sign * READING / 2 * direction / unit * 2 / STRENGTH
            head[ids[token], CONSTANT] = 0.0
    weight = 26 * 2 * np.cosh(READING)
    head[stop] = 0.0
    head[stop, CONSTANT] = float(np.log(weight / MEAN_LENGTH)) / unit
    return head


def _unit() -> float:
    """What a residual coordinate of 1 is after the final norm."""
    return float((D_MODEL / (2 + STRENGTH**2)) ** 0.5)
