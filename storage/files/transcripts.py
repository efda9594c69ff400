"""Reads people's files of prompts and transcripts: text, JSON, JSON lines, CSV and Parquet, in any
of the common shapes of a row, of which docs/files.md is the table.

A row that cannot be read costs itself only: it is told with the others that were left out. What a
row says beside prompt and response is kept as facts.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import domain
from domain.errors import UsageError
from storage.files.reading import (
    MIB,
    MOST_BYTES,
    MOST_ROWS,
    parsed_json,
    read_bytes,
    read_text,
)

PROMPT_SETS = {
    name: Path(domain.__file__).parent / "traits" / "prompt_sets" / f"{name}.json"
    for name in ("teaching", "fluctuations")
}
"""Files of prompts by name: those that show one bundled trait or its opposite by themselves, and
those in whose answers one rises or falls."""

ASKED = ("question", "prompt", "user", "query")
ANSWERED = ("response", "answer", "completion", "output")
CHATS = ("messages", "conversations", "conversation", "chat")
SYSTEM = ("system", "system_prompt")

_TOKEN_IDS = ("prompt_token_ids", "thought_token_ids", "response_token_ids")

# Alpaca's, where no column above holds the prompt: a task, and what it is about.
TASK, ABOUT = "instruction", ("input", "context")

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("user", "human"), "user"),
    # what a tool gave came from outside, and few templates have a turn for it
    **dict.fromkeys(("tool", "function", "ipython", "observation"), "user"),
    **dict.fromkeys(("function_response", "tool_response"), "user"),
}

# Longer texts beside prompt and response are not repeated in results.
LONGEST_FACT = 200

# What `steer` says of a response of its own; a file's columns of these names are data.
STEERING_FACTS = ("beside", "coefficient", "steering")

SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".parquet")

# What an escape in JSON or a byte of an argument may say, of a text that is cut within a letter.
_HALF = re.compile("[\ud800-\udfff]")

# Where an object that is no row itself keeps its rows.
HOLDERS = ("data", "rows", "examples", "instances", "items", "samples")

Row = tuple[Any, str]
"""A value, and what keeps it from being one; then the value means nothing."""


class UnreadableRowError(ValueError):
    """What keeps one row from being read; the others are."""


@dataclass(frozen=True)
class Turn:
    """One message of a chat: role system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Transcript:
    """A prompt, and the response to it if there is one; `row` is where it stood. Raises
    UnreadableRowError for half a character in its texts, which no tokenizer takes and no file.

    The prompt is the chat's `turns`; or `rendered`, the text as the model read it; or the very
    token ids that ran, which then hold for the response too.
    """

    turns: tuple[Turn, ...]
    response: str | None = None
    rendered: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    response_ids: tuple[int, ...] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    row: str = ""

    def __post_init__(self) -> None:
        said = [turn.content for turn in self.turns]
        noted = [one for one in (*self.facts, *self.facts.values()) if isinstance(one, str)]
        if _HALF.search("\n".join([*said, self.response or "", self.rendered or "", *noted])):
            raise UnreadableRowError(
                r"holds half a character (\ud800 to \udfff alone): write it out"
            )

    @property
    def shown(self) -> str:
        """The prompt as people see it: the last thing a user said."""
        said = [turn.content for turn in self.turns if turn.role == "user"]
        return said[-1] if said else self.rendered or ""

    def under(self, system: str) -> Transcript:
        """The same chat with this system instruction in place of its own."""
        rest = [turn for turn in self.turns if turn.role != "system"]
        return Transcript((Turn("system", system), *rest), facts=self.facts, row=self.row)


@dataclass(frozen=True)
class Unread:
    """A row that was left out, and why."""

    row: str
    why: str

    def __str__(self) -> str:
        return f"{self.row} {self.why}"


@dataclass(frozen=True)
class Transcripts:
    """What a file holds, in its order, and which rows of it cannot be read."""

    read: list[Transcript]
    unread: list[Unread]


