"""Reads the scores that `monitor` and `screen` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.errors import UsageError
from storage.files.reading import parsed_json, read_text


@dataclass(frozen=True)
class ScoredResponse:
    """A response's tokens and its scores by trait, one a token; `body` is the record as it was."""

    tokens: tuple[str, ...]
    scores: dict[str, list[float]]
    body: dict[str, Any]


def read_scored_responses(path: Path) -> list[ScoredResponse]:
    """The records of a .json file or JSON lines of records; raises UsageError for anything else.

    A response with a token that has no score is refused: dynamics need every step.
    """
    bodies = json_or_lines(read_text(path), str(path))
    return [_scored(body, f"{path} record {k}") for k, body in enumerate(bodies, start=1)]


def json_or_lines(text: str, where: str) -> list[Any]:
    """The values of a JSON list, of one value, or of JSON lines; raises UsageError for what is
    neither."""
    try:
        body = parsed_json(text)
    except ValueError as whole:
        body = []
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                body += [parsed_json(line)] if line.strip() else []
            except ValueError as error:
                if number == 1:
                    raise UsageError(f"{where} is not JSON: {whole}") from whole
                raise UsageError(f"{where} is not JSON lines: line {number}: {error}") from error
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
