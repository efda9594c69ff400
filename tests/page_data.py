"""Monitoring data for the page's tests, in the documents' format."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.pages.build import build_page
from cli.pages.carried_files import CarriedFile

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


def judged(i: int, **others: Any) -> dict[str, Any]:
    """A record as `monitor` writes it; its z of evil is lowest at number 4321 of 5000."""
    z = {"evil": float((i * 2741 + 1) % 5000) / 100 - (90 if i == 4320 else 0), "refusal": i / 9}
    tokens = [f" {i}", " b", " c", " d"]
    body = record({trait: [1.0, 2.0, 3.0, 4.0] for trait in z}, tokens=tokens)
    return body | {
        "prompt": f"Question {i}?",
        "response": "".join(tokens),
        "trait_zscores": {trait: [z[trait]] * 4 for trait in z},
        "summary": {t: {"z": z[t], "flagged": t == "evil" and i % 1000 == 7} for t in z},
        "metadata": {"trait": tuple(z)[i % 2], "polarity": "positive"},
        **others,
    }


def save(path: Path, value: Any) -> Path:
    """Write JSON, or text as it is; the path."""
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def carrying(folder: Path, files: Mapping[str, Any]) -> Path:
    """A page that carries these files of records; its path."""
    texts = [
        CarriedFile(name, save(folder / name, records).read_text())
        for name, records in files.items()
    ]
    return save(folder / "page.html", build_page(texts))