def read_transcripts(path: Path) -> Transcripts:
    """The prompts or transcripts of a file, one a row; raises UsageError when none can be read."""
    found = Transcripts([], [])
    for number, (value, problem) in enumerate(_rows(path), start=1):
        where = f"{path} row {number}"
        try:
            if problem:
                raise UnreadableRowError(problem)
            found.read.append(transcript_of(value, where))
        except UnreadableRowError as error:
            found.unread.append(Unread(where, str(error)))
    if found.unread and not found.read:
        more = f" (and none of the {len(found.unread) - 1} others)" if found.unread[1:] else ""
        raise UsageError(f"{found.unread[0]}{more}")
    if not found.read:
        raise UsageError(f"{path} holds no rows: give one prompt or transcript per row")
    return found


def _lines_of(text: str) -> list[str]:
    """The lines that are not blank. str.splitlines also parts at U+2028 and others that stand
    inside texts."""
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} is of no known kind: use {', '.join(SUFFIXES)}")
    if path.suffix == ".jsonl":
        yield from map(_json_row, _lines_of(read_text(path)))
        return
    try:
        if path.suffix == ".parquet":
            found = _parquet_rows(path)
        elif path.suffix == ".csv":
            # a text may be longer than the 131,072 characters that csv takes by itself
            csv.field_size_limit(MOST_BYTES)
            found = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        elif path.suffix == ".txt":
            found = _lines_of(read_text(path))
        else:
            found = _held(parsed_json(read_text(path)))
    except (ValueError, csv.Error, pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} is not {path.suffix[1:]}: {error}") from error
    yield from ((row, "") for row in found)


def _json_row(line: str) -> Row:
    try:
        return parsed_json(line), ""
    except ValueError as error:
        return None, f"is not json: {error}"


def _parquet_rows(path: Path) -> list[Any]:
    table = pq.ParquetFile(io.BytesIO(read_bytes(path)))
    about = table.metadata
    size = sum(about.row_group(k).total_byte_size for k in range(about.num_row_groups))
    if size > MOST_BYTES or about.num_rows > MOST_ROWS:
        raise UsageError(
            f"{path} holds {about.num_rows:,} rows of {size / MIB:,.0f} MiB, at most "
            f"{MOST_ROWS:,} of {MOST_BYTES // MIB} are read: cut it into several"
        )
    rows: list[Any] = table.read().to_pylist()
    return rows


def _held(body: Any) -> list[Any]:
    """The rows of a JSON file: a list, one row alone, or an object with a list of them in it; those
    of the datasets server are wrapped once more."""
    if isinstance(body, Mapping) and not {*CHATS, *ASKED} & body.keys():
        body = next((body[name] for name in HOLDERS if isinstance(body.get(name), list)), body)
    rows = body if isinstance(body, list) else [body]
    return [row["row"] if isinstance(row, Mapping) and "row_idx" in row else row for row in rows]


def fact_name(column: str) -> str:
    """The name of a column among the facts: `data_` before what `steer` names its own by."""
    return f"data_{column}" if column in STEERING_FACTS else column


def transcript_of(row: Any, where: str) -> Transcript:
    """The transcript in a row: a text, a list of messages, or an object with columns; raises
    UnreadableRowError."""
    if isinstance(row, str):
        return Transcript((Turn("user", row),), row=where)
    if _is_chat(row):
        row = {"messages": row}
    if not isinstance(row, Mapping):
        raise UnreadableRowError("is neither a text nor an object: give a prompt, or columns")
    if None in row:
        raise UnreadableRowError("has more fields than there are columns: quote texts with commas")
    turns, used = _asked(row)
    response, named = _answered(row)
    if turns[-1].role == "assistant":
        response, turns = turns[-1].content, turns[:-1]
    system = _first_text(row, SYSTEM)
    if system and not any(turn.role == "system" for turn in turns):
        turns = [Turn("system", system), *turns]
    if not any(turn.role == "user" for turn in turns):
        raise UnreadableRowError("holds no prompt: nothing in it is a user's")
    # tables of persona_vectors, and a run's own, hold the question and the rendered prompt
    is_rendered = isinstance(row.get("question"), str) and isinstance(row.get("prompt"), str)
    return Transcript(
        tuple(turns),
        response=response,
        rendered=row["prompt"] if is_rendered else None,
        prompt_ids=_prompt_ids(row),
        response_ids=_ids(row, "response_token_ids"),
        facts=_facts(row, {*used, *named}),
        row=where,
    )


