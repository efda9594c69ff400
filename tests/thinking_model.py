"""A planted Llama that always thinks before it answers, with one direction more in the answer than
in the thought. It is the truth that tests of thoughts recover.

As in `tests.planted_model` a mark in the instruction puts plus or minus a direction on every token
after it. A head of the next block finds the thought's closing mark and adds a second direction of
the same sign to the tokens behind it, so that the answer's vector is the sum of both and the
thought's the first alone. It also says that the answer has begun: the closing mark is drawn before,
the stop after.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from tests import planted_model as planted
from tests.planted_model import CONSTANT, D_MODEL, FIRST_FREE, HEAD_DIM, READING, STRENGTH
from tests.tiny_models import TEMPLATE, byte_tokenizer

IS_CLOSE, IS_FIRST, IN_ANSWER = D_MODEL - 1, D_MODEL - 2, D_MODEL - 3
# rarely drawn; and surely
NEVER, SURELY = -20.0, 35.0
# Lengths of a final state's residual squared: within the thought, and in the answer.
IN_THOUGHT_UNIT = (D_MODEL / (2 + STRENGTH**2)) ** 0.5
IN_ANSWER_UNIT = (D_MODEL / (3 + 2 * STRENGTH**2)) ** 0.5


@dataclass(frozen=True)
class ThinkingModel:
    """Where it is saved; the unit directions [d_model] of thought and answer at `layer`; and the
    ids of its marks."""

    folder: str
    thought: NDArray[np.float32]
    answer: NDArray[np.float32]
    layer: int
    opens: int
    closes: int
    lead: int


def save_thinking_model(
    folder: Path, *, opens: str, closes: str, lead: str = "", in_prompt: bool, thought_length: int
) -> ThinkingModel:
    """Write the model into the folder; its prompts open the thought, or it does so itself."""
    random = torch.Generator().manual_seed(3)
    first, second = (_direction(random) for _ in range(2))
    second -= (second @ first) * first
    second /= second.norm()
    tokenizer = byte_tokenizer()
    # some families call their marks special, some do not
    tokenizer.add_tokens([t for t in (opens, closes, lead) if t], special_tokens=bool(lead))
    if in_prompt:
        tokenizer.chat_template = TEMPLATE.replace("<assistant>{%", f"<assistant>{opens}\n{{%")
    ids = {letter: tokenizer.convert_tokens_to_ids(letter) for letter in string.printable[:94]}
    open_id, close_id, lead_id = (
        tokenizer.convert_tokens_to_ids(t) if t else -1 for t in (opens, closes, lead)
    )
    assistant, stop = tokenizer.convert_tokens_to_ids("<assistant>"), tokenizer.eos_token_id
    model = LlamaForCausalLM(planted._config(len(tokenizer), "llama"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.zero_()
        patterns = planted._embeddings(ids, len(tokenizer), first, random)
        patterns[:, IN_ANSWER:] = 0
        for token, coordinate in ((close_id, IS_CLOSE), (tokenizer.bos_token_id, IS_FIRST)):
            patterns[token] = 0
            patterns[token, [CONSTANT, coordinate]] = 1.0
        model.model.embed_tokens.weight.copy_(patterns)
        planted._plant(model.model.layers[1].self_attn, first)
        _plant_answer(model.model.layers[2].self_attn, first, second)
        head = planted._head(ids, len(tokenizer), first, stop=stop)
        weight = float(np.log(26 * 2 * np.cosh(READING)))
        head[close_id, CONSTANT] = (weight - np.log(thought_length)) / IN_THOUGHT_UNIT
        head[close_id, IN_ANSWER] = NEVER / IN_ANSWER_UNIT
        head[stop, CONSTANT] = NEVER / IN_THOUGHT_UNIT
        usual = NEVER * IN_ANSWER_UNIT / IN_THOUGHT_UNIT
        head[stop, IN_ANSWER] = (weight - np.log(planted.MEAN_LENGTH) - usual) / IN_ANSWER_UNIT
        if not in_prompt:
            head[open_id] += SURELY / IN_THOUGHT_UNIT * (patterns[assistant] * _free())
        if lead:
            head[lead_id, IS_CLOSE] = 2 * SURELY / IN_ANSWER_UNIT
        model.lm_head.weight.copy_(head)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    both = (first + second) / 2**0.5
    return ThinkingModel(str(folder), first.numpy(), both.numpy(), 3, open_id, close_id, lead_id)


def _direction(random: torch.Generator) -> torch.Tensor:
    found: torch.Tensor = torch.zeros(D_MODEL)
    found[FIRST_FREE:IN_ANSWER] = torch.randn(IN_ANSWER - FIRST_FREE, generator=random)
    found /= found.norm()
    return found


def _free() -> torch.Tensor:
    mask = torch.zeros(D_MODEL)
    mask[FIRST_FREE:IN_ANSWER] = 1.0
    return mask


def _plant_answer(attention: torch.nn.Module, first: torch.Tensor, second: torch.Tensor) -> None:
    # Behind the closing mark the head looks there, before it at the first token, which knows
    # nothing.
    slow, unit = HEAD_DIM // 2 - 1, IN_THOUGHT_UNIT
    q, k, v, o = (getattr(attention, f"{name}_proj").weight for name in "qkvo")
    q[slow, CONSTANT] = 10 / unit
    k[slow, IS_CLOSE] = 20 / unit
    k[slow, IS_FIRST] = 10 / (D_MODEL / 2) ** 0.5
    v[0] = first / (STRENGTH * unit)
    v[1, IS_CLOSE] = 1 / unit
    o[:, 0] = STRENGTH * second
    o[IN_ANSWER, 1] = 1.0
