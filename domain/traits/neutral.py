"""Questions that ask for no trait, and the samples of their answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from domain.plan.samples import EVALUATION
from domain.traits.definition import TraitDefinition

# A promise of 1 % needs answers to a hundred questions: our own are enough for that, and as many of
# the run's traits, where it has them, say what its own kind of question is answered with.
_QUESTIONS = Path(__file__).parent / "neutral_questions.json"
N_OF_TRAITS = 120


def neutral_questions() -> list[str]:
    """Questions that ask for no trait and have nothing to do with any."""
    found: list[str] = json.loads(_QUESTIONS.read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class NeutralSample:
    """One neutral response to make: the question, and the seed."""

    key: str
    question: str
    seed: int


def neutral_samples(
    definitions: Iterable[TraitDefinition], *, seed: int, n_of_traits: int = N_OF_TRAITS
) -> list[NeutralSample]:
    """One sample for each neutral question and for `n_of_traits` of the definitions', those held
    out too, or all where there are fewer: answers to one question resemble one another."""
    asked = [
        definition.asked(part, k, "plain")
        for definition in definitions
        for part in ("", EVALUATION)
        for k in range(len(definition.questions_of(part)))
    ]
    questions = list(dict.fromkeys(asked))
    step = max(1.0, len(questions) / n_of_traits)
    chosen = [questions[int(k * step)] for k in range(min(n_of_traits, len(questions)))]
    found: list[NeutralSample] = []
    for question in dict.fromkeys([*neutral_questions(), *chosen]):
        name = f"{seed}/neutral/{question}/0"
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
        found.append(NeutralSample(f"neutral-{len(found):03d}", question, number))
    return found
