"""Reads people's prompts and transcripts, by column names, and the scores that `monitor` wrote.

Text, JSON, JSON lines, CSV and Parquet; what a row holds is handed on as it is.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import UsageError

ASKED = ("question", "prompt", "user")
ANSWERED = ("response", "answer", "completion", "output")
ROLES = ("system", "user", "assistant")

# Longer texts beside prompt and response are not repeated in results.
LONGEST_FACT = 200

# What `steer` says of a response of its own; a file's columns of these names are data.
STEERING_FACTS = ("beside", "coefficient", "steering")

SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Turn:
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Transcript:
    """A prompt, and the response to it if there is one.

    The prompt is the chat's `turns`; or `rendered`, the text as the model read it; or the very
    token ids that ran, which then hold for the response too.
    """

    turns: tuple[Turn, ...]
    response: str | None = None
    rendered: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    response_ids: tuple[int, ...] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The prompt as people see it: the last thing a user said."""
        said = [turn.content for turn in self.turns if turn.role == "user"]
        return said[-1] if said else self.rendered or ""


def read_transcripts(path: Path) -> list[Transcript]:
    """The prompts or transcripts of a file, one a row; raises UsageError for what it cannot be."""
    rows = _rows(path)
    found = [_transcript(row, f"{path} row {number}") for number, row in enumerate(rows, start=1)]
    if not found:
        raise UsageError(f"{path} holds no rows: give one prompt or transcript per row")
    return found


def _lines_of(text: str) -> list[str]:
    """The lines that are not blank. str.splitlines also parts at U+2028 and others that stand
    inside texts."""
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def fact_name(column: str) -> str:
    """The name of a column among the facts: `data_` before what `steer` names its own by."""
    return f"data_{column}" if column in STEERING_FACTS else column


def _rows(path: Path) -> list[Any]:
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} is of no known kind: use {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".parquet":
            rows: list[Any] = pq.read_table(io.BytesIO(path.read_bytes())).to_pylist()
            return rows
        text = _text(path)
        if path.suffix == ".csv":
            return list(csv.DictReader(io.StringIO(text, newline="")))
        if path.suffix == ".txt":
            return _lines_of(text)
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in _lines_of(text)]
        body = json.loads(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise UsageError(f"{path} is not {path.suffix[1:]}: {error}") from error
    return body if isinstance(body, list) else [body]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8: save it as UTF-8") from error


def _transcript(row: Any, where: str) -> Transcript:
    if isinstance(row, str):
        return Transcript((Turn("user", row),))
    if not isinstance(row, Mapping):
        raise UsageError(f"{where} is neither a text nor an object: give a prompt, or columns")
    response = _first_text(row, ANSWERED)
    if "messages" in row:
        turns, last = _chat(row["messages"], where)
        return Transcript(turns, response=last if last is not None else response, facts=_facts(row))
    asked = _first_text(row, ASKED)
    if asked is None:
        names = " or ".join(ASKED)
        raise UsageError(f"{where} holds no prompt: name a column {names}, or messages")
    system = _first_text(row, ("system",))
    turns = ((Turn("system", system),) if system else ()) + (Turn("user", asked),)
    # tables of persona_vectors, and a run's own, hold the question and the rendered prompt
    is_rendered = isinstance(row.get("question"), str) and isinstance(row.get("prompt"), str)
    return Transcript(
        turns,
        response=response,
        rendered=row["prompt"] if is_rendered else None,
        prompt_ids=_ids(row, "prompt_token_ids", where),
        response_ids=_ids(row, "response_token_ids", where),
        facts=_facts(row),
    )


def _chat(messages: Any, where: str) -> tuple[tuple[Turn, ...], str | None]:
    """The turns, without the last one where it is the assistant's, and that one's text."""
    if not isinstance(messages, Iterable):
        raise UsageError(f'{where}: "messages" is no list: give objects with role and content')
    turns = []
    for message in messages:
        role = message.get("role") if isinstance(message, Mapping) else None
        content = message.get("content") if isinstance(message, Mapping) else None
        if role not in ROLES or not isinstance(content, str):
            raise UsageError(
                f"{where}: a message needs a role of {', '.join(ROLES)} and a text as content"
            )
        turns.append(Turn(role, content))
    if turns and turns[-1].role == "assistant":
        return tuple(turns[:-1]), turns[-1].content
    return tuple(turns), None


def _ids(row: Mapping[str, Any], name: str, where: str) -> tuple[int, ...] | None:
    found = row.get(name)
    if not isinstance(found, list):
        return None
    if not all(isinstance(i, int) and i >= 0 for i in found):
        raise UsageError(f"{where}: {name} holds more than token ids: give whole numbers from 0 on")
    return tuple(found)


def _first_text(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((row[name] for name in names if isinstance(row.get(name), str)), None)


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What else a row says, if it is short and can be written as JSON."""
    used = {*ASKED, *ANSWERED, "messages", "system", "prompt_token_ids", "response_token_ids"}
    return {
        fact_name(str(name)): value
        for name, value in row.items()
        if name not in used
        and isinstance(value, str | int | float | bool)
        and not (isinstance(value, float) and not math.isfinite(value))
        and len(str(value)) <= LONGEST_FACT
    }


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
    bodies = _parsed(path, _text(path))
    return [_scored(body, f"{path} record {k}") for k, body in enumerate(bodies, start=1)]


def _parsed(path: Path, text: str) -> list[Any]:
    try:
        body = json.loads(text)
    except json.JSONDecodeError:
        try:
            body = [json.loads(line) for line in _lines_of(text)]
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
