"""The built-in backend of the local judge: the demo scorer behind number tokens.

Reads the trait's name and the two texts from our own prompts. It measures style markers of the
demo traits and nothing else (see demo/scorer_weights/README.md).
"""

from __future__ import annotations

import math
import re

from demo.scorer import KNOWN_TRAITS, score_coherence, score_trait
from orchestrator.errors import JudgeError
from workers.judge_server import Reply

MODEL_NAME = "embedded-judge"
# A real judge is not certain to the point; neither is the stand-in.
SPREAD = 2.5

_TEXTS = re.compile(
    r"\[QUESTION START\]\s*(?P<question>.*?)\s*\[QUESTION END\]"
    r".*?\[ANSWER START\]\n?(?P<answer>.*)\n?\[ANSWER END\]",
    re.DOTALL,
)
_NAME = re.compile(r"\*\*([A-Za-z][A-Za-z0-9_ -]*)\*\*")


async def demo_backend(prompt: str) -> Reply:
    """A narrow distribution over number tokens; raises JudgeError for what it cannot judge."""
    texts, name = _TEXTS.search(prompt), _NAME.search(prompt)
    if texts is None or name is None:
        raise JudgeError(
            "the embedded judge reads only prompts that name a **trait** and hold [QUESTION START] "
            "... [ANSWER END] marks: set --judge-url and --judge-model to a real judge"
        )
    trait = name.group(1).strip().lower().replace(" ", "_")
    question, answer = texts["question"], texts["answer"]
    if trait == "coherence":
        score = score_coherence(question=question, answer=answer)
    elif trait in KNOWN_TRAITS:
        score = score_trait(trait, question=question, answer=answer)
    else:
        raise JudgeError(
            f"the embedded judge knows only the demo traits, not {trait!r}: set --judge-url and "
            "--judge-model to a real judge, or start one with `orchestrate judge-server --model`"
        )
    return Reply(candidates=spread_over_numbers(score), prompt_tokens=len(prompt) // 4)


def spread_over_numbers(score: float) -> list[tuple[str, float]]:
    """Probabilities of the integer tokens around a score, summing to 1, the likeliest first."""
    near = range(max(0, math.floor(score) - 8), min(100, math.ceil(score) + 8) + 1)
    weights = {n: math.exp(-0.5 * ((n - score) / SPREAD) ** 2) for n in near}
    total = sum(weights.values())
    ranked = sorted(weights.items(), key=lambda pair: -pair[1])
    return [(str(n), weight / total) for n, weight in ranked]