def _asked(row: Mapping[str, Any]) -> tuple[list[Turn], tuple[str, ...]]:
    """The turns of a row, and the columns that they are from."""
    # TRL parts a chat into a list of messages that ask and one that answers
    for name in (*CHATS, *ASKED, "input"):
        if turns := _turns(_messages(row.get(name), is_chat=name in CHATS)):
            return turns, (name,)
    asked = _first_text(row, ASKED)
    if asked is None and isinstance(row.get(TASK), str):
        about = _first_text(row, ABOUT)
        asked = f"{row[TASK]}\n\n{about}" if about else row[TASK]
        return [Turn("user", asked)], (TASK, *ABOUT)
    asked = asked if asked is not None else _first_text(row, ("input",))
    if asked is None:
        names = ", ".join(ASKED)
        raise UnreadableRowError(f"holds no prompt: name a column {names} or {TASK}, or messages")
    return [Turn("user", asked)], (*ASKED, "input")


def _answered(row: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    for name in ANSWERED:
        if messages := _messages(row.get(name)):
            turns = _turns(messages)
            if len(turns) != 1 or turns[0].role != "assistant":
                raise UnreadableRowError(f"{name} is no single message of the assistant")
            return turns[0].content, (name,)
    return _first_text(row, ANSWERED), ANSWERED


def _messages(value: Any, *, is_chat: bool = False) -> list[Any]:
    """A list of messages, also as JSON in a cell; empty for what is none. A column that `is_chat`
    by its name holds messages, whatever they look like."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        with contextlib.suppress(ValueError):
            value = parsed_json(value)
    return value if isinstance(value, list) and (is_chat or _is_chat(value)) else []


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, Mapping) and {"role", "from"} & one.keys() for one in value
    )


def _turns(messages: Sequence[Any]) -> list[Turn]:
    """The chat without its empty messages; what one role says in a row is one turn."""
    turns: list[Turn] = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise UnreadableRowError(f"message {number} is no object with role and content")
        named = message.get("role") or message.get("from")
        role = ROLES.get(str(named).lower())
        if role is None:
            raise UnreadableRowError(f"message {number} is of an unknown role, {str(named)[:40]!r}")
        text = "\n".join(_texts(message, number))
        if not text:
            continue
        if turns and turns[-1].role == role:
            text = f"{turns.pop().content}\n\n{text}"
        turns.append(Turn(role, text))
    return turns


def _texts(message: Mapping[str, Any], number: int) -> Iterator[str]:
    """A message's texts: its content, one text or parts of it, then its calls of tools as JSON."""
    content = next((message[n] for n in ("content", "value") if message.get(n) is not None), None)
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        text = part.get("text", part.get("refusal")) if isinstance(part, Mapping) else part
        if text is not None and not isinstance(text, str):
            kind, text = type(text).__name__, None
        if text is None and part is not None:
            raise UnreadableRowError(f"message {number} holds what is no text ({str(kind)[:40]})")
        if text:
            yield text
    for call in message.get("tool_calls") or ():
        yield json.dumps(call.get("function", call) if isinstance(call, Mapping) else call)


def _prompt_ids(row: Mapping[str, Any]) -> tuple[int, ...] | None:
    """What stands before the response: of our own tables a thought too."""
    prompt, thought = _ids(row, "prompt_token_ids"), _ids(row, "thought_token_ids")
    return prompt if prompt is None else prompt + (thought or ())


def _ids(row: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    found = row.get(name)
    if not isinstance(found, list):
        return None
    if not all(isinstance(i, int) and i >= 0 for i in found):
        raise UnreadableRowError(f"{name} holds more than token ids: give whole numbers from 0 on")
    return tuple(found)


def _first_text(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((row[name] for name in names if isinstance(row.get(name), str)), None)


def _facts(row: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """What else a row says, if it is short and can be written as JSON."""
    used |= {*CHATS, *ASKED, *ANSWERED, *SYSTEM, *_TOKEN_IDS}
    return {
        fact_name(str(name)): value
        for name, value in row.items()
        if name not in used
        and isinstance(value, str | int | float | bool)
        and not (isinstance(value, float) and not math.isfinite(value))
        and len(str(value)) <= LONGEST_FACT
    }
