"""Opens the files that people bring, within bounds: what may be read, and how large, deep and long.

Whatever a person names on a command line is read through here, so that no pipe, device or bomb can
hold a command or fill its memory.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from domain.errors import UsageError

MIB = 2**20
MOST_BYTES = 1024 * MIB
"""Of a file of transcripts, scores or a vector; a Parquet file also when it is unpacked."""

MOST_ROWS = 10_000_000
"""Of a Parquet file, whose rows may take no bytes at all."""

MOST_WRITTEN_BYTES = 4 * MIB
"""Of a trait's definition, a list of prices, or any other file that a person writes by hand."""

MOST_NESTED = 64
"""Lists and objects within one another, in JSON."""

MOST_DIGITS = 400
"""Of a whole number in JSON: more than any float has."""


def read_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """The bytes of an ordinary file; raises UsageError for anything else, and for a larger one."""
    try:
        # without waiting: to open a pipe is to wait for its other end
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", closefd=True) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise UsageError(f"{path} is a pipe or a device: write it to a file first")
            if facts.st_size > most:
                raise UsageError(
                    f"{path} has {facts.st_size / MIB:,.0f} MiB, at most {most // MIB} are read: "
                    "cut it into several"
                )
            return file.read(most)
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder: name a file in it") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def read_text(path: Path, *, most: int = MOST_BYTES) -> str:
    """The text of an ordinary file in UTF-8, with or without a byte order mark; raises
    UsageError."""
    return as_text(read_bytes(path, most=most), str(path))


def as_text(data: bytes, where: str) -> str:
    """Bytes as text in UTF-8; raises UsageError with the place of the first that is none."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where} is not UTF-8 text at byte {error.start}: save it as UTF-8"
        ) from error


def parsed_json(text: str) -> Any:
    """The value of a JSON text; raises ValueError, with the place where there is one, for what is
    not JSON, is nested deeper than MOST_NESTED or has a number of more than MOST_DIGITS digits."""
    try:
        value = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MOST_NESTED} levels") from None
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_NESTED + 1):
        if not layer:
            return value
        inside = [one.values() if isinstance(one, dict) else one for one in layer]
        layer = [x for several in inside for x in several if isinstance(x, dict | list)]
    raise ValueError(f"it is nested deeper than {MOST_NESTED} levels")


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)
