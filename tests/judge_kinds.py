"""Servers that behave like known kinds of judges and express the score a prompt names.

A prompt says `truth=73.5`; each server expresses that in its own way. Prompts without it (the
negotiation's) are judged 95.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable

from tests.lean_judge import Action, Call, completion, refusal

SPREAD = 2.5
_TRUTH = re.compile(r"truth=([0-9.]+)")


def truth_of(call: Call) -> float:
    """The score that the prompt wants expressed."""
    found = _TRUTH.search(call.body["messages"][-1]["content"])
    return float(found.group(1)) if found else 95.0


def distribution(truth: float, spread: float = SPREAD) -> dict[int, float]:
    """Probabilities of 0..100 whose mean is the truth, as nearly as the ends allow."""
    weights = {n: math.exp(-0.5 * ((n - truth) / spread) ** 2) for n in range(101)}
    total = sum(weights.values())
    return {n: w / total for n, w in weights.items()}


def like_gpt_4_1_mini(call: Call, number: int) -> Action:
    """20 alternatives, one token, numbers whole."""
    if call.body["top_logprobs"] > 20:
        return refusal(400, "top_logprobs must be at most 20")
    return Action(completion([_tops(distribution(truth_of(call)), call.body["top_logprobs"])]))


def like_gpt_6_luna(call: Call, number: int) -> Action:
    """Effort none, 5 alternatives, at least 16 tokens, under their new name."""
    body = call.body
    if "max_tokens" in body:
        return refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")
    if body["max_completion_tokens"] < 16:
        return refusal(400, "Could not finish the message because max_tokens was reached.")
    if body.get("logprobs") and body.get("reasoning_effort") != "none":
        return refusal(400, "logprobs are not supported with reasoning.")
    if body.get("top_logprobs", 0) > 5:
        return refusal(400, "Invalid 'top_logprobs': must be less than or equal to 5.")
    return Action(completion([_tops(distribution(truth_of(call)), 5)]))


def like_gpt_5_mini(call: Call, number: int) -> Action:
    """No logprobs, no temperature; thinks before it answers in the schema."""
    body = call.body
    if "max_tokens" in body:
        return refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")
    if "logprobs" in body:
        return refusal(403, "You are not allowed to request logprobs from this model")
    if "temperature" in body:
        return refusal(400, "Unsupported value: 'temperature' does not support 0 with this model.")
    if body.get("reasoning_effort") == "none":
        return refusal(400, "Unsupported value: 'reasoning_effort' does not support 'none'.")
    if body["max_completion_tokens"] < 300:
        empty = completion(None, text="", finish="length", completion_tokens=64)
        return Action(empty)
    value = round(random.Random(number).gauss(truth_of(call), 1.0))
    reply = f'{{"score": {min(max(value, 0), 100)}}}' if "response_format" in body else str(value)
    return Action(completion(None, text=reply, completion_tokens=220))


def like_anthropic(call: Call, number: int) -> Action:
    """Ignores logprobs, schemas and seeds without a word, and is chatty."""
    value = round(truth_of(call))
    return Action(completion(None, text=f"**{value}**", completion_tokens=5))


def splitting_digits(call: Call, number: int, *, spread: float = SPREAD) -> Action:
    """A local model whose tokenizer cuts every digit; samples when the temperature is above 0."""
    left = distribution(truth_of(call), spread)
    draw = random.Random(number)
    taken = ""
    positions: list[list[tuple[str, float]]] = []
    while len(positions) < call.body["max_tokens"]:
        following: dict[str, float] = {}
        for value, p in left.items():
            text = str(value)
            token = text[len(taken)] if len(text) > len(taken) else "<|im_end|>"
            following[token] = following.get(token, 0.0) + p
        token = max(following, key=lambda t: following[t])
        if call.body.get("temperature", 1):
            token = draw.choices(list(following), list(following.values()))[0]
        if token == "<|im_end|>":
            break
        total = sum(following.values())
        ranked = sorted(following.items(), key=lambda pair: (pair[0] != token, -pair[1]))
        positions.append([(t, math.log(p / total)) for t, p in ranked if p > 1e-12][:20])
        taken += token
        left = {v: p for v, p in left.items() if str(v).startswith(taken)}
    return Action(completion(positions, completion_tokens=len(positions)))


KINDS: dict[str, Callable[[Call, int], Action]] = {
    "gpt-4.1-mini": like_gpt_4_1_mini,
    "gpt-6-luna": like_gpt_6_luna,
    "gpt-5-mini": like_gpt_5_mini,
    "anthropic": like_anthropic,
    "splitting": splitting_digits,
}


def _tops(found: dict[int, float], n: int) -> list[tuple[str, float]]:
    ranked = sorted(found.items(), key=lambda pair: -pair[1])[:n]
    return [(str(value), math.log(p)) for value, p in ranked if p > 1e-30]
