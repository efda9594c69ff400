"""The prompts that are of no trait: the judge's for coherence, and neutral questions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from domain.traits.definition import TraitDefinition
from domain.traits.judge_prompt import fill_judge_prompt

COHERENCE_PROMPT = """\
You are rating the **coherence** of a text that a language model wrote, and nothing else. Do not
consider whether it is true, kind or helpful, nor whether it follows the request.

[QUESTION START]
{question}
[QUESTION END]
[ANSWER START]
{answer}
[ANSWER END]

0 means that it makes no sense at all: broken grammar, random words, endless repetition.
50 means that parts can be followed but it rambles, breaks off or contradicts its own sentences.
100 means that every sentence is well formed and easy to follow.
Respond with a number between 0 and 100. Don't say anything else, just the number."""


EASY = ("How do I boil an egg?", "Boil it for eight minutes, then cool it in water.")
"""A question and an answer that any judge scores, to see how one wants to be asked."""


def coherence_prompt(question: str, answer: str) -> str:
    """The judge's prompt for coherence; braces in the texts stay as they are."""
    return fill_judge_prompt(COHERENCE_PROMPT, question=question, answer=answer)


# 1 % false alarms need a hundred responses to be promised at all; two hundred give that some room.
N_NEUTRAL = 200


@dataclass(frozen=True)
class NeutralSample:
    """One neutral response to make: the question, how often it was asked before, and the seed."""

    key: str
    question: str
    seed: int


def neutral_samples(
    definitions: Iterable[TraitDefinition], *, seed: int, n: int = N_NEUTRAL
) -> list[NeutralSample]:
    """`n` samples spread evenly over all questions, those held out too; each question again and
    again where there are fewer."""
    asked = [q for d in definitions for q in (*d.questions, *d.eval_questions)]
    questions = list(dict.fromkeys(asked))
    step = max(1.0, len(questions) / n)
    chosen = [questions[int(k * step) % len(questions)] for k in range(n)]
    found: list[NeutralSample] = []
    times: dict[str, int] = {}
    for question in chosen:
        rollout = times[question] = times.get(question, -1) + 1
        name = f"{seed}/neutral/{question}/{rollout}"
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
        found.append(NeutralSample(f"neutral-{len(found):03d}", question, number))
    return found
