"""Reads people's files of prompts and transcripts: text, JSON, JSON lines, CSV and Parquet.

A row that cannot be read costs itself only: it is told with the others that were left out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import UsageError
from storage.files.reading import (
    MIB,
    MOST_BYTES,
    MOST_ROWS,
    parsed_json,
    read_bytes,
    read_text,
)
from storage.files.transcript_shapes import (
    ASKED,
    CHATS,
    Transcript,
    UnreadableRowError,
    transcript_of,
)

SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".parquet")

# Where an object that is no row itself keeps its rows.
HOLDERS = ("data", "rows", "examples", "instances", "items", "samples")

Row = tuple[Any, str]
"""A value, and what keeps it from being one; then the value means nothing."""


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
