"""Which neutral responses a run is compared with: its traits' questions, asked without instruction.

Pure; knows nothing of who generates them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.traits import TraitDefinition

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
