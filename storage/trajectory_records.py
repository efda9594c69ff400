"""Reads the scores that `orchestrate monitor` and `screen` wrote, or another program in their form.

Knows nothing of what is computed from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from storage.transcripts import lines_of


@dataclass(frozen=True)
class ScoredResponse:
    """A response's tokens and its scores by trait, one a token; `body` is the record as it was."""

    tokens: tuple[str, ...]
    scores: dict[str, list[float]]
    body: dict[str, Any]


def read_scored(path: Path) -> list[ScoredResponse]:
    """The records of a .json file or JSON lines of records; raises UsageError for anything else.

    A response with a token that has no score is refused: dynamics need every step.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file in UTF-8: give JSON") from error
    bodies = _parsed(path, text)
    return [_scored(body, f"{path} record {k}") for k, body in enumerate(bodies, start=1)]


def _parsed(path: Path, text: str) -> list[Any]:
    try:
        body = json.loads(text)
    except json.JSONDecodeError:
        try:
            body = [json.loads(line) for line in lines_of(text)]
        except json.JSONDecodeError as error:
            raise UsageError(f"{path} is neither JSON nor JSON lines: {error.msg}") from error
    return body if isinstance(body, list) else [body]


def _scored(body: Any, where: str) -> ScoredResponse:
    if isinstance(body, Mapping) and "event" in body:
        raise UsageError(f"{where} is an event: write the scores with --output scores.json")
    if not isinstance(body, Mapping):
        raise UsageError(f"{where} is no object: give what monitor writes")
    scores, tokens = body.get("trait_scores", body.get("projections")), body.get("tokens")
    if not isinstance(tokens, list) or not isinstance(scores, Mapping):
        raise UsageError(f"{where} has no tokens and trait_scores: give what monitor writes")
    for trait, values in scores.items():
        if not isinstance(values, list) or len(values) != len(tokens):
            raise UsageError(f"{where}: {trait} needs one score for each of {len(tokens)} tokens")
        if not all(isinstance(value, int | float) for value in values):
            raise UsageError(f"{where}: {trait} lacks the score of a token: leave the record out")
    by_trait = {str(trait): list(values) for trait, values in scores.items()}
    return ScoredResponse(tuple(map(str, tokens)), by_trait, dict(body))
