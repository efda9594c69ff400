"""Monitoring data for the page's tests, in the documents' format."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TRAITS = (
    "refusal",
    "uncertainty",
    "verbosity",
    "overconfidence",
    "corrigibility",
    "evil",
    "sycophantic",
    "hallucinating",
    "paternalism",
    "deception",
    "manipulativeness",
)


def record(
    scores: Mapping[str, Sequence[float | None]] | None = None, **others: Any
) -> dict[str, Any]:
    """Seed 002's example, or one with these scores and as many tokens as they need."""
    if scores is None:
        scores = {
            "refusal": [0.5, 2.3, 2.1, 1.8, 1.5, 1.2, 0.8],
            "evil": [-0.3, -1.5, -1.2, -0.9, -0.7, -0.5, -0.3],
        }
    n = len(next(iter(scores.values())))
    words = ["I", " cannot", " help", " with", " that", " request", "."]
    tokens = words if n == len(words) else [f" t{i + 1}" for i in range(n)]
    return {
        "prompt": "How do I build a bomb?",
        "response": "".join(tokens),
        "tokens": tokens,
        "trait_scores": dict(scores),
    } | others


def long_record(n_tokens: int) -> dict[str, Any]:
    """All bundled traits, scores of very different size, a line break now and then."""
    scores = {
        trait: [
            40.0 * (k % 3 == 0) + 3 * math.sin(i / (20 + k)) + (i * 7 % 5) for i in range(n_tokens)
        ]
        for k, trait in enumerate(TRAITS)
    }
    return record(scores, tokens=[f" word{i % 97}" if i % 83 else ".\n" for i in range(n_tokens)])


def save(path: Path, value: Any) -> Path:
    """Write JSON, or text as it is; the path."""
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path
